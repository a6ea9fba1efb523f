"""A workspace's own roles in schema ``axis``: who may define them, what they may hold, and how they count among the members' rules.

The rows stand beside the product's in ``axis.role_capability``, under the tenant's id, so the rows' policies honour them with no further
look-up. Three limits hold in SQL: nothing beyond the host's limit, nothing that the actor does not hold, and never ``users.manage``, which
only roles of the product hold. Their names begin with ``custom.``, so that no release of the product can collide with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from axis_security.core.schema import DatabaseRoles
from axis_security.rbac.policy import Policy
from axis_security.rbac.sql_function import SqlFunction

__all__ = ["OWN_ROLE_FUNCTIONS", "own_role_rows", "own_role_tables"]


def own_role_tables(roles: DatabaseRoles) -> Sequence[str]:
    """The tables: which own roles there are, and what such roles may hold at most."""
    return [
        (
            "CREATE TABLE IF NOT EXISTS axis.tenant_role (tenant text NOT NULL REFERENCES axis.tenant ON DELETE CASCADE, "
            r"role text NOT NULL CHECK (role ~ '^custom\.[a-z0-9][a-z0-9_.-]{0,55}$'), PRIMARY KEY (tenant, role))"
        ),
        "CREATE TABLE IF NOT EXISTS axis.tenant_limit (capability text PRIMARY KEY)",
        f"ALTER TABLE axis.tenant_role OWNER TO {roles.guard}",
        f"ALTER TABLE axis.tenant_limit OWNER TO {roles.guard}",
        f"REVOKE ALL ON axis.tenant_role, axis.tenant_limit FROM PUBLIC, {roles.app}, {roles.system}, {roles.owner}",
    ]


def own_role_rows(policy: Policy) -> Sequence[str]:
    """The limit, and what is left of the own roles under it: a capability that the host takes back is taken back everywhere."""
    # Names of capabilities are plain ASCII words (Capabilities holds them to that), so they need no escape.
    values = ", ".join(f"('{name}')" for name in policy.own_role_limit)
    return [
        "DELETE FROM axis.tenant_limit",
        *([f"INSERT INTO axis.tenant_limit (capability) VALUES {values}"] if values else []),
        (
            "DELETE FROM axis.role_capability c WHERE c.tenant <> '' "
            "AND NOT EXISTS (SELECT FROM axis.tenant_limit l WHERE l.capability = c.capability)"
        ),
    ]


OWN_ROLE_FUNCTIONS: Final[tuple[SqlFunction, ...]] = (
    SqlFunction(
        # Of the product's roles; own roles manage nobody, so nothing is measured by what they hold.
        "role_holds(p_role text, p_capability text, p_condition text)",
        "boolean",
        """
BEGIN
    RETURN EXISTS (SELECT FROM axis.role_capability c WHERE c.tenant = '' AND c.role = p_role
        AND c.capability = p_capability AND c.condition IN ('', p_condition));
END""",
        "",
    ),
    SqlFunction(
        # Whoever may invite to their own role manages users.
        "member_may(p_action text, p_actor text, p_target text)",
        "boolean",
        """
BEGIN
    IF p_action = 'leave' OR EXISTS (SELECT FROM axis.member_rule r WHERE r.action = p_action AND r.actor = p_actor AND r.target = p_target) THEN
        RETURN true;
    ELSIF NOT EXISTS (SELECT FROM axis.tenant_role t WHERE t.tenant = axis.tenant_text() AND t.role = p_target) THEN
        RETURN false;
    ELSIF p_action = 'transfer' THEN
        RETURN EXISTS (SELECT FROM axis.member_rule r WHERE r.action = 'own' AND r.actor = p_actor);
    END IF;
    RETURN p_action IN ('invite', 'revoke', 'change_from', 'change_to', 'remove')
        AND EXISTS (SELECT FROM axis.member_rule r WHERE r.action = 'invite' AND r.actor = p_actor AND r.target = p_actor)
        AND NOT EXISTS (SELECT FROM axis.role_capability c WHERE c.tenant = axis.tenant_text() AND c.role = p_target
            AND NOT axis.role_holds(p_actor, c.capability, c.condition));
END""",
        "",
    ),
    SqlFunction(
        "role_define(p_role text, p_capabilities text[], p_conditions text[])",
        "text",
        r"""
DECLARE
    v_actor text := axis.member_actor('active');
    v_there boolean := EXISTS (SELECT FROM axis.tenant_role t WHERE t.tenant = axis.tenant_text() AND t.role = p_role);
BEGIN
    IF v_actor IS NULL THEN
        RETURN 'not_a_member';
    ELSIF NOT axis.member_may('invite', v_actor, v_actor) OR (v_there AND NOT axis.member_may('change_to', v_actor, p_role)) THEN
        RETURN 'not_allowed';
    ELSIF p_role IS NULL OR p_role !~ '^custom\.[a-z0-9][a-z0-9_.-]{0,55}$' OR p_capabilities IS NULL
        OR cardinality(p_capabilities) IS DISTINCT FROM cardinality(p_conditions) THEN
        RETURN 'bad_role';
    ELSIF EXISTS (SELECT FROM unnest(p_capabilities, p_conditions) g(capability, condition)
        WHERE NOT EXISTS (SELECT FROM axis.tenant_limit l WHERE l.capability = g.capability)
        -- Only in forms that the product itself grants: the rows' policies ask for no other.
        OR NOT EXISTS (SELECT FROM axis.role_capability c WHERE c.tenant = '' AND c.capability = g.capability AND c.condition = g.condition)) THEN
        RETURN 'beyond_limit';
    ELSIF EXISTS (SELECT FROM unnest(p_capabilities, p_conditions) g(capability, condition) WHERE NOT axis.role_holds(v_actor, g.capability, g.condition)) THEN
        RETURN 'not_allowed';
    ELSIF NOT v_there AND (SELECT count(*) FROM axis.tenant_role t WHERE t.tenant = axis.tenant_text()) >= 100 THEN
        RETURN 'too_many_roles';
    END IF;
    INSERT INTO axis.tenant_role (tenant, role) VALUES (axis.tenant_text(), p_role) ON CONFLICT (tenant, role) DO NOTHING;
    DELETE FROM axis.role_capability c WHERE c.tenant = axis.tenant_text() AND c.role = p_role;
    INSERT INTO axis.role_capability (tenant, role, capability, condition)
        SELECT DISTINCT axis.tenant_text(), p_role, g.capability, g.condition FROM unnest(p_capabilities, p_conditions) g(capability, condition);
    RETURN 'ok';
END""",
        "app",
    ),
    SqlFunction(
        "role_drop(p_role text)",
        "text",
        """
DECLARE
    v_actor text := axis.member_actor('active');
BEGIN
    IF v_actor IS NULL THEN
        RETURN 'not_a_member';
    ELSIF NOT axis.member_may('invite', v_actor, v_actor) THEN
        RETURN 'not_allowed';
    ELSIF NOT EXISTS (SELECT FROM axis.tenant_role t WHERE t.tenant = axis.tenant_text() AND t.role = p_role) THEN
        RETURN 'no_such_role';
    ELSIF NOT axis.member_may('change_to', v_actor, p_role) THEN
        RETURN 'not_allowed';
    ELSIF EXISTS (SELECT FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.role = p_role)
        OR EXISTS (SELECT FROM axis.invitation i WHERE i.tenant = axis.tenant_text() AND i.role = p_role AND i.ended_at IS NULL AND i.expires_at > now()) THEN
        RETURN 'role_in_use';
    END IF;
    DELETE FROM axis.role_capability c WHERE c.tenant = axis.tenant_text() AND c.role = p_role;
    DELETE FROM axis.tenant_role t WHERE t.tenant = axis.tenant_text() AND t.role = p_role;
    RETURN 'ok';
END""",
        "app",
    ),
    SqlFunction(
        "role_list()",
        "TABLE (role text, grants text[])",
        """
BEGIN
    IF NOT EXISTS (SELECT FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = axis.user_id()) THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT t.role, axis.role_grants(t.tenant, t.role) FROM axis.tenant_role t WHERE t.tenant = axis.tenant_text() ORDER BY 1;
END""",
        "app",
    ),
    SqlFunction(
        # One text for each grant: the capability, a space, the condition.
        "role_grants(p_tenant text, p_role text)",
        "text[]",
        """
BEGIN
    RETURN ARRAY(SELECT c.capability || ' ' || c.condition FROM axis.role_capability c WHERE c.tenant = p_tenant AND c.role = p_role ORDER BY 1);
END""",
        "",
    ),
    SqlFunction(
        # For the gate, before a principal is bound: one statement, no row for a stranger. What an own role holds comes with it, so that a change
        # of the role counts from the next request on.
        "membership_of(p_tenant text, p_user text)",
        "TABLE (role text, state text, grants text[])",
        """
BEGIN
    RETURN QUERY SELECT m.role, t.state, CASE WHEN starts_with(m.role, 'custom.') THEN axis.role_grants(m.tenant, m.role) END
        FROM axis.membership m JOIN axis.tenant t ON t.tenant = m.tenant WHERE m.tenant = p_tenant AND m.user_id = p_user;
END""",
        "app",
    ),
)
"""The definer functions of roles that a workspace defines for itself."""

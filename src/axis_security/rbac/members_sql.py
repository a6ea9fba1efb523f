"""Workspaces, memberships and invitations in schema ``axis``: tables nobody may touch, and the functions that may.

The actor is whoever the sealed context says, never a parameter; the actor's *role* is read from the membership table, never from the
context, so a role change counts from the next statement on. Every change first updates the workspace's row: that is the lock which
makes changes of one workspace happen one after another at every isolation level (a plain row lock would let a repeatable-read
transaction decide on a stale snapshot), and so the last owner cannot be lost in a race.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.rbac.invitations_sql import INVITATION_FUNCTIONS
from axis_security.rbac.own_roles_sql import OWN_ROLE_FUNCTIONS, own_role_rows, own_role_tables
from axis_security.rbac.policy import Policy
from axis_security.rbac.sql_function import SqlFunction
from axis_security.rbac.transitions import rules_of
from axis_security.rbac.workspaces_sql import WORKSPACE_FUNCTIONS

__all__ = ["members_part"]

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS axis.tenant (
    tenant text PRIMARY KEY CHECK (length(tenant) BETWEEN 1 AND 128),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'deleting')),
    delete_after timestamptz CHECK ((state = 'deleting') = (delete_after IS NOT NULL)),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    version bigint NOT NULL DEFAULT 0
)
---
CREATE TABLE IF NOT EXISTS axis.membership (
    tenant text NOT NULL REFERENCES axis.tenant ON DELETE CASCADE,
    user_id text NOT NULL CHECK (length(user_id) BETWEEN 1 AND 128),
    role text NOT NULL CHECK (length(role) BETWEEN 1 AND 63),
    joined_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant, user_id)
)
---
CREATE INDEX IF NOT EXISTS membership_user_id ON axis.membership (user_id)
---
CREATE TABLE IF NOT EXISTS axis.invitation (
    id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    digest bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    tenant text NOT NULL REFERENCES axis.tenant ON DELETE CASCADE,
    email text NOT NULL CHECK (length(email) BETWEEN 3 AND 320),
    role text NOT NULL,
    inviter text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    accepted_by text
)
---
CREATE INDEX IF NOT EXISTS invitation_tenant ON axis.invitation (tenant)
---
CREATE TABLE IF NOT EXISTS axis.member_rule (
    action text NOT NULL,
    actor text NOT NULL,
    target text NOT NULL,
    PRIMARY KEY (action, actor, target)
)
---
ALTER TABLE axis.tenant OWNER TO {guard}
---
ALTER TABLE axis.membership OWNER TO {guard}
---
ALTER TABLE axis.invitation OWNER TO {guard}
---
ALTER TABLE axis.member_rule OWNER TO {guard}
---
REVOKE ALL ON axis.tenant, axis.membership, axis.invitation, axis.member_rule FROM PUBLIC, {app}, {system}, {owner}
"""

_FUNCTIONS: Final[tuple[SqlFunction, ...]] = (
    SqlFunction(
        # The lock, and the actor's own role at this moment; no row: not an active workspace, or not a member of it.
        "member_actor(p_state text)",
        "text",
        """
BEGIN
    UPDATE axis.tenant t SET version = t.version + 1 WHERE t.tenant = axis.tenant_text() AND t.state = p_state;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT m.role FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = axis.user_id());
END""",
        "",
    ),
    SqlFunction(
        "member_last_owner(p_user text)",
        "boolean",
        """
BEGIN
    RETURN EXISTS (SELECT FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = p_user AND axis.member_may('own', m.role, ''))
        AND NOT EXISTS (SELECT FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id <> p_user AND axis.member_may('own', m.role, ''));
END""",
        "",
    ),
    SqlFunction(
        "member_change_role(p_user text, p_role text)",
        "TABLE (outcome text, role_before text)",
        """
DECLARE
    v_actor text := axis.member_actor('active');
    v_before text := (SELECT m.role FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = p_user);
    v_outcome text := 'ok';
BEGIN
    IF v_actor IS NULL THEN
        v_outcome := 'not_a_member';
    ELSIF v_before IS NULL THEN
        -- The same answer to whoever may not manage, so that it is no oracle of who is a member.
        v_outcome := CASE WHEN axis.member_may('invite', v_actor, v_actor) THEN 'no_such_member' ELSE 'not_allowed' END;
    ELSIF NOT axis.member_may('change_from', v_actor, v_before) OR NOT axis.member_may('change_to', v_actor, p_role) THEN
        v_outcome := 'not_allowed';
    ELSIF axis.member_last_owner(p_user) AND NOT axis.member_may('own', p_role, '') THEN
        v_outcome := 'last_owner';
    ELSE
        UPDATE axis.membership m SET role = p_role WHERE m.tenant = axis.tenant_text() AND m.user_id = p_user;
    END IF;
    RETURN QUERY SELECT v_outcome, CASE WHEN v_outcome = 'ok' THEN v_before END;
END""",
        "app",
    ),
    SqlFunction(
        "member_remove(p_user text)",
        "TABLE (outcome text, role_before text)",
        """
DECLARE
    v_actor text := axis.member_actor('active');
    v_before text := (SELECT m.role FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = p_user);
    v_outcome text := 'ok';
BEGIN
    IF v_actor IS NULL THEN
        v_outcome := 'not_a_member';
    ELSIF v_before IS NULL THEN
        v_outcome := CASE WHEN axis.member_may('invite', v_actor, v_actor) THEN 'no_such_member' ELSE 'not_allowed' END;
    ELSIF NOT axis.member_may('remove', v_actor, v_before) THEN
        v_outcome := 'not_allowed';
    ELSIF axis.member_last_owner(p_user) THEN
        v_outcome := 'last_owner';
    ELSE
        DELETE FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = p_user;
    END IF;
    RETURN QUERY SELECT v_outcome, CASE WHEN v_outcome = 'ok' THEN v_before END;
END""",
        "app",
    ),
    SqlFunction(
        "member_leave()",
        "TABLE (outcome text, role_before text)",
        """
DECLARE
    v_actor text;
    v_outcome text := 'ok';
BEGIN
    -- One may leave a suspended workspace as well.
    UPDATE axis.tenant t SET version = t.version + 1 WHERE t.tenant = axis.tenant_text();
    v_actor := (SELECT m.role FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = axis.user_id());
    IF v_actor IS NULL THEN
        v_outcome := 'not_a_member';
    ELSIF NOT axis.member_may('leave', v_actor, '') THEN
        v_outcome := 'not_allowed';
    ELSIF axis.member_last_owner(axis.user_id()) THEN
        v_outcome := 'last_owner';
    ELSE
        DELETE FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = axis.user_id();
    END IF;
    RETURN QUERY SELECT v_outcome, CASE WHEN v_outcome = 'ok' THEN v_actor END;
END""",
        "app",
    ),
    SqlFunction(
        "member_transfer(p_user text, p_keep text)",
        "text",
        """
DECLARE
    v_actor text := axis.member_actor('active');
    v_before text := (SELECT m.role FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = p_user);
BEGIN
    IF v_actor IS NULL THEN
        RETURN 'not_a_member';
    ELSIF p_user = axis.user_id() OR NOT axis.member_may('own', v_actor, '') OR NOT axis.member_may('change_to', v_actor, p_keep) THEN
        RETURN 'not_allowed';
    ELSIF v_before IS NULL THEN
        RETURN 'no_such_member';
    ELSIF NOT axis.member_may('transfer', v_actor, v_before) THEN
        RETURN 'not_allowed';
    END IF;
    UPDATE axis.membership m SET role = CASE WHEN m.user_id = p_user THEN v_actor ELSE p_keep END
        WHERE m.tenant = axis.tenant_text() AND m.user_id IN (p_user, axis.user_id());
    RETURN 'ok';
END""",
        "app",
    ),
    SqlFunction(
        "member_list()",
        "TABLE (user_id text, role text, joined_at timestamptz)",
        """
BEGIN
    IF NOT EXISTS (SELECT FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = axis.user_id()) THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT m.user_id, m.role, m.joined_at FROM axis.membership m WHERE m.tenant = axis.tenant_text() ORDER BY m.user_id;
END""",
        "app",
    ),
)
_EVERY: Final = (*WORKSPACE_FUNCTIONS, *INVITATION_FUNCTIONS, *_FUNCTIONS, *OWN_ROLE_FUNCTIONS)


def members_part(policy: Policy) -> SchemaPart:
    """Workspaces and memberships under *policy*'s transition rules; a changed policy changes the part, which the planner sees as drift.

    Needs the base part for ``axis.tenant_text()`` and ``axis.user_id()``.

    Raises:
        ConfigError: the policy has no owner (see :func:`~axis_security.rbac.transitions.top_role`).
    """
    rows = [(str(rule.action), rule.actor, rule.target) for rule in rules_of(policy) if rule.allowed]

    def create(roles: DatabaseRoles) -> Sequence[str]:
        named = {"{guard}": roles.guard, "{app}": roles.app, "{system}": roles.system, "{owner}": roles.owner}
        tables = _TABLES
        for mark, name in named.items():
            tables = tables.replace(mark, name)
        # Role names are plain ASCII words (Principal holds them to that), so they need no escape.
        values = ", ".join(f"('{action}', '{actor}', '{target}')" for action, actor, target in rows)
        statements = [statement.strip() for statement in tables.split("\n---\n")]
        statements += [
            *own_role_tables(roles),
            "DELETE FROM axis.member_rule",
            f"INSERT INTO axis.member_rule (action, actor, target) VALUES {values}",
        ]
        statements += own_role_rows(policy)
        # Its columns have changed once, which OR REPLACE refuses.
        statements.append("DROP FUNCTION IF EXISTS axis.membership_of(text, text)")
        for function in _EVERY:
            statements += function.statements(roles)
        return statements

    def drop(_: DatabaseRoles) -> Sequence[str]:
        tables = ("tenant_limit", "tenant_role", "member_rule", "invitation", "membership", "tenant")
        return [
            *(f"DROP FUNCTION IF EXISTS axis.{function.bare}" for function in _EVERY),
            "DELETE FROM axis.role_capability WHERE tenant <> ''",
            *(f"DROP TABLE IF EXISTS axis.{table}" for table in tables),
        ]

    return SchemaPart(name="members", create=create, drop=drop)

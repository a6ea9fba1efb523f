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
from axis_security.rbac.own_roles_sql import OWN_ROLE_FUNCTIONS, own_role_rows, own_role_tables
from axis_security.rbac.policy import Policy
from axis_security.rbac.transitions import rules_of

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

# name and arguments, result, body, whom it is for ("" is nobody: called by the others only)
_FUNCTIONS: Final[tuple[tuple[str, str, str, str], ...]] = (
    (
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
    (
        "member_last_owner(p_user text)",
        "boolean",
        """
BEGIN
    RETURN EXISTS (SELECT FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id = p_user AND axis.member_may('own', m.role, ''))
        AND NOT EXISTS (SELECT FROM axis.membership m WHERE m.tenant = axis.tenant_text() AND m.user_id <> p_user AND axis.member_may('own', m.role, ''));
END""",
        "",
    ),
    (
        "workspace_create(p_name text)",
        "text",
        """
BEGIN
    IF axis.user_id() IS NULL THEN
        RETURN 'no_user';
    END IF;
    INSERT INTO axis.tenant (tenant, name) VALUES (axis.tenant_text(), p_name) ON CONFLICT (tenant) DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'exists';
    END IF;
    INSERT INTO axis.membership (tenant, user_id, role) SELECT axis.tenant_text(), axis.user_id(), r.actor FROM axis.member_rule r WHERE r.action = 'own';
    RETURN 'ok';
END""",
        "app",
    ),
    (
        "member_invite(p_digest bytea, p_email text, p_role text, p_lasting interval)",
        "TABLE (outcome text, invitation uuid)",
        """
DECLARE
    v_actor text := axis.member_actor('active');
    v_id uuid;
BEGIN
    IF v_actor IS NULL THEN
        RETURN QUERY SELECT 'not_a_member', NULL::uuid;
    ELSIF NOT axis.member_may('invite', v_actor, p_role) THEN
        RETURN QUERY SELECT 'not_allowed', NULL::uuid;
    ELSE
        INSERT INTO axis.invitation (digest, tenant, email, role, inviter, expires_at)
            VALUES (p_digest, axis.tenant_text(), lower(p_email), p_role, axis.user_id(), now() + least(greatest(p_lasting, interval '0'), interval '30 days'))
            RETURNING id INTO v_id;
        RETURN QUERY SELECT 'ok', v_id;
    END IF;
END""",
        "app",
    ),
    (
        # Before anybody is bound: whoever holds the token may see what it offers, so that the host can bind to its workspace.
        "invitation_peek(p_digest bytea)",
        "TABLE (tenant text, email text, role text, inviter text)",
        """
BEGIN
    RETURN QUERY SELECT i.tenant, i.email, i.role, i.inviter FROM axis.invitation i
        WHERE i.digest = p_digest AND i.ended_at IS NULL AND i.expires_at > now();
END""",
        "app",
    ),
    (
        "member_accept(p_digest bytea, p_email text)",
        "TABLE (outcome text, role text, invitation uuid)",
        """
DECLARE
    v_offer axis.invitation;
BEGIN
    UPDATE axis.tenant t SET version = t.version + 1 WHERE t.tenant = axis.tenant_text() AND t.state = 'active';
    IF NOT FOUND OR axis.user_id() IS NULL THEN
        RETURN QUERY SELECT 'not_active', NULL::text, NULL::uuid;
        RETURN;
    END IF;
    SELECT * INTO v_offer FROM axis.invitation i
        WHERE i.digest = p_digest AND i.tenant = axis.tenant_text() AND i.email = lower(p_email) AND i.ended_at IS NULL AND i.expires_at > now();
    IF v_offer.id IS NULL THEN
        RETURN QUERY SELECT 'no_invitation', NULL::text, NULL::uuid;
        RETURN;
    END IF;
    -- The inviter's rights now, not those of the day of the invitation.
    IF NOT EXISTS (SELECT FROM axis.membership m WHERE m.tenant = v_offer.tenant AND m.user_id = v_offer.inviter AND axis.member_may('invite', m.role, v_offer.role)) THEN
        RETURN QUERY SELECT 'inviter_lost_rights', NULL::text, NULL::uuid;
        RETURN;
    END IF;
    INSERT INTO axis.membership (tenant, user_id, role) VALUES (v_offer.tenant, axis.user_id(), v_offer.role) ON CONFLICT (tenant, user_id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'already_member', NULL::text, NULL::uuid;
        RETURN;
    END IF;
    UPDATE axis.invitation i SET ended_at = now(), accepted_by = axis.user_id() WHERE i.id = v_offer.id;
    RETURN QUERY SELECT 'ok', v_offer.role, v_offer.id;
END""",
        "app",
    ),
    (
        "invitation_revoke(p_invitation uuid)",
        "text",
        """
DECLARE
    v_actor text := axis.member_actor('active');
    v_role text := (SELECT i.role FROM axis.invitation i WHERE i.id = p_invitation AND i.tenant = axis.tenant_text() AND i.ended_at IS NULL);
BEGIN
    IF v_actor IS NULL THEN
        RETURN 'not_a_member';
    ELSIF v_role IS NULL THEN
        RETURN 'no_invitation';
    ELSIF NOT axis.member_may('revoke', v_actor, v_role) THEN
        RETURN 'not_allowed';
    END IF;
    UPDATE axis.invitation i SET ended_at = now() WHERE i.id = p_invitation;
    RETURN 'ok';
END""",
        "app",
    ),
    (
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
    (
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
    (
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
    (
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
    (
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
    (
        "workspaces_of(p_user text)",
        "TABLE (tenant text, name text, role text, state text)",
        """
BEGIN
    RETURN QUERY SELECT m.tenant, t.name, m.role, t.state FROM axis.membership m JOIN axis.tenant t ON t.tenant = m.tenant WHERE m.user_id = p_user ORDER BY t.name, m.tenant;
END""",
        "app",
    ),
    (
        "workspace_delete(p_grace interval)",
        "text",
        """
DECLARE
    v_actor text := axis.member_actor('active');
BEGIN
    IF v_actor IS NULL THEN
        RETURN 'not_a_member';
    ELSIF NOT axis.member_may('delete', v_actor, '') THEN
        RETURN 'not_allowed';
    END IF;
    UPDATE axis.tenant t SET state = 'deleting', delete_after = now() + greatest(p_grace, interval '1 day') WHERE t.tenant = axis.tenant_text();
    RETURN 'ok';
END""",
        "app",
    ),
    (
        "workspace_undelete()",
        "text",
        """
DECLARE
    v_actor text := axis.member_actor('deleting');
BEGIN
    IF v_actor IS NULL THEN
        RETURN 'not_a_member';
    ELSIF NOT axis.member_may('delete', v_actor, '') THEN
        RETURN 'not_allowed';
    END IF;
    UPDATE axis.tenant t SET state = 'active', delete_after = NULL WHERE t.tenant = axis.tenant_text();
    RETURN 'ok';
END""",
        "app",
    ),
    (
        # The operator's: another login, so that no owner lifts a suspension.
        "workspace_suspend(p_tenant text, p_suspended boolean)",
        "text",
        """
BEGIN
    UPDATE axis.tenant t SET state = CASE WHEN p_suspended THEN 'suspended' ELSE 'active' END, version = t.version + 1
        WHERE t.tenant = p_tenant AND t.state = CASE WHEN p_suspended THEN 'active' ELSE 'suspended' END;
    RETURN CASE WHEN FOUND THEN 'ok' ELSE 'no_change' END;
END""",
        "system",
    ),
    (
        "workspace_purge(p_tenant text)",
        "text",
        """
BEGIN
    DELETE FROM axis.tenant t WHERE t.tenant = p_tenant AND t.state = 'deleting' AND t.delete_after <= now();
    IF NOT FOUND THEN
        RETURN 'not_due';
    END IF;
    DELETE FROM axis.role_capability c WHERE c.tenant = p_tenant;
    RETURN 'ok';
END""",
        "system",
    ),
)


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
        for signature, result, body, audience in (*_FUNCTIONS, *OWN_ROLE_FUNCTIONS):
            statements += [
                _definition(signature, result, body),
                f"ALTER FUNCTION axis.{_bare(signature)} OWNER TO {roles.guard}",
                f"REVOKE ALL ON FUNCTION axis.{_bare(signature)} FROM PUBLIC, {roles.app}, {roles.system}, {roles.owner}",
            ]
            if audience:
                statements.append(f"GRANT EXECUTE ON FUNCTION axis.{_bare(signature)} TO {getattr(roles, audience)}")
        return statements

    def drop(_: DatabaseRoles) -> Sequence[str]:
        functions = [f"DROP FUNCTION IF EXISTS axis.{_bare(signature)}" for signature, *_rest in (*_FUNCTIONS, *OWN_ROLE_FUNCTIONS)]
        tables = ("tenant_limit", "tenant_role", "member_rule", "invitation", "membership", "tenant")
        return [
            *functions,
            "DELETE FROM axis.role_capability WHERE tenant <> ''",
            *(f"DROP TABLE IF EXISTS axis.{table}" for table in tables),
        ]

    return SchemaPart(name="members", create=create, drop=drop)


def _definition(signature: str, result: str, body: str) -> str:
    return (
        f"CREATE OR REPLACE FUNCTION axis.{signature} RETURNS {result}\nLANGUAGE plpgsql VOLATILE SECURITY DEFINER "
        f"SET search_path = pg_catalog, pg_temp AS $axis$\n#variable_conflict use_column\n{body.strip()}\n$axis$"
    )


def _bare(signature: str) -> str:
    """*signature* with argument types only."""
    name, _, arguments = signature.removesuffix(")").partition("(")
    return f"{name}({', '.join(argument.split()[1] for argument in arguments.split(', ') if argument)})"

"""Workspaces in schema ``axis``: opened by whoever signs up, ended by an owner after a grace, suspended and purged by the operator."""

from __future__ import annotations

from typing import Final

from axis_security.rbac.sql_function import SqlFunction

__all__ = ["WORKSPACE_FUNCTIONS"]

WORKSPACE_FUNCTIONS: Final[tuple[SqlFunction, ...]] = (
    SqlFunction(
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
    SqlFunction(
        "workspaces_of(p_user text)",
        "TABLE (tenant text, name text, role text, state text)",
        """
BEGIN
    RETURN QUERY SELECT m.tenant, t.name, m.role, t.state FROM axis.membership m JOIN axis.tenant t ON t.tenant = m.tenant WHERE m.user_id = p_user ORDER BY t.name, m.tenant;
END""",
        "app",
    ),
    SqlFunction(
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
    SqlFunction(
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
    SqlFunction(
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
    SqlFunction(
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
"""The definer functions that create, list, delete and erase workspaces."""

"""Invitations in schema ``axis``: bound to an address, a workspace, a time and the rights that their sender has when they are taken; good once."""

from __future__ import annotations

from typing import Final

from axis_security.rbac.sql_function import SqlFunction

__all__ = ["INVITATION_FUNCTIONS"]

INVITATION_FUNCTIONS: Final[tuple[SqlFunction, ...]] = (
    SqlFunction(
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
    SqlFunction(
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
    SqlFunction(
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
    SqlFunction(
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
)
"""The definer functions that make, accept and revoke invitations."""

"""The vault's accounts: password digests that never come out, and the purpose tokens that act on accounts.

Every function that changes an account locks its row first and whatever hangs on it afterwards, so that two of them never wait for one
another.
"""

from __future__ import annotations

from typing import Final

from axis_security.auth.vault_parts import VaultFunction

__all__ = ["ACCOUNT_FUNCTIONS", "ACCOUNT_TABLES"]

ACCOUNT_TABLES: Final[tuple[tuple[str, str], ...]] = (
    (
        # One row: a key for made-up settings, and what the settings of a new hash look like.
        "vault_secret",
        """
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea NOT NULL CHECK (octet_length(key) = 32),
    pattern text CHECK (length(pattern) BETWEEN 1 AND 2048)""",
    ),
    (
        "vault_account",
        """
    account text PRIMARY KEY CHECK (length(account) BETWEEN 3 AND 140),
    identifier text NOT NULL UNIQUE CHECK (length(identifier) BETWEEN 1 AND 320),
    active boolean NOT NULL DEFAULT true,
    verified_at timestamptz,
    settings text CHECK (length(settings) BETWEEN 1 AND 2048),
    digest bytea CHECK (octet_length(digest) BETWEEN 16 AND 128),
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    epoch integer NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    CHECK ((settings IS NULL) = (digest IS NULL))""",
    ),
    (
        "vault_token",
        """
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    purpose text NOT NULL CHECK (purpose ~ '^[a-z][a-z0-9_]{0,31}$'),
    account text REFERENCES axis.vault_account ON DELETE CASCADE,
    payload text NOT NULL CHECK (length(payload) <= 1024),
    expires_at timestamptz NOT NULL""",
    ),
)
"""Tables of the vault that hold accounts, tokens sent by mail, and the secrets of the vault itself: name and columns."""

_ACCOUNT: Final = "TABLE (account text, active boolean, verified boolean, has_totp boolean, epoch integer)"
_CHECKED: Final = "TABLE (verdict text, account text, active boolean, verified boolean, has_totp boolean, epoch integer)"
_GRANT: Final = "TABLE (account text, payload text, expires_at timestamptz)"

ACCOUNT_FUNCTIONS: Final = (
    VaultFunction(
        # A commit that wrote waits for the disk, and perhaps for a replica; one that did not, does not. So whoever has no account costs a
        # write as well, and leaves no row.
        "vault_write_for_nobody()",
        "void",
        """
DECLARE
    v_key bytea := uuid_send(gen_random_uuid());
BEGIN
    INSERT INTO axis.vault_throttle (key, tat) VALUES (v_key, 0);
    DELETE FROM axis.vault_throttle t WHERE t.key = v_key;
END""",
        audience="",
    ),
    VaultFunction(
        "vault_account_of(p_account text)",
        _ACCOUNT,
        """
    RETURN QUERY SELECT a.account, a.active, a.verified_at IS NOT NULL,
        EXISTS (SELECT FROM axis.vault_factor f WHERE f.account = a.account AND f.sealed IS NOT NULL), a.epoch
        FROM axis.vault_account a WHERE a.account = p_account;""",
    ),
    VaultFunction(
        "vault_find_account(p_identifier text)",
        _ACCOUNT,
        """
    RETURN QUERY SELECT o.* FROM axis.vault_account a, axis.vault_account_of(a.account) o WHERE a.identifier = p_identifier;""",
    ),
    VaultFunction(
        "vault_note_pattern(p_settings text)",
        "void",
        """
    -- Only our own form: its parts are known, so made-up ones can be told from real ones by nothing.
    UPDATE axis.vault_secret s SET pattern = p_settings
        WHERE p_settings LIKE 'axis1$%$-$%$%$%' AND s.pattern IS DISTINCT FROM p_settings
        AND (s.pattern IS NULL OR split_part(s.pattern, '$', 2) <> split_part(p_settings, '$', 2)
            OR split_part(s.pattern, '$', 4) <> split_part(p_settings, '$', 4));""",
        audience="",
    ),
    VaultFunction(
        # The row must be locked by the caller.
        "vault_sign_out(p_account text, p_keep uuid, p_tokens boolean)",
        "void",
        """
    UPDATE axis.vault_account a SET epoch = a.epoch + 1 WHERE a.account = p_account;
    DELETE FROM axis.vault_session s WHERE s.account = p_account AND s.handle IS DISTINCT FROM p_keep;
    UPDATE axis.vault_session s SET epoch = (SELECT a.epoch FROM axis.vault_account a WHERE a.account = p_account)
        WHERE s.account = p_account;
    DELETE FROM axis.vault_remember r WHERE r.account = p_account;
    IF p_tokens THEN
        DELETE FROM axis.vault_token t WHERE t.account = p_account;
    END IF;""",
        audience="",
    ),
    VaultFunction(
        "vault_register(p_account text, p_identifier text, p_settings text, p_digest bytea, p_verified_at timestamptz)",
        "boolean",
        """
    INSERT INTO axis.vault_account (account, identifier, settings, digest, verified_at)
        VALUES (p_account, p_identifier, p_settings, p_digest, p_verified_at) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM axis.vault_write_for_nobody();
        RETURN false;
    END IF;
    PERFORM axis.vault_note_pattern(p_settings);
    RETURN true;""",
    ),
    VaultFunction(
        # Whoever has no hash gets settings of the same form, with a salt that stays the same: no oracle of who has an account.
        "vault_load_settings(p_account text, p_identifier text)",
        "text",
        """
DECLARE
    v_secret axis.vault_secret;
    v_salt bytea;
    v_settings text := (SELECT a.settings FROM axis.vault_account a WHERE a.account = p_account OR a.identifier = p_identifier);
BEGIN
    SELECT * INTO v_secret FROM axis.vault_secret;
    v_salt := sha256(v_secret.key || sha256(convert_to(coalesce('a' || p_account, 'i' || p_identifier), 'UTF8')));
    RETURN coalesce(v_settings, split_part(v_secret.pattern, '$', 1) || '$' || split_part(v_secret.pattern, '$', 2) || '$-$'
        || split_part(v_secret.pattern, '$', 4) || '$' || translate(encode(substr(v_salt, 1, 16), 'base64'), '+/=', '-_')
        || '$' || split_part(v_secret.pattern, '$', 6));
END""",
    ),
    VaultFunction(
        # Both sides are hashed before the comparison, so that its time says nothing about how much of a guess was right.
        "vault_check_password(p_account text, p_identifier text, p_settings text, p_digest bytea, p_max integer)",
        _CHECKED,
        """
DECLARE
    v_account text;
    v_failures integer;
    v_settings text;
BEGIN
    UPDATE axis.vault_account a
        SET failures = CASE WHEN coalesce(sha256(a.digest) = sha256(p_digest), false) THEN 0 ELSE a.failures + 1 END
        WHERE (a.account = p_account OR a.identifier = p_identifier) AND a.settings = p_settings AND a.failures < p_max
        RETURNING a.account, a.failures INTO v_account, v_failures;
    IF FOUND THEN
        IF v_failures > 0 THEN
            RETURN QUERY SELECT 'mismatch', NULL::text, NULL::boolean, NULL::boolean, NULL::boolean, NULL::integer;
        ELSE
            RETURN QUERY SELECT 'match', o.* FROM axis.vault_account_of(v_account) o;
        END IF;
        RETURN;
    END IF;
    PERFORM axis.vault_write_for_nobody();
    SELECT a.settings, a.failures INTO v_settings, v_failures FROM axis.vault_account a
        WHERE a.account = p_account OR a.identifier = p_identifier;
    RETURN QUERY SELECT CASE WHEN v_settings IS NULL THEN 'mismatch' WHEN v_failures >= p_max THEN 'locked' ELSE 'stale' END,
        NULL::text, NULL::boolean, NULL::boolean, NULL::boolean, NULL::integer;
END""",
    ),
    VaultFunction(
        "vault_rehash(p_account text, p_old_settings text, p_old bytea, p_settings text, p_digest bytea, p_max integer)",
        _CHECKED,
        """
DECLARE
    v_checked record;
BEGIN
    SELECT * INTO v_checked FROM axis.vault_check_password(p_account, NULL, p_old_settings, p_old, p_max);
    IF v_checked.verdict = 'match' THEN
        UPDATE axis.vault_account a SET settings = p_settings, digest = p_digest WHERE a.account = p_account;
        PERFORM axis.vault_note_pattern(p_settings);
        RETURN QUERY SELECT 'match', o.* FROM axis.vault_account_of(p_account) o;
    ELSE
        RETURN QUERY SELECT v_checked.verdict, NULL::text, NULL::boolean, NULL::boolean, NULL::boolean, NULL::integer;
    END IF;
END""",
    ),
    VaultFunction(
        "vault_change_password(p_account text, p_old_settings text, p_old bytea, p_settings text, p_digest bytea, p_keep uuid, p_max integer)",
        _CHECKED,
        """
DECLARE
    v_checked record;
BEGIN
    SELECT * INTO v_checked FROM axis.vault_rehash(p_account, p_old_settings, p_old, p_settings, p_digest, p_max);
    IF v_checked.verdict = 'match' THEN
        PERFORM axis.vault_sign_out(p_account, p_keep, true);
        RETURN QUERY SELECT 'match', o.* FROM axis.vault_account_of(p_account) o;
    ELSE
        RETURN QUERY SELECT v_checked.verdict, NULL::text, NULL::boolean, NULL::boolean, NULL::boolean, NULL::integer;
    END IF;
END""",
    ),
    VaultFunction(
        # The account's row before the token's: whoever changes the account voids tokens in that order.
        "vault_take_token(p_purpose text, p_digests bytea[], p_now timestamptz)",
        _GRANT,
        """
DECLARE
    v_account text := (SELECT t.account FROM axis.vault_token t WHERE t.digest = ANY (p_digests) AND t.purpose = p_purpose);
BEGIN
    IF v_account IS NOT NULL THEN
        PERFORM FROM axis.vault_account a WHERE a.account = v_account AND a.active FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY DELETE FROM axis.vault_token t
        WHERE t.digest = ANY (p_digests) AND t.purpose = p_purpose AND t.expires_at > p_now
        RETURNING t.account, t.payload, t.expires_at;
END""",
    ),
    VaultFunction(
        "vault_peek_token(p_purpose text, p_digests bytea[], p_now timestamptz)",
        _GRANT,
        """
    RETURN QUERY SELECT t.account, t.payload, t.expires_at FROM axis.vault_token t
        WHERE t.digest = ANY (p_digests) AND t.purpose = p_purpose AND t.expires_at > p_now
        AND (t.account IS NULL OR EXISTS (SELECT FROM axis.vault_account a WHERE a.account = t.account AND a.active));""",
    ),
    VaultFunction(
        "vault_issue_token(p_purpose text, p_account text, p_digest bytea, p_payload text, p_expires_at timestamptz, p_replace boolean)",
        "boolean",
        """
    IF p_account IS NOT NULL THEN
        PERFORM FROM axis.vault_account a WHERE a.account = p_account AND a.active FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            PERFORM axis.vault_write_for_nobody();
            RETURN false;
        END IF;
        IF p_replace THEN
            DELETE FROM axis.vault_token t WHERE t.account = p_account AND t.purpose = p_purpose;
        END IF;
    END IF;
    INSERT INTO axis.vault_token (digest, purpose, account, payload, expires_at)
        VALUES (p_digest, p_purpose, p_account, p_payload, p_expires_at) ON CONFLICT (digest) DO NOTHING;
    RETURN FOUND;""",
    ),
    VaultFunction(
        "vault_revoke_tokens(p_account text, p_purpose text)",
        "integer",
        """
DECLARE
    v_gone integer;
BEGIN
    PERFORM FROM axis.vault_account a WHERE a.account = p_account FOR NO KEY UPDATE;
    DELETE FROM axis.vault_token t WHERE t.account = p_account AND (p_purpose IS NULL OR t.purpose = p_purpose);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_gone;
END""",
    ),
    VaultFunction(
        "vault_reset_password(p_purpose text, p_digests bytea[], p_now timestamptz, p_settings text, p_digest bytea)",
        _ACCOUNT,
        """
DECLARE
    v_account text := (SELECT t.account FROM axis.vault_take_token(p_purpose, p_digests, p_now) t);
BEGIN
    IF v_account IS NOT NULL THEN
        UPDATE axis.vault_account a SET settings = p_settings, digest = p_digest, failures = 0 WHERE a.account = v_account;
        PERFORM axis.vault_note_pattern(p_settings);
        PERFORM axis.vault_sign_out(v_account, NULL, true);
        RETURN QUERY SELECT * FROM axis.vault_account_of(v_account);
    END IF;
END""",
    ),
    VaultFunction(
        "vault_verify_identifier(p_purpose text, p_digests bytea[], p_now timestamptz)",
        _ACCOUNT,
        """
DECLARE
    v_grant record;
BEGIN
    SELECT * INTO v_grant FROM axis.vault_take_token(p_purpose, p_digests, p_now);
    UPDATE axis.vault_account a SET verified_at = coalesce(a.verified_at, p_now)
        WHERE a.account = v_grant.account AND a.identifier = v_grant.payload;
    IF FOUND THEN
        RETURN QUERY SELECT * FROM axis.vault_account_of(v_grant.account);
    END IF;
END""",
    ),
    VaultFunction(
        # The other tokens go too: they were mailed to an address that is no longer the account's.
        "vault_change_identifier(p_purpose text, p_digests bytea[], p_now timestamptz)",
        _ACCOUNT,
        """
DECLARE
    v_grant record;
BEGIN
    SELECT * INTO v_grant FROM axis.vault_take_token(p_purpose, p_digests, p_now);
    IF v_grant.account IS NULL THEN
        RETURN;
    END IF;
    BEGIN
        UPDATE axis.vault_account a SET identifier = v_grant.payload, verified_at = p_now WHERE a.account = v_grant.account;
    EXCEPTION WHEN unique_violation OR check_violation THEN
        RETURN;
    END;
    DELETE FROM axis.vault_token t WHERE t.account = v_grant.account;
    RETURN QUERY SELECT * FROM axis.vault_account_of(v_grant.account);
END""",
    ),
    VaultFunction(
        "vault_set_active(p_account text, p_active boolean)",
        _ACCOUNT,
        """
    UPDATE axis.vault_account a SET active = p_active WHERE a.account = p_account;
    IF FOUND AND NOT p_active THEN
        PERFORM axis.vault_sign_out(p_account, NULL, true);
    END IF;
    RETURN QUERY SELECT * FROM axis.vault_account_of(p_account);""",
    ),
    VaultFunction(
        "vault_bump_epoch(p_account text)",
        _ACCOUNT,
        """
    PERFORM axis.vault_sign_out(p_account, NULL, false);
    RETURN QUERY SELECT * FROM axis.vault_account_of(p_account);""",
    ),
    VaultFunction(
        "vault_delete_account(p_account text)",
        "boolean",
        """
    PERFORM axis.vault_remove_factors(p_account);
    DELETE FROM axis.vault_account a WHERE a.account = p_account;
    RETURN FOUND;""",
    ),
)
"""The definer functions through which the app reaches them, and nothing else."""

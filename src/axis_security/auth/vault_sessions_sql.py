"""The vault's sessions, remember tokens and throttles.

Locks are always taken in one order: the account's row, a session's (or line's) row, its ids.
"""

from __future__ import annotations

from typing import Final

from axis_security.auth.vault_parts import VaultFunction

__all__ = ["SESSION_FUNCTIONS", "SESSION_TABLES"]

SESSION_TABLES: Final[tuple[tuple[str, str], ...]] = (
    (
        "vault_session",
        """
    handle uuid PRIMARY KEY,
    account text NOT NULL REFERENCES axis.vault_account ON DELETE CASCADE,
    route text NOT NULL CHECK (length(route) = 12),
    epoch integer NOT NULL,
    tenant text CHECK (length(tenant) BETWEEN 1 AND 128),
    assurance smallint NOT NULL CHECK (assurance BETWEEN 0 AND 2),
    methods text[] NOT NULL CHECK (cardinality(methods) <= 8),
    auth_time timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    idle interval NOT NULL CHECK (idle > interval '0'),
    ends_at timestamptz NOT NULL,
    client text NOT NULL CHECK (length(client) <= 200),
    network text NOT NULL CHECK (length(network) <= 200)""",
    ),
    (
        # INVARIANT: a superseded id stands for what was proved while it was the session's, never for what its successor proves: whoever kept
        # a copy of it gains nothing from the person's step-up (ASVS 7.2.4). So it takes its own state with it.
        "vault_session_id",
        """
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    handle uuid NOT NULL REFERENCES axis.vault_session ON DELETE CASCADE,
    superseded_at timestamptz,
    tenant text,
    assurance smallint,
    methods text[],
    auth_time timestamptz,
    CHECK (superseded_at IS NULL OR (assurance IS NOT NULL AND methods IS NOT NULL AND auth_time IS NOT NULL))""",
    ),
    (
        "vault_remember",
        """
    line uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    account text NOT NULL REFERENCES axis.vault_account ON DELETE CASCADE,
    handle uuid NOT NULL,
    epoch integer NOT NULL,
    ends_at timestamptz NOT NULL,
    client text NOT NULL CHECK (length(client) <= 200)""",
    ),
    (
        "vault_remember_id",
        """
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    line uuid NOT NULL REFERENCES axis.vault_remember ON DELETE CASCADE,
    spent_at timestamptz""",
    ),
    (
        # tat: the time, in seconds since 1970, at which everything taken so far is paid back (GCRA's theoretical arrival time).
        "vault_throttle",
        """
    key bytea PRIMARY KEY CHECK (octet_length(key) BETWEEN 1 AND 64),
    tat float8 NOT NULL""",
    ),
)
"""Tables of the vault that hold sessions, remember tokens and throttles: name and columns."""

_LIVE: Final = (
    "TABLE (verdict text, handle uuid, account text, tenant text, assurance smallint, methods text[], auth_time timestamptz, "
    "started_at timestamptz, seen_at timestamptz, ends_at timestamptz, client text, network text, superseded boolean)"
)
_LIVE_COLUMNS: Final = (
    "'live', s.handle, s.account, s.tenant, s.assurance, s.methods, s.auth_time, s.started_at, s.seen_at, s.ends_at, s.client, s.network"
)
_IS_LIVE: Final = (
    "s.ends_at > p_now AND s.seen_at + s.idle > p_now "
    "AND EXISTS (SELECT FROM axis.vault_account a WHERE a.account = s.account AND a.active AND a.epoch = s.epoch)"
)

SESSION_FUNCTIONS: Final = (
    VaultFunction(
        "vault_drop_sessions(p_account text, p_handles uuid[])",
        "integer",
        """
DECLARE
    v_gone integer;
BEGIN
    DELETE FROM axis.vault_session s WHERE s.account = p_account AND s.handle = ANY (p_handles);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    DELETE FROM axis.vault_remember r WHERE r.account = p_account AND r.handle = ANY (p_handles);
    RETURN v_gone;
END""",
        audience="",
    ),
    VaultFunction(
        "vault_end_session(p_route text, p_digests bytea[])",
        "TABLE (handle uuid, account text)",
        """
DECLARE
    v_session record;
BEGIN
    SELECT s.handle, s.account INTO v_session FROM axis.vault_session_id i JOIN axis.vault_session s ON s.handle = i.handle
        WHERE i.digest = ANY (p_digests) AND s.route = p_route;
    IF FOUND AND axis.vault_drop_sessions(v_session.account, ARRAY[v_session.handle]) > 0 THEN
        RETURN QUERY SELECT v_session.handle, v_session.account;
    END IF;
END""",
    ),
    VaultFunction(
        "vault_start_session(p_account text, p_route text, p_handle uuid, p_digest bytea, p_epoch integer, p_now timestamptz, p_idle interval, "
        "p_lifetime interval, p_assurance smallint, p_methods text[], p_tenant text, p_client text, p_network text, p_max integer, "
        "p_ends_route text, p_ends bytea[], p_auth_time timestamptz)",
        "boolean",
        f"""
    -- The lock makes the cap exact, and a password change either sees this session or is seen here.
    PERFORM FROM axis.vault_account a WHERE a.account = p_account AND a.active AND a.epoch = p_epoch FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM axis.vault_end_session(p_ends_route, p_ends);
    DELETE FROM axis.vault_session s WHERE s.account = p_account AND NOT ({_IS_LIVE});
    PERFORM axis.vault_drop_sessions(p_account, ARRAY(
        SELECT s.handle FROM axis.vault_session s WHERE s.account = p_account
        ORDER BY s.seen_at DESC, s.started_at DESC, s.handle OFFSET greatest(p_max, 1) - 1));
    INSERT INTO axis.vault_session
        VALUES (p_handle, p_account, p_route, p_epoch, p_tenant, p_assurance, p_methods, coalesce(p_auth_time, p_now), p_now, p_now, p_idle, p_now + p_lifetime,
            p_client, p_network);
    INSERT INTO axis.vault_session_id VALUES (p_digest, p_handle, NULL);
    RETURN true;""",
    ),
    VaultFunction(
        "vault_resolve_session(p_route text, p_digests bytea[], p_now timestamptz, p_touch interval, p_grace interval)",
        _LIVE,
        f"""
DECLARE
    v_handle uuid;
    v_account text;
    v_seen timestamptz;
    v_superseded timestamptz;
BEGIN
    SELECT s.handle, s.account, s.seen_at, i.superseded_at INTO v_handle, v_account, v_seen, v_superseded
        FROM axis.vault_session_id i JOIN axis.vault_session s ON s.handle = i.handle
        WHERE i.digest = ANY (p_digests) AND s.route = p_route AND {_IS_LIVE};
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v_superseded + least(p_grace, interval '60 s') <= p_now THEN
        PERFORM axis.vault_drop_sessions(v_account, ARRAY[v_handle]);
        RETURN QUERY SELECT 'reused', v_handle, v_account, NULL::text, NULL::smallint, NULL::text[], NULL::timestamptz, NULL::timestamptz,
            NULL::timestamptz, NULL::timestamptz, NULL::text, NULL::text, NULL::boolean;
        RETURN;
    END IF;
    IF v_seen + p_touch <= p_now THEN
        -- SKIP LOCKED: of parallel requests one notes the use, and none waits for it.
        UPDATE axis.vault_session s SET seen_at = p_now
            WHERE s.handle = (SELECT l.handle FROM axis.vault_session l WHERE l.handle = v_handle AND l.seen_at < p_now FOR UPDATE SKIP LOCKED);
    END IF;
    -- Id and session as they are at one moment: a rotation since the statement above has made this id a superseded one.
    RETURN QUERY SELECT 'live', s.handle, s.account, CASE WHEN i.superseded_at IS NULL THEN s.tenant ELSE i.tenant END,
        coalesce(i.assurance, s.assurance), coalesce(i.methods, s.methods), coalesce(i.auth_time, s.auth_time), s.started_at, s.seen_at,
        s.ends_at, s.client, s.network, i.superseded_at IS NOT NULL
        FROM axis.vault_session_id i JOIN axis.vault_session s ON s.handle = i.handle
        WHERE i.digest = ANY (p_digests) AND s.handle = v_handle;
END""",
    ),
    VaultFunction(
        "vault_rotate_session(p_route text, p_digests bytea[], p_digest bytea, p_now timestamptz, p_assurance smallint, p_methods text[], "
        "p_auth_time timestamptz, p_switch boolean, p_tenant text)",
        _LIVE,
        f"""
DECLARE
    v_handle uuid;
BEGIN
    SELECT s.handle INTO v_handle FROM axis.vault_session s
        WHERE s.handle IN (SELECT i.handle FROM axis.vault_session_id i WHERE i.digest = ANY (p_digests)) AND s.route = p_route AND {_IS_LIVE}
        FOR UPDATE;
    UPDATE axis.vault_session_id i
        SET superseded_at = p_now, tenant = s.tenant, assurance = s.assurance, methods = s.methods, auth_time = s.auth_time
        FROM axis.vault_session s
        WHERE s.handle = v_handle AND i.handle = v_handle AND i.digest = ANY (p_digests) AND i.superseded_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO axis.vault_session_id VALUES (p_digest, v_handle, NULL);
    UPDATE axis.vault_session s SET seen_at = greatest(s.seen_at, p_now), assurance = coalesce(p_assurance, s.assurance),
        methods = coalesce(p_methods, s.methods), auth_time = coalesce(p_auth_time, s.auth_time),
        tenant = CASE WHEN p_switch THEN p_tenant ELSE s.tenant END
        WHERE s.handle = v_handle;
    RETURN QUERY SELECT {_LIVE_COLUMNS}, false FROM axis.vault_session s WHERE s.handle = v_handle;
END""",
    ),
    VaultFunction(
        "vault_revoke_sessions(p_account text, p_handle uuid, p_keep uuid)",
        "integer",
        """
DECLARE
    v_gone integer;
BEGIN
    -- With the account's lock no session starts meanwhile.
    PERFORM FROM axis.vault_account a WHERE a.account = p_account FOR NO KEY UPDATE;
    v_gone := axis.vault_drop_sessions(p_account, CASE WHEN p_handle IS NOT NULL THEN ARRAY[p_handle] ELSE ARRAY(
        SELECT s.handle FROM axis.vault_session s WHERE s.account = p_account AND s.handle IS DISTINCT FROM p_keep) END);
    IF p_handle IS NULL THEN
        DELETE FROM axis.vault_remember r WHERE r.account = p_account AND r.handle IS DISTINCT FROM p_keep;
    END IF;
    RETURN v_gone;
END""",
    ),
    VaultFunction(
        "vault_list_sessions(p_account text, p_now timestamptz)",
        _LIVE,
        f"""
    RETURN QUERY SELECT {_LIVE_COLUMNS}, false FROM axis.vault_session s WHERE s.account = p_account AND {_IS_LIVE}
        ORDER BY s.seen_at DESC, s.started_at DESC, s.handle;""",
    ),
    VaultFunction(
        "vault_issue_remember(p_account text, p_handle uuid, p_digest bytea, p_epoch integer, p_ends_at timestamptz, p_client text)",
        "boolean",
        """
DECLARE
    v_line uuid := gen_random_uuid();
BEGIN
    PERFORM FROM axis.vault_account a WHERE a.account = p_account AND a.active AND a.epoch = p_epoch FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO axis.vault_remember VALUES (v_line, p_account, p_handle, p_epoch, p_ends_at, p_client);
    INSERT INTO axis.vault_remember_id VALUES (p_digest, v_line, NULL);
    RETURN true;
END""",
    ),
    VaultFunction(
        "vault_use_remember(p_digests bytea[], p_digest bytea, p_handle uuid, p_now timestamptz, p_grace interval)",
        "TABLE (verdict text, account text, epoch integer)",
        """
DECLARE
    v_line axis.vault_remember;
    v_spent timestamptz;
BEGIN
    SELECT r.* INTO v_line FROM axis.vault_remember r
        WHERE r.line IN (SELECT i.line FROM axis.vault_remember_id i WHERE i.digest = ANY (p_digests)) AND r.ends_at > p_now
        AND EXISTS (SELECT FROM axis.vault_account a WHERE a.account = r.account AND a.active AND a.epoch = r.epoch)
        FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT i.spent_at INTO v_spent FROM axis.vault_remember_id i WHERE i.digest = ANY (p_digests) AND i.line = v_line.line;
    IF v_spent IS NOT NULL AND v_spent + least(p_grace, interval '60 s') > p_now THEN
        RETURN QUERY SELECT 'raced', v_line.account, v_line.epoch;
    ELSIF v_spent IS NOT NULL THEN
        DELETE FROM axis.vault_remember r WHERE r.line = v_line.line;
        RETURN QUERY SELECT 'reused', v_line.account, v_line.epoch;
    ELSE
        UPDATE axis.vault_remember_id i SET spent_at = p_now WHERE i.digest = ANY (p_digests) AND i.line = v_line.line;
        INSERT INTO axis.vault_remember_id VALUES (p_digest, v_line.line, NULL);
        UPDATE axis.vault_remember r SET handle = p_handle WHERE r.line = v_line.line;
        RETURN QUERY SELECT 'live', v_line.account, v_line.epoch;
    END IF;
END""",
    ),
    VaultFunction(
        "vault_end_remember(p_digests bytea[])",
        "boolean",
        """
    DELETE FROM axis.vault_remember r WHERE r.line IN (SELECT i.line FROM axis.vault_remember_id i WHERE i.digest = ANY (p_digests));
    RETURN FOUND;""",
    ),
    VaultFunction(
        # All or none. Rows are made and locked in the order of their keys, so that two callers never wait for one another.
        # The tolerance of a hundredth of an attempt is for rounding.
        "vault_reserve(p_keys bytea[], p_intervals float8[], p_windows float8[], p_now float8)",
        "TABLE (key bytea, wait float8)",
        """
DECLARE
    v_key bytea;
    v_wait float8;
BEGIN
    INSERT INTO axis.vault_throttle AS t (key, tat) SELECT DISTINCT k, 0::float8 FROM unnest(p_keys) AS k ORDER BY k
        ON CONFLICT (key) DO UPDATE SET tat = t.tat;
    SELECT b.key, greatest(t.tat, p_now) + b.step - p_now - b.size INTO v_key, v_wait
        FROM unnest(p_keys, p_intervals, p_windows) WITH ORDINALITY AS b (key, step, size, place) JOIN axis.vault_throttle t ON t.key = b.key
        WHERE greatest(t.tat, p_now) + b.step > p_now + b.size + b.step / 100 ORDER BY 2 DESC, b.place LIMIT 1;
    IF NOT FOUND THEN
        UPDATE axis.vault_throttle t SET tat = greatest(t.tat, p_now) + b.step
            FROM unnest(p_keys, p_intervals) AS b (key, step) WHERE t.key = b.key;
    END IF;
    RETURN QUERY SELECT v_key, v_wait;
END""",
    ),
    VaultFunction(
        "vault_refund(p_keys bytea[], p_intervals float8[], p_now float8)",
        "boolean",
        """
    PERFORM FROM axis.vault_throttle t WHERE t.key = ANY (p_keys) ORDER BY t.key FOR UPDATE;
    UPDATE axis.vault_throttle t SET tat = t.tat - b.step FROM unnest(p_keys, p_intervals) AS b (key, step) WHERE t.key = b.key AND t.tat > p_now;
    RETURN true;""",
    ),
    VaultFunction(
        "vault_reset_throttle(p_keys bytea[])",
        "boolean",
        """
    PERFORM FROM axis.vault_throttle t WHERE t.key = ANY (p_keys) ORDER BY t.key FOR UPDATE;
    DELETE FROM axis.vault_throttle t WHERE t.key = ANY (p_keys);
    RETURN true;""",
    ),
    VaultFunction(
        "vault_prune(p_now timestamptz)",
        "integer",
        """
DECLARE
    v_gone integer;
    v_all integer := 0;
BEGIN
    DELETE FROM axis.vault_session s WHERE s.handle IN (SELECT d.handle FROM axis.vault_session d
        WHERE d.ends_at <= p_now OR d.seen_at + d.idle <= p_now LIMIT 2000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    v_all := v_all + v_gone;
    DELETE FROM axis.vault_remember r WHERE r.line IN (SELECT d.line FROM axis.vault_remember d WHERE d.ends_at <= p_now LIMIT 2000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    v_all := v_all + v_gone;
    DELETE FROM axis.vault_token t WHERE t.digest IN (SELECT d.digest FROM axis.vault_token d WHERE d.expires_at <= p_now LIMIT 2000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    v_all := v_all + v_gone;
    DELETE FROM axis.vault_throttle t WHERE t.key IN (
        SELECT d.key FROM axis.vault_throttle d WHERE d.tat <= extract(epoch FROM p_now)::float8 LIMIT 2000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_all + v_gone;
END""",
    ),
)
"""The definer functions through which the app reaches them, and nothing else."""

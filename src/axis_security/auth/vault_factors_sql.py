"""The vault's second factors: seeds (sealed by a key that the database hasn't) and recovery digests."""

from __future__ import annotations

from typing import Final

from axis_security.auth.vault_parts import VaultFunction

__all__ = ["FACTOR_FUNCTIONS", "FACTOR_TABLES"]

# INVARIANT: no seed in the clear: 20 bytes of seed make 48 and more when sealed, so a bare one does not fit the check.
FACTOR_TABLES: Final[tuple[tuple[str, str], ...]] = (
    (
        "vault_factor",
        """
    account text PRIMARY KEY CHECK (length(account) BETWEEN 3 AND 140),
    pending bytea CHECK (octet_length(pending) BETWEEN 36 AND 512),
    sealed bytea CHECK (octet_length(sealed) BETWEEN 36 AND 512),
    step bigint NOT NULL DEFAULT -1 CHECK (step >= -1),
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0)""",
    ),
    (
        "vault_recovery",
        """
    account text NOT NULL CHECK (length(account) BETWEEN 3 AND 140),
    key_id text NOT NULL CHECK (length(key_id) BETWEEN 1 AND 64),
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    PRIMARY KEY (account, key_id, digest)""",
    ),
)
"""Tables of the vault that hold second factors: name and columns."""

FACTOR_FUNCTIONS: Final = (
    VaultFunction(
        "vault_begin_enrolment(p_account text, p_sealed bytea)",
        "boolean",
        """
    INSERT INTO axis.vault_factor AS f (account, pending) VALUES (p_account, p_sealed)
        ON CONFLICT (account) DO UPDATE SET pending = excluded.pending, failures = 0;
    RETURN true;""",
    ),
    VaultFunction(
        "vault_load_totp(p_account text, p_pending boolean)",
        "bytea",
        "    RETURN (SELECT CASE WHEN p_pending THEN f.pending ELSE f.sealed END FROM axis.vault_factor f WHERE f.account = p_account);",
    ),
    VaultFunction(
        "vault_reserve_code_attempt(p_account text, p_limit integer)",
        "boolean",
        """
    UPDATE axis.vault_factor f SET failures = f.failures + 1
        WHERE f.account = p_account AND f.failures < p_limit AND (f.sealed IS NOT NULL OR f.pending IS NOT NULL);
    RETURN FOUND;""",
    ),
    VaultFunction(
        "vault_confirm_enrolment(p_account text, p_sealed bytea, p_step bigint)",
        "boolean",
        """
    UPDATE axis.vault_factor f SET sealed = f.pending, pending = NULL, step = p_step, failures = 0
        WHERE f.account = p_account AND f.pending = p_sealed;
    RETURN FOUND;""",
    ),
    VaultFunction(
        "vault_claim_step(p_account text, p_step bigint)",
        "boolean",
        """
    UPDATE axis.vault_factor f SET step = p_step, failures = 0
        WHERE f.account = p_account AND f.sealed IS NOT NULL AND f.step < p_step;
    RETURN FOUND;""",
    ),
    VaultFunction(
        "vault_remove_factors(p_account text)",
        "boolean",
        """
DECLARE
    v_had boolean := false;
BEGIN
    DELETE FROM axis.vault_factor f WHERE f.account = p_account RETURNING f.sealed IS NOT NULL OR f.pending IS NOT NULL INTO v_had;
    DELETE FROM axis.vault_recovery r WHERE r.account = p_account;
    RETURN coalesce(v_had, false) OR FOUND;
END""",
    ),
    VaultFunction(
        # The factor's row is the lock: two replacements at once must not leave both sets of codes.
        "vault_replace_recovery(p_account text, p_key_ids text[], p_digests bytea[])",
        "boolean",
        """
    INSERT INTO axis.vault_factor AS f (account) VALUES (p_account) ON CONFLICT (account) DO UPDATE SET failures = f.failures;
    DELETE FROM axis.vault_recovery r WHERE r.account = p_account;
    INSERT INTO axis.vault_recovery (account, key_id, digest) SELECT p_account, k, d FROM unnest(p_key_ids, p_digests) AS given (k, d);
    RETURN true;""",
    ),
    VaultFunction(
        "vault_consume_recovery(p_account text, p_key_ids text[], p_digests bytea[])",
        "boolean",
        """
    DELETE FROM axis.vault_recovery r USING unnest(p_key_ids, p_digests) AS given (k, d)
        WHERE r.account = p_account AND r.key_id = given.k AND r.digest = given.d;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE axis.vault_factor f SET failures = 0 WHERE f.account = p_account;
    RETURN true;""",
    ),
    VaultFunction(
        "vault_count_recovery(p_account text)",
        "integer",
        "    RETURN (SELECT count(*)::integer FROM axis.vault_recovery r WHERE r.account = p_account);",
    ),
)
"""The definer functions through which the app reaches them, and nothing else."""

"""The vault: credentials, factors, sessions and tokens in schema ``axis``, where the app role can use them and never read them.

Tables belong to the guard. The app role has EXECUTE on the functions and nothing else, and no function gives out a digest: whoever
holds the right one sends it in, and the comparison happens inside. So SQL injected through the app role reads no password hash,
recovery code, session or token. Seeds of TOTP must leave, for the app to compute codes; they leave as they came, sealed by a key
that the database hasn't.

No function needs a sealed context: all of this happens before anybody is signed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from axis_security.auth.vault_accounts_sql import ACCOUNT_FUNCTIONS, ACCOUNT_TABLES
from axis_security.auth.vault_factors_sql import FACTOR_FUNCTIONS, FACTOR_TABLES
from axis_security.auth.vault_parts import table_statements
from axis_security.auth.vault_sessions_sql import SESSION_FUNCTIONS, SESSION_TABLES
from axis_security.core.schema import DatabaseRoles, SchemaPart

__all__ = ["VAULT"]

_TABLES: Final = (*FACTOR_TABLES, *ACCOUNT_TABLES, *SESSION_TABLES)
_FUNCTIONS: Final = (*FACTOR_FUNCTIONS, *ACCOUNT_FUNCTIONS, *SESSION_FUNCTIONS)
_INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS vault_token_account ON axis.vault_token (account)",
    "CREATE INDEX IF NOT EXISTS vault_session_account ON axis.vault_session (account)",
    "CREATE INDEX IF NOT EXISTS vault_session_id_handle ON axis.vault_session_id (handle)",
    "CREATE INDEX IF NOT EXISTS vault_remember_account ON axis.vault_remember (account)",
    "CREATE INDEX IF NOT EXISTS vault_remember_id_line ON axis.vault_remember_id (line)",
)
# Two version-4 UUIDs: 244 bits of the server's own strong randomness, made where the key is kept.
_FAKE_KEY: Final = (
    "INSERT INTO axis.vault_secret (key) SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) ON CONFLICT DO NOTHING"
)


def _create(roles: DatabaseRoles) -> Sequence[str]:
    tables = [statement for name, columns in _TABLES for statement in table_statements(name, columns, roles)]
    return [*tables, *_INDEXES, _FAKE_KEY, *(statement for function in _FUNCTIONS for statement in function.statements(roles))]


def _drop(_: DatabaseRoles) -> Sequence[str]:
    functions = [f"DROP FUNCTION IF EXISTS axis.{function.bare}" for function in reversed(_FUNCTIONS)]
    return [*functions, *(f"DROP TABLE IF EXISTS axis.{name}" for name, _columns in reversed(_TABLES))]


VAULT: Final = SchemaPart(name="vault", create=_create, drop=_drop)
"""The vault's part of schema ``axis``."""

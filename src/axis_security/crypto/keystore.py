"""The key table in PostgreSQL: wrapped keys only, reached through definer functions, useless without the key service.

The app role may load, insert, activate and count; what replaces or empties wrapped bytes is the system role's, so SQL injected through the app
role destroys no key. A row that it plants or activates does not open (the key service binds tenant and id): the worst it can do is refuse
service, loudly, until the system role shreds that row. What changes which key seals or opens tells the other processes on the
channel ``axis_keys``; :func:`listen` drops their copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import psycopg

from axis_security.core.errors import MalformedId, Unavailable
from axis_security.core.ids import TenantId
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.keys import KeyRecord, KeyState

__all__ = ["KEYSTORE_PART", "ConnectionSource", "PostgresKeyStore", "listen"]

_CHANNEL: Final = "axis_keys"
_COLUMNS: Final = "tenant, key_id, state, wrapped, kek, salt, created, suite, uses"

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS axis.data_key (
    tenant text NOT NULL CHECK (length(tenant) BETWEEN 1 AND 128),
    key_id bigint NOT NULL CHECK (key_id BETWEEN 1 AND 4294967295),
    state text NOT NULL CHECK (state IN ('pending', 'active', 'decrypt_only', 'shredded')),
    wrapped bytea NOT NULL CHECK (length(wrapped) <= 8192 AND (length(wrapped) = 0) = (state = 'shredded')),
    kek text NOT NULL,
    salt bytea NOT NULL CHECK (length(salt) = CASE state WHEN 'shredded' THEN 0 ELSE 32 END),
    created timestamptz NOT NULL,
    suite integer NOT NULL,
    uses bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, key_id)
)
---
CREATE UNIQUE INDEX IF NOT EXISTS data_key_one_active ON axis.data_key (tenant) WHERE state = 'active'
---
ALTER TABLE axis.data_key OWNER TO {guard}
---
REVOKE ALL ON axis.data_key FROM PUBLIC, {app}, {system}
---
CREATE OR REPLACE FUNCTION axis.keys_load(p_tenant text) RETURNS SETOF axis.data_key
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
    SELECT * FROM axis.data_key k WHERE k.tenant = p_tenant ORDER BY k.key_id
$axis$
---
CREATE OR REPLACE FUNCTION axis.keys_insert(p_tenant text, p_key_id bigint, p_wrapped bytea, p_kek text, p_salt bytea, p_created timestamptz, p_suite integer) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
    WITH made AS (
        INSERT INTO axis.data_key (tenant, key_id, state, wrapped, kek, salt, created, suite)
        SELECT p_tenant, p_key_id, 'pending', p_wrapped, p_kek, p_salt, p_created, p_suite
        -- Near the last one: an id planted at the end of the range would leave no room for the next.
        WHERE p_key_id <= 16 + coalesce((SELECT max(k.key_id) FROM axis.data_key k WHERE k.tenant = p_tenant), 0)
        ON CONFLICT DO NOTHING RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM made)
$axis$
---
CREATE OR REPLACE FUNCTION axis.keys_activate(p_tenant text, p_key_id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('axis_keys ' || p_tenant, 0));
    IF NOT EXISTS (SELECT 1 FROM axis.data_key k WHERE k.tenant = p_tenant AND k.key_id = p_key_id AND k.state = 'pending') THEN
        RETURN false;
    END IF;
    -- Shredded, and nothing that opens is left: what began before the shredding must not give the tenant a key after it.
    IF EXISTS (SELECT 1 FROM axis.data_key k WHERE k.tenant = p_tenant AND k.state = 'shredded')
            AND NOT EXISTS (SELECT 1 FROM axis.data_key k WHERE k.tenant = p_tenant AND k.state IN ('active', 'decrypt_only')) THEN
        RETURN false;
    END IF;
    UPDATE axis.data_key k SET state = 'decrypt_only' WHERE k.tenant = p_tenant AND k.state = 'active';
    UPDATE axis.data_key k SET state = 'active' WHERE k.tenant = p_tenant AND k.key_id = p_key_id;
    PERFORM pg_notify('axis_keys', p_tenant);
    RETURN true;
END
$axis$
---
CREATE OR REPLACE FUNCTION axis.keys_rewrap(p_tenant text, p_key_id bigint, p_old bytea, p_new bytea, p_kek text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
BEGIN
    UPDATE axis.data_key k SET wrapped = p_new, kek = p_kek
        WHERE k.tenant = p_tenant AND k.key_id = p_key_id AND k.wrapped = p_old AND k.state <> 'shredded';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM pg_notify('axis_keys', p_tenant);
    RETURN true;
END
$axis$
---
CREATE OR REPLACE FUNCTION axis.keys_add_uses(p_tenant text, p_key_id bigint, p_count bigint) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
    UPDATE axis.data_key k SET uses = k.uses + least(greatest(p_count, 0), 1000000000) WHERE k.tenant = p_tenant AND k.key_id = p_key_id
$axis$
---
CREATE OR REPLACE FUNCTION axis.keys_shred(p_tenant text, p_key_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
DECLARE
    v_count bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('axis_keys ' || p_tenant, 0));
    UPDATE axis.data_key k SET state = 'shredded', wrapped = '', salt = '' WHERE k.tenant = p_tenant AND k.key_id = ANY (p_key_ids) AND k.state <> 'shredded';
    GET DIAGNOSTICS v_count = ROW_COUNT;
    PERFORM pg_notify('axis_keys', p_tenant);
    RETURN v_count;
END
$axis$
---
CREATE OR REPLACE FUNCTION axis.keys_tenants() RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
    SELECT DISTINCT k.tenant FROM axis.data_key k ORDER BY 1
$axis$
"""

_APP: Final = (
    "keys_load(text)",
    "keys_insert(text, bigint, bytea, text, bytea, timestamptz, integer)",
    "keys_activate(text, bigint)",
    "keys_add_uses(text, bigint, bigint)",
)
_SYSTEM: Final = (*_APP, "keys_rewrap(text, bigint, bytea, bytea, text)", "keys_shred(text, bigint[])", "keys_tenants()")


def _create(roles: DatabaseRoles) -> Sequence[str]:
    text = _CREATE.replace("{guard}", roles.guard).replace("{app}", roles.app).replace("{system}", roles.system)
    statements = [statement.strip() for statement in text.split("\n---\n")]
    for function in _SYSTEM:
        grantees = f"{roles.app}, {roles.system}" if function in _APP else roles.system
        statements += [
            f"ALTER FUNCTION axis.{function} OWNER TO {roles.guard}",
            f"REVOKE ALL ON FUNCTION axis.{function} FROM PUBLIC",
            f"GRANT EXECUTE ON FUNCTION axis.{function} TO {grantees}",
        ]
    return tuple(statements)


KEYSTORE_PART: Final = SchemaPart(
    name="keystore",
    create=_create,
    drop=lambda _: (*(f"DROP FUNCTION IF EXISTS axis.{function}" for function in _SYSTEM), "DROP TABLE IF EXISTS axis.data_key"),
)
"""The key table and its functions in schema ``axis``."""


class ConnectionSource(Protocol):
    """Gives connections: ``psycopg_pool.ConnectionPool`` fits."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection for the length of a block, committed at its end."""
        ...


class PostgresKeyStore:
    """A :class:`~axis_security.crypto.keys.KeyStore` on the key table.

    Args:
        source: a pool that connects as the app role, without a bound principal; as the system role where keys are to be rewrapped, listed or shredded.
    """

    def __init__(self, source: ConnectionSource) -> None:
        self._source = source

    def load(self, tenant: str) -> Sequence[KeyRecord]:
        """See KeyStore. Raises: Unavailable."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM axis.keys_load(%s)", tenant)
        return [
            KeyRecord(
                tenant=owner,
                key_id=key_id,
                state=KeyState(state),
                wrapped=bytes(wrapped),
                kek=kek,
                salt=bytes(salt),
                created=created,
                suite=suite,
                uses=uses,
            )
            for owner, key_id, state, wrapped, kek, salt, created, suite, uses in rows
        ]

    def insert(self, record: KeyRecord) -> bool:
        """See KeyStore. Raises: Unavailable."""
        return self._true(
            "SELECT axis.keys_insert(%s, %s, %s, %s, %s, %s, %s)",
            record.tenant,
            record.key_id,
            record.wrapped,
            record.kek,
            record.salt,
            record.created,
            record.suite,
        )

    def activate(self, tenant: str, key_id: int) -> bool:
        """See KeyStore. Raises: Unavailable."""
        return self._true("SELECT axis.keys_activate(%s, %s)", tenant, key_id)

    def shred(self, tenant: str, key_ids: Sequence[int]) -> int:
        """See KeyStore. Raises: Unavailable, also where the login is not the system role's."""
        return int(self._rows("SELECT axis.keys_shred(%s, %s)", tenant, list(key_ids))[0][0])

    def rewrap(self, tenant: str, key_id: int, *, old: bytes, new: bytes, kek: str) -> bool:
        """See KeyStore. Raises: Unavailable, also where the login is not the system role's."""
        return self._true("SELECT axis.keys_rewrap(%s, %s, %s, %s, %s)", tenant, key_id, old, new, kek)

    def add_uses(self, tenant: str, key_id: int, count: int) -> None:
        """See KeyStore. Raises: Unavailable."""
        self._rows("SELECT axis.keys_add_uses(%s, %s, %s)", tenant, key_id, count)

    def tenants(self) -> Sequence[str]:
        """See KeyStore. Raises: Unavailable, also where the login is not the system role's."""
        return [row[0] for row in self._rows("SELECT axis.keys_tenants()")]

    def _true(self, sql: str, *params: Any) -> bool:
        return self._rows(sql, *params)[0][0] is True

    def _rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        try:
            with self._source.connection() as connection:
                return connection.execute(sql.encode(), params).fetchall()
        except psycopg.Error as error:
            raise Unavailable(
                what="the key table did not answer",
                why=f"the database refused (SQLSTATE {error.sqlstate or 'none'})",
                fix="check the database, and that the keystore part of schema axis is applied; shredding needs the system role",
            ) from None


def listen(
    ring: KeyRing,
    connection: psycopg.Connection[Any],
    *,
    stop_after: float | None = None,
    on_drop: Callable[[str], None] | None = None,
) -> None:
    """Drop a tenant's keys from *ring* whenever another process rotated, rewrapped or shredded them. Blocks; run it in a thread with a connection of its own.

    A lost connection ends it with psycopg's error: start it again, and until then the ring's ttl is the bound.

    Args:
        connection: in autocommit, as the app role.
        stop_after: seconds, for tests; ``None``: for ever.
        on_drop: called with each tenant's text.
    """
    connection.execute(f"LISTEN {_CHANNEL}".encode())
    for notice in connection.notifies(timeout=stop_after):
        try:
            ring.forget(TenantId(notice.payload))  # by its text, whatever the type of the tenant key
        except MalformedId:
            continue  # anybody who can connect can send on a channel
        if on_drop is not None:
            on_drop(notice.payload)

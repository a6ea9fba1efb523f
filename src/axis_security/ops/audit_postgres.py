"""The audit log in PostgreSQL: insert-only for the app, chained by the database, readable inside a tenant.

The chain is computed where the row is written, under a lock on the tenant's head row, so that two writers can't fork it. The app
role may execute ``axis.audit_append`` and ``axis.audit_page`` and nothing else; there is no function that changes or removes an
entry for it. Pruning old entries is the system role's, and leaves a checkpoint from which the rest still verifies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import psycopg

from axis_security.core.checks import CheckResult
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import AuditEvent, EventKind, Outcome
from axis_security.core.flow import Statement
from axis_security.core.ids import TenantId
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.ops.audit import Anchor, AuditChain, AuditEntry, ChainState, canonical_body, chain_start, headless, lost, verify_chain

__all__ = [
    "AUDIT_PART",
    "AsyncConnectionSource",
    "AsyncPostgresAuditSink",
    "ConnectionSource",
    "PostgresAuditSink",
    "anchors",
    "prune",
    "read_log",
    "read_page",
    "verify_log",
]

_PAGE: Final = 2_000

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS axis.audit_head (
    tenant text PRIMARY KEY CHECK (length(tenant) <= 128),
    number bigint NOT NULL CHECK (number >= 0),
    hash bytea NOT NULL CHECK (length(hash) = 32),
    pruned_number bigint NOT NULL DEFAULT 0,
    pruned_hash bytea NOT NULL CHECK (length(pruned_hash) = 32)
)
---
CREATE TABLE IF NOT EXISTS axis.audit_event (
    tenant text NOT NULL,
    number bigint NOT NULL CHECK (number >= 1),
    written_at timestamptz NOT NULL,
    body text NOT NULL CHECK (length(body) BETWEEN 2 AND 16384),
    hash bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (tenant, number)
)
---
CREATE INDEX IF NOT EXISTS audit_event_written_at ON axis.audit_event (tenant, written_at)
---
ALTER TABLE axis.audit_head OWNER TO {guard}
---
ALTER TABLE axis.audit_event OWNER TO {guard}
---
REVOKE ALL ON axis.audit_head, axis.audit_event FROM PUBLIC, {app}
---
GRANT SELECT ON axis.audit_head, axis.audit_event TO {system}
---
CREATE OR REPLACE FUNCTION axis.audit_append(p_tenant text, p_body text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
DECLARE
    v_number bigint;
    v_hash bytea;
BEGIN
    IF p_tenant IS NULL OR coalesce(p_body::jsonb ->> 'tenant', '') <> p_tenant THEN
        RAISE EXCEPTION 'the event names another tenant than its chain' USING ERRCODE = 'AX010';
    END IF;
    v_hash := sha256('axis-security/audit/v1\\000'::bytea || convert_to(p_tenant, 'UTF8'));
    INSERT INTO axis.audit_head AS h (tenant, number, hash, pruned_hash) VALUES (p_tenant, 0, v_hash, v_hash) ON CONFLICT (tenant) DO NOTHING;
    SELECT h.number + 1, h.hash INTO STRICT v_number, v_hash FROM axis.audit_head h WHERE h.tenant = p_tenant FOR UPDATE;
    v_hash := sha256(v_hash || int8send(v_number) || convert_to(p_body, 'UTF8'));
    INSERT INTO axis.audit_event (tenant, number, written_at, body, hash) VALUES (p_tenant, v_number, clock_timestamp(), p_body, v_hash);
    UPDATE axis.audit_head h SET number = v_number, hash = v_hash WHERE h.tenant = p_tenant;
    RETURN v_number;
END
$axis$
---
CREATE OR REPLACE FUNCTION axis.audit_page(p_before bigint, p_limit integer) RETURNS TABLE (number bigint, body text, hash bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
BEGIN
    -- The tenant comes from the sealed context: raises where there is none.
    RETURN QUERY SELECT e.number, e.body, e.hash FROM axis.audit_event e
        WHERE e.tenant = axis.tenant_text() AND e.number < p_before ORDER BY e.number DESC LIMIT least(greatest(p_limit, 1), 500);
END
$axis$
---
CREATE OR REPLACE FUNCTION axis.audit_prune(p_tenant text, p_before timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $axis$
DECLARE
    v_number bigint;
    v_hash bytea;
    v_removed bigint;
BEGIN
    PERFORM 1 FROM axis.audit_head h WHERE h.tenant = p_tenant FOR UPDATE;
    -- A prefix of the chain, never a hole in it: everything up to the newest entry that is older than the limit and has only
    -- older ones before it.
    SELECT e.number, e.hash INTO v_number, v_hash FROM axis.audit_event e
        WHERE e.tenant = p_tenant AND e.number < coalesce(
            (SELECT min(k.number) FROM axis.audit_event k WHERE k.tenant = p_tenant AND k.written_at >= p_before), 9223372036854775807)
        ORDER BY e.number DESC LIMIT 1;
    IF v_number IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM axis.audit_event e WHERE e.tenant = p_tenant AND e.number <= v_number;
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    UPDATE axis.audit_head h SET pruned_number = v_number, pruned_hash = v_hash WHERE h.tenant = p_tenant;
    RETURN v_removed;
END
$axis$
---
ALTER FUNCTION axis.audit_append(text, text) OWNER TO {guard}
---
ALTER FUNCTION axis.audit_page(bigint, integer) OWNER TO {guard}
---
ALTER FUNCTION axis.audit_prune(text, timestamptz) OWNER TO {guard}
---
REVOKE ALL ON FUNCTION axis.audit_append(text, text), axis.audit_page(bigint, integer), axis.audit_prune(text, timestamptz) FROM PUBLIC
---
GRANT EXECUTE ON FUNCTION axis.audit_append(text, text), axis.audit_page(bigint, integer) TO {app}
---
GRANT EXECUTE ON FUNCTION axis.audit_append(text, text), axis.audit_prune(text, timestamptz) TO {system}
"""

_DROP: Final = (
    "DROP FUNCTION IF EXISTS axis.audit_prune(text, timestamptz)",
    "DROP FUNCTION IF EXISTS axis.audit_page(bigint, integer)",
    "DROP FUNCTION IF EXISTS axis.audit_append(text, text)",
    "DROP TABLE IF EXISTS axis.audit_event",
    "DROP TABLE IF EXISTS axis.audit_head",
)


def _create(roles: DatabaseRoles) -> Sequence[str]:
    # Replaced by name, not by str.format: function bodies hold braces of their own.
    text = _CREATE.replace("{guard}", roles.guard).replace("{app}", roles.app).replace("{system}", roles.system)
    return tuple(statement.strip() for statement in text.split("\n---\n"))


AUDIT_PART: Final = SchemaPart(name="audit", create=_create, drop=lambda _: _DROP)
"""The audit log's tables and functions in schema ``axis``; needs rls' base part for ``axis.tenant_text()``."""


class ConnectionSource(Protocol):
    """Gives connections: ``psycopg_pool.ConnectionPool`` fits."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection for the length of a block, committed at its end."""
        ...


class PostgresAuditSink:
    """An :class:`~axis_security.core.events.EventSink` that appends to the log, one round trip per event.

    It writes on a connection of its own, not the request's: the record of a refused or rolled-back act must outlive the rollback.
    An event that can't be written raises :class:`Unavailable`: acts that must leave a record don't happen without one.

    Args:
        source: a pool that connects as the app role, without a bound principal.
    """

    def __init__(self, source: ConnectionSource) -> None:
        self._source = source

    def emit(self, event: AuditEvent) -> None:
        """Append *event* to its tenant's chain.

        Raises:
            Unavailable: it could not be written.
        """
        statement = _append(event)
        try:
            with self._source.connection() as connection:
                connection.execute(statement.sql, statement.params)
        except psycopg.Error as error:
            raise _not_written(error) from None


class AsyncConnectionSource(Protocol):
    """Gives connections: ``psycopg_pool.AsyncConnectionPool`` fits."""

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """A connection for the length of a block, committed at its end."""
        ...


class AsyncPostgresAuditSink:
    """:class:`PostgresAuditSink` for code that runs in an event loop and writes events of its own: it awaits instead of blocking.

    The library's own flows take an :class:`~axis_security.core.events.EventSink`; give them the sync one, which holds the loop for one round trip.
    """

    def __init__(self, source: AsyncConnectionSource) -> None:
        self._source = source

    async def aemit(self, event: AuditEvent) -> None:
        """Append *event* to its tenant's chain. Raises as :meth:`PostgresAuditSink.emit` does."""
        statement = _append(event)
        try:
            async with self._source.connection() as connection:
                await connection.execute(statement.sql, statement.params)
        except psycopg.Error as error:
            raise _not_written(error) from None


def _append(event: AuditEvent) -> Statement:
    tenant = "" if event.tenant is None else event.tenant.text
    return Statement("SELECT axis.audit_append(%s, %s)", (tenant, canonical_body(event)))


def _not_written(error: psycopg.Error) -> Unavailable:
    return Unavailable(
        what="the audit event could not be written",
        why=f"the database refused it (SQLSTATE {error.sqlstate or 'none'})",
        fix="check the database and that the audit part of schema axis is applied",
    )


def read_page(connection: psycopg.Connection[Any], *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
    """The acting tenant's newest entries below number *before*, newest first, at most 500; *connection* must be bound to a principal."""
    rows = connection.execute(
        "SELECT axis.tenant_text(), number, body, hash FROM axis.audit_page(%s, %s)", (2**63 - 1 if before is None else before, limit)
    ).fetchall()
    return [AuditEntry(tenant=tenant, number=number, body=body, hash=bytes(digest)) for tenant, number, body, digest in rows]


def verify_log(connection: psycopg.Connection[Any], *, kept: Sequence[Anchor] = ()) -> Iterator[CheckResult]:
    """Verify every tenant's chain, one result each; *connection* is the system role's, and reads one snapshot.

    Args:
        kept: anchors from outside the database.
    """
    known = set()
    for chain in read_log(connection):
        known.add(chain.tenant)
        if chain.head is None:
            yield headless(chain.tenant)
        else:
            yield verify_chain(chain.tenant, chain.entries, start=chain.start, anchors=kept, head=chain.head)
    for tenant in sorted({anchor.tenant for anchor in kept} - known):
        yield lost(tenant, "an anchor kept elsewhere names a chain that the log does not have")


def read_log(connection: psycopg.Connection[Any], *, tenant: str | None = None) -> Iterator[AuditChain]:
    """Every tenant's chain in turn, or *tenant*'s only, in one snapshot and constant memory; *connection* is the system role's, in no transaction."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        rows = connection.execute(
            "SELECT tenant, h.number, h.hash, h.pruned_number, h.pruned_hash FROM axis.audit_head h"
            " FULL JOIN (SELECT DISTINCT e.tenant FROM axis.audit_event e) e USING (tenant) WHERE %s::text IS NULL OR tenant = %s ORDER BY tenant",
            (tenant, tenant),
        ).fetchall()
        for name, number, digest, pruned_number, pruned_hash in rows:
            yield AuditChain(
                tenant=name,
                start=ChainState(number=pruned_number, hash=bytes(pruned_hash)) if pruned_number else chain_start(name),
                head=None if number is None else Anchor(tenant=name, number=number, hash=bytes(digest)),
                entries=_entries(connection, name),
            )


def anchors(connection: psycopg.Connection[Any]) -> list[Anchor]:
    """The heads of all chains now, to be kept outside the database; *connection* is the system role's."""
    rows = connection.execute("SELECT tenant, number, hash FROM axis.audit_head ORDER BY tenant").fetchall()
    return [Anchor(tenant=tenant, number=number, hash=bytes(digest)) for tenant, number, digest in rows]


def prune(connection: psycopg.Connection[Any], tenant: str, *, keep: timedelta, now: datetime) -> int:
    """Remove *tenant*'s entries older than *keep*; returns how many. *connection* is the system role's.

    What goes is a beginning of the chain, never a hole in it; the checkpoint it leaves lets the rest verify. That it went is itself an entry.

    Raises:
        ConfigError: *keep* is below a day: that is no retention but a removal of traces.
    """
    if keep < timedelta(days=1):
        raise ConfigError(
            what="the audit log cannot be pruned so short", why=f"keep={keep} is below a day", fix="keep what your retention promises"
        )
    with connection.transaction():
        row = connection.execute("SELECT axis.audit_prune(%s, %s)", (tenant, now - keep)).fetchone()
        removed = int(row[0]) if row else 0
        if removed:
            detail = {"removed": removed, "keep_seconds": int(keep.total_seconds())}
            who = TenantId(tenant) if tenant else None
            statement = _append(
                AuditEvent(kind=EventKind.AUDIT_PRUNED, at=now, outcome=Outcome.ALLOWED, tenant=who, role="system", detail=detail)
            )
            connection.execute(statement.sql, statement.params)
    return removed


def _entries(connection: psycopg.Connection[Any], tenant: str) -> Iterator[AuditEntry]:
    after = 0
    while True:
        rows = connection.execute(
            "SELECT number, body, hash FROM axis.audit_event WHERE tenant = %s AND number > %s ORDER BY number LIMIT %s",
            (tenant, after, _PAGE),
        ).fetchall()
        for number, body, digest in rows:
            after = number
            yield AuditEntry(tenant=tenant, number=number, body=body, hash=bytes(digest))
        if len(rows) < _PAGE:
            return

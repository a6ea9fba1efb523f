"""The vault over psycopg: one round trip per request, and errors of the driver that say nothing of what was asked."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final, Protocol

import psycopg
from psycopg.pq import TransactionStatus

from axis_security.auth.vault import vault_call
from axis_security.core.errors import Unavailable

__all__ = ["AsyncConnectionSource", "AsyncPostgresVault", "ConnectionSource", "PostgresVault"]


class ConnectionSource(Protocol):
    """Gives connections: ``psycopg_pool.ConnectionPool`` fits."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection for the length of a block."""
        ...


class AsyncConnectionSource(Protocol):
    """Gives async connections: ``psycopg_pool.AsyncConnectionPool`` fits."""

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """A connection for the length of a block."""
        ...


class PostgresVault:
    """Performs every request of factors, accounts, sessions and tokens in PostgreSQL.

    Each is one statement in a transaction of its own, sent without BEGIN and COMMIT around it; it happens wholly or not at all. A
    connection that died with a restarted server fails once, with :class:`Unavailable`, and the pool replaces it.

    Args:
        source: a pool that connects as the app role, without a bound principal; not the one given to ``tenancy.install``.
    """

    def __init__(self, source: ConnectionSource) -> None:
        self._source: Final = source

    def perform(self, request: object) -> Any:
        """Carry out *request* and return its answer.

        Raises:
            Unavailable: PostgreSQL did not answer, or answered with an error. Whether the request took effect is then unknown where the
                connection broke midway, and nobody was let in.
            ConfigError: not a request of the vault.
        """
        call = vault_call(request)
        try:
            with self._source.connection() as connection:
                alone = connection.info.transaction_status is TransactionStatus.IDLE and not connection.autocommit
                if alone:
                    connection.autocommit = True
                try:
                    rows = connection.execute(call.statement.sql, call.statement.params).fetchall()
                finally:
                    if alone and connection.info.transaction_status is TransactionStatus.IDLE:
                        connection.autocommit = False
        except psycopg.Error as error:
            raise _unavailable(error) from None
        return call.answer(rows)


class AsyncPostgresVault:
    """:class:`PostgresVault` for asyncio."""

    def __init__(self, source: AsyncConnectionSource) -> None:
        self._source: Final = source

    async def perform(self, request: object) -> Any:
        """See :meth:`PostgresVault.perform`."""
        call = vault_call(request)
        try:
            async with self._source.connection() as connection:
                alone = connection.info.transaction_status is TransactionStatus.IDLE and not connection.autocommit
                if alone:
                    await connection.set_autocommit(True)
                try:
                    rows = await (await connection.execute(call.statement.sql, call.statement.params)).fetchall()
                finally:
                    if alone and connection.info.transaction_status is TransactionStatus.IDLE:
                        await connection.set_autocommit(False)
        except psycopg.Error as error:
            raise _unavailable(error) from None
        return call.answer(rows)


def _unavailable(error: psycopg.Error) -> Unavailable:
    missing = error.sqlstate in {"42883", "42501", "3F000"}
    return Unavailable(
        what="the vault did not answer",
        why=f"the database could not be reached, or refused (SQLSTATE {error.sqlstate or 'none'})",
        fix="apply the vault part of schema axis, and connect as its app role"
        if missing
        else "check the database; the next request tries again",
    )

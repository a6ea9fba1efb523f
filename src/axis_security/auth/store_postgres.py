"""The vault over psycopg: one round trip per request, and errors of the driver that say nothing of what was asked."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final, Protocol

import psycopg
from psycopg.pq import TransactionStatus

from axis_security.auth.vault import VaultCall, vault_call
from axis_security.core.errors import Unavailable
from axis_security.core.flow import Rows, Statement

__all__ = ["AsyncConnectionSource", "AsyncPostgresVault", "ConnectionSource", "PostgresVault"]


_ABORTED: Final = frozenset({"40001", "40P01"})
"""PostgreSQL rolled the whole transaction back and asks to try again: a server whose default isolation is stricter, or a deadlock."""
_TRIES: Final = 50


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
        return self.carry_out(vault_call(request))

    def carry_out(self, call: VaultCall) -> Any:
        """One call that somebody else has worded, such as the gate's, which asks for a membership in the same round trip.

        Raises:
            Unavailable: as :meth:`perform`.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return call.answer(self._run(call.statement))
            except psycopg.Error as error:
                if tries == _TRIES or error.sqlstate not in _ABORTED:
                    raise _unavailable(error) from None

    def _run(self, statement: Statement) -> Rows:
        with self._source.connection() as connection:
            alone = connection.info.transaction_status is TransactionStatus.IDLE and not connection.autocommit
            if alone:
                connection.autocommit = True
            try:
                return connection.execute(statement.sql, statement.params).fetchall()
            finally:
                if alone and connection.info.transaction_status is TransactionStatus.IDLE:
                    connection.autocommit = False


class AsyncPostgresVault:
    """:class:`PostgresVault` for asyncio."""

    def __init__(self, source: AsyncConnectionSource) -> None:
        self._source: Final = source

    async def perform(self, request: object) -> Any:
        """See :meth:`PostgresVault.perform`."""
        return await self.carry_out(vault_call(request))

    async def carry_out(self, call: VaultCall) -> Any:
        """See :meth:`PostgresVault.carry_out`."""
        tries = 0
        while True:
            tries += 1
            try:
                return call.answer(await self._run(call.statement))
            except psycopg.Error as error:
                if tries == _TRIES or error.sqlstate not in _ABORTED:
                    raise _unavailable(error) from None

    async def _run(self, statement: Statement) -> Rows:
        async with self._source.connection() as connection:
            alone = connection.info.transaction_status is TransactionStatus.IDLE and not connection.autocommit
            if alone:
                await connection.set_autocommit(True)
            try:
                return await (await connection.execute(statement.sql, statement.params)).fetchall()
            finally:
                if alone and connection.info.transaction_status is TransactionStatus.IDLE:
                    await connection.set_autocommit(False)


def _unavailable(error: psycopg.Error) -> Unavailable:
    missing = error.sqlstate in {"42883", "42501", "3F000"}
    return Unavailable(
        what="the vault did not answer",
        why=f"the database could not be reached, or refused (SQLSTATE {error.sqlstate or 'none'})",
        fix="apply the vault part of schema axis, and connect as its app role"
        if missing
        else "check the database; the next request tries again",
    )

"""The binding where a transaction does not go its ordinary way: read on later, chained by hand, cancelled at any moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest

from axis_security.core.context import acting_as
from axis_security.core.errors import AxisError
from axis_security.core.principal import Principal
from axis_security.rls.bind import PrincipalChanged, TenantNotBound
from axis_security.rls.install import install
from axis_security.testing.cluster import Cluster
from axis_security.testing.notes import Notes, notes_database

CONTEXT = "SELECT split_part(current_setting('axis.context', true), ' ', 4)"


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> Iterator[Notes]:
    """One database for all."""
    with notes_database(cluster) as made:
        yield made


@pytest.fixture
def two(notes: Notes) -> tuple[Principal, Principal]:
    """Two people of two tenants, each with some notes."""
    people = tuple(Principal(tenant=notes.new_tenant(), role="member") for _ in range(2))
    with psycopg.connect(notes.server.dsn(notes.dbname)) as admin:
        for person in people:
            for number in range(4):
                admin.execute("INSERT INTO note VALUES (%s, %s, 'x')", [-person.tenant.value * 10 - number, person.tenant.value])  # type: ignore[operator]  # whole numbers
    return people[0], people[1]


@pytest.fixture
def connection(notes: Notes) -> Iterator[psycopg.Connection[Any]]:
    """A guarded one."""
    made = install(psycopg.connect(notes.dsn()), binder=notes.binder, posture=notes.posture)
    yield made
    made.close()


def test_a_server_side_cursor_is_read_on_by_its_own_principal_only(
    connection: psycopg.Connection[Any], two: tuple[Principal, Principal]
) -> None:
    """Each FETCH and MOVE is a statement like any other, though psycopg sends it by another way."""
    one, other = two
    with acting_as(one):
        cursor = connection.cursor("slowly", scrollable=True)
        cursor.itersize = 1
        cursor.execute("SELECT tenant_id FROM note ORDER BY id")
        assert cursor.fetchone() == (one.tenant.value,)
        with acting_as(other):
            for read in (cursor.fetchone, lambda: cursor.fetchmany(2), cursor.fetchall, lambda: cursor.scroll(-1), lambda: list(cursor)):
                with pytest.raises(PrincipalChanged):
                    read()
        assert len(cursor.fetchall()) == 3
    with pytest.raises(TenantNotBound):
        cursor.scroll(0, mode="absolute")
    cursor.close()  # ending is always allowed
    connection.rollback()


@pytest.mark.parametrize("ending", ["COMMIT; BEGIN", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "ROLLBACK; START TRANSACTION"])
def test_a_transaction_that_sql_began_is_bound_to_nobody(
    connection: psycopg.Connection[Any], two: tuple[Principal, Principal], ending: str
) -> None:
    """The guard sees no BEGIN, so the context is gone: the same principal is refused by the database, another one before that."""
    with acting_as(two[0]):
        connection.execute("SELECT FROM note")
        connection.execute(ending.encode())
        with pytest.raises(psycopg.Error, match="no tenant is bound"):
            connection.execute("SELECT FROM note")
        with acting_as(two[1]), pytest.raises(PrincipalChanged):
            connection.execute("SELECT FROM note")
    connection.rollback()
    with acting_as(two[1]):
        assert connection.execute(CONTEXT).fetchone() == (two[1].tenant.text,)


def test_a_seal_kept_in_the_session_serves_nobody_else(connection: psycopg.Connection[Any], two: tuple[Principal, Principal]) -> None:
    """SQL may keep its own seal for the session; the next transaction is its own principal's all the same."""
    with acting_as(two[0]):
        connection.execute("SELECT set_config('axis.context', current_setting('axis.context'), false)")
        connection.commit()
    with acting_as(two[1]):
        assert connection.execute("SELECT DISTINCT tenant_id FROM note").fetchall() == [(two[1].tenant.value,)]
        connection.execute("SAVEPOINT a")
        connection.execute("SELECT set_config('axis.context', '', true)")
        connection.execute("ROLLBACK TO SAVEPOINT a")
        assert connection.execute("SELECT DISTINCT tenant_id FROM note").fetchall() == [(two[1].tenant.value,)]
        connection.rollback()


def test_whoever_is_cancelled_leaves_nothing_bound(notes: Notes, two: tuple[Principal, Principal]) -> None:
    """A task cancelled before, within or after BEGIN: the connection is closed, or the next principal begins a transaction of its own."""

    # Before 3.3 psycopg may ask the server too early, and then waits for the statement's end.
    cancelled = pytest.raises if hasattr(psycopg.Transaction, "_check_enter") else contextlib.suppress

    async def leave(work: Any, seconds: float, ends: Any = pytest.raises) -> None:
        with acting_as(two[0]):
            task = asyncio.ensure_future(work)
            await asyncio.sleep(seconds)
            task.cancel()
            with ends(asyncio.CancelledError):
                await task

    async def with_psycopg(seconds: float) -> None:
        connection = await psycopg.AsyncConnection.connect(notes.dsn())
        install(connection, binder=notes.binder, posture=notes.posture)
        await leave(connection.execute("SELECT pg_sleep(2)"), seconds, cancelled)
        if not connection.closed:
            await connection.rollback()
            with acting_as(two[1]):
                assert await (await connection.execute(CONTEXT)).fetchone() == (two[1].tenant.text,)
        await connection.close()

    async def with_asyncpg(seconds: float) -> None:
        connection: Any = await asyncpg.connect(notes.dsn_for_asyncpg())
        install(connection, binder=notes.binder, posture=notes.posture)

        async def work() -> None:
            async with connection.transaction():
                await connection.execute("SELECT pg_sleep(2)")

        await leave(work(), seconds)
        if not connection.is_closed():
            with acting_as(two[1]):
                async with connection.transaction():
                    assert await connection.fetchval(CONTEXT) == two[1].tenant.text
        await connection.close()

    async def run() -> None:
        for seconds in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.01, 0.2):
            await with_psycopg(seconds)
            await with_asyncpg(seconds)

    asyncio.run(run())


def test_listening_needs_a_connection_of_its_own(
    connection: psycopg.Connection[Any], notes: Notes, two: tuple[Principal, Principal]
) -> None:
    """LISTEN belongs to the session, not to a transaction: outside one it is refused, so no pooled connection listens for its next user."""
    with pytest.raises(AxisError), acting_as(two[0]):
        connection.autocommit = True
        connection.execute("LISTEN news")

    async def run() -> None:
        made: Any = await asyncpg.connect(notes.dsn_for_asyncpg())
        install(made, binder=notes.binder, posture=notes.posture)
        with pytest.raises(TenantNotBound):
            await made.add_listener("news", print)
        await made.close()

    asyncio.run(run())

"""What SQL that was injected for one principal leaves in a pooled session must not reach the next one: temporary objects and prepared statements."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
import sqlalchemy as sa
from psycopg_pool import ConnectionPool

from axis_security.core.context import acting_as
from axis_security.core.principal import Principal
from axis_security.rls import bind
from axis_security.rls.bind import SessionNotClean
from axis_security.rls.install import install
from axis_security.testing.cluster import Cluster
from axis_security.testing.notes import Notes, notes_database

from .declared import example

CONTEXT = "SELECT split_part(current_setting('axis.context', true), ' ', 4)"
QUERY = "SELECT id, body FROM note WHERE id = %s"
LOOT = "SELECT id, set_config(''x.loot'', (SELECT string_agg(body, '','') FROM note), false) FROM note WHERE $1 IS NOT NULL"


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> Iterator[Notes]:
    """One database for all."""
    with notes_database(cluster) as made:
        yield made


@pytest.fixture
def two(notes: Notes) -> tuple[Principal, Principal]:
    """The attacker's tenant, and another one with a note."""
    attacker, victim = (Principal(tenant=notes.new_tenant(), role="member") for _ in range(2))
    with psycopg.connect(notes.server.dsn(notes.dbname)) as admin:
        admin.execute("INSERT INTO note VALUES (%s, %s, 'of the victim')", [victim.tenant.value, victim.tenant.value])
    return attacker, victim


def _swapped(notes: Notes, two: tuple[Principal, Principal]) -> Any:
    """What the attacker learns by putting a statement of its own in the place of one that the driver prepared for everybody."""
    attacker, victim = two
    with ConnectionPool(notes.dsn(), min_size=1, max_size=1) as pool:
        install(pool, binder=notes.binder, posture=notes.posture)
        with acting_as(victim), pool.connection() as connection:
            for _ in range(8):
                connection.execute(QUERY, [5])
        with acting_as(attacker), pool.connection() as connection:
            ((name, kind),) = connection.execute("SELECT name, parameter_types[1]::text FROM pg_prepared_statements").fetchall()
            connection.execute(f"DO $$BEGIN EXECUTE 'DEALLOCATE {name}'; EXECUTE 'PREPARE {name} ({kind}) AS {LOOT}'; END$$")
        with acting_as(victim), pool.connection() as connection:
            connection.execute(QUERY, [5])
        with acting_as(attacker), pool.connection() as connection:
            return connection.execute("SELECT current_setting('x.loot', true)").fetchone()


def test_a_statement_put_in_another_s_place_is_not_run(notes: Notes, two: tuple[Principal, Principal]) -> None:
    """The next principal's transaction does not begin, the connection is closed, and the pool gives another one."""
    with pytest.raises(SessionNotClean):
        _swapped(notes, two)
    attacker, victim = two
    with ConnectionPool(notes.dsn(), min_size=1, max_size=1) as pool:
        install(pool, binder=notes.binder, posture=notes.posture)
        with acting_as(attacker), pool.connection() as connection:
            connection.execute("PREPARE planted AS SELECT 1")
        with acting_as(victim):
            with pytest.raises(SessionNotClean), pool.connection() as connection:
                connection.execute(CONTEXT)
            assert connection.closed
            with pool.connection() as connection:
                assert connection.execute(CONTEXT).fetchone() == (victim.tenant.text,)


def test_without_that_look_the_attacker_reads_the_victim_s_rows(
    notes: Notes, two: tuple[Principal, Principal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a binding that does not look at what was prepared."""
    monkeypatch.setattr(bind, "SET_CONTEXT", "SELECT pg_catalog.set_config('axis.context',$1,true)")
    assert _swapped(notes, two) == ("of the victim",)


def test_what_was_prepared_by_sql_and_let_go_is_fine(notes: Notes, two: tuple[Principal, Principal]) -> None:
    """Only what outlives the transaction is refused; what the driver prepares is not."""
    person, other = two
    connection = install(psycopg.connect(notes.dsn()), binder=notes.binder, posture=notes.posture)
    with acting_as(person), connection.transaction():
        connection.execute("PREPARE mine AS SELECT 1")
        assert connection.execute("EXECUTE mine").fetchone() == (1,)
        connection.execute("DEALLOCATE mine")
    for acting in (other, person):
        with acting_as(acting), connection.transaction():
            assert connection.execute(CONTEXT, prepare=True).fetchone() == (acting.tenant.text,)
    connection.close()


def test_in_a_pipeline_the_transaction_stays_unbound(notes: Notes, two: tuple[Principal, Principal]) -> None:
    """Where nobody waits for the binding's answer, the database refuses whatever asks for a tenant."""
    connection = install(psycopg.connect(notes.dsn()), binder=notes.binder, posture=notes.posture)
    with acting_as(two[0]), connection.transaction():
        connection.execute("PREPARE planted AS SELECT 1")
    with acting_as(two[1]), pytest.raises(psycopg.Error, match="no tenant is bound"), connection.pipeline():
        connection.execute("SELECT * FROM note")
    connection.close()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_engine_replaces_the_connection(notes: Notes, two: tuple[Principal, Principal], driver: str) -> None:
    """SQLAlchemy's pool takes the closed connection for what it is."""
    from sqlalchemy.ext.asyncio import create_async_engine

    async def run() -> None:
        engine = create_async_engine(notes.url("psycopg" if driver == "psycopg" else "asyncpg"), pool_size=1, max_overflow=0)
        install(engine, binder=notes.binder, posture=notes.posture)
        with acting_as(two[0]):
            async with engine.begin() as connection:
                await connection.execute(sa.text("PREPARE planted AS SELECT 1"))
        with acting_as(two[1]):
            with pytest.raises(SessionNotClean):
                async with engine.begin() as connection:
                    await connection.execute(sa.text(CONTEXT))
            async with engine.begin() as connection:
                assert await connection.scalar(sa.text(CONTEXT)) == two[1].tenant.text
        await engine.dispose()

    asyncio.run(run())


def test_an_asyncpg_pool_replaces_the_connection(notes: Notes, two: tuple[Principal, Principal]) -> None:
    """The same through asyncpg alone."""

    async def run() -> None:
        async with asyncpg.create_pool(notes.dsn_for_asyncpg(), min_size=1, max_size=1) as pool:
            install(pool, binder=notes.binder, posture=notes.posture)
            with acting_as(two[0]):
                async with pool.acquire() as connection, connection.transaction():
                    await connection.execute("PREPARE planted AS SELECT 1")
            with acting_as(two[1]):
                with pytest.raises(SessionNotClean):
                    async with pool.acquire() as connection, connection.transaction():
                        pytest.fail("the transaction began")
                async with pool.acquire() as connection, connection.transaction():
                    assert await connection.fetchval(CONTEXT) == two[1].tenant.text

    asyncio.run(run())


@pytest.mark.parametrize("guarded", [True, False], ids=["planned", "control"])
def test_a_temporary_table_does_not_take_a_real_one_s_place(cluster: Cluster, *, guarded: bool) -> None:
    """The application's role makes no temporary objects: one that stands before a real table would collect the next tenant's rows for the attacker."""
    with example(cluster) as made:
        made.plan().apply(made.engine)
        if not guarded:
            made.execute(f'GRANT TEMPORARY ON DATABASE "{made.database}" TO {made.roles.app}')
        engine = sa.create_engine(cluster.url(made.database, user=made.roles.app), pool_size=1, max_overflow=0)
        made.tenancy.install(engine)
        attacker, victim = (Principal(tenant=number, role="member") for number in (1, 2))
        refused = False
        with acting_as(attacker), engine.connect() as connection:
            try:
                connection.exec_driver_sql("CREATE TEMPORARY TABLE contact (LIKE public.contact)")
                connection.commit()
            except sa.exc.ProgrammingError:
                refused = True
        with acting_as(victim), engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO contact (id, tenant_id, name) VALUES (1, 2, 'of the victim')")
        with acting_as(attacker), engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT name FROM contact").scalars().all()
        engine.dispose()
        assert (refused, found) == ((True, []) if guarded else (False, ["of the victim"]))
        # Whoever plans, migrates or works across tenants still may.
        for role in (made.roles.owner, made.roles.system):
            with psycopg.connect(cluster.dsn(made.database, user=role)) as connection:
                connection.execute("CREATE TEMPORARY TABLE scratch (id int)")

"""The runtime failure modes of tenant binding, each on a pool of one connection. Where the fault is one of binding, a control shows it here;
where it is one of the statement (savepoints, autocommit, threads), the attack gallery holds the control.

The control is an engine that binds the way faulty code does: a setting of the session, made when somebody is acting, that stays.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import Engine, create_engine, event, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from axis_security.core.context import acting_as, maybe_principal
from axis_security.core.errors import ConfigError
from axis_security.core.principal import Principal
from axis_security.rls.bind import AutocommitRefused, PrincipalChanged, TenantNotBound, WrongTenantKey
from axis_security.rls.install import install
from axis_security.rls.sealed import Sealer
from axis_security.testing.cluster import Cluster
from axis_security.testing.notes import NOTE, Notes, notes_database

CONTEXT = "SELECT split_part(current_setting('axis.context', true), ' ', 4)"


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> Iterator[Notes]:
    """One database for all."""
    with notes_database(cluster) as made:
        yield made


@pytest.fixture
def engine(notes: Notes) -> Iterator[Engine]:
    """Ours."""
    made = install(create_engine(notes.url(), pool_size=1, max_overflow=0, pool_timeout=2), binder=notes.binder, posture=notes.posture)
    yield made
    made.dispose()


@pytest.fixture
def faulty(notes: Notes) -> Iterator[Engine]:
    """The control."""
    made = create_engine(notes.url(), pool_size=1, max_overflow=0, pool_timeout=2)
    sealer = Sealer(notes.keyring)

    @event.listens_for(made, "begin")
    def bind(connection: Any) -> None:
        principal = maybe_principal()
        if principal is not None and not connection.connection.info.get("bound"):
            connection.connection.info["bound"] = True
            connection.exec_driver_sql("SELECT set_config('axis.context', %s, false)", (sealer(principal),))
            connection.connection.dbapi_connection.commit()

    yield made
    made.dispose()


@pytest.fixture
def two(notes: Notes) -> tuple[Principal, Principal]:
    """Two people of two tenants, each with one note already there."""
    people = tuple(Principal(tenant=notes.new_tenant(), role="member") for _ in range(2))
    with psycopg.connect(notes.server.dsn(notes.dbname)) as admin:
        for person in people:
            admin.execute("INSERT INTO note VALUES (%s, %s, 'x')", [person.tenant.value, person.tenant.value])
    return people[0], people[1]


def seen(connection: Any) -> list[int]:
    """The keys that a connection or session is shown."""
    return [row[0] for row in connection.execute(select(NOTE.c.id))]


def mine(person: Principal) -> list[Any]:
    """What *person* should be shown."""
    return [person.tenant.value]


def use(engine: Engine, person: Principal) -> None:
    """Leave a pooled connection behind that *person* used."""
    with acting_as(person), engine.begin() as connection:
        assert seen(connection) == mine(person)


def test_1_flush_first_write(engine: Engine, faulty: Engine, two: tuple[Principal, Principal], notes: Notes) -> None:
    """A session whose first statement is a flush writes as its own principal, never as the one before."""
    one, other = two
    for each, leaks in ((engine, False), (faulty, True)):
        use(each, one)
        row = {"id": notes.new_tenant(), "tenant_id": one.tenant.value, "body": "planted"}
        with acting_as(other), Session(each) as session:
            if leaks:
                session.execute(insert(NOTE), row)
            else:
                with pytest.raises(DBAPIError, match="row-level security"):
                    session.execute(insert(NOTE), row)
            session.rollback()


def test_2_plain_pooled_connection(engine: Engine, faulty: Engine, two: tuple[Principal, Principal]) -> None:
    """A plain connection, also one taken out below SQLAlchemy, is bound to whoever acts now."""
    one, other = two
    for each, leaks in ((engine, False), (faulty, True)):
        use(each, one)
        with acting_as(other), each.connect() as connection:
            assert seen(connection) == mine(one if leaks else other)
    with acting_as(other):
        raw = engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute("SELECT id FROM note")
        assert [row[0] for row in cursor.fetchall()] == mine(other)
        raw.close()
    with pytest.raises(TenantNotBound):
        engine.raw_connection().cursor().execute("SELECT id FROM note")


def test_3_and_4_rollback_and_commit_bind_again(engine: Engine, two: tuple[Principal, Principal]) -> None:
    """After rollback and after commit the next transaction is bound again, lazy reload included."""
    one, _ = two
    with acting_as(one), Session(engine) as session:
        for end in (session.rollback, session.commit, session.close):
            assert seen(session) == mine(one)
            end()
        assert seen(session) == mine(one)
    plain = create_engine(str(engine.url), pool_size=1)
    with plain.connect() as connection, pytest.raises(DBAPIError, match="no tenant is bound"):
        seen(connection)
    plain.dispose()


def test_5_the_tenant_is_a_value(engine: Engine, two: tuple[Principal, Principal]) -> None:
    """The id travels as it is, as a parameter; an id of another type than the column's is refused before anything is sent."""
    with acting_as(two[0]), engine.connect() as connection:
        assert connection.scalar(text(CONTEXT)) == two[0].tenant.text
    with acting_as(Principal(tenant="1", role="member")), pytest.raises(WrongTenantKey), engine.connect() as connection:
        connection.execute(text(CONTEXT))


@pytest.mark.parametrize("keep", [True, False])
def test_6_savepoints_keep_the_outer_context(engine: Engine, two: tuple[Principal, Principal], keep: bool) -> None:
    """Acting as somebody else inside a savepoint is refused, and both of its endings leave the outer context."""
    one, other = two
    with acting_as(one), engine.connect() as connection:
        assert seen(connection) == mine(one)
        savepoint = connection.begin_nested()
        with acting_as(other), pytest.raises(PrincipalChanged):
            seen(connection)
        savepoint.commit() if keep else savepoint.rollback()
        assert seen(connection) == mine(one)


def test_7_autocommit_is_refused(engine: Engine, notes: Notes, two: tuple[Principal, Principal]) -> None:
    """Engine-wide, per connection and in psycopg itself; an explicit transaction in psycopg's autocommit mode is bound."""
    with acting_as(two[0]):
        with pytest.raises(AutocommitRefused), engine.connect() as connection:
            seen(connection.execution_options(isolation_level="AUTOCOMMIT"))
        wide = install(create_engine(notes.url(), isolation_level="AUTOCOMMIT"), binder=notes.binder, posture=None)
        with pytest.raises(AutocommitRefused), wide.connect() as connection:
            seen(connection)
        wide.dispose()
        with psycopg.connect(notes.dsn(), autocommit=True) as direct:
            assert direct.execute(CONTEXT).fetchone() == (None,)  # the control: unguarded, it just runs
            install(direct, binder=notes.binder, posture=None)
            with pytest.raises(AutocommitRefused):
                direct.execute(CONTEXT)
            with direct.transaction():
                assert direct.execute(CONTEXT).fetchone() == (two[0].tenant.text,)


def test_8_a_forged_context_is_refused(engine: Engine, two: tuple[Principal, Principal]) -> None:
    """SQL of the app role that writes its own context, or changes the tenant in the real one, is refused by the database."""
    one, other = two
    for forged in (
        other.tenant.text,
        f"replace(current_setting('axis.context'), ' {one.tenant} ', ' {other.tenant} ')",
    ):
        value = forged if "(" in forged else f"'{forged}'"
        with acting_as(one), engine.connect() as connection:
            connection.execute(text(f"SELECT set_config('axis.context', {value}, true)"))
            with pytest.raises(DBAPIError, match="not genuine"):
                seen(connection)


def test_9_threads_and_tasks(engine: Engine, two: tuple[Principal, Principal]) -> None:
    """A thread is nobody unless the context is copied; tasks that interleave keep their own principals."""
    got: list[object] = []

    def work() -> None:
        try:
            with engine.connect() as connection:
                got.append(seen(connection))
        except TenantNotBound as error:
            got.append(type(error))

    with acting_as(two[0]):
        for target in (work, lambda run=contextvars.copy_context().run: run(work)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert got == [TenantNotBound, mine(two[0])]


def test_10_a_stale_handle(engine: Engine, notes: Notes, two: tuple[Principal, Principal]) -> None:
    """After its backend is gone, the old handle fails, and a driver connection kept beyond its return cannot join another's transaction."""
    one, other = two
    with acting_as(one), engine.connect() as connection:
        kept = connection.connection.driver_connection
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        with psycopg.connect(notes.server.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(DBAPIError):
            seen(connection)
    with acting_as(other), engine.connect() as connection:
        assert seen(connection) == mine(other)
        alive: Any = connection.connection.driver_connection
        assert alive is not kept
        with acting_as(one), pytest.raises(PrincipalChanged):
            alive.execute("SELECT id FROM note")


def test_11_unbound_is_loud_always(engine: Engine, notes: Notes, two: tuple[Principal, Principal]) -> None:
    """Whether the row exists or not, unbound code is refused in the client; the server alone answers a missing id with no rows."""
    with pytest.raises(TenantNotBound), engine.connect() as connection:
        connection.execute(text("SELECT FROM note WHERE id = -1"))
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        assert driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with psycopg.connect(notes.dsn()) as bare:
        assert bare.execute("SELECT FROM note WHERE id = -1").fetchall() == []


def test_every_way_into_psycopg(notes: Notes, two: tuple[Principal, Principal]) -> None:
    """Cursor, server-side cursor, COPY, stream, executemany, pipeline and transaction blocks: bound, and refused when unbound or changed."""
    one, other = two
    connection = install(psycopg.connect(notes.dsn()), binder=notes.binder, posture=notes.posture)

    def server_side() -> Any:
        with connection.cursor("named") as cursor:
            return cursor.execute(CONTEXT).fetchone()

    def copy() -> Any:
        with connection.cursor() as cursor, cursor.copy(f"COPY ({CONTEXT}) TO STDOUT") as out:
            return next(iter(list(out.rows())))

    def pipeline() -> Any:
        with connection.pipeline():
            return connection.execute(CONTEXT).fetchone()

    def block() -> Any:
        with connection.transaction(), connection.transaction():
            return connection.execute(CONTEXT).fetchone()

    def many() -> Any:
        cursor = connection.cursor()
        cursor.executemany("SELECT split_part(current_setting('axis.context', true), ' ', %s)", [(4,)], returning=True)
        return cursor.fetchone()

    def stream() -> Any:
        (row,) = connection.cursor().stream(CONTEXT)
        return row

    def plain() -> Any:
        return connection.execute(CONTEXT).fetchone()

    ways: list[Callable[[], Any]] = [
        plain,
        server_side,
        copy,
        pipeline,
        block,
        many,
        stream,
    ]
    for way in ways:
        with pytest.raises(TenantNotBound):
            way()
        connection.rollback()
        with acting_as(one):
            assert way() == (one.tenant.text,)
            connection.execute("SELECT 1")
            with acting_as(other), pytest.raises(PrincipalChanged):
                way()
            connection.rollback()
    connection.close()


def test_pools_and_classes(notes: Notes, two: tuple[Principal, Principal]) -> None:
    """psycopg_pool pools (with their checks) and connection classes hand out bound connections only."""
    with ConnectionPool(notes.dsn(), min_size=1, max_size=1, check=ConnectionPool.check_connection) as pool:
        install(pool, binder=notes.binder, posture=notes.posture)
        for person in two:
            with acting_as(person), pool.connection() as connection:
                assert connection.execute(CONTEXT).fetchone() == (person.tenant.text,)
        with pytest.raises(TenantNotBound), pool.connection() as connection:
            connection.execute(CONTEXT)
    guarded = install(psycopg.Connection, binder=notes.binder, posture=notes.posture)
    with guarded.connect(notes.dsn()) as connection, pytest.raises(TenantNotBound):
        connection.execute(CONTEXT)

    async def run() -> None:
        async with AsyncConnectionPool(
            notes.dsn(), min_size=1, max_size=1, open=False, check=AsyncConnectionPool.check_connection
        ) as apool:
            install(apool, binder=notes.binder, posture=notes.posture)
            for person in two:
                with acting_as(person):
                    async with apool.connection() as aconnection:
                        assert await (await aconnection.execute(CONTEXT)).fetchone() == (person.tenant.text,)

    asyncio.run(run())


def test_isolation_level_and_two_phase(engine: Engine, two: tuple[Principal, Principal]) -> None:
    """What the host asks of BEGIN is honoured in the BEGIN that we send."""
    with acting_as(two[0]), engine.connect() as connection:
        strict = connection.execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True)
        row = strict.execute(text(f"{CONTEXT}, current_setting('transaction_isolation'), current_setting('transaction_read_only')")).one()
        assert tuple(row) == (two[0].tenant.text, "serializable", "on")


def test_a_two_phase_transaction_that_is_refused_is_not_under_way(notes: Notes, two: tuple[Principal, Principal]) -> None:
    """The next one to get the connection from the pool can commit: psycopg notes `tpc_begin()` before it sends anything, and the guard takes it back."""
    with ConnectionPool(notes.dsn(), min_size=1, max_size=1) as pool:
        install(pool, binder=notes.binder, posture=notes.posture)
        with pool.connection() as connection, pytest.raises(TenantNotBound):
            connection.tpc_begin("refused")
        with acting_as(two[0]), pool.connection() as connection:
            assert connection.execute(CONTEXT).fetchone() == (two[0].tenant.text,)
            connection.commit()
        # The control: one that did begin is under way until its own end.
        with acting_as(two[0]), pool.connection() as connection:
            connection.tpc_begin("begun")
            assert connection.execute(CONTEXT).fetchone() == (two[0].tenant.text,)
            with pytest.raises(psycopg.ProgrammingError):
                connection.commit()
            connection.tpc_rollback()


def test_unknown_things_are_refused(notes: Notes) -> None:
    """A URL, a session, or an engine in use is refused with a reason."""
    with pytest.raises(ConfigError):
        install(notes.url(), binder=notes.binder, posture=None)
    engine = create_engine(notes.url())
    with engine.connect(), pytest.raises(ConfigError):
        install(engine, binder=notes.binder, posture=None)
    engine.dispose()

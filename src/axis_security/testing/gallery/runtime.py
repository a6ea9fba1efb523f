"""Attacks on the binding: whose transaction is this, whatever the pool, the session, the thread or the task did before?"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from sqlalchemy import exc, select, text
from sqlalchemy.engine import Engine

from axis_security.core.errors import AxisError
from axis_security.core.principal import Principal
from axis_security.testing.gallery import careless
from axis_security.testing.gallery.attack import Attack, Layer, Verdict, held, leaked, refused_by
from axis_security.testing.gallery.world import ALICE, MALLORY, Contact, World

__all__ = ["RUNTIME_ATTACKS"]

_REFUSALS = (AxisError, exc.DBAPIError)


def _work_as(world: World, engine: Engine, principal: Principal) -> None:
    """One honest unit of work, which leaves its connection in the pool."""
    with world.acting(principal), world.new_session(engine) as session:
        session.scalars(select(Contact)).all()
        session.commit()


def _loot(tenants: list[str]) -> Verdict:
    foreign = sorted({tenant for tenant in tenants if tenant != MALLORY.tenant.text})
    return leaked(f"read rows of {', '.join(foreign)}") if foreign else held(Layer.BINDING, f"saw {len(tenants)} rows, all its own")


def _pooled_leftovers(world: World) -> Verdict:
    engine = world.engine()
    _work_as(world, engine, ALICE)
    raw = engine.raw_connection()
    try:
        with contextlib.closing(raw.cursor()) as cursor:
            cursor.execute("SELECT tenant_id FROM contact")
            return _loot([row[0] for row in cursor.fetchall()])
    except Exception as error:  # noqa: BLE001  # judged by refused_by, which raises what is no refusal
        return refused_by(error)
    finally:
        raw.close()


def _flush_first_write(world: World) -> Verdict:
    engine = world.engine()
    _work_as(world, engine, ALICE)
    try:
        with world.acting(MALLORY), world.new_session(engine) as session:
            session.add(Contact(tenant_id="acme", email="planted@acme.example", name="Planted"))
            session.commit()
    except _REFUSALS as error:
        return refused_by(error)
    return leaked("planted a row in acme without asking anything first")


def _rollback(world: World) -> Verdict:
    engine = world.engine()
    _work_as(world, engine, ALICE)
    with world.acting(MALLORY), world.new_session(engine) as session:
        session.execute(text("SELECT 1"))
        session.rollback()
        try:
            return _loot(list(session.scalars(select(Contact.tenant_id))))
        except _REFUSALS as error:
            return refused_by(error)


def _commit(world: World) -> Verdict:
    engine = world.engine(pool_size=2, pool_use_lifo=True)
    with contextlib.ExitStack() as both:
        for _ in range(2):  # both connections of the pool have served acme
            both.enter_context(world.acting(ALICE))
            session = both.enter_context(world.new_session(engine))
            session.scalars(select(Contact)).all()
            session.commit()
            session.connection()
    with world.acting(MALLORY), world.new_session(engine) as session:
        session.execute(text("SELECT 1"))
        session.commit()
        held_back = engine.raw_connection()  # takes the connection that the session just gave back
        try:
            return _loot(list(session.scalars(select(Contact.tenant_id))))
        except _REFUSALS as error:
            return refused_by(error)
        finally:
            held_back.close()


def _savepoint(world: World) -> Verdict:
    engine = world.engine()
    try:
        with world.acting(MALLORY), engine.connect() as connection, connection.begin():
            connection.execute(text("SELECT 1"))
            with world.acting(ALICE), connection.begin_nested():
                connection.execute(text("SELECT 'in the savepoint'"))
            return _loot(list(connection.scalars(select(Contact.tenant_id))))
    except _REFUSALS as error:
        return refused_by(error)


def _autocommit(world: World) -> Verdict:
    engine = world.engine(isolation_level="AUTOCOMMIT")
    tenants: list[str] = []
    for principal in (ALICE, None):
        with contextlib.ExitStack() as scope:
            if principal is not None:
                scope.enter_context(world.acting(principal))
            try:
                with engine.connect() as connection:
                    tenants = list(connection.scalars(text("SELECT tenant_id FROM contact")))
            except _REFUSALS as error:
                return refused_by(error)
    return _loot(tenants)


def _thread(world: World) -> Verdict:
    engine = world.engine()
    verdicts: list[Verdict] = []
    broken: list[Exception] = []

    def work() -> None:
        try:
            with engine.connect() as connection:
                verdicts.append(_loot(list(connection.scalars(text("SELECT tenant_id FROM contact")))))
        except Exception as error:  # noqa: BLE001  # judged by refused_by below
            try:
                verdicts.append(refused_by(error))
            except Exception as other:  # noqa: BLE001  # handed to the caller's thread
                broken.append(other)

    with world.acting(ALICE):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    if broken:
        raise broken[0]
    return verdicts[0]


def _tasks(world: World) -> Verdict:
    engine = world.engine(pool_size=2)
    seen: dict[str, set[str]] = {}

    async def request(principal: Principal, turns: int) -> None:
        with world.acting(principal):
            for _ in range(turns):
                await asyncio.sleep(0)
            with engine.connect() as connection:
                seen[principal.tenant.text] = set(connection.scalars(text("SELECT tenant_id FROM contact")))

    async def both() -> None:
        await asyncio.gather(request(MALLORY, 3), request(ALICE, 1))

    try:
        asyncio.run(both())
    except _REFUSALS as error:
        return refused_by(error)
    return _loot(sorted(seen["globex"]))


def _prepared(world: World) -> Verdict:
    engine = world.engine()
    tenants: list[str] = []
    for principal in (ALICE, MALLORY):
        with world.acting(principal), engine.connect() as connection:
            if principal is ALICE:
                connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
            cursor: Any = connection.connection.cursor()
            try:
                tenants = [row[0] for row in cursor.execute("SELECT tenant_id FROM contact", prepare=True)]
            except _REFUSALS as error:
                return refused_by(error)
            connection.commit()
    return _loot(tenants)


def _frozen_getter(world: World) -> None:
    # Declared immutable, which lets the planner put the first tenant's id into a plan that all tenants share.
    world.admin(
        "CREATE FUNCTION public.frozen() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT split_part(current_setting('axis.context'), ' ', 4) $$",
        "GRANT EXECUTE ON FUNCTION public.frozen() TO {app}",
    )
    policies(world, "contact", using="tenant_id = public.frozen()")


def _terminated(world: World) -> Verdict:
    engine = world.engine(pool_size=2)
    with contextlib.ExitStack() as both:
        for _ in range(2):
            both.enter_context(world.acting(ALICE))
            both.enter_context(engine.connect()).execute(text("SELECT 1"))
    with world.acting(MALLORY), engine.connect() as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
        world.admin_rows(f"SELECT pg_terminate_backend({backend}, 5000)")
        try:
            return _loot(list(connection.scalars(text("SELECT tenant_id FROM contact"))))
        except exc.DBAPIError as error:
            verdict = refused_by(error)
        # What a client that reconnects on its own does: the next connection, and the same statement again.
        raw = engine.raw_connection()
        try:
            with contextlib.closing(raw.cursor()) as cursor:
                cursor.execute("SELECT tenant_id FROM contact")
                again = _loot([row[0] for row in cursor.fetchall()])
        finally:
            raw.close()
        return again if again.leaked else verdict


def policies(world: World, table: str, *, using: str, check: str | None = None, to: str = "{app}") -> None:
    """Replace all policies of *table* with one permissive policy, as somebody in a hurry writes it."""
    drop = [
        f"DROP POLICY {name} ON {table}"
        for (name,) in world.admin_rows(f"SELECT quote_ident(polname) FROM pg_policy WHERE polrelid = '{table}'::regclass")
    ]
    world.admin(*drop, f"CREATE POLICY hurried ON {table} FOR ALL TO {to} USING ({using}) WITH CHECK ({check or using})")


RUNTIME_ATTACKS = (
    Attack(
        "pooled leftovers",
        "read through a pooled connection right after another tenant's request, bound to nobody",
        _pooled_leftovers,
        careless.bind_for_the_session,
    ),
    Attack(
        "flush-first write",
        "write a row of the previous tenant as the first statement of a session",
        _flush_first_write,
        careless.bind_once_per_connection,
    ),
    Attack("rollback rebinding", "read on after a rollback took the binding away", _rollback, careless.bind_first_transaction_of_a_session),
    Attack(
        "commit rebinding",
        "read on after commit, when the session gets another tenant's connection",
        _commit,
        careless.bind_first_transaction_of_a_session,
    ),
    Attack("savepoint switch", "act as somebody else inside a savepoint and keep it after RELEASE", _savepoint, careless.bind_at_savepoint),
    Attack(
        "autocommit",
        "use AUTOCOMMIT, where a transaction-local context is gone before the read",
        _autocommit,
        careless.bind_for_the_session,
    ),
    Attack("lost in a thread", "query from a thread that did not get the principal", _thread, careless.thread_local_principal),
    Attack("swapped tasks", "two tasks of one event loop, each acting for its own tenant", _tasks, careless.thread_local_principal),
    Attack("prepared statement", "run a statement that another tenant prepared on the same connection", _prepared, _frozen_getter),
    Attack(
        "terminated backend",
        "kill the backend mid-transaction and go on with whatever connection comes next",
        _terminated,
        careless.bind_once_per_connection,
    ),
)
"""What pools, threads, tasks and savepoints could carry from one principal to the next."""

"""The isolation state machine over every driver, and the proof that it can fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from axis_security.core.context import acting_as, maybe_principal
from axis_security.core.principal import Principal
from axis_security.rls import bind
from axis_security.rls.install import install
from axis_security.rls.sealed import Sealer
from axis_security.testing.cluster import Cluster
from axis_security.testing.isolation import IsolationLab, Leak, isolation_machine
from axis_security.testing.notes import NOTE, Notes, notes_database

EXAMPLES = 20_000 if os.environ.get("AXIS_TEST_PROFILE") == "nightly" else 2_000


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> Iterator[Notes]:
    """One database for all machines: each example has tenants of its own."""
    with notes_database(cluster) as made:
        yield made


def engines(
    notes: Notes, sizes: tuple[int, ...] = (1, 2, 3), drivers: tuple[str, ...] = ("psycopg", "psycopg_async", "asyncpg")
) -> dict[str, Engine | AsyncEngine]:
    """A bare engine for each driver and pool size."""
    made: dict[str, Engine | AsyncEngine] = {}
    for driver in drivers:
        make: Any = create_engine if driver == "psycopg" else create_async_engine
        for size in sizes:
            made[f"{driver}, pool of {size}"] = make(
                notes.url(driver.removesuffix("_async")), pool_size=size, max_overflow=0, pool_timeout=60
            )
    return made


def run(lab: IsolationLab, examples: int) -> None:
    """Run the machine up to the first thing it finds: an example has a dozen steps at most, and shrinking one can outlast the test's time."""
    options = settings(
        max_examples=examples,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(isolation_machine(lab), settings=options)


@contextmanager
def laboratory(notes: Notes, made: dict[str, Engine | AsyncEngine]) -> Iterator[IsolationLab]:
    """The machine's surroundings, closed at the end."""
    lab = IsolationLab(engines=made, table=NOTE, new_tenant=notes.new_tenant)
    try:
        yield lab
    finally:
        lab.close()


@pytest.mark.timeout(1200)
def test_no_tenant_sees_or_changes_another_s_rows(notes: Notes) -> None:
    """Tenants x pooled connections x ORM, Core, raw SQL x commit, rollback, savepoint, task and thread x three drivers: the model agrees."""
    made = {name: install(engine, binder=notes.binder, posture=notes.posture) for name, engine in engines(notes).items()}
    with laboratory(notes, made) as lab:
        run(lab, EXAMPLES)


# Negative controls: each way of binding below is one that exists in the wild, and the machine must find it out.


def no_hook(notes: Notes, engine: Engine) -> None:
    """The binding hook is missing."""


def once_per_connection(notes: Notes, engine: Engine) -> None:
    """A setting of the session, made at the first checkout, that stays with the pooled connection."""
    sealer = Sealer(notes.keyring)

    @event.listens_for(engine, "checkout")
    def bind_once(connection: Any, record: Any, proxy: Any) -> None:
        principal = maybe_principal()
        if principal is not None and not record.info.get("bound"):
            record.info["bound"] = True
            connection.execute("SELECT set_config('axis.context', %s, false)", [sealer(principal)])
            connection.commit()


def session_level(notes: Notes, engine: Engine) -> None:
    """A setting of the session, made at each BEGIN that has a principal, and left behind by it."""
    sealer = Sealer(notes.keyring)

    @event.listens_for(engine, "begin")
    def bind_session(connection: Any) -> None:
        principal = maybe_principal()
        if principal is not None:
            connection.exec_driver_sql("SELECT set_config('axis.context', %s, false)", (sealer(principal),))


def nobody_is_somebody(notes: Notes, engine: Engine) -> None:
    """Bound at BEGIN for the transaction, and nothing refused: unbound use, a changed principal and autocommit go through."""
    sealer = Sealer(notes.keyring)

    @event.listens_for(engine, "begin")
    def bind_local(connection: Any) -> None:
        principal = maybe_principal()
        if principal is not None:
            connection.exec_driver_sql("SELECT set_config('axis.context', %s, true)", (sealer(principal),))


@pytest.mark.parametrize("fault", [once_per_connection, session_level])
def test_the_machine_finds_a_binding_that_leaks(notes: Notes, fault: Callable[[Notes, Engine], None]) -> None:
    """Settings of the database session leak through the pool, past the database's own checks, and the machine sees the other tenant's rows."""
    with laboratory(notes, faulty(notes, fault)) as lab, pytest.raises(Leak):
        run(lab, 300)


@pytest.mark.parametrize("fault", [no_hook, nobody_is_somebody])
def test_the_machine_finds_a_missing_refusal(notes: Notes, fault: Callable[[Notes, Engine], None]) -> None:
    """Without the hook, or without its refusals, unbound work reaches the server, which speaks up itself, or the machine sees a leak."""
    with laboratory(notes, faulty(notes, fault)) as lab, pytest.raises((Leak, DBAPIError)) as caught:
        run(lab, 300)
    assert isinstance(caught.value, Leak) or sqlstate(caught.value) in {"AX001", "42501"}


def faulty(notes: Notes, fault: Callable[[Notes, Engine], None]) -> dict[str, Engine | AsyncEngine]:
    """Bare engines with a faulty way of binding."""
    made = engines(notes, sizes=(1, 2), drivers=("psycopg",))
    for engine in made.values():
        assert isinstance(engine, Engine)
        fault(notes, engine)
    return made


def sqlstate(error: BaseException) -> str:
    """What the server called it."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", ""))


@pytest.mark.parametrize("method", ["admit", "begin"])
def test_the_machine_needs_each_half_of_the_binder(notes: Notes, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The machine fails when the binder stops comparing principals, and when it seals another than who acts."""
    if method == "admit":
        monkeypatch.setattr(bind.TenantBinder, "admit", lambda self, bound: None)
    else:
        real = bind.TenantBinder.begin
        another = Principal(tenant=2**31 - 1, user="another", role="member")

        def wrong(self: bind.TenantBinder) -> bind.Bound:
            bound = real(self)
            with acting_as(another):  # always the same one, so that no race decides whose seal it is
                return bind.Bound(bound.owner, bound.sql, real(self).params)

        monkeypatch.setattr(bind.TenantBinder, "begin", wrong)
    made = {name: install(engine, binder=notes.binder, posture=None) for name, engine in engines(notes, sizes=(1,)).items()}
    with laboratory(notes, made) as lab, pytest.raises((Leak, DBAPIError)) as caught:
        run(lab, 300)
    # A write under the wrong tenant is refused by the floor before it can be a leak.
    assert isinstance(caught.value, Leak) or sqlstate(caught.value) in {"AX001", "42501"}

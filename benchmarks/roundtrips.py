"""Round trips per transaction, bare driver against bound, over a loopback link that takes 5 ms each way."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from axis_security import Principal, acting_as
from axis_security.rls.install import install
from axis_security.testing.cluster import Cluster
from axis_security.testing.latency_proxy import LatencyProxy
from axis_security.testing.notes import Notes, notes_database
from benchmarks.harness import Row, Settings

TRANSACTIONS = 20
ROUNDS = 5
DELAY_SECONDS = 0.005
# Not the protected table: the bare driver has no context to read it with.
QUERY = "SELECT 1"


def run(settings: Settings) -> list[Row]:
    """The rows of ``python -m benchmarks roundtrips``: BEGIN, one statement, COMMIT."""
    with (
        Cluster() as cluster,
        notes_database(cluster) as notes,
        LatencyProxy("127.0.0.1", cluster.port, delay_seconds=DELAY_SECONDS) as proxy,
    ):
        found: list[Row] = []
        for name, make, allowed in (
            ("SQLAlchemy, psycopg", _sqlalchemy, 0),
            ("psycopg", _psycopg, 0),
            ("psycopg async", _psycopg_async, 0),
            ("SQLAlchemy async, psycopg", _sqlalchemy_psycopg_async, 0),
            ("SQLAlchemy async, asyncpg", _sqlalchemy_asyncpg, 1),
            ("asyncpg", _asyncpg, 1),
        ):
            found += _measure(name, make, allowed, notes, proxy, settings.rounds(ROUNDS))
        return found


def _measure(name: str, make: Callable[..., Any], allowed: int, notes: Notes, proxy: LatencyProxy, rounds: int) -> list[Row]:
    trips: dict[bool, list[float]] = {False: [], True: []}
    times: dict[bool, list[float]] = {False: [], True: []}
    who = Principal(tenant=notes.new_tenant(), role="member")
    with acting_as(who), make(notes, proxy.port, False) as bare, make(notes, proxy.port, True) as bound:
        for _ in range(rounds):
            for ours, transaction in ((False, bare), (True, bound)):
                before, start = proxy.round_trips, time.perf_counter()
                transaction(TRANSACTIONS)
                times[ours].append((time.perf_counter() - start) / TRANSACTIONS * 1000)
                trips[ours].append((proxy.round_trips - before) / TRANSACTIONS)
    base, base_ms = statistics.median(trips[False]), statistics.median(times[False])
    # A millisecond and a half for the client's own work on a busy machine, well under one way over the link.
    limit_ms = base_ms + 1.25 * allowed * 2 * DELAY_SECONDS * 1000 + 1.5
    return [
        Row(
            bench="roundtrips",
            case=name,
            unit="round trips per transaction",
            ours=statistics.median(trips[True]),
            limit=base + allowed,
            peers={"bare driver": base},
            target=f"at most {allowed} more than the bare driver",
            met=statistics.median(trips[True]) <= base + allowed,
            spread=(min(trips[True]), max(trips[True])),
        ),
        Row(
            bench="roundtrips",
            case=f"{name}: time over a link of {2 * DELAY_SECONDS * 1000:.0f} ms",
            unit="ms per transaction",
            ours=statistics.median(times[True]),
            limit=limit_ms,
            peers={"bare driver": base_ms},
            target="no more than the round trips above explain",
            met=statistics.median(times[True]) <= limit_ms,
            spread=(min(times[True]), max(times[True])),
        ),
    ]


def _dsn(notes: Notes, port: int) -> str:
    return psycopg.conninfo.make_conninfo(notes.dsn(), port=port)


def _url(notes: Notes, port: int, driver: str) -> str:
    return f"postgresql+{driver}://{notes.roles.app}@127.0.0.1:{port}/{notes.dbname}"


@contextlib.contextmanager
def _psycopg(notes: Notes, port: int, bound: bool) -> Iterator[Callable[[int], None]]:
    with psycopg.connect(_dsn(notes, port)) as connection:
        if bound:
            install(connection, binder=notes.binder, posture=None)

        def run(count: int) -> None:
            for _ in range(count):
                connection.execute(QUERY)
                connection.commit()

        run(10)
        yield run


@contextlib.contextmanager
def _sqlalchemy(notes: Notes, port: int, bound: bool) -> Iterator[Callable[[int], None]]:
    engine = create_engine(_url(notes, port, "psycopg"), pool_size=1, pool_reset_on_return="rollback")
    if bound:
        install(engine, binder=notes.binder, posture=notes.posture)

    def run(count: int) -> None:
        for _ in range(count):
            with engine.begin() as connection:
                connection.execute(text(QUERY))

    run(10)
    yield run
    engine.dispose()


@contextlib.contextmanager
def _loop(
    open_: Callable[[], Awaitable[tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]]],
) -> Iterator[Callable[[int], None]]:
    loop = asyncio.new_event_loop()

    async def both() -> tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]:
        return await open_()

    once, close = loop.run_until_complete(both())

    async def many(count: int) -> None:
        for _ in range(count):
            await once()

    def run(count: int) -> None:
        loop.run_until_complete(many(count))

    run(10)
    yield run

    async def end() -> None:
        await close()

    loop.run_until_complete(end())
    loop.close()


@contextlib.contextmanager
def _psycopg_async(notes: Notes, port: int, bound: bool) -> Iterator[Callable[[int], None]]:
    async def open_() -> Any:
        connection = await psycopg.AsyncConnection.connect(_dsn(notes, port))
        if bound:
            install(connection, binder=notes.binder, posture=notes.posture)

        async def once() -> None:
            await connection.execute(QUERY)
            await connection.commit()

        return once, connection.close

    with _loop(open_) as run:
        yield run


@contextlib.contextmanager
def _asyncpg(notes: Notes, port: int, bound: bool) -> Iterator[Callable[[int], None]]:
    async def open_() -> Any:
        connection = await asyncpg.connect(host="127.0.0.1", port=port, user=notes.roles.app, database=notes.dbname)
        if bound:
            install(connection, binder=notes.binder, posture=notes.posture)

        async def once() -> None:
            async with connection.transaction():
                await connection.fetchval(QUERY)

        return once, connection.close

    with _loop(open_) as run:
        yield run


@contextlib.contextmanager
def _sqlalchemy_async(notes: Notes, port: int, bound: bool, driver: str) -> Iterator[Callable[[int], None]]:
    async def open_() -> Any:
        engine = create_async_engine(_url(notes, port, driver), pool_size=1)
        if bound:
            install(engine, binder=notes.binder, posture=notes.posture)

        async def once() -> None:
            async with engine.begin() as connection:
                await connection.execute(text(QUERY))

        return once, engine.dispose

    with _loop(open_) as run:
        yield run


def _sqlalchemy_psycopg_async(notes: Notes, port: int, bound: bool) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    return _sqlalchemy_async(notes, port, bound, "psycopg")


def _sqlalchemy_asyncpg(notes: Notes, port: int, bound: bool) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    return _sqlalchemy_async(notes, port, bound, "asyncpg")

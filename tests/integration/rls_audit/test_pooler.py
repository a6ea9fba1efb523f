"""PgBouncer in front of PostgreSQL: 64 clients on 4 backends, two tenants interleaved, backends killed, three drivers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, event

from axis_security.core.context import maybe_principal
from axis_security.core.principal import Principal
from axis_security.rls.install import install
from axis_security.rls.sealed import Sealer
from axis_security.testing.cluster import Cluster
from axis_security.testing.notes import Notes, notes_database
from axis_security.testing.pooler import AsyncpgClient, Client, PoolerReport, PsycopgClient, SqlAlchemyClient, Work, check_pooler

NIGHTLY = os.environ.get("AXIS_TEST_PROFILE") == "nightly"
StartPgBouncer = Callable[..., Any]


@pytest.fixture
def notes(cluster: Cluster) -> Iterator[Notes]:
    """A protected table."""
    with notes_database(cluster) as made:
        yield made


def seed(notes: Notes) -> list[Principal]:
    """Two tenants with a few rows each."""
    tenants = [notes.new_tenant(), notes.new_tenant()]
    with psycopg.connect(notes.server.dsn(notes.dbname)) as admin:
        for tenant in tenants:
            admin.execute("INSERT INTO note SELECT $1 * 1000 + n, $1, 'row' FROM generate_series(1, 5) n".replace("$1", str(tenant)))
    return [Principal(tenant=tenant, user="u", role="member") for tenant in tenants]


def work_for(principals: list[Principal]) -> Work:
    """Read all; now and then change a row."""
    return Work(
        read="SELECT tenant_id::text, id FROM note",
        principals=principals,
        write=lambda principal: f"UPDATE note SET body = 'by {principal.tenant.text}' WHERE id = {principal.tenant.text} * 1000 + 1",
    )


class Clients:
    """Clients of the three drivers through a pooler, guarded or bare."""

    def __init__(self, notes: Notes, dsn: str) -> None:
        self.notes, self.dsn = notes, dsn
        params = psycopg.conninfo.conninfo_to_dict(dsn)
        self.host, self.port, self.user, self.dbname = params["host"], int(params["port"] or 0), params["user"], params["dbname"]
        self.guarded = install(psycopg.Connection, binder=notes.binder, posture=notes.posture)
        self.engines: list[Any] = []

    def psycopg(self, *, bound: bool = True) -> Client:
        """A psycopg connection; PgBouncer before 1.21 knows no prepared statements in transaction mode."""
        kind: Any = self.guarded if bound else psycopg.Connection
        return PsycopgClient(lambda: kind.connect(self.dsn, prepare_threshold=None))

    def asyncpg(self, *, bound: bool = True) -> Client:
        """An asyncpg connection."""

        async def connect() -> Any:
            made = await asyncpg.connect(host=self.host, port=self.port, user=self.user, database=self.dbname, statement_cache_size=0)
            return install(made, binder=self.notes.binder, posture=self.notes.posture) if bound else made

        return AsyncpgClient(connect)

    def sqlalchemy(self, *, bound: bool = True) -> Client:
        """An engine; the pooling is the pooler's."""
        engine = create_engine(
            f"postgresql+psycopg://{self.user}@{self.host}:{self.port}/{self.dbname}",
            poolclass=NullPool,
            connect_args={"prepare_threshold": None},
        )
        self.engines.append(engine)
        return SqlAlchemyClient(install(engine, binder=self.notes.binder, posture=self.notes.posture) if bound else engine)


def killer(notes: Notes) -> Callable[[], None]:
    """Ends one backend that serves the application."""

    def kill() -> None:
        with psycopg.connect(notes.server.dsn(notes.dbname), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE usename = %s ORDER BY random() LIMIT 1) s",
                [notes.roles.app],
            )

    return kill


def conformance(
    cluster: Cluster, notes: Notes, start: StartPgBouncer, *, mode: str, each: int, transactions: int, pool_size: int
) -> PoolerReport:
    """All three drivers through one pooler."""
    pooler = start(notes.roles.app, pool_size=pool_size, mode=mode)
    made = Clients(notes, pooler.dsn(notes.dbname, user=notes.roles.app))
    kinds = {"psycopg": made.psycopg, "asyncpg": made.asyncpg, "sqlalchemy": made.sqlalchemy}
    share = {"psycopg": each - 2 * (each // 3), "asyncpg": each // 3, "sqlalchemy": each // 3}
    report = check_pooler(
        work_for(seed(notes)),
        {kind: [make() for _ in range(share[kind])] for kind, make in kinds.items()},
        unbound={kind: [make(bound=False)] for kind, make in kinds.items()},
        transactions=transactions,
        kill=killer(notes),
        kill_every=max(50, transactions // 40),
    )
    print(report)
    return report


def judge(report: PoolerReport, transactions: int, backends: int) -> None:
    """What must hold of every run."""
    assert report.ok, str(report)
    assert report.foreign == report.answered == 0
    assert sum(report.transactions.values()) == transactions
    assert report.unbound > 0
    assert set(report.transactions) == {"psycopg", "asyncpg", "sqlalchemy"}
    assert report.shared >= min(backends, 2)


def test_transaction_mode_carries_nothing_over(cluster: Cluster, notes: Notes, pgbouncer: StartPgBouncer) -> None:
    """64 clients of three drivers, 4 backends, backends killed at random: no foreign row, no answer to nobody, every backend shared."""
    judge(conformance(cluster, notes, pgbouncer, mode="transaction", each=64, transactions=1_200, pool_size=4), 1_200, 4)


def test_session_mode_carries_nothing_over(cluster: Cluster, notes: Notes, pgbouncer: StartPgBouncer) -> None:
    """In session mode a client keeps its backend, and the next client gets it."""
    judge(conformance(cluster, notes, pgbouncer, mode="session", each=6, transactions=300, pool_size=12), 300, 2)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_twenty_thousand_transactions_through_four_backends(cluster: Cluster, notes: Notes, pgbouncer: StartPgBouncer) -> None:
    """The promise at its full size: 64 clients, 20,000 transactions."""
    judge(conformance(cluster, notes, pgbouncer, mode="transaction", each=64, transactions=20_000, pool_size=4), 20_000, 4)


def test_the_check_finds_a_binding_of_the_session(cluster: Cluster, notes: Notes, pgbouncer: StartPgBouncer) -> None:
    """Negative control: a setting of the session, made before each transaction, is read by others through the pooler, and by nobody at all."""
    pooler = pgbouncer(notes.roles.app, pool_size=2)
    dsn, sealer = pooler.dsn(notes.dbname, user=notes.roles.app), Sealer(notes.keyring)
    made = Clients(notes, dsn)
    engine = create_engine(
        f"postgresql+psycopg://{made.user}@{made.host}:{made.port}/{made.dbname}", pool_size=8, connect_args={"prepare_threshold": None}
    )

    @event.listens_for(engine, "begin")
    def bind_session(connection: Any) -> None:
        principal = maybe_principal()
        if principal is not None:
            connection.exec_driver_sql("SELECT set_config('axis.context', %s, false)", (sealer(principal),))
            connection.connection.driver_connection.commit()

    report = check_pooler(
        work_for(seed(notes)),
        {"sqlalchemy": [SqlAlchemyClient(engine) for _ in range(8)]},
        unbound={"sqlalchemy": [made.psycopg(bound=False) for _ in range(8)]},
        transactions=400,
    )
    engine.dispose()
    assert not report.ok
    assert report.foreign > 0
    assert report.answered > 0


def test_a_check_without_sharing_is_no_pass(cluster: Cluster, notes: Notes) -> None:
    """One client with a backend of its own shows nothing about pooling, and the report says so."""
    made = Clients(notes, notes.dsn())
    principals = seed(notes)[:1]
    report = check_pooler(work_for(principals), {"psycopg": [made.psycopg()]}, unbound={}, transactions=20)
    assert report.foreign == 0
    assert report.shared == 0
    assert not report.ok

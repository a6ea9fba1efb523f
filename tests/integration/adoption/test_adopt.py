"""A live table is adopted under load: nobody waits a second for a lock, a stopped run goes on, and what would be hidden is told before."""

from __future__ import annotations

import secrets
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from axis_security import Principal
from axis_security.cli import rls as cli
from axis_security.core.errors import ConfigError
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.adopt import Adoption, shadow
from axis_security.rls.sealed import SealKey, SealKeyring, seal
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

ORGS = 5


@dataclass
class Shop:
    """Orders of accounts, lines of orders; no tenant column anywhere yet."""

    cluster: Cluster
    database: str
    engine: sa.Engine
    tenancy: Tenancy
    keyring: SealKeyring

    def adopt(self, table: str, **settings: Any) -> Adoption:
        """The way of *table*."""
        tenant = {
            "orders": "(SELECT a.org FROM account a WHERE a.id = orders.account_id)",
            "line": "(SELECT o.tenant_id FROM orders o WHERE o.id = line.order_id)",
        }[table]
        return Adoption(tenancy=self.tenancy, table=self.tenancy.metadata.tables[table], tenant=tenant, **settings)

    def ask(self, sql: str, *, user: str | None = None, principal: Principal | None = None) -> Any:
        """One value."""
        with psycopg.connect(self.cluster.dsn(self.database, user=user)) as conn:
            if principal is not None:
                sealed = seal(principal, keyring=self.keyring, now=datetime.now(UTC))
                conn.execute("SELECT set_config('axis.context', %s, true)", (sealed,))
            cursor = conn.execute(sql)
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]


@dataclass
class Writers:
    """Threads that read and write as before, and give up on a lock after a second."""

    shop: Shop
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0
    turns: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    deployed: threading.Event = field(default_factory=threading.Event)
    settled: threading.Barrier = field(default_factory=lambda: threading.Barrier(3))

    def deploy(self) -> None:
        """From now on every writer says whose rows it writes, as an application does that binds; returns when the last turn of before is over."""
        self.deployed.set()
        self.settled.wait(60)

    def write(self, number: int) -> None:
        """Insert, update, read; over and over."""
        with psycopg.connect(self.shop.cluster.dsn(self.shop.database), autocommit=True) as conn:
            conn.execute("SET lock_timeout = '1s'")
            told = False
            while not self.stop.is_set():
                if self.deployed.is_set() and not told:
                    told = True
                    self.settled.wait(60)
                started = time.monotonic()
                try:
                    account = 1 + self.turns % ORGS
                    if self.deployed.is_set():
                        # What the default does for an application that binds its principal.
                        row = conn.execute(
                            "INSERT INTO orders (tenant_id, account_id) VALUES (%s, %s) RETURNING id", (account * 10, account)
                        ).fetchone()
                        conn.execute("INSERT INTO line (tenant_id, order_id) VALUES (%s, %s)", (account * 10, row and row[0]))
                    else:
                        row = conn.execute("INSERT INTO orders (account_id) VALUES (%s) RETURNING id", (account,)).fetchone()
                        conn.execute("INSERT INTO line (order_id) VALUES (%s)", row)
                    conn.execute("UPDATE orders SET note = 'seen' WHERE id = %s", (1 + (self.turns * 37 + number) % 5_000,))
                    conn.execute("SELECT count(*) FROM line WHERE order_id = %s", row)
                except psycopg.Error as error:
                    self.errors.append(f"{error.sqlstate} {error.diag.message_primary}")
                self.longest = max(self.longest, time.monotonic() - started)
                self.turns += 1
                self.stop.wait(0.002)


@contextmanager
def writing(shop: Shop) -> Iterator[Writers]:
    """Two writers at work."""
    writers = Writers(shop)
    threads = [threading.Thread(target=writers.write, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        writers.stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def shop(cluster: Cluster) -> Iterator[Callable[[int], Shop]]:
    """Makes the shop with so many orders."""
    made: list[Shop] = []

    def make(orders: int) -> Shop:
        metadata = sa.MetaData()
        sa.Table("account", metadata, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("org", sa.BigInteger))
        sa.Table(
            "orders",
            metadata,
            sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("tenant_id", sa.BigInteger),
            sa.Column("account_id", sa.BigInteger),
            sa.Column("note", sa.Text),
        )
        sa.Table(
            "line",
            metadata,
            sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("tenant_id", sa.BigInteger),
            sa.Column("order_id", sa.BigInteger, sa.ForeignKey("orders.id", ondelete="CASCADE")),
        )
        keyring = SealKeyring(current=SealKey.generate(1))
        tenancy = Tenancy(metadata, roles=DatabaseRoles.prefixed("adopt_" + secrets.token_hex(4)), seal=keyring)
        tenancy.protect(metadata.tables["orders"])
        tenancy.protect(metadata.tables["line"])
        tenancy.open(metadata.tables["account"], reason="who belongs where is no secret here")
        database = cluster.create_database("adopt")
        with psycopg.connect(cluster.dsn(database), autocommit=True) as conn:
            for sql in (
                "CREATE TABLE account (id bigint PRIMARY KEY, org bigint)",
                "CREATE TABLE orders (id bigserial PRIMARY KEY, account_id bigint, note text)",
                "CREATE TABLE line (id bigserial PRIMARY KEY, order_id bigint REFERENCES orders (id) ON DELETE CASCADE)",
                f"INSERT INTO account SELECT n, n * 10 FROM generate_series(1, {ORGS}) n",
                f"INSERT INTO orders (account_id, note) SELECT 1 + n % {ORGS}, 'old' FROM generate_series(1, {orders}) n",
                f"INSERT INTO line (order_id) SELECT n FROM generate_series(1, {orders // 2}) n",
                "ANALYZE",
            ):
                conn.execute(sql)
        engine = sa.create_engine(cluster.url(database))
        tenancy.foundation(engine).apply(engine)
        made.append(Shop(cluster, database, engine, tenancy, keyring))
        return made[-1]

    yield make
    for each in made:
        each.engine.dispose()
        cluster.drop_database(each.database)
        with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
            roles = each.tenancy.roles
            for role in (roles.owner, roles.app, roles.system, roles.guard):
                conn.execute(f"DROP ROLE IF EXISTS {role}")


def _adopted_under_load(made: Shop) -> Writers:
    stages: list[str] = []
    with writing(made) as writers:
        made.adopt("orders", progress=lambda stage, _done, _total: stages.append(stage)).run(made.engine)
        made.adopt("line").run(made.engine)
        writers.deploy()
        made.adopt("line").protect(made.engine)
        made.adopt("orders").protect(made.engine)
    assert list(dict.fromkeys(stages)) == ["column", "backfill", "not null", "index", "keys"]
    assert writers.errors == []
    assert made.tenancy.plan(made.engine).steps == ()
    assert made.ask("SELECT count(*) FROM orders o JOIN account a ON a.id = o.account_id WHERE o.tenant_id IS DISTINCT FROM a.org") == 0
    assert made.ask("SELECT count(*) FROM line l JOIN orders o ON o.id = l.order_id WHERE l.tenant_id IS DISTINCT FROM o.tenant_id") == 0
    assert made.ask("SELECT count(*) FROM pg_trigger WHERE tgname = 'axis_adopt'") == 0
    return writers


def test_a_live_table_is_adopted_while_others_write(shop: Callable[[int], Shop]) -> None:
    """100,000 orders and their lines, two writers that would give up on a lock after a second: none does, every row has its own tenant."""
    writers = _adopted_under_load(shop(100_000))
    assert writers.turns > 50


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_two_million_rows_are_adopted_while_others_write(shop: Callable[[int], Shop]) -> None:
    """The same with 2,000,000 orders; the longest turn of a writer is told."""
    writers = _adopted_under_load(shop(2_000_000))
    print(f"longest turn {writers.longest * 1000:.0f} ms of {writers.turns} turns")  # the figure is what the test is for
    assert writers.longest < 1.0


def test_the_writers_would_notice_a_long_lock(shop: Callable[[int], Shop]) -> None:
    """Negative control: one statement that fills the column of all rows, and holds them for longer than a second, makes writers give up."""
    made = shop(5_000)
    with writing(made) as writers, psycopg.connect(made.cluster.dsn(made.database)) as conn:
        conn.execute("ALTER TABLE orders ADD COLUMN tenant_id bigint")
        conn.execute("SELECT pg_sleep(1.5)")
        conn.rollback()
    assert any(error.startswith("55P03") for error in writers.errors)


def test_a_stopped_run_goes_on(shop: Callable[[int], Shop]) -> None:
    """Stopped in the backfill, then with a half-made index: the next run does what is missing, and a third has nothing to do."""
    made = shop(4_000)
    orders = made.adopt("orders")

    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, _total: int) -> None:
        if stage == "backfill" and done > 1_000:
            raise StoppedError

    with pytest.raises(StoppedError):
        made.adopt("orders", progress=stop).run(made.engine)
    filled = made.ask("SELECT count(*) FROM orders WHERE tenant_id IS NOT NULL")
    assert 1_000 < filled < 4_000
    assert orders.run(made.engine).done == 4_000 - filled
    index = "axis_orders_tenant_id_id_key"
    made.ask(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass")
    assert orders.run(made.engine).done == 0
    assert made.ask(f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{index}'::regclass") is True
    assert orders.run(made.engine).done == 0


def test_rows_without_a_tenant_stop_it(shop: Callable[[int], Shop]) -> None:
    """An order of no account has no tenant: the run says how many there are, and the column stays as it was."""
    made = shop(300)
    made.ask("INSERT INTO orders (account_id, note) VALUES (NULL, 'lost')")
    with pytest.raises(ConfigError, match="1 row"):
        made.adopt("orders").run(made.engine)
    assert made.ask("SELECT attnotnull FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'tenant_id'") is False
    with pytest.raises(ConfigError, match="not short"):
        made.adopt("orders").protect(made.engine)


def test_what_would_be_hidden_is_told_before(shop: Callable[[int], Shop]) -> None:
    """The shadow's counts before any policy are what the application sees after; rows without a tenant are told as nobody's."""
    made = shop(500)
    made.ask("INSERT INTO orders (account_id, note) VALUES (NULL, 'lost')")
    orders, line = made.adopt("orders"), made.adopt("line")
    with made.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for each in (orders, line):
            each.add_column(connection)
            each.backfill(connection)
    people = [Principal(tenant=10, user="u", role="member"), Principal(tenant=99, user="u", role="member")]
    told = {(seen.table, seen.principal.tenant.value): seen for seen in shadow(made.tenancy, made.engine, people)}
    lost = told["public.orders", 10]
    assert (lost.visible, lost.hidden, lost.nobodys) == (100, 401, 1)
    assert told["public.orders", 99].visible == 0
    assert made.ask("SELECT count(*) FROM pg_policy") == 0, "nothing was changed"
    made.ask("DELETE FROM orders WHERE account_id IS NULL")
    for each in (orders, line):
        each.run(made.engine)
    orders.protect(made.engine)
    for (table, _), seen in told.items():
        count = made.ask(f"SELECT count(*) FROM {table}", user=made.tenancy.roles.app, principal=seen.principal)
        assert count == seen.visible, table


def test_a_busy_table_is_waited_for_in_short_turns(shop: Callable[[int], Shop]) -> None:
    """A long reader keeps the table: the adoption comes back again and again, the writers behind it never wait a second, and it gets its turn."""
    made = shop(500)
    release = threading.Event()

    def read() -> None:
        with psycopg.connect(made.cluster.dsn(made.database)) as conn:
            conn.execute("SELECT count(*) FROM orders")
            release.wait(30)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with writing(made) as writers:
            timer = threading.Timer(1.5, release.set)
            timer.start()
            made.adopt("orders").run(made.engine)
            timer.join()
    finally:
        release.set()
        reader.join()
    assert writers.errors == []


def test_what_cannot_be_adopted(shop: Callable[[int], Shop]) -> None:
    """An open table, and an expression that would end our quotes."""
    made = shop(10)
    with pytest.raises(ConfigError, match="not declared as protected"):
        Adoption(tenancy=made.tenancy, table=made.tenancy.metadata.tables["account"], tenant="1")
    for bad in ("", "1 $axis_adopt$ x"):
        with pytest.raises(ConfigError, match="expression"):
            Adoption(tenancy=made.tenancy, table=made.tenancy.metadata.tables["orders"], tenant=bad)


def test_the_command_line(shop: Callable[[int], Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    """`axis-security rls adopt` runs the stages, says how many rows it filled, and applies the plan when every table is ready."""
    made = shop(200)
    module = types.ModuleType("host_for_adoption")
    module.tenancy = made.tenancy  # type: ignore[attr-defined]  # what a host's module would hold
    monkeypatch.setitem(sys.modules, "host_for_adoption", module)
    dsn = made.cluster.url(made.database).replace("+psycopg", "")
    common = ["--tenancy", "host_for_adoption:tenancy", "--tenant"]
    done = CliRunner().invoke(cli.command, ["adopt", dsn, "orders", *common, made.adopt("orders").tenant])
    assert done.output.strip() == "orders: 200 row(s) were given their tenant"
    done = CliRunner().invoke(cli.command, ["adopt", dsn, "line", *common, made.adopt("line").tenant, "--protect"])
    assert done.output.strip() == "line: 100 row(s) were given their tenant; the plan is applied"
    assert CliRunner().invoke(cli.command, ["adopt", dsn, "nothing", *common, "1"]).exit_code == 2

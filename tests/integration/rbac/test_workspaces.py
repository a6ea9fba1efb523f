"""The operator's hand on workspaces: suspended at once, erased with nothing left, and never by mistake."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, ForeignKey, Identity, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from axis_security.cli import tenant as cli
from axis_security.core.context import current_principal
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind
from axis_security.core.schema import DatabaseRoles
from axis_security.ops.workspaces import ErasureFailed, NotErasable, Workspaces
from axis_security.rbac import Capabilities, standard_policy
from axis_security.rbac.members_sql import members_part
from axis_security.rls import SealKey, SealKeyring, Tenancy
from axis_security.testing.cluster import TestServer


class Base(DeclarativeBase):
    """The host's tables."""


class Contact(Base):
    """A parent."""

    __tablename__ = "contact"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tenant_id: Mapped[str]


class Deal(Base):
    """A child, which must go first."""

    __tablename__ = "deal"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tenant_id: Mapped[str]
    contact_id: Mapped[int] = mapped_column(ForeignKey("contact.id"))


class Country(Base):
    """Open; nobody's."""

    __tablename__ = "country"
    code: Mapped[str] = mapped_column(primary_key=True)


class Kept:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        self.events.append(event)

    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.events]


class Shop:
    """Two workspaces with rows, and the operator's login."""

    def __init__(self, server: TestServer, name: str) -> None:
        self.server, self.name, self.sink = server, name, Kept()
        roles = DatabaseRoles.prefixed(f"ws_{secrets.token_hex(4)}")
        caps = Capabilities(users=("manage",))
        policy = standard_policy(caps, viewer=[], member=[])
        self.admin = create_engine(server.url(name))
        Base.metadata.create_all(self.admin)
        self.roles, self.policy, self.keyring = roles, policy, SealKeyring(current=SealKey.generate(1))
        tenancy = self.tenancy()
        tenancy.plan(self.admin, parts=[members_part(policy)]).apply(self.admin)
        with self.admin.begin() as connection:
            for role in (roles.app, roles.system):
                connection.execute(text(f"ALTER ROLE {role} LOGIN"))
            for tenant in ("acme", "globex"):
                connection.execute(text("INSERT INTO axis.tenant (tenant, name) VALUES (:t, 'W')"), {"t": tenant})
                connection.execute(text("INSERT INTO axis.membership (tenant, user_id, role) VALUES (:t, 'boss', 'owner')"), {"t": tenant})
                connection.execute(text("INSERT INTO contact (tenant_id) SELECT :t FROM generate_series(1, 5)"), {"t": tenant})
                connection.execute(
                    text("INSERT INTO deal (tenant_id, contact_id) SELECT tenant_id, id FROM contact WHERE tenant_id = :t"), {"t": tenant}
                )
        self.engines: list[Engine] = []

    def tenancy(self) -> Tenancy:
        tenancy = Tenancy(Base.metadata, policy=self.policy, roles=self.roles, seal=self.keyring)
        tenancy.protect(Contact)
        tenancy.protect(Deal)
        tenancy.open(Country, reason="reference data")
        return tenancy

    def workspaces(self) -> Workspaces:
        """On a sync engine."""
        tenancy = self.tenancy()
        engines = [create_engine(self.server.url(self.name, user=role)) for role in (self.roles.app, self.roles.system)]
        self.engines += engines
        tenancy.install(engines[0], system=engines[1], sink=self.sink)
        return Workspaces(tenancy, events=self.sink, lasting=timedelta(minutes=1))

    def async_workspaces(self) -> tuple[Workspaces, list[AsyncEngine]]:
        """On an async engine."""
        tenancy = self.tenancy()
        engines = [create_async_engine(self.server.url(self.name, user=role)) for role in (self.roles.app, self.roles.system)]
        tenancy.install(engines[0], system=engines[1], sink=self.sink)
        return Workspaces(tenancy, events=self.sink), engines

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.server.dsn(self.name)) as connection:
            return connection.execute(sql.encode()).fetchall()

    def due(self, tenant: str) -> None:
        """Its deletion was asked for, and the grace is over."""
        with psycopg.connect(self.server.dsn(self.name)) as connection:
            connection.execute(
                "UPDATE axis.tenant SET state = 'deleting', delete_after = now() - interval '1 hour' WHERE tenant = %s", (tenant,)
            )

    def close(self) -> None:
        for engine in [*self.engines, self.admin]:
            engine.dispose()


@pytest.fixture
def shop(cluster: TestServer) -> Iterator[Shop]:
    """A fresh shop."""
    with cluster.database("ws") as name:
        made = Shop(cluster, name)
        yield made
        made.close()


def test_suspending_and_resuming_changes_the_state_once(shop: Shop) -> None:
    """Each step changes the state exactly once, is announced by the system scope before and by its own event after, and needs a reason."""
    workspaces = shop.workspaces()
    assert [workspaces.suspend("acme", reason="unpaid since March"), workspaces.suspend("acme", reason="unpaid since March")] == [
        True,
        False,
    ]
    assert shop.rows("SELECT tenant, state FROM axis.tenant ORDER BY 1") == [("acme", "suspended"), ("globex", "active")]
    assert [workspaces.resume("acme", reason="paid now"), workspaces.resume("acme", reason="paid now")] == [True, False]
    with pytest.raises(ConfigError):
        workspaces.suspend("acme", reason=" ")
    kinds = shop.sink.kinds()
    assert (kinds.count(EventKind.WORKSPACE_SUSPENDED), kinds.count(EventKind.WORKSPACE_RESUMED)) == (1, 1)
    assert kinds[0] is EventKind.SYSTEM_SCOPE_OPENED


def test_erasing_leaves_nothing_of_the_one_and_all_of_the_other(shop: Shop) -> None:
    """Every protected table and the members' tables hold none of the tenant's rows afterwards; the other tenant's are all there."""
    shop.due("acme")
    seen: list[tuple[str, int]] = []
    erased = shop.workspaces().erase("acme", reason="DSR-17", progress=lambda table, rows: seen.append((table, rows)))
    assert (erased.rows, erased.total, seen) == ({"deal": 5, "contact": 5}, 10, [("deal", 5), ("contact", 5)])
    for table, column in (("contact", "tenant_id"), ("deal", "tenant_id"), ("axis.tenant", "tenant"), ("axis.membership", "tenant")):
        assert {row[0] for row in shop.rows(f"SELECT DISTINCT {column} FROM {table}")} == {"globex"}
    assert shop.rows("SELECT count(*) FROM deal") == [(5,)]
    event = next(event for event in shop.sink.events if event.kind is EventKind.TENANT_ERASED)
    assert (event.detail["tables"], event.detail["rows"], event.reason) == (2, 10, "DSR-17")


def test_a_workspace_that_nobody_gave_up_is_not_erased(shop: Shop) -> None:
    """Active, suspended, still in grace, or unknown: refused, and nothing is gone."""
    workspaces = shop.workspaces()
    with psycopg.connect(shop.server.dsn(shop.name)) as connection:
        connection.execute("UPDATE axis.tenant SET state = 'deleting', delete_after = now() + interval '1 day' WHERE tenant = 'globex'")
    for tenant in ("acme", "globex", "nobody"):
        with pytest.raises(NotErasable):
            workspaces.erase(tenant, reason="DSR-17")
    assert shop.rows("SELECT count(*) FROM contact") == [(10,)]
    assert EventKind.TENANT_ERASED not in shop.sink.kinds()


def test_rows_that_stay_roll_everything_back(shop: Shop) -> None:
    """A trigger keeps one row: the count is not zero, so nothing at all is deleted."""
    shop.due("acme")
    with psycopg.connect(shop.server.dsn(shop.name)) as connection:
        connection.execute("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        connection.execute("CREATE TRIGGER keep BEFORE DELETE ON deal FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION keep()")
        connection.execute("ALTER TABLE deal DROP CONSTRAINT IF EXISTS axis_deal_tenant_id_contact_id_fkey")
        connection.execute("ALTER TABLE deal DROP CONSTRAINT IF EXISTS deal_contact_id_fkey")
    with pytest.raises(ErasureFailed):
        shop.workspaces().erase("acme", reason="DSR-17")
    assert shop.rows("SELECT (SELECT count(*) FROM contact), (SELECT count(*) FROM deal), (SELECT count(*) FROM axis.tenant)") == [
        (10, 10, 2)
    ]


def test_the_async_twin_does_the_same(shop: Shop) -> None:
    """Suspend, resume and erase through an async engine."""

    async def work() -> tuple[bool, bool, int]:
        workspaces, engines = shop.async_workspaces()
        try:
            return (
                await workspaces.asuspend("acme", reason="unpaid"),
                await workspaces.aresume("acme", reason="paid"),
                (await workspaces.aerase("globex", reason="DSR-18")).total,
            )
        finally:
            for engine in engines:
                await engine.dispose()

    shop.due("globex")
    assert asyncio.run(work()) == (True, True, 10)


def test_the_command_line_asks_first_and_prints_what_went(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --yes and without an answer nothing happens; with it the rows are printed; a refusal is an error."""
    module = types.ModuleType("shop_for_cli")
    module.ops = shop.workspaces()  # type: ignore[attr-defined]  # what a host's module would hold
    monkeypatch.setitem(sys.modules, "shop_for_cli", module)
    shop.due("acme")
    run = CliRunner().invoke
    assert run(cli.command, ["erase", "shop_for_cli:ops", "acme", "--reason", "DSR-17"], input="n\n").exit_code == 1
    assert shop.rows("SELECT count(*) FROM contact") == [(10,)]
    done = run(cli.command, ["erase", "shop_for_cli:ops", "acme", "--reason", "DSR-17", "--yes"])
    assert json.loads(done.stdout[done.stdout.index("{") :])["total"] == 10
    assert isinstance(run(cli.command, ["erase", "shop_for_cli:ops", "globex", "--reason", "DSR-17", "--yes"]).exception, NotErasable)
    assert run(cli.command, ["suspend", "shop_for_cli:ops", "globex", "--reason", "unpaid"]).exit_code == 0
    for nowhere in ("shop_for_cli", "shop_for_cli:nobody", "no_such_module:ops"):
        assert run(cli.command, ["resume", nowhere, "globex", "--reason", "paid"]).exit_code == 2


def test_the_command_line_writes_an_export_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The host's export is run as the person named, shows its progress, and its file appears when it is done; a failure leaves none."""
    module = types.ModuleType("shop_for_export")

    def export(*, out: Any, formats: tuple[str, ...], progress: Callable[[str, int], None], export: str) -> Any:
        who = current_principal()
        if who.role != "admin":
            raise PermissionError(who.role)
        out.write(",".join(formats).encode())
        progress("contact", 5)
        progress("contact", 10)
        return types.SimpleNamespace(rows={"contact": 10})

    module.export = export  # type: ignore[attr-defined]  # what a host's module would hold
    monkeypatch.setitem(sys.modules, "shop_for_export", module)
    out = tmp_path / "acme.zip"
    words = ["export", "shop_for_export:export", "acme", "--user", "ann", "--out", str(out), "--format", "csv"]
    failed = CliRunner().invoke(cli.command, [*words, "--role", "viewer"])
    assert isinstance(failed.exception, PermissionError)
    assert list(tmp_path.iterdir()) == []
    done = CliRunner().invoke(cli.command, [*words, "--role", "admin"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout[done.stdout.index("{") :]) == {"file": str(out), "rows": {"contact": 10}}
    assert out.read_bytes() == b"csv"
    assert list(tmp_path.iterdir()) == [out]

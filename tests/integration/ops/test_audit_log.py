"""The audit log on a real PostgreSQL: nobody but the database writes its chain, and whoever changes it afterwards is found."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from sqlalchemy import MetaData

from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import AuditEvent, EventKind, Outcome
from axis_security.core.ids import KeyType, TenantId
from axis_security.core.principal import Principal
from axis_security.core.schema import DatabaseRoles
from axis_security.ops.audit import Anchor
from axis_security.ops.audit_files import export_log, verify_export
from axis_security.ops.audit_postgres import (
    AUDIT_PART,
    AsyncPostgresAuditSink,
    PostgresAuditSink,
    anchors,
    prune,
    read_log,
    read_page,
    verify_log,
)
from axis_security.rls import Tenancy
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.testing.cluster import Cluster

MORNING = datetime(2026, 3, 1, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Log:
    """A database with the audit part, and ways in."""

    cluster: Cluster
    name: str
    roles: DatabaseRoles
    tenancy: Tenancy

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """As the app, bound to nobody: fits a sink."""
        return psycopg.connect(self.cluster.dsn(self.name, user=self.roles.app))

    def system(self) -> psycopg.Connection[Any]:
        """As the system login."""
        return psycopg.connect(self.cluster.dsn(self.name, user=self.roles.system), autocommit=True)

    def owner(self) -> psycopg.Connection[Any]:
        """As a superuser, whom nothing stops."""
        return psycopg.connect(self.cluster.dsn(self.name), autocommit=True)

    def tenant(self, entries: int = 6) -> str:
        """A new chain with so many entries."""
        name = "t" + secrets.token_hex(6)
        sink = PostgresAuditSink(self)
        for number in range(entries):
            sink.emit(event(name, number))
        return name

    def verified(self, tenant: str, *kept: Anchor) -> list[str]:
        """The codes of what verification finds in *tenant*'s chain."""
        with self.system() as connection:
            results = [result for result in verify_log(connection, kept=kept) if result.seen.startswith(tenant)]
        assert len(results) == 1
        return [finding.code for finding in results[0].findings]


def event(tenant: str | None, number: int, at: datetime = MORNING) -> AuditEvent:
    """Something that happened."""
    who = None if tenant is None else TenantId(tenant)
    return AuditEvent(
        kind=EventKind.ROLE_CHANGED, at=at, outcome=Outcome.ALLOWED, tenant=who, target=f"user:{number}", detail={"role_to": "admin"}
    )


@pytest.fixture(scope="module")
def log(cluster: Cluster) -> Iterator[Log]:
    """Applied through the planner, as a host does."""
    roles = DatabaseRoles.prefixed("audit_" + secrets.token_hex(4))
    tenancy = Tenancy(MetaData(), key_type=KeyType.TEXT, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
    with cluster.database("audit") as name:
        with psycopg.connect(cluster.dsn(name)) as connection:
            tenancy.plan(connection, parts=[AUDIT_PART]).apply(connection)
        with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
            for login in (roles.app, roles.system):
                connection.execute(f"ALTER ROLE {login} LOGIN")
        yield Log(cluster, name, roles, tenancy)
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            connection.execute(f"DROP ROLE {role}")


FORBIDDEN = (
    "SELECT body FROM axis.audit_event",
    "INSERT INTO axis.audit_event VALUES ('x', 1, now(), '{}', sha256('x'))",
    "UPDATE axis.audit_event SET body = '{}'",
    "DELETE FROM axis.audit_event",
    "TRUNCATE axis.audit_event",
    "UPDATE axis.audit_head SET number = 0",
    "SELECT axis.audit_prune('x', now())",
    "DROP TABLE axis.audit_event",
)


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_app_can_append_and_nothing_else(log: Log, statement: str) -> None:
    """SQL injected through the app role reads no entry of another tenant, and changes or removes none."""
    log.tenant(1)
    with log.connection() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_an_event_goes_to_its_own_tenants_chain_only(log: Log) -> None:
    """An event that names one tenant cannot be put into another's chain, nor a body that is no event into any."""
    with log.connection() as connection:
        for tenant, body in (("a", '{"tenant":"b"}'), ("a", "{}"), ("", '{"tenant":"b"}'), ("a", "no json")):
            with pytest.raises(psycopg.Error), connection.transaction():
                connection.execute("SELECT axis.audit_append(%s, %s)", (tenant, body))


def test_a_page_shows_the_acting_tenants_entries(log: Log) -> None:
    """Newest first, with the hashes; another tenant's never, and without a principal nothing at all."""
    mine, theirs = log.tenant(5), log.tenant(3)
    connection = psycopg.connect(log.cluster.dsn(log.name, user=log.roles.app))
    log.tenancy.install(connection)
    with connection:
        for tenant, count in ((mine, 5), (theirs, 3)):
            with acting_as(Principal(tenant=tenant, user="u", role="owner")), connection.transaction():
                page = read_page(connection)
                assert [entry.number for entry in page] == list(range(count, 0, -1))
                assert {entry.tenant for entry in page} == {entry.event()["tenant"] for entry in page} == {tenant}
                assert [entry.number for entry in read_page(connection, before=3, limit=1)] == [2]
                assert read_page(connection, before=1) == read_page(connection, before=0) == [], "whoever pages backwards ends"
    with log.connection() as connection, pytest.raises(psycopg.Error) as refused:
        read_page(connection)
    assert refused.value.sqlstate == "AX001"


def test_parallel_writers_make_one_chain(log: Log) -> None:
    """Twelve writers, two tenants: each chain is whole, without a gap, and holds every event once."""
    tenants, each = ("p" + secrets.token_hex(5), "p" + secrets.token_hex(5)), 20

    def write(start: int) -> None:
        sink = PostgresAuditSink(log)
        for number in range(start, start + each):
            sink.emit(event(tenants[number % 2], number))

    threads = [threading.Thread(target=write, args=(number * each,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with log.system() as connection:
        for tenant in tenants:
            (chain,) = read_log(connection, tenant=tenant)
            entries = list(chain.entries)
            assert [entry.number for entry in entries] == list(range(1, 12 * each // 2 + 1))
            assert len({entry.event()["target"] for entry in entries}) == len(entries)
    assert [log.verified(tenant) for tenant in tenants] == [[], []]


def test_the_async_sink_writes_the_same_chain(log: Log) -> None:
    """Awaited or not, the entry is the same, and one that cannot be written is refused."""

    class Source:
        def __init__(self, dsn: str) -> None:
            self.dsn = dsn

        def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
            return _opened(self.dsn)

    tenant = log.tenant(1)

    async def work() -> None:
        sink = AsyncPostgresAuditSink(Source(log.cluster.dsn(log.name, user=log.roles.app)))
        await asyncio.gather(*(sink.aemit(event(tenant, number)) for number in range(5)))
        with pytest.raises(Unavailable):
            await AsyncPostgresAuditSink(Source(log.cluster.dsn("postgres", user=log.roles.app))).aemit(event(tenant, 1))

    asyncio.run(work())
    assert log.verified(tenant) == []
    with log.system() as connection:
        (chain,) = read_log(connection, tenant=tenant)
        assert len(list(chain.entries)) == 6


@asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection


def test_an_event_outlives_the_rollback_of_what_it_records(log: Log) -> None:
    """The sink writes on a connection of its own; and where it cannot write, the act that must leave a record does not happen."""
    tenant = log.tenant(0)
    with log.connection() as connection:
        connection.execute("SELECT 1")
        PostgresAuditSink(log).emit(event(tenant, 1))
        connection.rollback()
    assert log.verified(tenant) == []

    class Nowhere:
        def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
            return psycopg.connect("host=127.0.0.1 port=1 user=x dbname=x password=hunter2")

    with pytest.raises(Unavailable) as refused:
        PostgresAuditSink(Nowhere()).emit(event(tenant, 2))
    assert "hunter2" not in str(refused.value)


TAMPERING: dict[str, tuple[str, str]] = {
    "a changed body": (
        "UPDATE axis.audit_event SET body = replace(body, 'admin', 'owner') WHERE tenant = %(t)s AND number = 3",
        "audit.changed",
    ),
    "a changed hash": ("UPDATE axis.audit_event SET hash = sha256(hash) WHERE tenant = %(t)s AND number = 3", "audit.changed"),
    "a removed entry": ("DELETE FROM axis.audit_event WHERE tenant = %(t)s AND number = 3", "audit.gap"),
    "a removed first entry": ("DELETE FROM axis.audit_event WHERE tenant = %(t)s AND number = 1", "audit.gap"),
    "a removed last entry": ("DELETE FROM axis.audit_event WHERE tenant = %(t)s AND number = 6", "audit.cut"),
    "all entries removed": ("DELETE FROM axis.audit_event WHERE tenant = %(t)s", "audit.cut"),
    "the head removed": ("DELETE FROM axis.audit_head WHERE tenant = %(t)s", "audit.cut"),
    "two entries exchanged": (
        "UPDATE axis.audit_event e SET body = o.body FROM axis.audit_event o WHERE e.tenant = %(t)s AND o.tenant = %(t)s AND e.number + o.number = 7",
        "audit.changed",
    ),
    "an entry that was never written": (
        "INSERT INTO axis.audit_event SELECT tenant, 7, written_at, body, sha256(hash) FROM axis.audit_event WHERE tenant = %(t)s AND number = 6",
        "audit.changed",
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_what_the_databases_owner_changes_is_found(log: Log, how: str) -> None:
    """Nobody can stop a superuser; verification says what was done to which chain, and that the others are whole."""
    tenant, other = log.tenant(), log.tenant()
    statement, code = TAMPERING[how]
    with log.owner() as connection:
        connection.execute(statement, {"t": tenant})
    assert log.verified(tenant) == [code]
    assert log.verified(other) == []


def test_a_chain_rewritten_with_care_is_found_by_its_anchor(log: Log) -> None:
    """Who rewrites all later hashes too, or cuts entries and sets the head back, passes a look at the chain alone; an anchor kept elsewhere shows it."""
    rewritten, cut, gone = log.tenant(), log.tenant(), log.tenant()
    with log.system() as connection:
        kept = anchors(connection)
    with log.owner() as connection:
        for tenant, keep in ((rewritten, 2), (cut, 4)):
            connection.execute("DELETE FROM axis.audit_event WHERE tenant = %s AND number > %s", (tenant, keep))
            connection.execute(
                "UPDATE axis.audit_head h SET number = e.number, hash = e.hash FROM axis.audit_event e"
                " WHERE h.tenant = %s AND e.tenant = h.tenant AND e.number = %s",
                (tenant, keep),
            )
        for number in range(10, 20):
            connection.execute("SELECT axis.audit_append(%s, %s)", (rewritten, json.dumps({"tenant": rewritten, "n": number})))
        connection.execute("DELETE FROM axis.audit_event WHERE tenant = %s", (gone,))
        connection.execute("DELETE FROM axis.audit_head WHERE tenant = %s", (gone,))
    assert log.verified(rewritten) == log.verified(cut) == [], "control: the chain alone looks whole"
    assert log.verified(rewritten, *kept) == ["audit.anchor_mismatch"]
    assert log.verified(cut, *kept) == ["audit.cut"]
    assert log.verified(gone, *kept) == ["audit.cut"]


def test_retention_leaves_a_chain_that_verifies(log: Log) -> None:
    """Entries beyond the retention go, from the beginning only; the rest verifies from the checkpoint, says that they went, and tampering still shows."""
    tenant = log.tenant(8)
    now = datetime.now(UTC)
    with log.owner() as connection:  # as if they were old
        connection.execute(
            "UPDATE axis.audit_event SET written_at = now() - interval '400 days' WHERE tenant = %s AND number <= 5", (tenant,)
        )
        # Clocks go back: an old time behind a new one must not tear a hole.
        connection.execute(
            "UPDATE axis.audit_event SET written_at = now() - interval '400 days' WHERE tenant = %s AND number = 7", (tenant,)
        )
    with log.system() as connection:
        before = anchors(connection)
        assert prune(connection, tenant, keep=timedelta(days=365), now=now) == 5
        assert prune(connection, tenant, keep=timedelta(days=365), now=now) == 0
        (chain,) = read_log(connection, tenant=tenant)
        entries = list(chain.entries)
        with pytest.raises(ConfigError):
            prune(connection, tenant, keep=timedelta(hours=1), now=now)
    assert [entry.number for entry in entries] == [6, 7, 8, 9]
    assert entries[-1].event()["kind"] == "ops.audit_pruned"
    assert entries[-1].event()["detail"]["removed"] == 5
    assert log.verified(tenant, *before) == []
    with log.owner() as connection:
        connection.execute("UPDATE axis.audit_event SET body = replace(body, 'admin', 'owner') WHERE tenant = %s AND number = 7", (tenant,))
    assert log.verified(tenant) == ["audit.changed"]


def exported(log: Log, tenant: str | None = None) -> list[str]:
    """The lines of an export."""
    out = io.StringIO()
    with log.system() as connection:
        export_log(read_log(connection, tenant=tenant), out)
    return out.getvalue().splitlines(keepends=True)


DAMAGE: dict[str, Callable[[list[str]], list[str]]] = {
    "a changed entry": lambda lines: [*lines[:2], lines[2].replace("admin", "owner"), *lines[3:]],
    "a line less": lambda lines: [*lines[:2], *lines[3:]],
    "the last line less": lambda lines: lines[:-1],
    "lines exchanged": lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
    "no JSON": lambda lines: [*lines[:2], "{", *lines[3:]],
    "no header": lambda lines: lines[1:],
}


def test_an_export_verifies_without_the_database(log: Log) -> None:
    """All chains, one after the other, hold; any damage to the file shows."""
    tenant, second = log.tenant(), log.tenant(2)
    # Other tests damage chains of their own in the same database.
    held = {result.seen.partition(":")[0]: result.ok for result in verify_export(exported(log))}
    assert (held[tenant], held[second]) == (True, True)
    lines = exported(log, tenant)
    assert [result.ok for result in verify_export(lines)] == [True]
    for how, damage in DAMAGE.items():
        assert not all(result.ok for result in verify_export(damage(lines))), how
    other = Anchor(tenant="other", number=1, hash=bytes(32))
    assert not all(result.ok for result in verify_export(lines, kept=[other])), "an anchored chain must not be left out"


def test_one_tampered_chain_hides_no_other_in_an_export(log: Log) -> None:
    """A chain whose head was removed is red in an export of the whole log, and every chain after it is still verified."""
    tenants = sorted(log.tenant(2) for _ in range(3))
    with log.owner() as connection:
        connection.execute("DELETE FROM axis.audit_head WHERE tenant = %s", (tenants[0],))
    results = {result.seen.partition(":")[0]: result for result in verify_export(exported(log))}
    assert [results[tenant].ok for tenant in tenants] == [False, True, True]
    assert [finding.code for finding in results[tenants[0]].findings] == ["audit.cut"]


def test_the_command_line_verifies_exports_anchors_and_prunes(log: Log, tmp_path: Path, command_line: Callable[..., Result]) -> None:
    """Green and status 0 on a whole log; after tampering red and status 1, on the database and on the export alike; a refused login says nothing secret."""
    tenant = log.tenant()
    dsn = tmp_path / "dsn"
    dsn.write_text(log.cluster.dsn(log.name, user=log.roles.system, password="hunter2"))
    cli = partial(command_line, "audit", "--dsn-file", dsn)
    out, kept = tmp_path / "audit.jsonl", tmp_path / "anchors.jsonl"
    assert json.loads(cli("export", "--tenant", tenant, "--out", str(out)).stdout)["entries"] == 6
    assert json.loads(cli("anchors", "--out", str(kept)).stdout)["anchors"] > 0
    assert cli("verify", "--export", str(out)).exit_code == 0
    assert json.loads(cli("prune", "--tenant", tenant, "--keep", "365 d").stdout)["total"] == 0
    out.write_text(out.read_text().replace("admin", "owner", 1))
    assert cli("verify", "--export", str(out)).exit_code == 1
    with log.owner() as connection:
        connection.execute("DELETE FROM axis.audit_event WHERE tenant = %s AND number = 2", (tenant,))
    red = cli("verify", "--anchors", str(kept), "--json")
    assert red.exit_code == 1
    assert [each["findings"][0]["code"] for each in json.loads(red.stdout) if each["seen"].startswith(tenant)] == ["audit.gap"]
    shown = cli("verify")
    assert "FAIL" in shown.stdout
    assert "[audit.gap]" in shown.stdout
    assert cli("prune", "--keep", "a while").exit_code == 2
    assert json.loads(cli("prune", "--keep", "365").stdout) == {"removed": {}, "total": 0}
    dsn.write_text("host=127.0.0.1 port=1 user=x dbname=x password=hunter2")
    refused = cli("verify")
    assert refused.exit_code == 2
    assert "hunter2" not in refused.stdout + refused.stderr

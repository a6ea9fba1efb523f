"""The export of a workspace: complete, the tenant's own, checksummed, announced, and of bounded memory."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import secrets
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from axis_security import Principal, acting_as
from axis_security.core.events import AuditEvent, EventKind
from axis_security.core.schema import DatabaseRoles
from axis_security.ops.export import ExportIncomplete, ExportTable, export_workspace
from axis_security.rbac import Capabilities, PermissionDenied, Policy, Role, allow, owns
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

ROWS = 20_000
NASTY = 'quote " comma , newline \n tab \t back\\slash nul-like \\0 é € \\.'
TABLES = [ExportTable(schema="public", name="notes", read="notes.read"), ExportTable(schema="public", name="empty", read="notes.read")]


class Kept:
    """A sink that keeps events, and what was written when each came."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.written: list[int] = []
        self.out = io.BytesIO()

    def emit(self, event: AuditEvent) -> None:
        """Keep it."""
        self.events.append(event)
        self.written.append(self.out.tell())


@dataclass
class Shop:
    """A protected database with two tenants' rows."""

    cluster: Cluster
    name: str
    tenancy: Tenancy
    policy: Policy
    sink: Kept

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection that binds at BEGIN, as the tenancy installs it."""
        with psycopg.connect(self.cluster.dsn(self.name, user=self.tenancy.roles.app)) as conn:
            yield self.tenancy.install(conn)


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    """Two tables under the real plan."""
    caps = Capabilities(notes=("read", "write"), users=("manage",))
    sink = Kept()
    policy = Policy(
        caps,
        roles=[
            Role("owner", list(caps)),
            Role("partial", [caps.users.manage, allow(caps.notes.read, when=owns("owner_id"))]),
            Role("viewer", [caps.notes.read]),
        ],
        events=sink,
    )
    metadata = sa.MetaData()
    tables = [
        sa.Table(
            name,
            metadata,
            sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("tenant_id", sa.Text, nullable=False),
            sa.Column("owner_id", sa.Text),
            sa.Column("body", sa.Text),
        )
        for name in ("notes", "empty")
    ]
    roles = DatabaseRoles.prefixed("export_" + secrets.token_hex(4))
    tenancy = Tenancy(metadata, key="tenant_id", policy=policy, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
    for table in tables:
        tenancy.protect(table, read=caps.notes.read, write=caps.notes.write)
    with cluster.database("export") as name:
        engine = sa.create_engine(cluster.url(name))
        metadata.create_all(engine)
        engine.dispose()
        with psycopg.connect(cluster.dsn(name)) as conn:
            conn.execute("INSERT INTO notes SELECT i, 't' || i %% 2, 'u', %s || i FROM generate_series(1, %s) i", (NASTY, ROWS))
            tenancy.plan(conn).apply(conn)
            conn.commit()
        yield Shop(cluster, name, tenancy, policy, sink)
    with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
        for role in (roles.owner, roles.app, roles.system, roles.guard):
            conn.execute(f"DROP ROLE {role}")


def test_an_export_is_complete_and_nobody_elses(shop: Shop) -> None:
    """Counts equal a count from above, every row is the tenant's, both formats carry every value exactly, checksums hold, and the event came first."""
    shop.sink.events.clear()
    shop.sink.written.clear()
    shop.sink.out = io.BytesIO()
    seen: list[tuple[str, int]] = []
    with acting_as(Principal(tenant="t1", user="u", role="owner")):
        done = export_workspace(
            shop.sink.out, source=shop, tables=TABLES, policy=shop.policy, export="e1", progress=lambda *now: seen.append(now)
        )
    with psycopg.connect(shop.cluster.dsn(shop.name)) as conn:
        wanted: dict[int, str] = dict(conn.execute("SELECT id, body FROM notes WHERE tenant_id = 't1'").fetchall())
    assert done.rows == {"public.notes": len(wanted), "public.empty": 0}
    with zipfile.ZipFile(shop.sink.out) as archive:
        assert archive.testzip() is None
        lines = [json.loads(line) for line in archive.read("public.notes.jsonl").decode().split("\n") if line]
        table = list(csv.DictReader(io.StringIO(archive.read("public.notes.csv").decode(), newline="")))
        manifest = json.loads(archive.read("manifest.json"))
        for file in manifest["files"]:
            data = archive.read(file["file"])
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["bytes"])
    for rows in (lines, table):
        assert {row["tenant_id"] for row in rows} == {"t1"}
        assert {int(row["id"]): row["body"] for row in rows} == wanted
    assert [column["name"] for column in manifest["columns"]["public.notes"]] == ["id", "tenant_id", "owner_id", "body"]
    assert [(event.kind, dict(event.detail)) for event in shop.sink.events] == [(EventKind.DATA_EXPORTED, {"tables": 2, "export": "e1"})]
    assert shop.sink.written == [0], "the event was written before the first byte"
    assert seen[-1] == ("public.empty", 0)


def test_an_export_is_refused_without_the_right_or_where_it_would_lack_rows(shop: Shop) -> None:
    """Without users.manage, or with a conditional read, nothing is written."""
    for role, error in (("viewer", PermissionDenied), ("partial", ExportIncomplete)):
        out = io.BytesIO()
        with acting_as(Principal(tenant="t1", user="u", role=role)), pytest.raises(error):
            export_workspace(out, source=shop, tables=TABLES, policy=shop.policy, export="e2")
        assert out.getvalue() == b""


def test_memory_does_not_grow_with_the_rows(shop: Shop) -> None:
    """Ten thousand rows, a few megabytes, pass through less than one and a half megabytes of Python memory."""

    class Sink(io.RawIOBase):
        size = 0

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.size += len(data)
            return len(data)

    out = Sink()
    tracemalloc.start()
    try:
        with acting_as(Principal(tenant="t1", user="u", role="owner")):
            export_workspace(out, source=shop, tables=TABLES, policy=shop.policy, export="e3")  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert out.size > 1_500_000
    assert peak < 1_500_000

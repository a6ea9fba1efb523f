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
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from axis_security import Principal, acting_as
from axis_security.core.events import AuditEvent, EventKind, NullSink
from axis_security.core.ids import TenantId
from axis_security.core.schema import DatabaseRoles
from axis_security.crypto import FileShredLedger, KeyRing, KeyShredded, SealError, WrongContext
from axis_security.ops.copy_out import CopyOut
from axis_security.ops.export import ExportFailed, ExportIncomplete, ExportTable, export_workspace, open_export
from axis_security.rbac import Capabilities, PermissionDenied, Policy, Role, allow, owns
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster
from axis_security.testing.crypto import FakeKms, MemoryKeyStore

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


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """Keys of both tenants."""
    made = KeyRing(
        store=MemoryKeyStore(), service=FakeKms(), ledger=FileShredLedger(tmp_path / "ledger", create=True), sink=NullSink()
    )  # fmt: skip
    for tenant in ("t0", "t1"):
        made.create(TenantId(tenant))
    return made


def sealed(shop: Shop, ring: KeyRing, export: str) -> io.BytesIO:
    """An export of t1's, sealed."""
    out = io.BytesIO()
    with acting_as(Principal(tenant="t1", user="u", role="owner")):
        export_workspace(out, source=shop, tables=TABLES, policy=shop.policy, export=export, ring=ring)
    return out


def test_a_sealed_export_opens_for_its_workspace_alone(shop: Shop, ring: KeyRing) -> None:
    """Nothing readable lies on the disk; who may export there opens it, also after a rotation; nobody else, and not under another export's name."""
    out, opened = sealed(shop, ring, "e4"), io.BytesIO()
    assert out.getvalue()[:1] == b"\xa2"
    assert not any(text in out.getvalue() for text in (b"PK\x03\x04", b"manifest", b"tenant_id", b"comma"))
    ring.rotate(TenantId("t1"))
    with acting_as(Principal(tenant="t1", user="u", role="owner")):
        assert open_export(out, opened, ring=ring, policy=shop.policy, export="e4") == len(opened.getvalue())
    with zipfile.ZipFile(opened) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("manifest.json"))["tenant"] == "t1"
    for tenant, role, export, error in (
        ("t0", "owner", "e4", WrongContext),
        ("t1", "owner", "e5", WrongContext),
        ("t1", "viewer", "e4", PermissionDenied),
    ):
        with acting_as(Principal(tenant=tenant, user="u", role=role)), pytest.raises(error):
            open_export(out, io.BytesIO(), ring=ring, policy=shop.policy, export=export)


def test_a_sealed_export_that_was_cut_or_changed_does_not_open(shop: Shop, ring: KeyRing) -> None:
    """The end missing, or one bit flipped: refused. After shredding it is gone, wherever copies lie."""
    whole = sealed(shop, ring, "e6").getvalue()
    owner = Principal(tenant="t1", user="u", role="owner")
    for damaged in (whole[: len(whole) // 2], whole[:-1], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        with acting_as(owner), pytest.raises(SealError):
            open_export(io.BytesIO(damaged), io.BytesIO(), ring=ring, policy=shop.policy, export="e6")
    ring.shred(TenantId("t1"), reason="the workspace is gone")
    with acting_as(owner), pytest.raises(KeyShredded):
        open_export(io.BytesIO(whole), io.BytesIO(), ring=ring, policy=shop.policy, export="e6")


def test_an_export_that_breaks_off_is_no_export(shop: Shop, ring: KeyRing) -> None:
    """The server ends the connection midway: a typed error with its SQLSTATE, and what was written does not open."""
    out = io.BytesIO()

    def kill(_: str, __: int) -> None:
        with psycopg.connect(shop.cluster.dsn(shop.name), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = %s AND datname = %s",
                (shop.tenancy.roles.app, shop.name),
            )

    with acting_as(Principal(tenant="t1", user="u", role="owner")):
        with pytest.raises(ExportFailed):
            export_workspace(out, source=shop, tables=TABLES * 2, policy=shop.policy, export="e7", ring=ring, progress=kill)
        assert len(out.getvalue()) > 500_000, "it had begun"
        with pytest.raises(SealError):
            open_export(out, io.BytesIO(), ring=ring, policy=shop.policy, export="e7")


def test_copy_out_gives_what_copy_gives(shop: Shop) -> None:
    """Byte for byte psycopg's own rows; left early the connection goes on; a failure within the rows is a typed error, and no count is believed."""
    statement = psycopg.sql.SQL("COPY (SELECT id, body FROM notes ORDER BY id) TO STDOUT (FORMAT csv, HEADER)")
    with psycopg.connect(shop.cluster.dsn(shop.name)) as conn, conn.cursor() as cursor:
        with cursor.copy(statement) as copy:
            wanted = b"".join(copy)
        out = CopyOut(cursor, statement)
        assert b"".join(out) == wanted
        assert (out.rows, out.seen) == (ROWS, ROWS + 1)
        left = iter(CopyOut(cursor, statement))
        next(left)
        left.close()  # type: ignore[attr-defined]  # it is a generator
        assert conn.info.transaction_status is not psycopg.pq.TransactionStatus.ACTIVE, "cancelled, or drained"
        conn.rollback()
        empty = CopyOut(cursor, psycopg.sql.SQL("COPY (SELECT 1 WHERE false) TO STDOUT"))
        assert (list(empty), empty.rows) == ([], 0)
        failing = CopyOut(cursor, psycopg.sql.SQL("COPY (SELECT 1 / (5000 - i) FROM generate_series(1, 9000) i) TO STDOUT"))
        with pytest.raises(psycopg.Error) as caught:
            list(failing)
        assert (caught.value.sqlstate, failing.rows) == ("22012", None)
        conn.rollback()
        assert conn.execute("SELECT 1").fetchone() == (1,)

"""Exporting a workspace, plain and sealed: against a bare COPY loop over the same rows on the same guarded connection, against psql; and its memory."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import sqlalchemy as sa

from axis_security import Principal, acting_as
from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.core.schema import DatabaseRoles
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.ledger import FileShredLedger
from axis_security.ops.export import ExportTable, export_workspace
from axis_security.rbac import Capabilities, Policy, Role
from axis_security.rls import SealKey, SealKeyring, Tenancy
from axis_security.testing.cluster import Cluster, clean_env
from axis_security.testing.crypto import FakeKms, MemoryKeyStore
from benchmarks.harness import Row, Settings, interleaved, measured

_ROWS = 1_000_000
_GROWTH_MIB = 16.0
_SELECT = {
    "jsonl": "SELECT pg_catalog.row_to_json(r) FROM contact r",
    "csv": "SELECT * FROM contact",
}
_OPTIONS = {
    "jsonl": "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'",
    "csv": "FORMAT csv, HEADER",
}
_TABLES = [ExportTable(schema="public", name="contact", read="contacts.read")]


class _Source:
    """Guarded connections of the application's role."""

    def __init__(self, cluster: Cluster, name: str, tenancy: Tenancy) -> None:
        self._dsn, self._tenancy = cluster.dsn(name, user=tenancy.roles.app), tenancy

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self._dsn) as conn:
            yield self._tenancy.install(conn)


def run(settings: Settings) -> Iterable[Row]:
    """Every side reads the same rows under row-level security and writes them to a file; psql reads them as the superuser."""
    rows = _ROWS // 10 if settings.quick else _ROWS
    caps = Capabilities(contacts=("read",), users=("manage",))
    policy = Policy(caps, roles=[Role("owner", list(caps))], events=NullSink())
    metadata = sa.MetaData()
    table = sa.Table(
        "contact",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("email", sa.Text),
        sa.Column("balance", sa.Numeric),
        sa.Column("created", sa.DateTime(timezone=True)),
    )
    tenancy = Tenancy(metadata, policy=policy, roles=DatabaseRoles.prefixed("bench"), seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(table, read=caps.contacts.read)
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        name = cluster.create_database("export")
        with psycopg.connect(cluster.dsn(name)) as admin:
            metadata.create_all(sa.create_engine(cluster.url(name)))
            admin.execute(
                "INSERT INTO contact SELECT i, 't1', 'Contact number ' || i, 'contact' || i || '@example.com', i * 1.07, now() "
                "FROM generate_series(1, %s) i",
                (rows,),
            )
            tenancy.plan(admin).apply(admin)
            admin.commit()
        with psycopg.connect(cluster.dsn(name), autocommit=True) as admin:
            admin.execute("VACUUM ANALYZE contact")
        source, path = _Source(cluster, name, tenancy), Path(folder)
        ring = KeyRing(
            store=MemoryKeyStore(), service=FakeKms(), ledger=FileShredLedger(path / "ledger", create=True), sink=NullSink()
        )  # fmt: skip
        ring.create(TenantId("t1"))
        with acting_as(Principal(tenant="t1", user="u", role="owner")):
            for form in _SELECT:
                yield from _speed(settings, form, rows, source, policy, ring, path, cluster.dsn(name), cluster.program("psql"))
            yield _memory(rows, source, policy, ring, path)


def _speed(
    settings: Settings, form: str, rows: int, source: _Source, policy: Policy, ring: KeyRing, folder: Path, admin: str, psql_path: Path
) -> Iterable[Row]:
    copy = f"COPY ({_SELECT[form]}) TO STDOUT ({_OPTIONS[form]}, ENCODING 'UTF8')"

    def ours(ring: KeyRing | None) -> Callable[[], object]:
        def work() -> None:
            with (folder / "out").open("wb") as out:
                export_workspace(out, source=source, tables=_TABLES, policy=policy, export="bench", formats=(form,), ring=ring)

        return work

    def bare() -> None:
        with source.connection() as conn, (folder / "out").open("wb") as out, conn.cursor().copy(copy) as blocks:
            for block in blocks:
                out.write(block)

    def psql() -> None:
        with (folder / "out").open("wb") as out:
            subprocess.run([psql_path, "-qXd", admin, "-c", copy], stdout=out, check=True, env=clean_env())

    cases: dict[str, Callable[[], object]] = {"ours": ours(None), "sealed": ours(ring), "bare": bare, "psql": psql}
    seconds = interleaved(cases, rounds=settings.rounds(9))
    speed = {side: [rows / value for value in values] for side, values in seconds.items()}
    limit = statistics.median(speed["bare"])
    for side, case in (("ours", f"{form}, zip with checksums"), ("sealed", f"{form}, the zip sealed")):
        yield measured(
            "export",
            case,
            "rows/s",
            speed[side],
            limit=limit,
            peers={"psql": speed["psql"]},
            target="at least 0.8 x a bare COPY loop over the same rows",
            met=statistics.median(speed[side]) >= 0.8 * limit,
        )


def _memory(rows: int, source: _Source, policy: Policy, ring: KeyRing, folder: Path) -> Row:
    process = psutil.Process()
    before = peak = process.memory_info().rss

    def look(_: str, __: int) -> None:
        nonlocal peak
        peak = max(peak, process.memory_info().rss)

    with (folder / "out").open("wb") as out:
        export_workspace(out, source=source, tables=_TABLES, policy=policy, export="bench", ring=ring, progress=look)
    grown = (peak - before) / 2**20
    return measured(
        "export",
        f"memory growth over {rows:,} rows, both formats, sealed",
        "MiB",
        [grown],
        limit=_GROWTH_MIB,
        target=f"at most {_GROWTH_MIB:g} MiB",
        met=grown <= _GROWTH_MIB,
    )

"""Row-level security against the same statement with a literal ``WHERE tenant_id`` and no policies, and against two other packages' policies.

Each variant has its own copy of the same rows, under the same indexes. Statements are timed inside a transaction whose context is set already, so a row compares
predicates and nothing else; what it costs to bind a transaction has a row of its own.

The rows without a word beside them use psycopg as it comes: it prepares a statement that it has seen five times. Two more ways show the rest: ``planned anew`` never
prepares (the policy is expanded and planned each time), and ``ORM`` is what a host with SQLAlchemy sees. ``unchecked`` is the cheapest policy that PostgreSQL can
evaluate, a bare setting that any injected statement could write: what lies between it and ours is the price of checking, and what lies below it nobody can save.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from axis_security import Principal, acting_as
from axis_security.core.schema import DatabaseRoles
from axis_security.rls import SealKey, SealKeyring, Tenancy
from axis_security.rls.bind import Bound
from axis_security.rls.install import install
from axis_security.rls.sealed import Sealer
from axis_security.testing.cluster import Cluster
from benchmarks.harness import Row, Settings, interleaved, measured

TENANTS = 1_000
BIG, SMALL = 1, 500
"""Tenant 1 has 40 % of the rows; tenant 500 its even share of the rest."""
ROLES = DatabaseRoles.prefixed("bench")
_LONGEST = 30.0
"""Seconds for one case."""


class Base(DeclarativeBase):
    """Our copy of the tables."""


class Doc(Base):
    """What is read."""

    __tablename__ = "ours_doc"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    tenant_id: Mapped[int]
    n: Mapped[int]
    created: Mapped[int]
    title: Mapped[str]


class Line(Base):
    """What is joined to it."""

    __tablename__ = "ours_line"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    tenant_id: Mapped[int]
    doc_id: Mapped[int] = mapped_column(sa.BigInteger)
    qty: Mapped[int]


@dataclass(frozen=True)
class Variant:
    """A copy of the tables. Args: name: its prefix; literal: whether statements name the tenant; bind: sets the context of a transaction."""

    name: str
    literal: bool
    bind: Callable[[psycopg.Connection[Any], int], None]


def run(settings: Settings) -> Iterable[Row]:
    """Every row."""
    rows = 200_000 if settings.quick else 2_000_000
    with Cluster(settings={"shared_buffers": "2GB", "work_mem": "64MB", "max_wal_size": "8GB"}) as server, server.database("bench") as name:
        keyring = SealKeyring(current=SealKey.generate(1))
        sealer = Sealer(keyring)
        variants = [
            Variant("plain", literal=True, bind=lambda conn, tenant: None),
            Variant("ours", literal=False, bind=lambda conn, tenant: _set(conn, "axis.context", sealer(_who(tenant)))),
            Variant("unchecked", literal=False, bind=lambda conn, tenant: _set(conn, "bench.tenant", str(tenant))),
            *_peers(),
        ]
        _load(server, name, rows, keyring, [variant.name for variant in variants])
        for case in _CASES:
            yield from _statement(server, name, rows, variants, settings, case, _THRESHOLD)
        for case in _CASES[:2]:
            yield from _statement(server, name, rows, variants, settings, case, None)
        yield from _orm(server, name, rows, sealer, settings)
        yield from _context(server, name, keyring, settings)


def _who(tenant: int) -> Principal:
    return Principal(tenant=tenant, user=7, role="member")


def _set(conn: psycopg.Connection[Any], name: str, value: str) -> None:
    conn.execute("SELECT set_config(%s, %s, true)", (name, value))


def _peers() -> Iterator[Variant]:
    for package in ("rls", "fastapi_rls"):
        try:
            __import__(package)
        except ImportError:
            continue
        yield Variant(f"peer_{package}", literal=False, bind=lambda conn, tenant: _set(conn, "rls.tenant_id", str(tenant)))


def _load(server: Cluster, name: str, rows: int, keyring: SealKeyring, names: list[str]) -> None:
    with psycopg.connect(server.dsn(name), autocommit=True) as conn:
        for variant in names:
            conn.execute(
                f"CREATE TABLE {variant}_doc (id bigint PRIMARY KEY, tenant_id int NOT NULL, n int NOT NULL, created int NOT NULL, title text NOT NULL);"
                f"CREATE TABLE {variant}_line (id bigint PRIMARY KEY, tenant_id int NOT NULL, doc_id bigint NOT NULL, qty int NOT NULL)".encode()
            )
        first = names[0]
        conn.execute(
            f"INSERT INTO {first}_doc SELECT i, CASE WHEN i % 5 < 2 THEN {BIG} ELSE 2 + (i * 7919) % {TENANTS - 1} END, (i * 31) % 1000, (i * 6007) % 1000003, 'document number ' || i"
            f" FROM generate_series(1::bigint, {rows}) i".encode()
        )
        conn.execute(f"INSERT INTO {first}_line SELECT id, tenant_id, id, n FROM {first}_doc".encode())
        for variant in names[1:]:
            for table in ("doc", "line"):
                conn.execute(f"INSERT INTO {variant}_{table} SELECT * FROM {first}_{table}".encode())
        for variant in names:
            conn.execute(
                f"CREATE INDEX ON {variant}_doc (tenant_id, created); CREATE INDEX ON {variant}_doc (tenant_id, id); CREATE INDEX ON {variant}_line (tenant_id, doc_id)".encode()
            )
        tenancy = Tenancy(Base.metadata, roles=ROLES, seal=keyring)
        tenancy.protect(Doc)
        tenancy.protect(Line)
        tenancy.plan(conn).apply(conn)
        conn.execute(f"ALTER ROLE {ROLES.app} LOGIN; GRANT SELECT, INSERT ON plain_doc, plain_line TO {ROLES.app}".encode())
        _peer_policies(conn, names)
        conn.execute("VACUUM (ANALYZE)")
        conn.execute("CHECKPOINT")


def _peer_policies(conn: psycopg.Connection[Any], names: list[str]) -> None:
    for table in ("doc", "line"):
        conn.execute(
            f"ALTER TABLE unchecked_{table} ENABLE ROW LEVEL SECURITY; CREATE POLICY tenant ON unchecked_{table} TO {ROLES.app} "
            f"USING (tenant_id = (SELECT current_setting('bench.tenant')::int)); GRANT SELECT, INSERT ON unchecked_{table} TO {ROLES.app}".encode()
        )
        if "peer_rls" in names:
            from rls.schemas import Command, ConditionArg, Permissive

            conn.execute(
                f"ALTER TABLE peer_rls_{table} ENABLE ROW LEVEL SECURITY; ALTER TABLE peer_rls_{table} FORCE ROW LEVEL SECURITY".encode()
            )
            policy = Permissive(
                condition_args=[ConditionArg(comparator_name="tenant_id", type=sa.Integer)],
                cmd=[Command.all],
                custom_expr=lambda tenant: sa.column("tenant_id") == tenant,
            )
            for statement in policy.get_sql_policies(f"peer_rls_{table}"):
                conn.execute(str(statement).encode())
        if "peer_fastapi_rls" in names:
            from fastapi_rls import TenantPolicy

            theirs = TenantPolicy("tenant", table=f"peer_fastapi_rls_{table}")
            conn.execute(
                f"ALTER TABLE peer_fastapi_rls_{table} ENABLE ROW LEVEL SECURITY; ALTER TABLE peer_fastapi_rls_{table} FORCE ROW LEVEL SECURITY;"
                f"CREATE POLICY tenant ON peer_fastapi_rls_{table} USING ({theirs.get_using_expression()}) WITH CHECK ({theirs.get_check_expression()})".encode()
            )
    for variant in names:
        if variant.startswith("peer"):
            conn.execute(f"GRANT SELECT, INSERT ON {variant}_doc, {variant}_line TO {ROLES.app}".encode())


_THRESHOLD: Final = 5
"""psycopg's own."""

# case, tenant, statement ({v} the variant, {and} and {where} the literal filter), repeats a round, highest ratio to the literal, settings
_CASES: tuple[tuple[str, int, str, int, float, str], ...] = (
    ("point read", SMALL, "SELECT * FROM {v}_doc WHERE id = {id}{and}", 400, 1.10, ""),
    ("page of 50", SMALL, "SELECT * FROM {v}_doc{where} ORDER BY created DESC LIMIT 50", 200, 1.05, ""),
    ("page of 50, 40 % tenant", BIG, "SELECT * FROM {v}_doc{where} ORDER BY created DESC LIMIT 50", 200, 1.05, ""),
    ("count", SMALL, "SELECT count(*) FROM {v}_doc{where}", 100, 1.05, ""),
    ("count, 40 % tenant", BIG, "SELECT count(*) FROM {v}_doc{where}", 1, 1.05, ""),
    ("join of two tables", SMALL, "SELECT sum(l.qty) FROM {v}_doc d JOIN {v}_line l ON l.doc_id = d.id{both} AND d.n < 500", 50, 1.05, ""),
    (
        "full scan, 40 % tenant",
        BIG,
        "SELECT count(*) FROM {v}_doc WHERE title LIKE '%77'{and}",
        1,
        1.15,
        "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off",
    ),
    ("insert of 100 rows", SMALL, "INSERT INTO {v}_line SELECT {new} + i, {t}, i, 1 FROM generate_series(1, 100) i", 5, 1.15, ""),
)


def _repeated(work: Callable[[], object], repeats: int) -> Callable[[], object]:
    def many() -> None:
        for _ in range(repeats):
            work()

    return many


def _statement(
    server: Cluster,
    name: str,
    rows: int,
    variants: list[Variant],
    settings: Settings,
    chosen: tuple[str, int, str, int, float, str],
    threshold: int | None,
) -> Iterator[Row]:
    case, tenant, statement, usual, highest, tuning = chosen
    case += "" if threshold else ", planned anew"
    with psycopg.connect(server.dsn(name), autocommit=True) as admin:
        found = admin.execute("SELECT id FROM plain_doc WHERE tenant_id = %s LIMIT 1 OFFSET 7", (tenant,)).fetchone()
        top = admin.execute("SELECT max(id) FROM plain_line").fetchone()
    connections = {variant.name: psycopg.connect(server.dsn(name, user=ROLES.app), prepare_threshold=threshold) for variant in variants}
    new = [(top[0] if top else rows) + 1_000]
    singles: dict[str, Callable[[], object]] = {}
    for variant in variants:
        conn = connections[variant.name]
        variant.bind(conn, tenant)
        if tuning:
            conn.execute(tuning.encode())
        literal = f"tenant_id = {tenant}" if variant.literal else ""
        parts = {
            "v": variant.name,
            "t": tenant,
            "id": found[0] if found else 0,
            "and": f" AND {literal}" if literal else "",
            "where": f" WHERE {literal}" if literal else "",
            "both": f" AND d.{literal} AND l.{literal}" if literal else "",
        }

        def statement_once(conn: psycopg.Connection[Any] = conn, parts: dict[str, object] = parts) -> None:
            new[0] += 1_000
            conn.execute(statement.format(**parts, new=new[0]).encode()).rowcount  # fetched with the answer

        singles[variant.name] = statement_once
    # A policy that is evaluated for every row makes a statement take seconds, as some do: each variant has its share of half a minute, so
    # a slow one is seen less often and takes nothing from the others.
    rounds = settings.rounds(25)
    once = {name: statistics.median(times) for name, times in interleaved(singles, rounds=3).items()}
    rounds = max(5, min(rounds, int(_LONGEST / max(once.values()))))
    repeats = {name: max(1, min(usual, int(_LONGEST / len(once) / (once[name] * rounds)))) for name in once}
    raw = interleaved({name: _repeated(single, repeats[name]) for name, single in singles.items()}, rounds=rounds, scale=1e6)
    times = {name: [each / repeats[name] for each in found] for name, found in raw.items()}
    for conn in connections.values():
        conn.rollback()
        conn.close()
    # Each round is held against the literal beside it: the machine's mood is then the same for both.
    ratio = statistics.median(ours / plain for ours, plain in zip(times["ours"], times["plain"], strict=True))
    peers = {variant.name.removeprefix("peer_"): times[variant.name] for variant in variants if variant.name.startswith("peer")}
    slower = [peer for peer, theirs in peers.items() if statistics.median(o / t for o, t in zip(times["ours"], theirs, strict=True)) > 1.03]
    yield measured(
        "rls",
        f"{case} ({rows:,} rows)",
        "us",
        times["ours"],
        limit=statistics.median(times["ours"]) / ratio,
        peers=peers,
        target=f"at most {highest} of the literal query, never slower than a peer",
        met=ratio <= highest and not slower,
    )
    least = statistics.median(bare / plain for bare, plain in zip(times["unchecked"], times["plain"], strict=True))
    yield measured(
        "rls",
        f"{case}: an unchecked setting in place of ours",
        "us",
        times["unchecked"],
        limit=statistics.median(times["unchecked"]) / least,
        target="none: the least that any policy costs",
        met=True,
    )


def _orm(server: Cluster, name: str, rows: int, sealer: Sealer, settings: Settings) -> Iterator[Row]:
    """What a host sees: a mapped class, its driver as SQLAlchemy sets it up, and every object built anew."""

    class Literal(DeclarativeBase):
        """The copy without policies."""

    class Plain(Literal):
        __tablename__ = "plain_doc"
        id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
        tenant_id: Mapped[int]
        n: Mapped[int]
        created: Mapped[int]
        title: Mapped[str]

    engine = sa.create_engine(server.url(name, user=ROLES.app))
    with Session(engine) as ours, Session(engine) as plain:
        first = plain.scalars(sa.select(Plain.id).where(Plain.tenant_id == SMALL).limit(1)).one()
        ours.execute(sa.text("SELECT set_config('axis.context', :sealed, true)"), {"sealed": sealer(_who(SMALL))})

        def read(session: Session, statement: sa.Select[Any]) -> None:
            session.scalars(statement).all()
            session.expunge_all()

        points: tuple[sa.Select[Any], sa.Select[Any]] = (
            sa.select(Doc).where(Doc.id == first),
            sa.select(Plain).where(Plain.id == first, Plain.tenant_id == SMALL),
        )
        pages: tuple[sa.Select[Any], sa.Select[Any]] = (
            sa.select(Doc).order_by(Doc.created.desc()).limit(50),
            sa.select(Plain).where(Plain.tenant_id == SMALL).order_by(Plain.created.desc()).limit(50),
        )
        for case, (guarded, literal), highest in (("point read", points, 1.10), ("page of 50", pages, 1.05)):
            repeats = 100
            times = interleaved(
                {
                    "ours": _repeated(partial(read, ours, guarded), repeats),
                    "plain": _repeated(partial(read, plain, literal), repeats),
                },
                rounds=settings.rounds(25),
                scale=1e6 / repeats,
            )
            ratio = statistics.median(o / p for o, p in zip(times["ours"], times["plain"], strict=True))
            yield measured(
                "rls",
                f"{case} ({rows:,} rows), ORM",
                "us",
                times["ours"],
                limit=statistics.median(times["ours"]) / ratio,
                target=f"at most {highest} of the literal query",
                met=ratio <= highest,
            )
    engine.dispose()


class _Plain:
    """Binds as we do, but a bare value: no seal, nothing to check."""

    def begin(self) -> Bound:
        return Bound(self, "SELECT pg_catalog.set_config('plain.tenant',$1,true)", ("500",))

    def admit(self, bound: Bound | None) -> None:
        return None


def _context(server: Cluster, name: str, keyring: SealKeyring, settings: Settings) -> Iterator[Row]:
    tenancy = Tenancy(Base.metadata, roles=ROLES, seal=keyring)
    tenancy.protect(Doc)
    tenancy.protect(Line)
    sealed = psycopg.connect(server.dsn(name, user=ROLES.app))
    plain = psycopg.connect(server.dsn(name, user=ROLES.app))
    tenancy.install(sealed)
    install(plain, binder=_Plain(), posture=None)
    repeats = 200

    def transactions(conn: psycopg.Connection[Any], statement: bytes) -> None:
        for _ in range(repeats):
            conn.execute(statement)
            conn.commit()

    with acting_as(_who(SMALL)):
        times = interleaved(
            {
                "plain": lambda: transactions(plain, b"SELECT (SELECT nullif(current_setting('plain.tenant', true), '')::int)"),
                "sealed": lambda: transactions(sealed, b"SELECT (SELECT axis.tenant_id())"),
            },
            rounds=settings.rounds(41),
            scale=1e6 / repeats,
        )
    sealed.close()
    plain.close()
    over = [ours - theirs for ours, theirs in zip(times["sealed"], times["plain"], strict=True)]
    yield measured(
        "rls",
        "seal and check the context, over a plain set_config",
        "us",
        over,
        limit=60.0,
        target="at most 60 us a transaction",
        met=statistics.median(over) <= 60,
    )

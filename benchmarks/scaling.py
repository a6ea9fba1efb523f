"""How costs grow: rows and tenants, tables, sessions. Each curve holds the last point against the first: what grows faster than the thing itself is a miss.

``--full`` goes to 10,000,000 rows of 100,000 tenants, 5,000 tables and 1,000,000 sessions; otherwise a tenth of that, and with ``--quick`` a hundredth.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from axis_security import Principal
from axis_security.auth.sessions import Authenticated
from axis_security.core.schema import DatabaseRoles
from axis_security.rls import SealKey, SealKeyring, Tenancy
from axis_security.rls.audit import audit_schema
from axis_security.rls.sealed import Sealer
from axis_security.testing.auth_world import AuthWorld
from axis_security.testing.cluster import Cluster
from benchmarks.harness import Row, Settings, interleaved, measured
from benchmarks.sessions import signed_in, vault

PER_TENANT = 100
_ROLES = DatabaseRoles.prefixed("scaling")


class Base(DeclarativeBase):
    """The guarded copy."""


class Item(Base):
    """What is read."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    tenant_id: Mapped[int]
    text: Mapped[str]


def run(settings: Settings) -> Iterable[Row]:
    """Three curves."""
    most = 10_000_000 if settings.full else 100_000 if settings.quick else 1_000_000
    with Cluster(settings={"shared_buffers": "2GB", "max_wal_size": "8GB"}) as server:
        yield from _rows([most // 1000, most // 100, most // 10, most], server, settings)
        yield from _tables([each for each in (10, 100, 1000, 5000) if each <= most // 1000 or (settings.full and each == 5000)], server)
        yield from _sessions([most // 10_000, most // 1000, most // 100, most // 10], server)


def _rows(sizes: list[int], server: Cluster, settings: Settings) -> Iterator[Row]:
    """A point read by key, guarded and literal, as rows and tenants grow together."""
    keyring = SealKeyring(current=SealKey.generate(1))
    with server.database("rows") as name:
        with psycopg.connect(server.dsn(name), autocommit=True) as conn:
            for table in ("item", "bare"):
                conn.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, tenant_id int NOT NULL, text text NOT NULL)".encode())
            tenancy = Tenancy(Base.metadata, roles=_ROLES, seal=keyring)
            tenancy.protect(Item)
            tenancy.plan(conn).apply(conn)
            conn.execute(
                f"CREATE INDEX ON bare (tenant_id, id); ALTER ROLE {_ROLES.app} LOGIN; GRANT SELECT ON bare TO {_ROLES.app}".encode()
            )
        done, first = 0, 0.0
        for size in sizes:
            with psycopg.connect(server.dsn(name), autocommit=True) as conn:
                for table in ("bare", "item"):
                    conn.execute(
                        f"INSERT INTO {table} SELECT i, 1 + i / {PER_TENANT}, 'item ' || i FROM generate_series({done}, {size - 1}) i".encode()
                    )
                conn.execute("VACUUM (ANALYZE) item")
                conn.execute("VACUUM (ANALYZE) bare")
            done, wanted = size, size // 2
            tenant = 1 + wanted // PER_TENANT
            with psycopg.connect(server.dsn(name, user=_ROLES.app)) as conn:
                conn.execute(
                    "SELECT set_config('axis.context', %s, true)", (Sealer(keyring)(Principal(tenant=tenant, user=1, role="member")),)
                )

                def many(statement: str, conn: psycopg.Connection = conn, wanted: int = wanted) -> None:
                    for _ in range(300):
                        if len(conn.execute(statement.encode(), (wanted,)).fetchall()) != 1:
                            raise ValueError("the row is not there")

                times = interleaved(
                    {
                        "ours": partial(many, "SELECT * FROM item WHERE id = %s"),
                        "bare": partial(many, f"SELECT * FROM bare WHERE id = %s AND tenant_id = {tenant}"),
                    },
                    rounds=settings.rounds(15),
                    scale=1e6 / 300,
                )
            ours = statistics.median(times["ours"])
            first = first or ours
            yield measured(
                "scaling",
                f"point read, {size:,} rows of {max(1, size // PER_TENANT):,} tenants",
                "us",
                times["ours"],
                limit=statistics.median(times["bare"]),
                target="at most twice that of the smallest, a thousandth in size",
                met=ours <= 2 * first,
            )


_TABLES = """
DO $$ BEGIN FOR n IN {first}..{last} LOOP
  EXECUTE format('CREATE TABLE t%s (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, a text, UNIQUE (tenant_id, id))', n);
  EXECUTE format('ALTER TABLE t%s ENABLE ROW LEVEL SECURITY', n);
  EXECUTE format('ALTER TABLE t%s FORCE ROW LEVEL SECURITY', n);
  EXECUTE format('GRANT SELECT, INSERT ON t%s TO {app}', n);
  EXECUTE format('CREATE POLICY floor ON t%s AS RESTRICTIVE TO {app} USING (tenant_id = (SELECT tenant()))', n);
  EXECUTE format('CREATE POLICY read ON t%s FOR SELECT TO {app} USING (tenant_id = (SELECT tenant()))', n);
  EXECUTE format('CREATE POLICY add ON t%s FOR INSERT TO {app} WITH CHECK (tenant_id = (SELECT tenant()))', n);
END LOOP; END $$
"""


def _tables(sizes: list[int], server: Cluster) -> Iterator[Row]:
    """An audit of a schema, with four policies a table."""
    app = f"scaling_{secrets.token_hex(4)}"
    with server.database("tables") as name, psycopg.connect(server.dsn(name), autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {app}".encode())
        conn.execute("CREATE FUNCTION tenant() RETURNS uuid LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE 'nobody is bound'; END $$")
        done, each = 0, 0.0
        for size in sizes:
            for start in range(done + 1, size + 1, 100):
                conn.execute(_TABLES.format(first=start, last=min(start + 99, size), app=app).encode())
            conn.execute("ANALYZE pg_catalog.pg_class, pg_catalog.pg_attribute, pg_catalog.pg_depend, pg_catalog.pg_policy")
            done, times = size, []
            for _ in range(3):
                began = time.perf_counter()
                audit_schema(conn, key="tenant_id", app=[app])
                times.append((time.perf_counter() - began) * 1000)
            each = each or statistics.median(times) / size
            yield measured(
                "scaling",
                f"audit of {size:,} tables",
                "ms",
                times,
                limit=10_000.0,
                target="under 10 s, and no more for a table than among the fewest",
                met=statistics.median(times) < 10_000 and statistics.median(times) / size <= 1.2 * each,
            )
        for start in range(1, done + 1, 100):  # in pieces: one transaction would need a lock for each table
            conn.execute(f"DROP TABLE {', '.join(f't{n}' for n in range(start, min(start + 100, done + 1)))}".encode())
        conn.execute(f"DROP OWNED BY {app}".encode())
        conn.execute(f"DROP ROLE {app}".encode())


def _sessions(sizes: list[int], server: Cluster) -> Iterator[Row]:
    """Finding one session among many."""
    with vault(server) as (dsn, store):
        browser = signed_in(store)
        world = AuthWorld(store=store, start=datetime.now(UTC))
        done, first = 1, 0.0
        superuser = server.dsn(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
        for size in sizes:
            with psycopg.connect(superuser, autocommit=True) as conn:
                for table, changed in (("vault_session", {"handle"}), ("vault_session_id", {"handle", "digest"})):
                    columns = [
                        row[0]
                        for row in conn.execute(
                            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
                            (f"axis.{table}",),
                        )
                    ]
                    new = {"handle": "md5('h' || n)::uuid", "digest": "sha256(('d' || n)::bytea)"}
                    picked = ", ".join(new[column] if column in changed else f"s.{column}" for column in columns)
                    conn.execute(
                        f"INSERT INTO axis.{table} ({', '.join(columns)}) SELECT {picked} FROM (SELECT * FROM axis.{table} ORDER BY ctid LIMIT 1) s,"
                        f" generate_series({done}, {size - 1}) n".encode()
                    )
                conn.execute("VACUUM (ANALYZE) axis.vault_session")
                conn.execute("VACUUM (ANALYZE) axis.vault_session_id")
            done, times = max(done, size), []
            for _ in range(12):
                began = time.perf_counter()
                for _ in range(100):
                    if not isinstance(world.run(world.auth.sessions.resolve(browser.visitor)), Authenticated):
                        raise TypeError("the session did not resolve")
                times.append((time.perf_counter() - began) * 1e4)
            first = first or statistics.median(times[2:])
            yield measured(
                "scaling",
                f"resolve one of {size:,} sessions",
                "us",
                times[2:],
                target="at most twice that of the fewest, a thousandth in number",
                met=statistics.median(times[2:]) <= 2 * first,
            )

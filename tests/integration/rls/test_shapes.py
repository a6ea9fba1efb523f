"""Shapes of tenancy beyond the tenant column: through a foreign key, shared rows, below, per user, reference data, hash partitions."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from axis_security import Principal, acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.core.schema import DatabaseRoles
from axis_security.ops.export import export_tables, export_workspace
from axis_security.rbac import Capabilities, Policy, Role
from axis_security.rls import SealKey, SealKeyring, Tenancy, UnusableTable
from axis_security.testing.cluster import Cluster

ACME, BETA, CARO = 1, 2, 3


def _tables(metadata: sa.MetaData) -> dict[str, sa.Table]:
    def key() -> sa.Column[Any]:
        return sa.Column("id", sa.BigInteger, primary_key=True)

    def tenant() -> sa.Column[Any]:
        return sa.Column("tenant_id", sa.BigInteger, nullable=False)

    made = [
        sa.Table("deal", metadata, key(), tenant(), sa.Column("title", sa.Text)),
        # The column `title` exists in the parent too: a bare name inside the sub-select would be the parent's.
        sa.Table("line", metadata, key(), sa.Column("deal_id", sa.ForeignKey("deal.id"), nullable=False), sa.Column("title", sa.Text)),
        sa.Table("note", metadata, key(), sa.Column("line_id", sa.ForeignKey("line.id"), nullable=False), sa.Column("title", sa.Text)),
        sa.Table("doc", metadata, key(), tenant(), sa.Column("title", sa.Text)),
        sa.Table(
            "doc_share",
            metadata,
            key(),
            tenant(),
            sa.Column("doc_id", sa.ForeignKey("doc.id"), nullable=False),
            sa.Column("guest_id", sa.BigInteger, nullable=False),
        ),
        sa.Table("page", metadata, key(), sa.Column("doc_id", sa.ForeignKey("doc.id"), nullable=False), sa.Column("title", sa.Text)),
        sa.Table("invoice", metadata, key(), tenant(), sa.Column("title", sa.Text)),
        sa.Table("draft", metadata, key(), tenant(), sa.Column("user_id", sa.BigInteger, nullable=False), sa.Column("title", sa.Text)),
        sa.Table("country", metadata, key(), sa.Column("title", sa.Text)),
        sa.Table(
            "reading",
            metadata,
            sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("tenant_id", sa.BigInteger, primary_key=True),
            sa.Column("title", sa.Text),
            postgresql_partition_by="HASH (tenant_id)",
        ),
    ]
    return {table.name: table for table in made}


def _declare(tenancy: Tenancy, tables: dict[str, sa.Table]) -> None:
    tenancy.protect(tables["deal"])
    tenancy.protect(tables["line"], via=tables["deal"])
    tenancy.protect(tables["note"], via=tables["line"])
    tenancy.protect(tables["doc_share"], visible_to="guest_id")
    tenancy.protect(tables["doc"], shared_through=tables["doc_share"])
    tenancy.protect(tables["page"], via=tables["doc"])
    tenancy.protect(tables["invoice"], reach="below")
    tenancy.protect(tables["draft"], owner="user_id")
    tenancy.open(tables["country"], reason="reference data, same for all")
    tenancy.protect(tables["reading"])


@dataclass
class Shapes:
    """A database with every shape, and rows of three tenants: row ids are the tenant's number times ten."""

    cluster: Cluster
    name: str
    tenancy: Tenancy
    app: sa.Engine

    def as_system(self, sql: str) -> list[Any]:
        with psycopg.connect(self.cluster.dsn(self.name, user=self.tenancy.roles.system), autocommit=True) as conn:
            cursor = conn.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def sees(self, tenant: int, table: str, user: int = 7) -> list[int]:
        return [row[0] for row in self.run(tenant, f"SELECT id FROM {table} ORDER BY id", user)]

    def run(self, tenant: int, sql: str, user: int = 7) -> list[Any]:
        with acting_as(Principal(tenant=tenant, user=user, role="member")), self.app.begin() as conn:
            found = conn.exec_driver_sql(sql)
            return list(found.all()) if found.returns_rows else [found.rowcount]


@pytest.fixture(scope="module")
def shapes(cluster: Cluster) -> Iterator[Shapes]:
    roles = DatabaseRoles.prefixed(f"shapes_{secrets.token_hex(4)}")
    metadata = sa.MetaData()
    tables = _tables(metadata)
    tenancy = Tenancy(metadata, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
    _declare(tenancy, tables)
    with cluster.database("shapes") as name:
        admin = sa.create_engine(cluster.url(name))
        metadata.create_all(admin)
        with admin.begin() as conn:
            for part in range(4):
                conn.exec_driver_sql(f"CREATE TABLE reading_{part} PARTITION OF reading FOR VALUES WITH (MODULUS 4, REMAINDER {part})")
            for tenant in (ACME, BETA, CARO):
                i = tenant * 10
                conn.exec_driver_sql(
                    f"INSERT INTO deal VALUES ({i}, {tenant}, 'd'); INSERT INTO line VALUES ({i}, {i}, 'l'); INSERT INTO note VALUES ({i}, {i}, 'n');"
                    f"INSERT INTO doc VALUES ({i}, {tenant}, 'd'), ({i + 1}, {tenant}, 'd'); INSERT INTO page VALUES ({i}, {i}, 'p'), ({i + 1}, {i + 1}, 'p');"
                    f"INSERT INTO invoice VALUES ({i}, {tenant}, 'i'); INSERT INTO draft VALUES ({i}, {tenant}, 7, 'd'), ({i + 1}, {tenant}, 8, 'd');"
                    f"INSERT INTO reading VALUES ({i}, {tenant}, 'r')"
                )
            conn.exec_driver_sql(f"INSERT INTO doc_share VALUES (1, {ACME}, 10, {BETA}); INSERT INTO country VALUES (1, 'Portugal')")
        tenancy.plan(admin).apply(admin)
        app = sa.create_engine(cluster.url(name, user=roles.app))
        tenancy.install(app)
        world = Shapes(cluster, name, tenancy, app)
        assert not tenancy.plan(admin), "a second plan is empty"
        yield world
        app.dispose()
        admin.dispose()


@pytest.mark.parametrize("table", ["deal", "line", "note", "reading"])
def test_rows_belong_to_whom_they_lean_on(shapes: Shapes, table: str) -> None:
    """A tenant reads its own rows and no other's, with or without a tenant column, at two steps as at one."""
    for tenant in (ACME, BETA, CARO):
        assert shapes.sees(tenant, table) == [tenant * 10]


@pytest.mark.parametrize(
    ("table", "sql"),
    [
        ("line", "INSERT INTO line VALUES (99, 20, 'x')"),
        ("line", "UPDATE line SET deal_id = 20 WHERE id = 10"),
        ("note", "INSERT INTO note VALUES (99, 20, 'x')"),
        ("note", "UPDATE note SET line_id = 20"),
        ("page", "INSERT INTO page VALUES (99, 20, 'x')"),
        ("doc", "INSERT INTO doc VALUES (99, 2, 'x')"),
        ("invoice", "INSERT INTO invoice VALUES (99, 2, 'x')"),
        ("draft", "INSERT INTO draft VALUES (99, 1, 8, 'x')"),
        ("reading", "INSERT INTO reading VALUES (99, 2, 'x')"),
        ("reading", "UPDATE reading SET tenant_id = 2"),
        ("doc_share", "INSERT INTO doc_share VALUES (99, 2, 20, 1)"),
    ],
)
def test_nothing_is_written_beyond_the_own_tenant(shapes: Shapes, table: str, sql: str) -> None:
    """Adding to, and moving into, another tenant is refused by the row policies."""
    with pytest.raises(sa.exc.ProgrammingError, match="row-level security policy"):
        shapes.run(ACME, sql)


def test_a_share_of_another_tenants_row_cannot_be_made(shapes: Shapes) -> None:
    """A tenant cannot list another one's document as shared with itself: the reference carries the tenant."""
    with pytest.raises(sa.exc.IntegrityError, match="foreign key"):
        shapes.run(CARO, f"INSERT INTO doc_share (id, doc_id, guest_id) VALUES (98, 20, {CARO})")


def test_shared_rows_are_read_and_not_changed(shapes: Shapes) -> None:
    """The guest reads the shared document and what leans on it, changes neither, and reads the share itself; the others see nothing."""
    assert shapes.sees(BETA, "doc") == [10, 20, 21]
    assert shapes.sees(BETA, "page") == [10, 20, 21]
    assert shapes.sees(CARO, "doc") == [30, 31]
    assert shapes.sees(BETA, "doc_share") == [1]
    assert shapes.sees(CARO, "doc_share") == []
    for sql in (
        "UPDATE doc SET title = 'x' WHERE id = 10",
        "DELETE FROM doc WHERE id = 10",
        "UPDATE page SET title = 'x' WHERE id = 10",
        "DELETE FROM doc_share",
    ):
        assert shapes.run(BETA, sql) == [0]


def test_whoever_stands_above_reads_below(shapes: Shapes) -> None:
    """A tenant reads what stands below it, at any depth, and writes none of it; a circle is refused; only the system login arranges them."""
    shapes.as_system(f"SELECT axis.set_parent({BETA}, {ACME})")
    shapes.as_system(f"SELECT axis.set_parent({CARO}, {BETA})")
    try:
        assert [shapes.sees(tenant, "invoice") for tenant in (ACME, BETA, CARO)] == [[10, 20, 30], [20, 30], [30]]
        assert shapes.sees(ACME, "deal") == [10]
        assert shapes.run(ACME, "UPDATE invoice SET title = 'x' WHERE id > 10") == [0]
        with pytest.raises(psycopg.DatabaseError, match="below itself") as refused:
            shapes.as_system(f"SELECT axis.set_parent({ACME}, {CARO})")
        assert refused.value.sqlstate == "AX004"
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            shapes.run(CARO, f"SELECT axis.set_parent({ACME}, {CARO})")
    finally:
        for tenant in (BETA, CARO):
            assert shapes.as_system(f"SELECT axis.set_parent({tenant}, NULL)") == [(True,)]
    assert shapes.sees(ACME, "invoice") == [10]


def test_own_rows_of_a_user(shapes: Shapes) -> None:
    """A colleague's rows are as far away as another tenant's."""
    assert (shapes.sees(ACME, "draft", 7), shapes.sees(ACME, "draft", 8), shapes.sees(ACME, "draft", 9)) == ([10], [11], [])
    assert shapes.run(ACME, "UPDATE draft SET title = 'x'", 8) == [1]


def test_reference_data_is_read_only(shapes: Shapes) -> None:
    """Everybody reads it, nobody changes it."""
    assert shapes.sees(ACME, "country") == shapes.sees(BETA, "country") == [1]
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        shapes.run(ACME, "DELETE FROM country")


def test_partitions_are_reached_through_their_parent_only(shapes: Shapes) -> None:
    """Each hash partition is closed to the app role."""
    for part in range(4):
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            shapes.run(ACME, f"SELECT * FROM reading_{part}")


@pytest.mark.parametrize("table", ["deal", "line", "doc", "page", "invoice", "draft", "reading"])
def test_without_its_floor_and_policies_a_shape_leaks(shapes: Shapes, table: str) -> None:
    """The control: with the policies of one table replaced by `true`, the same question shows other tenants' rows; the plan names the difference."""
    admin = sa.create_engine(shapes.cluster.url(shapes.name))
    with admin.connect() as conn:
        names = (
            conn.exec_driver_sql(f"SELECT polname FROM pg_policy WHERE polrelid = '{table}'::regclass AND polname <> 'axis_system'")
            .scalars()
            .all()
        )
        for name in names:
            conn.exec_driver_sql(f"DROP POLICY {name} ON {table}")
        conn.exec_driver_sql(f"CREATE POLICY wide ON {table} TO {shapes.tenancy.roles.app} USING (true)")
        conn.exec_driver_sql(f"SET LOCAL ROLE {shapes.tenancy.roles.app}")
        seen = conn.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
        total = 6 if table in ("doc", "page", "draft") else 3
        assert seen == total
        conn.exec_driver_sql("RESET ROLE")
        plan = shapes.tenancy.plan(conn)
        assert {step.sql.split(" ON ")[0] for step in plan} >= {'DROP POLICY "wide"', 'CREATE POLICY "axis_floor"'}
        conn.rollback()
    admin.dispose()


def _circle(tenancy: Tenancy, tables: dict[str, sa.Table]) -> None:
    tenancy.protect(tables["a"], via=tables["b"])
    tenancy.protect(tables["b"], via=tables["a"])
    tenancy.protect(tables["c"])


def _open_parent(tenancy: Tenancy, tables: dict[str, sa.Table]) -> None:
    tenancy.protect(tables["a"], via=tables["b"])
    tenancy.open(tables["b"], reason="everybody may read it")
    tenancy.protect(tables["c"])


def _via_and_below(tenancy: Tenancy, tables: dict[str, sa.Table]) -> None:
    tenancy.protect(tables["a"], via=tables["b"], reach="below")


def _via_with_a_tenant_column(tenancy: Tenancy, tables: dict[str, sa.Table]) -> None:
    tenancy.protect(tables["c"], via=tables["a"])


def _visible_to_text(tenancy: Tenancy, tables: dict[str, sa.Table]) -> None:
    tenancy.protect(tables["c"], visible_to="title")


def _owner_of_nothing(tenancy: Tenancy, tables: dict[str, sa.Table]) -> None:
    tenancy.protect(tables["c"], owner="nobody")


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (_circle, "circle"),
        (_open_parent, "not protected"),
        (_via_and_below, "where the tenant is"),
        (_via_with_a_tenant_column, "of its own"),
        (_visible_to_text, "holds a tenant"),
        (_owner_of_nothing, "holds an id"),
    ],
)
def test_what_cannot_hold_is_refused_at_declaration(declare: Callable[[Tenancy, dict[str, sa.Table]], None], why: str) -> None:
    """Circles, open parents and contradictions are typed errors before any SQL exists."""
    metadata = sa.MetaData()

    def table(name: str, *more: Any) -> sa.Table:
        return sa.Table(name, metadata, sa.Column("id", sa.BigInteger, primary_key=True), *more)

    tables = {
        "a": table("a", sa.Column("b_id", sa.ForeignKey("b.id", use_alter=True))),
        "b": table("b", sa.Column("a_id", sa.ForeignKey("a.id"))),
        "c": table("c", sa.Column("tenant_id", sa.BigInteger), sa.Column("title", sa.Text), sa.Column("a_id", sa.ForeignKey("a.id"))),
    }
    tenancy = Tenancy(metadata, seal=SealKeyring(current=SealKey.generate(1)))
    with pytest.raises(UnusableTable, match=why):
        declare(tenancy, tables)
        tenancy.model()


def test_what_belongs_to_a_tenant_is_said_once_for_work_across_tenants(shapes: Shapes) -> None:
    """As the system login, the condition finds a tenant's own rows in every protected table: not what is shared with it, nor what it stands above."""
    engine = sa.create_engine(shapes.cluster.url(shapes.name, user=shapes.tenancy.roles.system))
    tables = shapes.tenancy.metadata.tables
    with engine.connect() as conn:
        for name, expected in {
            "deal": [20],
            "line": [20],
            "note": [20],
            "doc": [20, 21],
            "page": [20, 21],
            "draft": [20, 21],
            "reading": [20],
        }.items():
            table = tables[name]
            statement = sa.select(table.c.id).where(shapes.tenancy.belongs(table, TenantId(BETA))).order_by(table.c.id)
            assert list(conn.scalars(statement)) == expected
    engine.dispose()
    with pytest.raises(ConfigError, match="belongs to nobody"):
        shapes.tenancy.belongs(tables["country"], TenantId(BETA))


def test_an_export_holds_what_is_the_workspaces_own(shapes: Shapes) -> None:
    """Not the document that is shared with it, nor its pages, nor another user's drafts: the manifest says what is left out."""
    caps = Capabilities(users=("manage",))
    policy = Policy(caps, roles=[Role("owner", list(caps))], events=NullSink())
    out = io.BytesIO()

    class Source:
        @contextlib.contextmanager
        def connection(self) -> Iterator[psycopg.Connection[Any]]:
            with psycopg.connect(shapes.cluster.dsn(shapes.name, user=shapes.tenancy.roles.app)) as conn:
                yield shapes.tenancy.install(conn)

    with acting_as(Principal(tenant=BETA, user=7, role="owner")):
        done = export_workspace(out, source=Source(), tables=export_tables(shapes.tenancy), policy=policy, export="e1", formats=("jsonl",))
    assert shapes.sees(BETA, "doc") == [10, 20, 21]
    assert done.rows == {
        "public.deal": 1, "public.doc": 2, "public.doc_share": 0, "public.invoice": 1, "public.line": 1, "public.note": 1, "public.page": 2, "public.reading": 1,
    }  # fmt: skip
    assert list(done.manifest["left_out"]) == ["public.draft"]
    with zipfile.ZipFile(out) as archive:
        assert [json.loads(line)["id"] for line in archive.read("public.page.jsonl").splitlines()] == [20, 21]


def test_own_rows_stay_a_user_s_own_where_reading_reaches_below(cluster: Cluster) -> None:
    """Each tenant stands below itself: reading downwards shows no colleague's rows, and those of one's own below."""
    roles, metadata = DatabaseRoles.prefixed("own_" + secrets.token_hex(4)), sa.MetaData()
    journal = sa.Table(
        "journal", metadata, *(sa.Column(name, sa.BigInteger, primary_key=name == "id") for name in ("id", "tenant_id", "user_id"))
    )
    tenancy = Tenancy(metadata, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(journal, owner="user_id", reach="below")
    with contextlib.ExitStack() as stack:
        # Last in, first out: the roles go after the database.
        admin = stack.enter_context(psycopg.connect(cluster.dsn(), autocommit=True))
        for role in (roles.guard, roles.owner, roles.system, roles.app):
            stack.callback(admin.execute, f"DROP ROLE IF EXISTS {role}".encode())
        database = stack.enter_context(cluster.database("own"))
        engine = sa.create_engine(cluster.url(database), poolclass=sa.NullPool)
        metadata.create_all(engine)
        tenancy.plan(engine).apply(engine)
        with psycopg.connect(cluster.dsn(database)) as rows:
            rows.execute("INSERT INTO journal VALUES (10, 1, 7), (11, 1, 8), (20, 2, 7), (21, 2, 8), (30, 3, 7)")
            rows.execute("INSERT INTO axis.tenant_parent VALUES (2, 1)")
        app = tenancy.install(sa.create_engine(cluster.url(database, user=roles.app), poolclass=sa.NullPool))
        with acting_as(Principal(tenant=ACME, user=7, role="member")), app.connect() as connection:
            assert connection.scalars(sa.select(journal.c.id).order_by(journal.c.id)).all() == [10, 20]

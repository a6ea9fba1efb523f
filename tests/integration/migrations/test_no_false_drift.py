"""Compile, create, reflect, compare: stable for any declaration; and every change of meaning is seen."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axis_security.core.schema import DatabaseRoles
from axis_security.rbac import Capabilities, allow, owns, standard_policy
from axis_security.rls.migrate import Migrations
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

KEYS: Final = {"bigint": sa.BigInteger, "uuid": sa.Uuid, "text": sa.Text}
# SQLAlchemy before 2.1 cannot reflect a foreign key to a table with a quote in its name.
NAMES: Final = ("note", "Odd Name", "select", *(['quo"te'] if sa.__version__ >= "2.1" else []))
MUTATIONS: Final = (
    "DROP POLICY axis_floor ON {t}",
    "ALTER POLICY axis_floor ON {t} USING (true)",
    "ALTER POLICY axis_floor ON {t} TO PUBLIC",
    "ALTER POLICY axis_select ON {t} USING (true)",
    "ALTER POLICY axis_select ON {t} USING (tenant_id::text = axis.tenant_text())",
    "ALTER POLICY axis_select ON {t} TO {app}, {system}",
    "ALTER POLICY axis_insert ON {t} WITH CHECK (true)",
    "ALTER POLICY axis_update ON {t} WITH CHECK (true)",
    "DROP POLICY axis_delete ON {t}",
    "ALTER POLICY axis_system ON {t} USING (true)",
    "CREATE POLICY extra ON {t} USING (true)",
    "ALTER POLICY axis_floor ON {t} RENAME TO axis_floor2",
    "ALTER TABLE {t} NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE {t} DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} ALTER tenant_id DROP NOT NULL",
    "ALTER TABLE {t} ALTER tenant_id DROP DEFAULT",
    "GRANT TRUNCATE ON {t} TO {app}",
    "GRANT SELECT ON {t} TO PUBLIC",
    "REVOKE UPDATE ON {t} FROM {app}",
)


@dataclass(frozen=True)
class Shape:
    """One table and how it is declared."""

    key: str
    name: str
    schema: str | None
    read: str | None
    write: str | None
    owner: bool
    shared: bool
    composite: bool
    nullable: bool


shapes = st.builds(
    Shape,
    key=st.sampled_from(sorted(KEYS)),
    name=st.sampled_from(NAMES),
    schema=st.sampled_from([None, "Other"]),
    read=st.sampled_from([None, "notes.read", "notes.own"]),
    write=st.sampled_from([None, "notes.write", "notes.own"]),
    owner=st.booleans(),
    shared=st.booleans(),
    composite=st.booleans(),
    nullable=st.booleans(),
)


class Bench:
    """A database with roles that every example uses again."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.roles = DatabaseRoles.prefixed("drift_" + secrets.token_hex(4))
        self.engine = sa.create_engine(cluster.url(database))
        caps = Capabilities(notes=("read", "write", "own"), users=("manage",))
        own = allow(caps.notes.own, when=owns("owner_id"))
        self.policy = standard_policy(caps, viewer=[caps.notes.read], member=[caps.notes.write, own])

    def tenancy(self, shape: Shape) -> Tenancy:
        """The declaration of *shape*, with a second table that points at it."""
        metadata, kind = sa.MetaData(), KEYS[shape.key]
        extra: list[sa.Column[Any]] = [sa.Column("shared_with", kind)] if shape.shared else []
        table = sa.Table(
            shape.name,
            metadata,
            sa.Column("id", sa.BigInteger, primary_key=True),
            sa.Column("tenant_id", kind, primary_key=shape.composite, nullable=shape.nullable and not shape.composite),
            sa.Column("owner_id", sa.Text),
            *extra,
            schema=shape.schema,
        )
        tenancy = Tenancy(metadata, policy=self.policy, roles=self.roles)
        tenancy.protect(
            table,
            read=shape.read,
            write=shape.write,
            owner="owner_id" if shape.owner else None,
            visible_to="shared_with" if shape.shared else None,
        )
        if not shape.composite:
            line = sa.Table(
                "line",
                metadata,
                sa.Column("id", sa.BigInteger, primary_key=True),
                sa.Column("tenant_id", kind),
                sa.Column("of", sa.BigInteger, sa.ForeignKey(table.c.id, ondelete="SET NULL")),
            )
            tenancy.protect(line)
        return tenancy

    @contextlib.contextmanager
    def migrated(self, tenancy: Tenancy) -> Iterator[tuple[sa.Connection, Migrations]]:
        """What autogenerate writes for *tenancy* has run; all of it is rolled back afterwards."""
        with self.engine.connect() as connection, connection.begin() as transaction:
            connection.exec_driver_sql('CREATE SCHEMA "Other"')
            migrations = Migrations(tenancy)
            assert self.migrate(connection, migrations)
            yield connection, migrations
            transaction.rollback()

    def differences(self, connection: sa.Connection, migrations: Migrations) -> tuple[MigrationContext, Any]:
        """What autogenerate finds."""
        options = migrations.options(
            connection, target_metadata=migrations.tenancy.metadata, compare_server_default=True, include_schemas=True
        )
        options["include_name"] = lambda name, kind, _parents: kind != "schema" or name in (None, "public", "Other")
        context = MigrationContext.configure(connection, opts=options)
        script = produce_migrations(context, migrations.tenancy.metadata)
        migrations.complete(context, script.upgrade_ops)  # type: ignore[arg-type]
        return context, script.upgrade_ops

    def migrate(self, connection: sa.Connection, migrations: Migrations) -> bool:
        """Run what autogenerate finds; whether there was anything."""
        context, found = self.differences(connection, migrations)
        operations = Operations(context)

        def invoke(ops: Any) -> None:
            for op in ops:
                invoke(op.ops) if hasattr(op, "ops") else operations.invoke(op)

        invoke(found.ops)
        return not found.is_empty()


@pytest.fixture(scope="module")
def bench(cluster: Cluster) -> Iterator[Bench]:
    """The database and its roles."""
    with cluster.database("drift") as name:
        made = Bench(cluster, name)
        yield made
        made.engine.dispose()


def _stable(bench: Bench, shape: Shape) -> None:
    with bench.migrated(bench.tenancy(shape)) as (connection, migrations):
        assert bench.differences(connection, migrations)[1].as_diffs() == []


def _seen(bench: Bench, shape: Shape) -> None:
    tenancy = bench.tenancy(shape)
    with bench.migrated(tenancy) as (connection, migrations):
        quoted = shape.name.replace('"', '""')
        table = f'"{shape.schema or "public"}"."{quoted}"'
        for mutation in MUTATIONS:
            if shape.composite and "DROP NOT NULL" in mutation:
                continue  # PostgreSQL refuses that of a primary key
            sql = mutation.format(t=table, app=bench.roles.app, system=bench.roles.system)
            inner = connection.begin_nested()
            try:
                connection.exec_driver_sql(sql)
            except sa.exc.ProgrammingError as error:
                if getattr(error.orig, "sqlstate", None) != "42704":
                    raise
                # With shared rows there is a floor for each command, of another name.
                inner.rollback()
                continue
            assert bench.migrate(connection, migrations), f"not seen: {sql}"
            assert bench.differences(connection, migrations)[1].as_diffs() == [], f"not mended: {sql}"
            inner.rollback()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(shape=shapes)
def test_a_declaration_has_no_false_drift(bench: Bench, shape: Shape) -> None:
    """Whatever is declared: after its own migration, autogenerate finds nothing, over casts, quotes, schemas and key types."""
    _stable(bench, shape)


def test_every_change_of_meaning_is_seen(bench: Bench) -> None:
    """Each mutation of policies, switches, columns and grants is found, and the migration written for it leaves nothing to find."""
    _seen(bench, Shape("bigint", "note", None, "notes.read", "notes.own", owner=False, shared=False, composite=False, nullable=True))


@pytest.mark.nightly
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(shape=shapes)
def test_any_declaration_is_stable_and_sees_every_change(bench: Bench, shape: Shape) -> None:
    """Both, over many shapes."""
    _stable(bench, shape)
    _seen(bench, shape)

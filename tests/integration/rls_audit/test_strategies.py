"""Drawn schemas hold every promise, drawn statements do what they would do with the tenant spelled out, and a host's engine is tested in one line."""

from __future__ import annotations

import contextlib
import os
import secrets
import unittest
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from axis_security.core.context import acting_as
from axis_security.core.ids import IdValue
from axis_security.core.principal import Principal
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster
from axis_security.testing.isolation import Leak
from axis_security.testing.kit import KitError, PolicyLab
from axis_security.testing.kit_guards import check_isolation
from axis_security.testing.strategies import SchemaSpec, isolation_lab, isolation_test, schemas, statement_pairs

LOOSE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
NIGHTLY = os.environ.get("AXIS_TEST_PROFILE") == "nightly"
INFORMATION = {"rls.counted_key"}


@contextlib.contextmanager
def applied(cluster: Cluster, spec: SchemaSpec) -> Iterator[tuple[Tenancy, sa.Engine]]:
    """The drawn schema, planned and applied; roles and database go at the end."""
    roles = DatabaseRoles.prefixed("drawn_" + secrets.token_hex(4))
    tenancy = spec.tenancy(roles)
    with cluster.database("drawn") as database:
        engine = sa.create_engine(cluster.url(database))
        try:
            tenancy.metadata.create_all(engine)
            with engine.begin() as connection:
                for text in spec.partitions():
                    connection.exec_driver_sql(text)
            tenancy.plan(engine).apply(engine)
            yield tenancy, engine
        finally:
            engine.dispose()
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            admin.execute(f"DROP ROLE IF EXISTS {role}")


@pytest.mark.timeout(1800)
@settings(max_examples=300 if NIGHTLY else 5, deadline=None, suppress_health_check=LOOSE, phases=(Phase.generate,))
@given(spec=schemas())
def test_every_drawn_schema_holds_every_promise(cluster: Cluster, spec: SchemaSpec) -> None:
    """Plan, apply, and nothing is left to plan, to find, or to break: any key type, keys between tables, partitions, odd names."""
    with applied(cluster, spec) as (tenancy, engine):
        report = tenancy.audit(engine)
        assert report.codes <= INFORMATION, str(report)
        with psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
            lab = PolicyLab.of(tenancy, connection)
            with lab.opened():
                assert len(check_isolation(lab)) == 10


# Statements

META = sa.MetaData()
PAPER = sa.Table("paper", META, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("tenant_id", sa.Text), sa.Column("name", sa.Text))
NAMES = ["apple", "apricot", "pear"]
TENANTS = ("acme", "globex")


@pytest.fixture(scope="module")
def paper(cluster: Cluster) -> Iterator[tuple[Tenancy, sa.Engine, sa.Engine]]:
    """One table with rows of two tenants; the administrator's engine, and the application's."""
    roles = DatabaseRoles.prefixed("paper_" + secrets.token_hex(4))
    tenancy = Tenancy(META, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(PAPER)
    with cluster.database("paper") as database:
        admin = sa.create_engine(cluster.url(database))
        META.create_all(admin)
        tenancy.plan(admin).apply(admin)
        with admin.begin() as connection:
            for tenant in TENANTS:
                for name in (*NAMES, None):
                    connection.execute(sa.insert(PAPER).values(id=sa.func.gen_random_uuid(), tenant_id=tenant, name=name))
        app = sa.create_engine(cluster.url(database, user=roles.app), pool_size=2, max_overflow=0)
        tenancy.install(app)
        yield tenancy, admin, app
        app.dispose()
        admin.dispose()
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            connection.execute(f"DROP ROLE IF EXISTS {role}")


def answer(connection: sa.Connection, statement: sa.Executable) -> object:
    """What a statement answers, or how many rows it reached; undone."""
    done = connection.execute(statement)
    found: object = sorted(map(str, done.all())) if done.returns_rows else done.rowcount
    connection.rollback()
    return found


@settings(max_examples=5_000 if NIGHTLY else 80, deadline=None, suppress_health_check=LOOSE)
@given(data=st.data())
def test_a_statement_means_the_acting_tenant(paper: tuple[Tenancy, sa.Engine, sa.Engine], data: st.DataObject) -> None:
    """Under row security a statement answers what it answers an administrator who adds the tenant to its WHERE."""
    _, admin, app = paper
    tenant: IdValue = data.draw(st.sampled_from(TENANTS))
    own, spelled_out = data.draw(statement_pairs(PAPER, "tenant_id", tenant, NAMES))
    with admin.connect() as connection:
        wanted = answer(connection, spelled_out)
    with acting_as(Principal(tenant=tenant, user="u", role="member")), app.connect() as connection:
        assert answer(connection, own) == wanted


# One line for a host


def run_case(case: type) -> unittest.TestResult:
    """Run the class as a test runner would."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_a_host_s_engine_is_tested_in_one_line(paper: tuple[Tenancy, sa.Engine, sa.Engine]) -> None:
    """Table, key, text column, role and tenants are found in the declaration; the machine passes."""
    tenancy, _, app = paper
    result = run_case(isolation_test(tenancy, app, examples=20))
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.failures or result.errors


def test_the_one_line_finds_a_host_without_the_hook(paper: tuple[Tenancy, sa.Engine, sa.Engine]) -> None:
    """Negative control: the same engine without the tenancy installed fails."""
    tenancy, admin, app = paper
    bare = sa.create_engine(app.url, pool_size=2, max_overflow=0)
    result = run_case(isolation_test(tenancy, bare, examples=20))
    bare.dispose()
    assert not result.wasSuccessful()
    owner = sa.create_engine(admin.url, pool_size=2, max_overflow=0)
    result = run_case(isolation_test(tenancy, owner, examples=20))
    owner.dispose()
    assert any(Leak.__name__ in text for _, text in (*result.failures, *result.errors))


def test_what_the_machine_needs_is_asked_for() -> None:
    """No fitting table, tenants in a table of their own: the error says what to pass."""
    metadata = sa.MetaData()
    sa.Table("tenant", metadata, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("tenant_id", sa.Uuid))
    doc = sa.Table(
        "doc",
        metadata,
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant_id", sa.ForeignKey("tenant.id")),
        sa.Column("body", sa.Text),
        sa.Column("size", sa.Integer, nullable=False),
    )
    tenancy = Tenancy(metadata, seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(doc)
    tenancy.protect(metadata.tables["tenant"])
    engine = sa.create_engine("postgresql+psycopg://127.0.0.1/none")
    with pytest.raises(KitError, match="pass table= and fill="):
        isolation_lab(tenancy, engine)
    with pytest.raises(KitError, match="pass new_tenant="):
        isolation_lab(tenancy, engine, fill=lambda: {"size": 1})
    lab = isolation_lab(tenancy, engine, fill=lambda: {"size": 1}, new_tenant=lambda: 1)
    assert (lab.table, lab.key, lab.tenant, lab.text) == (doc, "id", "tenant_id", "body")
    lab.close()

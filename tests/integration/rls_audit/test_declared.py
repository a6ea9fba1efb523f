"""The audit against a declaration: silent on what the plan made, and loud about every drift from it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from axis_security.core.errors import ConfigError
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.audit.show import show_table
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster
from axis_security.testing.kit import PolicyLab
from axis_security.testing.kit_guards import check_isolation
from axis_security.testing.mutation import mutation_score

Live = tuple[Tenancy, sa.Connection]


@pytest.fixture(scope="module")
def planned(cluster: Cluster) -> Iterator[tuple[Tenancy, sa.Engine]]:
    """A declared schema, applied."""
    roles = DatabaseRoles.prefixed("rlsaudit_" + secrets.token_hex(4))
    metadata = sa.MetaData()
    uuid = sa.Uuid
    project = sa.Table(
        "project", metadata, sa.Column("id", uuid, primary_key=True), sa.Column("tenant_id", uuid), sa.Column("name", sa.Text)
    )
    task = sa.Table(
        "task",
        metadata,
        sa.Column("id", uuid, primary_key=True),
        sa.Column("tenant_id", uuid),
        sa.Column("project_id", sa.ForeignKey("project.id", ondelete="CASCADE")),
    )
    country = sa.Table("country", metadata, sa.Column("code", sa.Text, primary_key=True))
    tenancy = Tenancy(metadata, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(project)
    tenancy.protect(task)
    tenancy.open(country, reason="the same for all")
    with cluster.database("rlsaudit") as database:
        engine = sa.create_engine(cluster.url(database))
        try:
            metadata.create_all(engine)
            tenancy.plan(engine).apply(engine)
            yield tenancy, engine
        finally:
            engine.dispose()
    with sa.create_engine(cluster.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")


@pytest.fixture
def live(planned: tuple[Tenancy, sa.Engine]) -> Iterator[Live]:
    """Its tenancy, and a connection whose changes are undone."""
    tenancy, engine = planned
    with engine.connect() as connection:
        yield tenancy, connection
        connection.rollback()


def test_what_the_plan_made_has_no_finding(live: Live) -> None:
    """Emitted policies, grants, keys and functions pass every rule, and a plan would change nothing."""
    tenancy, connection = live
    report = tenancy.audit(connection)
    assert not report.findings, str(report)
    assert report.ok
    assert report.scope.model is not None


def test_the_audit_writes_nothing(live: Live) -> None:
    """The search path, and everything the plan tries in its savepoint, is as before."""
    tenancy, connection = live
    before = connection.exec_driver_sql("SHOW search_path").scalar_one()
    tenancy.audit(connection)
    assert connection.exec_driver_sql("SHOW search_path").scalar_one() == before
    assert not tenancy.plan(connection)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("ALTER POLICY axis_select ON project USING (true)", "rls.differs_from_declaration"),
        ("ALTER POLICY axis_floor ON project USING (tenant_id::text = (SELECT axis.tenant_text()))", "rls.differs_from_declaration"),
        ("ALTER TABLE project NO FORCE ROW LEVEL SECURITY", "rls.not_forced"),
        ("CREATE POLICY extra ON project TO {app} USING (true)", "rls.differs_from_declaration"),
        ("DROP POLICY axis_floor ON project", "rls.differs_from_declaration"),
        ("CREATE TABLE stray (tenant_id uuid); GRANT SELECT ON stray TO {app}", "rls.undeclared_table"),
        ("ALTER TABLE country ADD COLUMN tenant_id uuid", "rls.open_table_has_key"),
        (
            "CREATE OR REPLACE FUNCTION axis.tenant_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE RETURN NULL::uuid",
            "rls.differs_from_declaration",
        ),
        ("CREATE VIEW board AS SELECT * FROM task; GRANT SELECT ON board TO {app}", "rls.view_runs_as_owner"),
        ("GRANT {system} TO {app}", "rls.app_role_becomes"),
    ],
)
def test_each_drift_is_named(live: Live, change: str, code: str) -> None:
    """A policy edited under its name, FORCE dropped, a policy added by hand, a function replaced, a table nobody declared: each is seen."""
    tenancy, connection = live
    connection.exec_driver_sql(change.format(app=tenancy.roles.app, system=tenancy.roles.system))
    report = tenancy.audit(connection)
    assert code in report.codes, str(report)


def test_a_finding_is_set_aside_with_a_reason(live: Live) -> None:
    """Accepted findings are listed with their reason, by code or by code and object; a reason must be given, and the code must exist."""
    tenancy, connection = live
    connection.exec_driver_sql("CREATE PUBLICATION feed FOR TABLE project")
    report = tenancy.audit(connection, accept={"rls.publication publication feed": "the warehouse may hold every tenant"})
    assert not report.findings
    assert [reason for _, reason in report.accepted] == ["the warehouse may hold every tenant"]
    assert "rls.publication" in tenancy.audit(connection, accept={"rls.publication another": "no"}).codes
    for accept in ({"rls.publication": " "}, {"rls.no_such_rule": "reason"}):
        with pytest.raises(ConfigError):
            tenancy.audit(connection, accept=accept)


def test_every_shape_that_can_be_declared_has_no_finding(cluster: Cluster) -> None:
    """Rows that lean on another table, rows shared with or visible to others, hierarchies, rows of one's own: the audit knows what was meant."""
    roles = DatabaseRoles.prefixed("rlsshape_" + secrets.token_hex(4))
    metadata = sa.MetaData()
    uuid = sa.Uuid

    def table(name: str, *columns: Any, tenant: bool = True) -> sa.Table:
        key = [sa.Column("tenant_id", uuid)] if tenant else []
        return sa.Table(name, metadata, sa.Column("id", uuid, primary_key=True), *key, *columns)

    deal = table("deal")
    line = table("line", sa.Column("deal_id", sa.ForeignKey("deal.id", ondelete="CASCADE"), index=True, nullable=False), tenant=False)
    doc = table("doc")
    share = table(
        "share", sa.Column("guest_id", uuid, index=True), sa.Column("doc_id", sa.ForeignKey("doc.id", ondelete="CASCADE"), index=True)
    )
    invoice = table("invoice")
    draft = table("draft", sa.Column("user_id", sa.Text))
    tenancy = Tenancy(metadata, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(deal)
    tenancy.protect(line, via=deal)
    tenancy.protect(share, visible_to="guest_id")
    tenancy.protect(doc, shared_through=share)
    tenancy.protect(invoice, reach="below")
    tenancy.protect(draft, owner="user_id")
    with cluster.database("rlsshape") as database:
        engine = sa.create_engine(cluster.url(database))
        try:
            metadata.create_all(engine)
            tenancy.plan(engine).apply(engine)
            report = tenancy.audit(engine)
            assert not report.findings, str(report)
            with psycopg.connect(cluster.dsn(database)) as administrator:
                lab = PolicyLab.of(tenancy, administrator)
                with lab.opened():
                    assert {table.name for table in lab.tables} == {"deal", "line", "doc", "share", "invoice", "draft"}
                    assert "users are apart" in check_isolation(lab)
                    if os.environ.get("AXIS_TEST_PROFILE") == "nightly":
                        hunted = mutation_score(lab)
                        assert hunted.score == 1.0, str(hunted)
        finally:
            engine.dispose()
    with sa.create_engine(cluster.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")


def reaches(live: Live, table: str = "task", **scope: Any) -> dict[str, dict[str, str]]:
    """The matrix as plain words."""
    tenancy, connection = live
    roles = tenancy.roles
    matrix = show_table(connection, table, key="tenant_id", app=[roles.app], system=[roles.system], **scope)
    return {role: {command: str(cell.reach) for command, cell in cells.items()} for role, cells in matrix.rows.items()}


def test_show_tells_who_sees_what(live: Live) -> None:
    """App: its own tenant. System: every row. Owner: nothing, since row security is forced. Everybody else: refused."""
    tenancy, _ = live
    roles = tenancy.roles
    shown = reaches(live)
    data = ("SELECT", "INSERT", "UPDATE", "DELETE")
    assert shown[roles.app] == dict.fromkeys(data, "own tenant") | {"TRUNCATE": "refused"}
    assert shown[roles.system] == dict.fromkeys(data, "every row") | {"TRUNCATE": "refused"}
    assert shown[roles.owner] == dict.fromkeys(data, "no rows") | {"TRUNCATE": "every row"}
    assert set(shown["PUBLIC"].values()) == {"refused"}


@pytest.mark.parametrize(
    ("change", "command", "reach"),
    [
        ("ALTER TABLE task DISABLE ROW LEVEL SECURITY", "SELECT", "every row"),
        ("DROP POLICY axis_delete ON task", "DELETE", "no rows"),
        ("GRANT TRUNCATE ON task TO {app}", "TRUNCATE", "every row"),
        ("DROP POLICY axis_floor ON task; ALTER POLICY axis_select ON task USING (true)", "SELECT", "every row"),
        ("DROP POLICY axis_floor ON task; ALTER POLICY axis_select ON task USING (project_id IS NULL)", "SELECT", "some rows"),
        ("REVOKE UPDATE ON task FROM {app}", "UPDATE", "refused"),
        ("ALTER ROLE {app} BYPASSRLS", "SELECT", "every row"),
    ],
)
def test_show_follows_the_catalog(live: Live, change: str, command: str, reach: str) -> None:
    """Each change of a policy, a grant or an attribute shows in its cell."""
    tenancy, connection = live
    connection.exec_driver_sql(change.format(app=tenancy.roles.app))
    assert reaches(live)[tenancy.roles.app][command] == reach


def test_show_draws(live: Live) -> None:
    """Text, HTML and SVG hold every role and every cell; the drawings are well formed and escape what names contain."""
    from xml.etree import ElementTree as ET

    tenancy, connection = live
    connection.exec_driver_sql('CREATE ROLE "a<b" NOLOGIN; GRANT SELECT ON task TO "a<b"; CREATE VIEW peek AS SELECT * FROM task')
    matrix = show_table(connection, "public.task", key="tenant_id", app=[tenancy.roles.app], system=[tenancy.roles.system])
    svg = ET.fromstring(matrix.as_svg())
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + 5 * len(matrix.rows)
    assert "a&lt;b" in matrix.as_html()
    assert "<b" not in matrix.as_html().replace("<body", "")
    text = matrix.as_text()
    assert all(role in text for role in matrix.rows)
    assert "view public.peek" in text
    with pytest.raises(ConfigError, match="no table"):
        show_table(connection, "nothing")

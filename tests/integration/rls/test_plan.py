"""Plan, apply, drift and undo on a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.rls.model import UndeclaredTable
from axis_security.rls.plan import MissingColumn, MissingTable
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

from .declared import Example, ExamplePolicy, declare, example


@pytest.fixture(scope="module")
def applied(cluster: Cluster) -> Iterator[Example]:
    """The example with its plan applied; tests that change it mend it by applying again."""
    with example(cluster, policy=ExamplePolicy()) as made:
        made.plan().apply(made.engine)
        yield made


@pytest.mark.parametrize("key_type", [sa.BigInteger, sa.Integer, sa.Uuid, sa.Text, sa.String(40)])
@pytest.mark.parametrize("policy", [None, ExamplePolicy()], ids=["bound", "policy"])
def test_apply_leaves_nothing_to_do_and_undo_takes_it_back(cluster: Cluster, key_type: Any, policy: ExamplePolicy | None) -> None:
    """The second plan is empty, and undoing brings the first plan back, for every type of key."""
    with example(cluster, key_type, policy) as made:
        first = made.plan()
        first.apply(made.engine)
        assert made.plan().text.startswith("Nothing to do")
        first.undo(made.engine)
        assert made.plan().steps == first.steps


MUTATIONS = {
    "policy dropped": "DROP POLICY axis_floor ON contact",
    "predicate true": "ALTER POLICY axis_select ON contact USING (true)",
    "predicate cast": "ALTER POLICY axis_floor ON contact USING (tenant_id::int = (SELECT axis.tenant_id()))",
    "predicate unwrapped": "ALTER POLICY axis_floor ON contact USING (tenant_id = axis.tenant_id())",
    "check lifted": "ALTER POLICY axis_update ON deal WITH CHECK (true)",
    "role widened": "ALTER POLICY axis_select ON contact TO PUBLIC",
    "extra policy": "CREATE POLICY helper ON contact USING (true)",
    "extra policy on a partition": "CREATE POLICY helper ON event_2026 USING (true)",
    "force off": "ALTER TABLE deal NO FORCE ROW LEVEL SECURITY",
    "row security off": "ALTER TABLE deal DISABLE ROW LEVEL SECURITY",
    "partition opened": "ALTER TABLE event_2026 DISABLE ROW LEVEL SECURITY",
    "partition granted": "GRANT SELECT ON event_2026 TO {app}",
    "new partition": "CREATE TABLE IF NOT EXISTS event_2027 PARTITION OF event FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')",
    "truncate granted": "GRANT TRUNCATE ON contact TO {app}",
    "granted to public": "GRANT SELECT ON contact TO PUBLIC",
    "grant revoked": "REVOKE SELECT ON contact FROM {app}",
    "open table writable": "GRANT INSERT ON country TO {app}",
    "app bypasses": "ALTER ROLE {app} BYPASSRLS",
    "app superuser": "ALTER ROLE {app} SUPERUSER",
    "guard logs in": "ALTER ROLE {guard} LOGIN",
    "app joins system": "GRANT {system} TO {app}",
    "app joins guard": "GRANT {guard} TO {app}",
    "app owns a table": "ALTER TABLE contact OWNER TO {app}",
    "default dropped": "ALTER TABLE contact ALTER tenant_id DROP DEFAULT",
    "default constant": "ALTER TABLE contact ALTER tenant_id SET DEFAULT 1",
    "null allowed": "ALTER TABLE contact ALTER tenant_id DROP NOT NULL",
    "key lost the tenant": "ALTER TABLE deal DROP CONSTRAINT axis_deal_tenant_id_contact_id_fkey; ALTER TABLE deal ADD FOREIGN KEY (contact_id) REFERENCES contact ON DELETE CASCADE",
    "key added beside": "ALTER TABLE deal ADD CONSTRAINT beside FOREIGN KEY (contact_id) REFERENCES contact ON DELETE CASCADE",
    "index dropped": "DROP INDEX axis_event_tenant_id_id_day_idx",
    "getter replaced": "CREATE OR REPLACE FUNCTION axis.tenant_id() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE RETURN 1::bigint",
    "check replaced": "CREATE OR REPLACE FUNCTION axis.context() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER AS 'BEGIN RETURN current_setting(''axis.context'');END'",
    "function leakproof": "ALTER FUNCTION axis.context() LEAKPROOF",
    "function given away": "ALTER FUNCTION axis.context() OWNER TO {app}",
    "function open to all": "GRANT EXECUTE ON FUNCTION axis.context() TO PUBLIC",
    "keys readable": "GRANT SELECT ON axis.seal_key TO {app}",
    "keys writable": "GRANT INSERT ON axis.role_capability TO {app}",
    "schema opened": "GRANT CREATE ON SCHEMA axis TO {app}",
    "capability added": "INSERT INTO axis.role_capability (role, capability) VALUES ('member', 'deals.write')",
    "capability removed": "DELETE FROM axis.role_capability WHERE role = 'member' AND capability = 'deals.read'",
    "key replaced": "UPDATE axis.seal_key SET inner_block = sha256('a') || sha256('b')",
    "key added": "INSERT INTO axis.seal_key SELECT 99, inner_block, outer_block FROM axis.seal_key",
    "public schema creatable": "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "temporary objects allowed": "GRANT TEMPORARY ON DATABASE {database} TO PUBLIC",
    "temporary objects allowed to app": "GRANT TEMPORARY ON DATABASE {database} TO {app}",
    "temporary objects taken from owner": "REVOKE TEMPORARY ON DATABASE {database} FROM {owner}",
    "stray table granted": "CREATE TABLE IF NOT EXISTS stray (id int); GRANT SELECT ON stray TO {app}",
    "owner joins guard": "GRANT {guard} TO {owner}",
}

TOLD = {
    "policy dropped", "new partition", "force off", "row security off", "partition opened", "grant revoked", "app owns a table",
    "default dropped", "default constant", "null allowed", "index dropped", "capability removed", "key replaced", "key lost the tenant",
    "key added beside", "temporary objects taken from owner",
}  # fmt: skip
"""Changes that take something away, or that the next migration may have made: the plan puts it back, and calls nobody's attention to it."""


@pytest.mark.parametrize("change", MUTATIONS)
def test_each_change_by_hand_is_seen_and_mended(applied: Example, change: str) -> None:
    """What somebody changed in the live database shows in the plan, flagged where it lets somebody do more than declared; applying restores it."""
    names = {name: getattr(applied.roles, name) for name in ("owner", "app", "system", "guard")}
    applied.execute(*MUTATIONS[change].format(database=applied.database, **names).split("; "))
    seen = applied.plan()
    assert seen, "the change went unseen"
    assert any(step.flagged for step in seen) is (change not in TOLD)
    seen.apply(applied.engine)
    assert applied.plan().text.startswith("Nothing to do")


HARMLESS = {
    "parentheses": "ALTER POLICY axis_floor ON contact USING (((tenant_id) = ((SELECT (axis.tenant_id())))))",
    "cast to its own type": "ALTER POLICY axis_floor ON contact USING (tenant_id::bigint = (SELECT axis.tenant_id()))",
    "another index": "CREATE INDEX IF NOT EXISTS contact_name ON contact (tenant_id, name)",
    "a member of app": "GRANT {app} TO CURRENT_USER",
    "the owner acts as app": "GRANT {app} TO {owner}",
    "whoever plans is of the guard": "GRANT {guard} TO CURRENT_USER",
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_change_of_spelling_is_no_drift(applied: Example, change: str) -> None:
    """What means the same to the server gives no step."""
    roles = applied.roles
    applied.execute(change.format(app=roles.app, guard=roles.guard, owner=roles.owner))
    try:
        assert applied.plan().text.startswith("Nothing to do")
    finally:
        applied.execute(f"REVOKE {roles.app}, {roles.guard} FROM CURRENT_USER", f"REVOKE {roles.app} FROM {roles.owner}")


@pytest.mark.parametrize(
    "change", ["predicate true", "check lifted", "role widened", "extra policy", "truncate granted", "granted to public"]
)
def test_undoing_a_mended_plan_brings_the_change_by_hand_back(applied: Example, change: str) -> None:
    """Undo is undo: a policy that was dropped comes back with its own words and for the roles that it had, and the plan is the same again."""
    roles = applied.roles
    applied.execute(MUTATIONS[change].format(app=roles.app))
    seen = applied.plan()
    seen.apply(applied.engine)
    try:
        seen.undo(applied.engine)
        assert applied.plan().steps == seen.steps
    finally:
        applied.plan().apply(applied.engine)


def test_what_numbers_the_rows_may_be_drawn_from_where_rows_may_be_added(cluster: Cluster) -> None:
    """The sequence of a table that the application inserts into is its to use; that of a table it may only read is not."""
    with example(cluster) as made:
        made.execute("CREATE SEQUENCE country_seq OWNED BY country.code")
        made.plan().apply(made.engine)
        may = [f"has_sequence_privilege('{made.roles.app}', '{name}', 'USAGE')" for name in ("contact_id_seq", "country_seq")]
        with made.engine.connect() as connection:
            assert tuple(connection.exec_driver_sql(f"SELECT {', '.join(may)}").one()) == (True, False)


def test_a_materialized_view_of_a_protected_table_is_told_apart_from_a_view(cluster: Cluster) -> None:
    """A view can be made to ask as its reader; a materialized one has the rows already, so nobody may read it."""
    with example(cluster) as made:
        made.execute("CREATE VIEW seen AS SELECT id FROM contact", "CREATE MATERIALIZED VIEW kept AS SELECT id FROM contact")
        found = {
            finding.object: (finding.what.split()[1], finding.why.split()[0], finding.fix.split()[0]) for finding in made.plan().findings
        }
        assert found == {"public.seen": ("view", "row", "ALTER"), "public.kept": ("materialized", "it", "REVOKE")}


def test_planning_writes_nothing(applied: Example) -> None:
    """A plan leaves no object behind, inside a transaction of the caller's too."""
    applied.execute("DROP POLICY axis_floor ON contact")
    count = "SELECT (SELECT count(*) FROM pg_class) + (SELECT count(*) FROM pg_policy) + (SELECT count(*) FROM pg_proc)"
    with applied.engine.connect() as connection:
        before = connection.exec_driver_sql(count).scalar_one()
        plan = applied.tenancy.plan(connection)
        assert plan
        assert connection.exec_driver_sql(count).scalar_one() == before
    plan.apply(applied.engine)


def test_two_processes_may_apply_at_once(cluster: Cluster) -> None:
    """Of two concurrent applies, one does the work and the other finds nothing to do."""
    with example(cluster) as made:
        plan = made.plan()
        ran: list[int] = []
        failed: list[BaseException] = []
        gate = threading.Barrier(2)

        def work() -> None:
            try:
                gate.wait()
                ran.append(len(plan.apply(made.engine)))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert sorted(ran) == [0, len(plan)]


def test_psycopg_connections_plan_alike(applied: Example) -> None:
    """A psycopg connection, with any row factory, sees what SQLAlchemy sees."""
    with psycopg.connect(applied.cluster.dsn(applied.database), row_factory=psycopg.rows.dict_row) as connection:
        assert not applied.tenancy.plan(connection)


def test_every_table_must_be_decided(cluster: Cluster) -> None:
    """All undeclared tables are named at once, and so are all missing ones."""
    metadata = sa.MetaData()
    for name in ("a", "b"):
        sa.Table(name, metadata, sa.Column("tenant_id", sa.BigInteger, primary_key=True))
    tenancy = Tenancy(metadata, roles=DatabaseRoles.prefixed("rlsplan_none"))
    tenancy.protect(metadata.tables["a"])
    with pytest.raises(UndeclaredTable, match=r"public\.b"):
        tenancy.model()
    tenancy.protect(metadata.tables["b"])
    with (
        cluster.database() as database,
        psycopg.connect(cluster.dsn(database)) as connection,
        pytest.raises(MissingTable, match=r"`public\.a`, `public\.b`"),
    ):
        tenancy.plan(connection)


def test_a_missing_column_is_named(cluster: Cluster) -> None:
    """A table that was made before its tenant column: told by name, with every other that a policy speaks of, before anything is tried."""
    metadata = sa.MetaData()
    columns: list[sa.Column[Any]] = [
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("tenant_id", sa.BigInteger),
        sa.Column("author", sa.Text),
    ]
    sa.Table("page", metadata, *columns)
    tenancy = Tenancy(metadata, roles=DatabaseRoles.prefixed("rlsplan_none"))
    tenancy.protect(metadata.tables["page"], owner="author")
    with cluster.database() as database, psycopg.connect(cluster.dsn(database)) as connection:
        connection.execute("CREATE TABLE page (id bigint PRIMARY KEY)")
        with pytest.raises(MissingColumn, match=r"`public\.page\.author`, `public\.page\.tenant_id`"):
            tenancy.plan(connection)
        connection.execute("ALTER TABLE page ADD tenant_id bigint, ADD author text")
        assert tenancy.plan(connection)


def test_rotation_and_parts(cluster: Cluster) -> None:
    """Keys follow the keyring, and a part is created, recorded, renewed when edited by hand, and dropped by the undo."""
    part = SchemaPart(
        name="notes",
        create=lambda roles: [
            "CREATE TABLE IF NOT EXISTS axis.note (id int PRIMARY KEY)",
            f"ALTER TABLE axis.note OWNER TO {roles.guard}",
            "REVOKE ALL ON axis.note FROM PUBLIC",
        ],
        drop=lambda _: ["DROP TABLE IF EXISTS axis.note"],
    )
    with example(cluster) as made:
        made.plan().apply(made.engine)
        with_part = made.tenancy.plan(made.engine, parts=[part])
        assert [step.sql.split()[0] for step in with_part] == ["CREATE"]
        with_part.apply(made.engine)
        assert not made.tenancy.plan(made.engine, parts=[part])
        made.execute(f"GRANT SELECT ON axis.note TO {made.roles.app}", f"ALTER TABLE axis.note OWNER TO {made.roles.app}")
        assert made.tenancy.plan(made.engine, parts=[part])
        new = SealKey.generate(2)
        both = declare(made.roles, SealKeyring(current=new, previous=made.keyring.current))
        both.plan(made.engine).apply(made.engine)
        only = declare(made.roles, SealKeyring(current=new)).plan(made.engine)
        assert [step.sql for step in only] == ["DELETE FROM axis.seal_key WHERE id = 1"]


def test_a_plan_shows_no_key(cluster: Cluster) -> None:
    """Neither the printed plan nor its SQL holds the seal key or its blocks."""
    with example(cluster) as made:
        plan = made.plan()
        shown = plan.text + plan.sql + repr(plan)
        for block in (made.keyring.current.secret, *made.keyring.current.blocks()):
            assert block.reveal().hex() not in shown
            assert repr(block.reveal()) not in shown
        assert "'***'" in plan.text


def test_what_no_step_can_mend_is_reported(cluster: Cluster) -> None:
    """Views that run as their owner and unique keys over all tenants are findings with a fix, and no more once fixed."""
    with example(cluster) as made:
        made.execute("CREATE VIEW contact_names AS SELECT name FROM contact", "CREATE UNIQUE INDEX contact_name ON contact (name)")
        plan = made.plan()
        assert {(finding.code, finding.object) for finding in plan.findings} == {
            ("rls.view_runs_as_owner", "public.contact_names"),
            ("rls.unique_across_tenants", "public.contact"),
        }
        assert all(finding.fix in plan.text for finding in plan.findings)
        made.execute(next(finding.fix for finding in plan.findings if finding.code == "rls.view_runs_as_owner"), "DROP INDEX contact_name")
        assert made.plan().findings == ()


def test_rows_that_cross_tenants_stop_the_apply(cluster: Cluster) -> None:
    """Where a row already points at another tenant's row, apply fails as a whole and changes nothing."""
    with example(cluster) as made:
        made.execute("INSERT INTO contact (id, tenant_id) VALUES (1, 1)", "INSERT INTO deal (id, tenant_id, contact_id) VALUES (1, 2, 1)")
        plan = made.plan()
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            plan.apply(made.engine)
        assert made.plan().steps == plan.steps


def test_another_tool_proves_the_emitted_schema(cluster: Cluster, tmp_path: Path) -> None:
    """An independent linter finds nothing and its prover proves isolation for reading and writing.

    Two exceptions, both by design: the open table is listed for the linter, and the system login's own policy (which is there to cross
    tenants) is dropped before proving.
    """
    import subprocess
    import sys

    pgrls = Path(sys.executable).parent / "pgrls"
    if not pgrls.exists():
        pytest.skip("pgrls is not installed")
    config = tmp_path / "pgrls.toml"
    config.write_text('[lint.rules.SEC001]\nallowlist = ["public.country"]\n[lint.rules.SEC027]\nallowlist = ["public.contact"]\n')
    with example(cluster, sa.Uuid) as made:
        made.plan().apply(made.engine)
        made.execute("DROP INDEX ix_contact_owner_id")
        dsn = cluster.dsn(made.database)
        lint = subprocess.run([pgrls, "lint", "--config", config, "--database-url", dsn], capture_output=True, text=True, check=False)
        assert "no issues found" in lint.stdout, lint.stdout
        made.execute(*(f"DROP POLICY axis_system ON {table}" for table in ("contact", "deal", "event", "event_2026")))
        for mode in ("anon", "cross-tenant", "write"):
            found = subprocess.run(
                [pgrls, "verify", "--mode", mode, "--auth-function", "axis.tenant_id", "--database-url", dsn],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "4 proven isolated, 0 leaking, 0 unverified" in found.stdout, found.stdout

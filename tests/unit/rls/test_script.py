"""Scripts for servers that nobody planned on: the text is golden, a real parser reads it, and what a server cannot do is refused by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pglast
import pytest
import sqlalchemy as sa
from pglast import ast, visitors

from axis_security.core.errors import ConfigError
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.rls import Dialect, SealKey, SealKeyring, Tenancy, UnusableTable

GOLDEN = Path(__file__).parent / "golden"


def declared(*, own_key: bool = True, **shape: Any) -> Tenancy:
    """Projects with tasks under them, and a table open to all."""
    metadata = sa.MetaData()
    project = sa.Table(
        "project",
        metadata,
        sa.Column("tenant_id", sa.Uuid, nullable=False, primary_key=own_key),
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text),
    )
    task = sa.Table(
        "task",
        metadata,
        sa.Column("tenant_id", sa.Uuid, nullable=False, primary_key=own_key),
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("project_id", sa.Uuid, nullable=False),
        sa.Column("reader", sa.Uuid),
        sa.ForeignKeyConstraint(["tenant_id", "project_id"], ["project.tenant_id", "project.id"], ondelete="CASCADE"),
    )
    plan = sa.Table("plan", metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), sa.Column("name", sa.Text))
    tenancy = Tenancy(metadata, roles=DatabaseRoles.prefixed("crm"), seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(project)
    tenancy.protect(task, **shape)
    tenancy.open(plan, reason="prices, the same for all")
    return tenancy


@pytest.mark.parametrize("dialect", Dialect)
def test_the_script_is_as_reviewed(dialect: Dialect) -> None:
    """A change of one byte is a change that somebody looks at. AXIS_WRITE_DOCS=1 takes the new text."""
    path = GOLDEN / f"{dialect.value}.sql"
    text = declared().script(dialect)
    if os.environ.get("AXIS_WRITE_DOCS"):
        path.write_text(text)
    assert text == path.read_text()
    assert text == declared().script(dialect), "the seal key, which differs each time, is not in it"


@pytest.mark.parametrize("dialect", Dialect)
def test_a_real_parser_reads_every_statement(dialect: Dialect) -> None:
    """PostgreSQL's own parser takes the script, and each function's body as PL/pgSQL or SQL; what is sent to all nodes is parsed as well."""
    sql = declared().script(dialect)
    statements = pglast.parse_sql(sql)
    assert len(statements) > 40
    inner = [each.partition("off; ")[2].replace("%L", "''") for each in sql.split("$node$")[1::2]]
    assert bool(inner) is (dialect is Dialect.CITUS)
    for statement in [*statements, *(parsed for text in inner for parsed in pglast.parse_sql(text))]:
        node = statement.stmt
        if isinstance(node, ast.CreateFunctionStmt) and node.options:
            words = {option.defname: option.arg for option in node.options}
            if words["language"].sval.lower() == "sql" and "as" in words:
                pglast.parse_sql(words["as"][0].sval)
    for text in [*sql.split(";\n\n"), *inner]:
        body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        for function in body.split(";\nALTER FUNCTION")[:1]:
            if function.startswith("CREATE OR REPLACE FUNCTION") and "plpgsql" in function.lower():
                assert pglast.parse_plpgsql(function)


class _Sublinks(visitors.Visitor):
    """Counts sub-selects."""

    found = 0

    def visit_SubLink(self, _: object, __: ast.SubLink) -> None:
        self.found += 1


@pytest.mark.parametrize(("dialect", "wrapped"), [(Dialect.POSTGRESQL, True), (Dialect.CITUS, False), (Dialect.COCKROACHDB, False)])
def test_only_postgresql_gets_sub_selects_in_policies(dialect: Dialect, *, wrapped: bool) -> None:
    """There they make a getter run once a statement; the two others refuse the policy."""
    policies = [
        each.stmt for each in pglast.parse_sql(declared(owner="reader").script(dialect)) if isinstance(each.stmt, ast.CreatePolicyStmt)
    ]
    assert len(policies) == 12
    for policy in policies:
        count = _Sublinks()
        count(policy)
        assert (count.found > 0) is wrapped


@pytest.mark.parametrize("dialect", [Dialect.CITUS, Dialect.COCKROACHDB])
def test_rows_found_through_others_are_refused(dialect: Dialect) -> None:
    """A shape that needs a sub-select is refused by name, before anything is written."""
    with pytest.raises(UnusableTable, match="no sub-select may stand in a policy") as caught:
        declared(reach="below").script(dialect)
    assert dialect.value in str(caught.value)
    assert "task" in str(caught.value)


def test_a_distributed_table_needs_the_tenant_in_its_key() -> None:
    """Citus keeps a key unique within a node only; on CockroachDB and PostgreSQL the same table is fine."""
    with pytest.raises(UnusableTable, match=r"make the primary key \(tenant_id, id\)"):
        declared(own_key=False).script(Dialect.CITUS)
    assert declared(own_key=False).script(Dialect.COCKROACHDB)


def test_tables_are_distributed_once_before_their_policies_and_beside_one_another() -> None:
    """A policy made before the table is distributed would stay on the coordinator; tables apart could not be joined or refer to one another."""
    sql = declared().script(Dialect.CITUS)
    assert sql.count("create_distributed_table(") == 2
    assert sql.count("create_reference_table(") == 1
    assert sql.index("create_distributed_table('\"public\".\"task\"', 'tenant_id', colocate_with =>") < sql.index("CREATE POLICY")
    assert sql.index("create_distributed_table('\"public\".\"project\"', 'tenant_id')") < sql.index("ADD CONSTRAINT")


def test_parts_that_lean_on_postgresql_are_refused_elsewhere() -> None:
    """Accounts and sessions have no form for CockroachDB, and none is made up."""
    vault = SchemaPart(name="vault", create=lambda _: ["SELECT 1"], drop=lambda _: [])
    with pytest.raises(ConfigError, match="vault"):
        declared().script(Dialect.COCKROACHDB, parts=[vault])
    assert "SELECT 1" in declared().script(Dialect.CITUS, parts=[vault])


@pytest.mark.parametrize("dialect", [Dialect.CITUS, Dialect.COCKROACHDB])
def test_what_was_never_run_says_so(dialect: Dialect) -> None:
    """On its first line, where whoever runs it reads it."""
    assert "WRITTEN, NOT RUN" in declared().script(dialect).splitlines()[0]

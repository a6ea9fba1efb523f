"""The whole declaration as one script, without asking a server: for review, and for servers that this library does not plan on.

PostgreSQL's own is what :meth:`Tenancy.plan` gives on a database that has the bare tables. For Citus and CockroachDB the compiler is the same and the dialect
differs where the servers do (:class:`~axis_security.rls.dialect.Dialect`). Sources: Citus 13, "Row-Level Security" and "SET LOCAL propagation"
(``citus.propagate_set_commands``); CockroachDB v25.2, "CREATE POLICY", "CREATE FUNCTION", "Row-Level Security".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from axis_security.core.errors import ConfigError
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.rls.catalog import LiveIndex, LiveTable, Snapshot
from axis_security.rls.compile import compile_steps
from axis_security.rls.context import BASE, function_statements
from axis_security.rls.dialect import Dialect
from axis_security.rls.model import Model, Open, quote
from axis_security.rls.predicate import text_literal
from axis_security.rls.sealed import SealKeyring
from axis_security.rls.step import Step

__all__ = ["script"]

_HEAD: Final = {
    Dialect.POSTGRESQL: (
        "For PostgreSQL 15 and later, as a superuser, on tables without foreign keys between protected ones: they are made here. `plan` and `apply` do the same\n"
        "-- against the live catalogue, whatever it holds, and again whenever it drifts."
    ),
    Dialect.CITUS: (
        "For Citus 12 and later, on the coordinator, as a superuser. WRITTEN, NOT RUN: this project has no Citus server. Rehearse it, and attack it with\n"
        "-- axis_security.testing, before you believe it. Foreign keys between protected tables are made here: create the tables without them."
    ),
    Dialect.COCKROACHDB: (
        "For CockroachDB v25.2 and later, as an admin. WRITTEN, NOT RUN: this project has no CockroachDB server. Rehearse it, and attack it with\n"
        "-- axis_security.testing, before you believe it. Foreign keys between protected tables are made here: create the tables without them."
    ),
}


def script(model: Model, parts: Sequence[SchemaPart], keyring: SealKeyring | None) -> str:
    """Every statement that leads from the bare tables to the declaration. ``$1`` and ``$2`` stand for a seal key's two blocks, which are never printed.

    Raises:
        ConfigError: a part of schema axis has no form for the model's dialect.
    """
    live = _bare(model)
    steps, findings = compile_steps(model, live, deparsed={}, stale_parts=_parts(model, parts), keyring=keyring)
    lines = [f"-- {_HEAD[model.dialect]}"]
    lines += [f"-- {finding.severity}: {finding.object}: {finding.what}: {finding.why}" for finding in findings]
    for step in _arranged(model, [_numbered(model, step) for step in steps]):
        lines += ["", f"-- {step.why}", step.sql + ";"]
    return "\n".join(lines) + "\n"


def _numbered(model: Model, step: Step) -> Step:
    """Secret values as ``$1`` and so on; on Citus inside the text that is sent to all nodes, so by ``format()``."""
    sql = step.sql
    for number in range(1, len(step.params) + 1):
        sql = sql.replace("%s", "%L" if model.dialect is Dialect.CITUS else f"${number}", 1)
    return replace(step, sql=sql)


def _bare(model: Model) -> Snapshot:
    """A database that has the tables, as their metadata would make them but for foreign keys, and nothing else."""
    live = Snapshot(temporary={""})
    for declared in model.tables:
        table = declared.table
        made = LiveTable(table.name, "r", "")
        made.columns = {column.name: ("", column.name in table.primary_key, None) for column in table.columns}
        if table.primary_key:
            made.indexes.append(LiveIndex(f"{table.name[1]}_pkey", table.primary_key, unique=True, primary=True))
        for column in table.serials:
            name = (table.name[0], f"{table.name[1]}_{column}_seq")
            live.tables[name] = LiveTable(name, "S", model.roles.owner)
            made.sequences.append(name)
        live.tables[table.name] = made
    return live


def _parts(model: Model, parts: Sequence[SchemaPart]) -> list[SchemaPart]:
    if model.dialect is not Dialect.COCKROACHDB:
        return list(parts)
    if further := [part.name for part in parts if part.name != BASE]:
        raise ConfigError(
            what=f"schema axis has no form for CockroachDB of: {', '.join(further)}",
            why="only row-level isolation has one; these parts lean on what PostgreSQL alone does",
            fix="keep accounts, sessions and keys in a PostgreSQL database, and plan their parts there",
        )
    return [
        SchemaPart(
            name=BASE, create=lambda roles: _cockroach_base(roles, model.key_type), drop=lambda _: ["DROP SCHEMA IF EXISTS axis CASCADE"]
        )
    ]


def _arranged(model: Model, steps: Sequence[Step]) -> Iterator[Step]:
    if model.dialect is Dialect.POSTGRESQL:
        yield from steps
        return
    if model.dialect is Dialect.COCKROACHDB:
        for step in steps:
            yield replace(step, sql=_cockroach_role(step.sql))
        return
    distributed = False
    for step in steps:
        if step.sql.startswith(("ALTER TABLE", "GRANT SELECT")) and not distributed:
            distributed = True
            yield from _distribute(model)
        # Every node checks seals and capabilities by itself; a worker cannot ask another node in the middle of a shard's statement.
        everywhere = " axis." in step.sql and not step.sql.startswith(("ALTER TABLE", "CREATE POLICY"))
        yield replace(step, sql=_everywhere(step)) if everywhere else step


def _distribute(model: Model) -> Iterator[Step]:
    first = ""
    for declared in model.tables:
        name = text_literal(quote(*declared.table.name))
        if isinstance(declared.shape, Open):
            yield Step(sql=f"SELECT create_reference_table({name})", reverse=None, why="small, and read by everybody: a copy on every node")
            continue
        beside = f", colocate_with => {first}" if first else ""
        first = first or name
        yield Step(
            sql=f"SELECT create_distributed_table({name}, {text_literal(model.key)}{beside})",
            reverse=None,
            why="a tenant's rows of all tables lie on one node",
        )


def _everywhere(step: Step) -> str:
    # One statement at a time: a node that refuses one must not have half of the next. Division by zero is how a query says no.
    values = "".join(f", ${number}::bytea" for number in range(1, len(step.params) + 1))
    texts = [f"$node$SET citus.enable_ddl_propagation TO off; {each}$node$" for each in _apart(step.sql)]
    return ";\n".join(
        f"SELECT 1 / bool_and(success)::int AS done FROM run_command_on_all_nodes({f'pg_catalog.format({text}{values})' if values else text})"
        for text in texts
    )


def _apart(sql: str) -> Iterator[str]:
    """The statements that :func:`~axis_security.rls.compile.statement_list` put together; function bodies stay whole."""
    held = ""
    for piece in sql.split(";\n"):
        held = f"{held};\n{piece}" if held else piece
        if held.count("$axis$") % 2 == 0:
            yield held
            held = ""


def _cockroach_role(sql: str) -> str:
    if not sql.startswith("CREATE ROLE"):
        return sql
    name = sql.split()[2]
    return f"CREATE ROLE {name} {'NOLOGIN' if ' NOLOGIN' in sql else 'LOGIN'} NOCREATEDB NOCREATEROLE NOBYPASSRLS"


@dataclass(frozen=True, slots=True)
class _Getter:
    """A function of schema axis: its signature, what it returns, and its body."""

    signature: str
    returns: str
    body: str
    language: str = "SQL"
    definer: bool = False

    def create(self) -> str:
        security = " SECURITY DEFINER" if self.definer else ""
        return f"CREATE OR REPLACE FUNCTION axis.{self.signature} RETURNS {self.returns} STABLE LANGUAGE {self.language}{security} AS $axis$\n{self.body}\n$axis$"


# The check of context.py in the server's own functions. It has no user-defined operators, so none can stand in for `=`; functions are qualified.
_COCKROACH_CONTEXT: Final = """\
DECLARE
  sealed TEXT := pg_catalog.current_setting('axis.context', true);
  body TEXT;
  mac BYTEA;
BEGIN
  IF sealed IS NULL OR sealed = '' THEN
    RAISE EXCEPTION USING ERRCODE = 'AX001', MESSAGE = 'no tenant is bound to this transaction';
  END IF;
  body := pg_catalog."left"(sealed, -64);
  SELECT pg_catalog.digest(k.outer_block || pg_catalog.digest(k.inner_block || pg_catalog.convert_to(body, 'UTF8'), 'sha256'), 'sha256')
    INTO mac FROM axis.seal_key AS k WHERE k.id::TEXT = pg_catalog.split_part(sealed, ' ', 2);
  IF mac IS NULL OR pg_catalog.sha256(pg_catalog.encode(mac, 'hex')) <> pg_catalog.sha256(pg_catalog."right"(sealed, 64)) THEN
    RAISE EXCEPTION USING ERRCODE = 'AX002', MESSAGE = 'the sealed context is not genuine';
  END IF;
  IF pg_catalog.to_timestamp(pg_catalog.split_part(body, ' ', 3)::FLOAT8) < pg_catalog.now() THEN
    RAISE EXCEPTION USING ERRCODE = 'AX003', MESSAGE = 'the sealed context had expired when this transaction began';
  END IF;
  RETURN body;
END"""


def _cockroach_base(roles: DatabaseRoles, key_type: KeyType) -> list[str]:
    cast = "" if key_type is KeyType.TEXT else f"::{key_type.value}"
    field = "pg_catalog.split_part(axis.context(), ' ', {})"
    claimed = f"NULLIF(pg_catalog.split_part(pg_catalog.current_setting('axis.context', true), ' ', 4), ''){cast}"
    holds = (
        "EXISTS (SELECT 1 FROM axis.role_capability AS c WHERE c.role = pg_catalog.split_part(body, ' ', 6) AND c.capability = capability_name\n"
        "    AND c.condition = {} AND (c.tenant = '' OR c.tenant = pg_catalog.split_part(body, ' ', 4)))"
    )
    tenant_for = f"DECLARE\n  body TEXT := axis.context();\nBEGIN\n  IF {holds} THEN\n    RETURN pg_catalog.split_part(body, ' ', 4){cast};\n  END IF;\n  RETURN NULL;\nEND"
    functions = [
        _Getter("context()", "TEXT", _COCKROACH_CONTEXT, "PLpgSQL", definer=True),
        _Getter("tenant_id()", key_type.value, f"SELECT {field.format(4)}{cast}"),
        _Getter("tenant_text()", "TEXT", f"SELECT {field.format(4)}"),
        _Getter("user_id()", "TEXT", f"SELECT NULLIF({field.format(5)}, '')"),
        _Getter("role_name()", "TEXT", f"SELECT {field.format(6)}"),
        _Getter("claimed_tenant_id()", key_type.value, f"SELECT {claimed}"),
        _Getter("is_system()", "BOOLEAN", f"SELECT CURRENT_USER = '{roles.system}'"),
        _Getter("tenant_for(capability_name TEXT)", key_type.value, tenant_for.format("''"), "PLpgSQL", definer=True),
        _Getter(
            "tenant_for_own(capability_name TEXT, owner_column TEXT)",
            key_type.value,
            tenant_for.format("'owned by ' || owner_column"),
            "PLpgSQL",
            definer=True,
        ),
        _Getter("may(capability_name TEXT)", "BOOLEAN", "SELECT axis.tenant_for(capability_name) IS NOT NULL"),
    ]
    everybody = f"{roles.app}, {roles.system}, {roles.owner}"
    statements = [
        f"CREATE SCHEMA IF NOT EXISTS axis AUTHORIZATION {roles.guard}",
        f"REVOKE ALL ON SCHEMA axis FROM PUBLIC, {everybody}",
        f"GRANT USAGE ON SCHEMA axis TO {everybody}",
        "CREATE TABLE IF NOT EXISTS axis.part (name TEXT PRIMARY KEY, digest TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT pg_catalog.now())",
        (
            "CREATE TABLE IF NOT EXISTS axis.seal_key (id INTEGER PRIMARY KEY CHECK (id > 0), "
            "inner_block BYTEA NOT NULL CHECK (octet_length(inner_block) = 64), outer_block BYTEA NOT NULL CHECK (octet_length(outer_block) = 64))"
        ),
        (
            "CREATE TABLE IF NOT EXISTS axis.role_capability (tenant TEXT NOT NULL DEFAULT '', role TEXT NOT NULL, capability TEXT NOT NULL, "
            "condition TEXT NOT NULL DEFAULT '', PRIMARY KEY (role, capability, condition, tenant))"
        ),
    ]
    for table in ("part", "seal_key", "role_capability"):
        statements += [f"ALTER TABLE axis.{table} OWNER TO {roles.guard}", f"REVOKE ALL ON TABLE axis.{table} FROM PUBLIC, {everybody}"]
    for function in functions:
        name, _, arguments = function.signature.rstrip(")").partition("(")
        types = ", ".join("TEXT" for _ in filter(None, arguments.split(", ")))
        statements += function_statements(roles, f"{name}({types})", function.create())
    return statements

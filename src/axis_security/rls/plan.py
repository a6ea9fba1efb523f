"""The plan: what is missing or different between the declaration and the live database, as steps that can be read, run and undone.

How it compares: the server itself words what we declare. Schema ``axis`` is renewed and the policies are created on empty look-alikes, all
inside a savepoint that is rolled back; then the two sides are compared in the server's own words. No name or text is taken for sameness, and
no lock is taken on a table of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from axis_security.core.checks import Finding
from axis_security.core.errors import ConfigError
from axis_security.core.flow import Flow, Rows, Statement, drive
from axis_security.core.schema import SchemaPart
from axis_security.rls.catalog import LivePolicy, LiveTable, Snapshot, ask, read_snapshot
from axis_security.rls.compile import Shadow, compile_steps, held_tables, shadow_of
from axis_security.rls.model import Model, Name, quote
from axis_security.rls.predicate import PolicyModel, tenant_default
from axis_security.rls.rights import role_steps
from axis_security.rls.sealed import SealKeyring
from axis_security.rls.step import Step

__all__ = ["Declaration", "MissingColumn", "MissingTable", "Plan", "RightsMissing", "apply_flow", "plan_flow", "run"]

Result = TypeVar("Result")

_LOCK: Final = 0x61786973_0001  # "axis", then a number: one planner at a time per database


class MissingTable(ConfigError):
    """Declared tables do not exist in the database."""

    code = "rls.missing_table"

    def __init__(self, names: Sequence[Name]) -> None:
        super().__init__(
            what=f"{len(names)} declared table(s) do not exist in this database",
            why=", ".join(f"`{'.'.join(name)}`" for name in names),
            fix="create the tables first (metadata.create_all, or your migrations), then plan",
        )


class MissingColumn(ConfigError):
    """Columns that policies speak of do not exist in the database."""

    code = "rls.missing_column"

    def __init__(self, columns: Sequence[tuple[Name, str]]) -> None:
        super().__init__(
            what=f"{len(columns)} column(s) that policies need do not exist in this database",
            why=", ".join(f"`{'.'.join(name)}.{column}`" for name, column in columns),
            fix="add them first (your migrations; docs/how-to/adopt-a-live-table.md for tables with rows), then plan",
        )


class RightsMissing(ConfigError):
    """The connection's role may not do what a plan needs."""

    code = "rls.rights_missing"

    def __init__(self, why: str) -> None:
        super().__init__(
            what="the connection's role may not make or apply a plan",
            why=why,
            fix="connect as a superuser, or as a role with CREATEROLE that owns the database, its schemas and the declared tables",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """All that a plan is made from besides the live database."""

    model: Model
    parts: tuple[SchemaPart, ...]
    keyring: SealKeyring | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordered steps, and findings that no step can mend. An empty plan: the database is as declared."""

    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()
    declaration: Declaration = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @property
    def text(self) -> str:
        """The plan for a reviewer: numbered steps with reason, SQL and undoing. Secret values are shown as ``***``."""
        lines = [f"{len(self.steps)} step(s)" if self.steps else "Nothing to do: the database is as declared."]
        for number, step in enumerate(self.steps, 1):
            undo, *more = ("(not reversible)" if step.reverse is None else step.reverse or "(nothing to undo)").splitlines()
            lines += ["", f"-- {number}. {'[look twice] ' if step.flagged else ''}{step.why}", step.shown + ";"]
            lines += [f"--    undo: {undo}{' …' if more else ''}"]
        for finding in self.findings:
            lines += ["", f"!! {finding.severity}: {finding.object}: {finding.what}: {finding.why}. Fix: {finding.fix}. [{finding.code}]"]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text

    @property
    def sql(self) -> str:
        """The statements alone, for a migration file. Steps with secret values are left out as comments: they belong to ``apply``."""
        return "".join((f"-- left to plan.apply(): {step.why}\n" if step.params else f"{step.sql};\n") for step in self.steps)

    def reverse(self) -> tuple[str, ...]:
        """The statements that undo the plan, last step first; steps that cannot be undone are skipped."""
        return tuple(step.reverse for step in reversed(self.steps) if step.reverse)

    def apply(self, connection: Any) -> Plan:
        """Bring the database to the declaration, in one transaction and one at a time; returns the plan that ran.

        The plan is made anew under the lock, so it is safe when another process has applied since, or applies now. *connection* is a
        SQLAlchemy ``Engine`` or ``Connection`` or a psycopg ``Connection``; inside an open transaction, the caller commits. Its role is a superuser
        or, as on managed servers, one with CREATEROLE that owns the database, the schemas and the tables: the rights of the four roles are then
        held for the length of the transaction only.

        Raises:
            RightsMissing: the role may not do what the plan needs; nothing was changed.
        """
        return run(connection, lambda: apply_flow(self.declaration), keep=True)

    def undo(self, connection: Any) -> None:
        """Run :meth:`reverse` in one transaction."""

        def flow() -> Flow[None]:
            borrowed = yield from _borrow(self.declaration.model)
            for sql in self.reverse():
                yield ask(sql)
            yield from _give_back([name for name in borrowed if f"DROP ROLE {name}" not in self.reverse()])

        run(connection, flow, keep=True)


def plan_flow(declaration: Declaration) -> Flow[Plan]:
    """Compare, and write nothing that stays.

    Raises:
        MissingTable, MissingColumn: declared tables, or columns that their policies speak of, do not exist.
        RightsMissing: the connection's role may not try the plan out.
    """
    model = declaration.model
    yield ask("SAVEPOINT axis_plan")
    yield from _borrow(model)
    schemas = sorted({declared.table.name[0] for declared in model.tables})
    columns = sorted(model.columns())
    live = yield from read_snapshot(model.roles, schemas, columns)
    missing = [
        declared.table.name for declared in model.tables if getattr(live.tables.get(declared.table.name), "kind", "") not in ("r", "p")
    ]
    if missing:
        raise MissingTable(missing)
    lacking = [
        (name, column)
        for name, declared in model.protected().items()
        for column in model.columns_of(declared)
        if column not in live.tables[name].columns
    ]
    if lacking:
        raise MissingColumn(lacking)
    for step in role_steps(model, live):
        if step.sql.startswith("CREATE"):
            yield ask(step.sql)
    yield from _borrow(model)
    stale = yield from _stale_parts(declaration, live)
    deparsed = yield from _deparse(model, live)
    yield ask("ROLLBACK TO SAVEPOINT axis_plan")
    yield ask("RELEASE SAVEPOINT axis_plan")
    steps, findings = compile_steps(model, live, deparsed=deparsed, stale_parts=stale, keyring=declaration.keyring)
    return Plan(steps=steps, findings=findings, declaration=declaration)


def apply_flow(declaration: Declaration) -> Flow[Plan]:
    """Plan and run the steps, under a lock that ends with the transaction."""
    yield ask(f"SELECT pg_catalog.pg_advisory_xact_lock({_LOCK})")
    plan = yield from plan_flow(declaration)
    borrowed = yield from _borrow(declaration.model)
    for step in plan.steps:
        yield ask(step.sql, *(value.reveal() for value in step.params))
        if step.sql.startswith("CREATE ROLE"):
            borrowed += yield from _borrow(declaration.model)
    yield from _give_back(borrowed)
    return plan


def _borrow(model: Model) -> Flow[list[str]]:
    """Take on the rights of the guard and the owner, where the planner is no superuser: what managed servers give (CREATEROLE, owner of the database).

    Whoever made a role may grant it to themselves; outside of a plan it is not held, so that an ordinary login of the same name reads no key.
    """
    rows = yield ask(
        "SELECT r.rolname::text, pg_catalog.current_setting('server_version_num')::integer >= 160000 FROM pg_catalog.pg_roles r, pg_catalog.pg_roles me "
        "WHERE r.rolname = ANY(%s) AND me.rolname = CURRENT_USER AND NOT me.rolsuper AND NOT pg_catalog.pg_has_role(CURRENT_USER, r.oid, 'USAGE') ORDER BY 1",
        [model.roles.guard, model.roles.owner],
    )
    for name, options in rows:
        yield ask(f"GRANT {quote(name)} TO CURRENT_USER{' WITH INHERIT TRUE, SET TRUE' if options else ''}")
    return [name for name, _ in rows]


def _give_back(borrowed: Sequence[str]) -> Flow[None]:
    for name in borrowed:
        yield ask(f"REVOKE {quote(name)} FROM CURRENT_USER")


_AXIS_OBJECTS: Final = """
SELECT 'function', p.oid::regprocedure::text, pg_catalog.pg_get_functiondef(p.oid), pg_catalog.pg_get_userbyid(p.proowner)::text,
  ARRAY(SELECT a::text FROM pg_catalog.unnest(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a ORDER BY 1)
FROM pg_catalog.pg_proc p WHERE p.pronamespace = pg_catalog.to_regnamespace('axis') AND p.prokind IN ('f', 'p')
UNION ALL
SELECT c.relkind::text, c.oid::regclass::text,
  (SELECT pg_catalog.string_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) || ' ' || a.attname || ' ' || a.attnotnull::text || ' '
     || coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''), ',' ORDER BY a.attnum)
     FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
  || ' ' || coalesce((SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ',' ORDER BY k.conname) FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid), '')
  || ' ' || coalesce((SELECT pg_catalog.string_agg(pg_catalog.pg_get_triggerdef(t.oid) || t.tgenabled::text, ',' ORDER BY t.tgname)
       FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal), '')
  || ' ' || coalesce((SELECT pg_catalog.string_agg(p.polname || ' ' || p.polcmd::text || p.polpermissive::text || coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '')
       || coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '') || p.polroles::text, ',' ORDER BY p.polname) FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid), '')
  || coalesce((SELECT pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid), ',' ORDER BY i.indexrelid::regclass::text)
       FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid), '')
  || c.relrowsecurity::text || c.relforcerowsecurity::text,
  pg_catalog.pg_get_userbyid(c.relowner)::text,
  ARRAY(SELECT a::text FROM pg_catalog.unnest(coalesce(c.relacl, pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a ORDER BY 1)
FROM pg_catalog.pg_class c WHERE c.relnamespace = pg_catalog.to_regnamespace('axis') AND c.relkind IN ('r', 'p', 'v', 'S')
UNION ALL
SELECT 'schema', n.nspname::text, '', pg_catalog.pg_get_userbyid(n.nspowner)::text, ARRAY(SELECT a::text FROM pg_catalog.unnest(n.nspacl) a ORDER BY 1)
FROM pg_catalog.pg_namespace n WHERE n.nspname = 'axis'
ORDER BY 1, 2
"""


def _stale_parts(declaration: Declaration, live: Snapshot) -> Flow[list[SchemaPart]]:
    """Renew each part inside the savepoint: a part whose renewal changes anything was missing, old, or edited by hand."""
    stale = []
    before = [tuple(row) for row in (yield ask(_AXIS_OBJECTS))]
    for part in declaration.parts:
        for sql in part.statements(declaration.model.roles):
            yield ask(sql)
        after = [tuple(row) for row in (yield ask(_AXIS_OBJECTS))]
        if after != before or live.parts.get(part.name) != part.digest(declaration.model.roles):
            stale.append(part)
        before = after
    return stale


def _deparse(model: Model, live: Snapshot) -> Flow[dict[Shadow, tuple[dict[str, LivePolicy], str]]]:
    """Create each distinct set of policies once, on an empty look-alike, and read back the server's words."""
    worded: dict[Shadow, tuple[dict[str, LivePolicy], str]] = {}
    names: dict[Shadow, str] = {}
    for declared, live_table in held_tables(model, live):
        shadow = shadow_of(model, declared, live_table)
        if shadow not in names:
            # Policies that speak of their table need a look-alike of the same name, which must not stay to hide the table from the next one.
            name = names[shadow] = shadow[2] or f"axis_shadow_{len(names)}"
            yield from _make_shadow(model, name, live_table, shadow[0])
            if shadow[2]:
                worded |= yield from _read_shadows(model, {shadow: name})
                yield ask(f"DROP TABLE pg_temp.{quote(name)}")
    if left := {shadow: name for shadow, name in names.items() if shadow not in worded}:
        worded |= yield from _read_shadows(model, left)
    return worded


def _read_shadows(model: Model, names: dict[Shadow, str]) -> Flow[dict[Shadow, tuple[dict[str, LivePolicy], str]]]:
    rows: Rows = yield ask("SELECT n.nspname::text FROM pg_catalog.pg_namespace n WHERE n.oid = pg_catalog.pg_my_temp_schema()")
    made = yield from read_snapshot(model.roles, [rows[0][0]], [model.key])
    tables = {shadow: made.tables[rows[0][0], name] for shadow, name in names.items()}
    return {shadow: (table.policies, table.columns.get(model.key, ("", False, None))[2] or "") for shadow, table in tables.items()}


def _make_shadow(model: Model, name: str, like: LiveTable, policies: Sequence[PolicyModel]) -> Flow[None]:
    columns = ", ".join(f"{quote(column)} {kind}" for column, (kind, _, _) in sorted(like.columns.items()))
    yield ask(f"CREATE TEMPORARY TABLE {quote(name)} ({columns})")
    if model.key in like.columns:
        yield ask(f"ALTER TABLE pg_temp.{quote(name)} ALTER COLUMN {quote(model.key)} SET DEFAULT {tenant_default()}")
    for policy in policies:
        yield ask(policy.create(f"pg_temp.{quote(name)}", name))


def run(connection: Any, flow: Callable[[], Flow[Result]], *, keep: bool) -> Result:
    """Run a flow on what the host has, in one transaction; undone afterwards unless *keep*.

    Raises:
        ConfigError: *connection* is not a SQLAlchemy engine or connection, nor a psycopg connection.
    """
    families = {(base.__module__.partition(".")[0], base.__name__) for base in type(connection).__mro__}
    if ("sqlalchemy", "Engine") in families:
        with connection.connect() as opened:
            return run(opened, flow, keep=keep)
    if ("sqlalchemy", "Connection") in families:
        with _sqlalchemy_transaction(connection, keep=keep):
            return drive(flow(), _performer(connection.connection.cursor))
    if ("psycopg", "Connection") in families:
        with connection.transaction(force_rollback=not keep):
            return drive(flow(), _performer(lambda: _plain_cursor(connection)))
    raise ConfigError(
        what=f"cannot plan on a `{type(connection).__name__}`",
        why="a plan needs a SQLAlchemy Engine or Connection, or a psycopg Connection",
        fix="from async code: await async_connection.run_sync(tenancy.plan)",
    )


@contextmanager
def _sqlalchemy_transaction(connection: Any, *, keep: bool) -> Iterator[None]:
    transaction = connection.begin_nested() if connection.in_transaction() else connection.begin()
    with transaction:
        yield
        if not keep:
            transaction.rollback()


def _plain_cursor(connection: Any) -> Any:
    from psycopg import Cursor
    from psycopg.rows import tuple_row

    # Whatever row factory the host has chosen, the flow reads tuples.
    return Cursor(connection, row_factory=tuple_row)


def _performer(cursor_of: Callable[[], Any]) -> Callable[[Statement], Rows]:
    def perform(statement: Statement) -> Rows:
        cursor = cursor_of()
        try:
            if statement.params:
                cursor.execute(statement.sql, statement.params)
            else:
                cursor.execute(statement.sql)  # without parameters, a % in the text is a %
            return cursor.fetchall() if cursor.description else ()
        except Exception as error:
            if getattr(error, "sqlstate", None) == "42501":  # insufficient_privilege; its text names objects and roles, no values
                raise RightsMissing(str(error).strip()) from None
            raise
        finally:
            cursor.close()

    return perform

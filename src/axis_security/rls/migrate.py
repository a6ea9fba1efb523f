"""Alembic: autogenerate writes what the tables' isolation needs, migrations run it, and rows are written in a declared scope or not at all.

``env.py`` gives :meth:`Migrations.options` to ``context.configure``. A migration file holds plain statements, so that it says the same in a
year; what is renewed as a whole (roles, schema ``axis``, the table of roles and capabilities) is one line, ``op.axis_foundation()``.

Under FORCE an owner sees no rows, so a data migration would change none, and report success. A statement that writes rows of a table with
row security is therefore refused outside ``with op.axis_system(reason):``, whoever runs it: what works for a superuser at home would do
nothing in production.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from alembic.operations import Operations, ops
from sqlalchemy import event, text

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.context import maybe_principal
from axis_security.core.errors import AxisError, ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, LoggingSink, Outcome
from axis_security.rls.catalog import read_snapshot
from axis_security.rls.dml import UNCLEAR, written_tables
from axis_security.rls.migrate_operations import OPTION, FoundationOp, ProtectOp, keep_ours, leaves
from axis_security.rls.plan import RightsMissing, plan_flow, run

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from axis_security.rls.tenancy import Tenancy

__all__ = ["FoundationMissing", "Migrations", "RowsOutsideScope"]


class RowsOutsideScope(AxisError):
    """A migration writes rows of a table with row security outside a declared scope; nothing was written."""

    code = "rls.rows_outside_scope"

    def __init__(self, tables: Iterable[str]) -> None:
        named = ", ".join(f"`{table}`" for table in tables)
        super().__init__(
            what=f"the migration writes rows of {named}",
            why="row security is forced there: as the tables' owner it would change no row, and report success",
            fix='wrap it: with op.axis_system("why"): …',
        )


class FoundationMissing(ConfigError):
    """The roles and functions that the tables' isolation needs are not there, and the migration's login may not make them."""

    code = "rls.foundation_missing"

    def __init__(self, why: str) -> None:
        super().__init__(
            what="schema axis is not ready for this migration",
            why=why,
            fix="as an administrator: tenancy.foundation(connection).apply(connection)",
        )


class Migrations:
    """Migrations of a tenancy's tables.

    Args:
        tenancy: as declared today; what a migration file holds does not change with it.
        sink: takes an event for each scope of a migration that writes rows; the standard library's logging unless told.
        clock: dates the events.
    """

    def __init__(self, tenancy: Tenancy, *, sink: EventSink | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.tenancy: Final = tenancy
        self._sink: Final = LoggingSink() if sink is None else sink
        self._clock: Final = clock
        self._trusted = 0

    def options(self, connection: Connection | None, **others: Any) -> dict[str, Any]:
        """Keywords for ``context.configure``; the connection is watched from now on.

        Args:
            connection: the connection that migrations run on; ``None`` where they are printed (``--sql``).
            others: further keywords. A ``process_revision_directives`` among them is called after ours; an ``output_buffer`` takes what is printed.
        """
        theirs: Callable[..., None] | None = others.pop("process_revision_directives", None)

        def directives(context: Any, revision: Any, scripts: list[Any]) -> None:
            if scripts and getattr(scripts[0], "_needs_render", False):  # false: an empty revision, asked for without --autogenerate
                for upgrade, downgrade in zip(scripts[0].upgrade_ops_list, scripts[0].downgrade_ops_list, strict=True):
                    self.complete(context, upgrade)
                    upgrade.reverse_into(downgrade)
            if theirs is not None:
                theirs(context, revision, scripts)

        if connection is not None:
            self.watch(connection)
            return {"connection": connection, "process_revision_directives": directives, OPTION: self, **others}
        # Alembic prints to standard output where it is told no other place; that is checked as well.
        others["output_buffer"] = _Printed(others.get("output_buffer") or sys.stdout, self)
        return {OPTION: self, **others}

    def watch(self, connection: Connection) -> None:
        """Refuse statements of *connection* that write rows where row security holds, outside of :meth:`scope`. Idempotent."""
        if not event.contains(connection, "before_cursor_execute", self._check):
            event.listen(connection, "before_cursor_execute", self._check)

    def complete(self, context: Any, upgrade: ops.UpgradeOps) -> None:
        """Add to what autogenerate found what the isolation of the tables lacks after it, and take out what would undo it.

        The operations are tried out in a savepoint, so that a table and its isolation come in one migration.

        Raises:
            RightsMissing, UndeclaredTable, MissingTable: as :meth:`Tenancy.plan`.
        """
        connection = context.connection
        declaration = self.tenancy.declaration()
        bare = replace(declaration, model=replace(declaration.model, tables=()))
        schemas = sorted({declared.table.name[0] for declared in declaration.model.tables})
        live = run(connection, lambda: read_snapshot(declaration.model.roles, schemas, [declaration.model.key]), keep=False)
        keep_ours(upgrade, self.tenancy, live)
        transaction = connection.begin_nested() if connection.in_transaction() else connection.begin()
        try:
            ground = run(connection, lambda: plan_flow(bare), keep=False)
            trial = Operations(context)
            with self.trusted():
                for op in leaves(upgrade.ops):
                    trial.invoke(op)
            full = run(connection, lambda: plan_flow(declaration), keep=False)
        finally:
            transaction.rollback()
        base = {step.sql for step in ground.steps}
        if any(not step.params for step in ground.steps):
            upgrade.ops.insert(0, FoundationOp())
        upgrade.ops.extend(ProtectOp.of(step) for step in full.steps if step.sql not in base and not step.params)

    @contextmanager
    def scope(self, operations: Operations, reason: str) -> Iterator[None]:
        """Write rows as the system login, in the migration's transaction; see ``op.axis_system``."""
        if not reason.strip():
            raise ConfigError(what="a migration writes rows without a reason", why="the reason is kept", fix='op.axis_system("backfill …")')
        role = self.tenancy.roles.system
        context = operations.migration_context
        if context.as_sql:
            operations.execute(f"-- {' '.join(reason.split())}\nSET LOCAL ROLE {role}")
            with self.trusted():
                yield
            operations.execute("RESET ROLE")
            return
        connection = context.connection
        if connection is None:
            raise ConfigError(what="a migration without a connection", why="Alembic has none", fix="configure one")
        before, login = connection.execute(text("SELECT current_setting('role'), session_user::text")).one()
        self._tell(EventKind.SYSTEM_SCOPE_OPENED, reason, login=login)
        try:
            with connection.begin_nested():
                connection.execute(text(f"SET LOCAL ROLE {role}"))
        except Exception as error:
            if getattr(getattr(error, "orig", None), "sqlstate", None) != "42501":
                raise
            raise RightsMissing(f"`{login}` may not act as `{role}`: GRANT {role} TO {login}") from None
        if connection.scalar(text("SELECT current_user::text")) != role:
            raise ConfigError(
                what="the scope of a migration did not open",
                why="there is no transaction that it could last for",
                fix="leave autocommit_block() first",
            )
        back = text("SELECT set_config('role', :before, true)").bindparams(before=before)
        try:
            with self.trusted():
                yield
        except BaseException:
            # Where the transaction is lost, so is the role; where the migration goes on, it goes on as who it was.
            with suppress(Exception):
                connection.execute(back)
            self._tell(EventKind.SYSTEM_SCOPE_CLOSED, reason, Outcome.FAILED, login=login)
            raise
        connection.execute(back)
        self._tell(EventKind.SYSTEM_SCOPE_CLOSED, reason, login=login)

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """Statements in here are not checked."""
        self._trusted += 1
        try:
            yield
        finally:
            self._trusted -= 1

    def lay_foundation(self, operations: Operations) -> None:
        """See ``op.axis_foundation``."""
        connection = operations.migration_context.connection
        if operations.migration_context.as_sql or connection is None:
            operations.execute("-- as an administrator, before this: tenancy.foundation(connection).apply(connection)")
            return
        try:
            with self.trusted():
                self.tenancy.foundation(connection).apply(connection)
        except RightsMissing as refused:
            # Whoever runs migrations need not be able to make roles; then somebody has done so before.
            if connection.scalar(text("SELECT to_regprocedure('axis.tenant_for(text)')")) is None:
                raise FoundationMissing(refused.why) from None

    def check(self, sql: str, protected: Callable[[str], bool]) -> None:
        """Refuse *sql* if it writes rows of tables of which *protected* says yes.

        Raises:
            RowsOutsideScope: it does, outside a scope.
        """
        if self._trusted:
            return
        if found := [name for name in written_tables(sql) if name == UNCLEAR or protected(name)]:
            raise RowsOutsideScope(found)

    def _check(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:  # SQLAlchemy's own shape of a listener
        def protected(name: str) -> bool:
            with self.trusted():
                # A view may write anywhere; a name that is not there fails by itself.
                found = connection.scalar(
                    text("SELECT c.relrowsecurity OR c.relkind = 'v' FROM pg_catalog.pg_class c WHERE c.oid = to_regclass(:name)"),
                    {"name": name},
                )
            return bool(found)

        self.check(statement, protected)

    def _tell(self, kind: EventKind, reason: str, outcome: Outcome = Outcome.ALLOWED, **detail: str) -> None:
        self._sink.emit(
            AuditEvent.by(maybe_principal(), kind, at=self._clock.now(), outcome=outcome, target="migration", reason=reason, **detail)
        )


class _Printed:
    """Where ``--sql`` prints: what would be refused on a connection is refused here, though nobody can be asked which tables are protected."""

    def __init__(self, buffer: Any, migrations: Migrations) -> None:
        self._buffer = buffer
        self._migrations = migrations

    def write(self, sql: str) -> None:
        tables = {".".join(declared.table.name) for declared in self._migrations.tenancy.model().protected().values()}
        tables |= {name.removeprefix("public.") for name in tables}
        self._migrations.check(sql, lambda name: name.replace('"', "") in tables)
        self._buffer.write(sql)

    def flush(self) -> None:
        self._buffer.flush()

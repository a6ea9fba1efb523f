"""What a migration file says of isolation: Alembic's operations of ours, how they run, how they are written; and which of autogenerate's would undo them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations, ops
from sqlalchemy import text

from axis_security.core.errors import ConfigError
from axis_security.rls.catalog import Snapshot
from axis_security.rls.step import Step

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

    from axis_security.rls.migrate import Migrations
    from axis_security.rls.tenancy import Tenancy

__all__ = ["OPTION", "DriftOp", "FoundationOp", "ProtectOp", "ReverseOp", "SystemOp", "keep_ours", "leaves"]

OPTION: Final = "axis_migrations"
"""Under which keyword env.py gives the :class:`~axis_security.rls.migrate.Migrations` to Alembic."""

_OWNER: Final = re.compile(r"ALTER TABLE .* OWNER TO \w+", re.DOTALL)


@Operations.register_operation("axis_protect")
class ProtectOp(MigrateOperation):
    """One statement that a table's isolation needs. ``op.axis_drift`` is the same where somebody had changed it by hand, ``op.axis_reverse`` undoes."""

    name = "axis_protect"

    def __init__(self, sql: str, *, reverse: str | None = None, why: str = "") -> None:
        self.sql: str = sql
        self.undo: str | None = reverse
        self.why: str = why

    @classmethod
    def of(cls, step: Step) -> ProtectOp:
        """The operation that carries out *step*."""
        # Who owned a table before is a fact of the database that autogenerate looked at, and of no other.
        undo = None if _OWNER.fullmatch(step.sql) else step.reverse
        return (DriftOp if step.flagged else ProtectOp)(step.sql, reverse=undo, why=step.why)

    @classmethod
    def axis_protect(cls, operations: Operations, sql: str) -> Any:
        """Run one statement of a table's isolation."""
        return operations.invoke(cls(sql))

    def reverse(self) -> MigrateOperation:
        """The operation that undoes it."""
        return ReverseOp(self.undo or "", why=self.why if self.undo is None else "")

    def to_diff_tuple(self) -> tuple[str, str]:
        """What ``alembic check`` prints."""
        return self.name, self.sql


@Operations.register_operation("axis_drift")
class DriftOp(ProtectOp):
    """One statement that mends what was changed by hand."""

    name = "axis_drift"

    @classmethod
    def axis_drift(cls, operations: Operations, sql: str) -> Any:
        """Run one statement that mends what was changed by hand."""
        return operations.invoke(cls(sql))


@Operations.register_operation("axis_reverse")
class ReverseOp(ProtectOp):
    """One statement that undoes another; empty where there is nothing to undo."""

    name = "axis_reverse"

    @classmethod
    def axis_reverse(cls, operations: Operations, sql: str) -> Any:
        """Run one statement that undoes another."""
        return operations.invoke(cls(sql))


@Operations.register_operation("axis_foundation")
class FoundationOp(MigrateOperation):
    """Bring roles, schema ``axis`` and the table of roles and capabilities to what the tenancy declares today."""

    @classmethod
    def axis_foundation(cls, operations: Operations) -> Any:
        """Renew roles, schema axis, and the table of roles and capabilities."""
        return operations.invoke(cls())

    def reverse(self) -> MigrateOperation:
        """Nothing: what stands in schema axis may be in use by other tables, and holds the members."""
        return ReverseOp("", why="roles and schema axis stay")

    def to_diff_tuple(self) -> tuple[str, str]:
        """What ``alembic check`` prints."""
        return "axis_foundation", "roles, schema axis or capabilities differ"


@Operations.register_operation("axis_system")
class SystemOp(MigrateOperation):
    """Write rows of protected tables: ``with op.axis_system("backfill full_name"): op.execute(…)``."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    @classmethod
    def axis_system(cls, operations: Operations, reason: str) -> Any:
        """A block in which rows of every tenant are written, as the system role; the reason is kept with the event."""
        return operations.invoke(cls(reason))

    def reverse(self) -> MigrateOperation:
        """Rows are not brought back."""
        return ReverseOp("", why=self.reason)


@Operations.implementation_for(ProtectOp)
def _run_protect(operations: Operations, op: ProtectOp) -> None:
    if op.sql:
        operations.execute(text(op.sql.replace(":", r"\:")))  # a colon would be taken for a parameter


@Operations.implementation_for(FoundationOp)
def _run_foundation(operations: Operations, _: FoundationOp) -> None:
    _migrations(operations).lay_foundation(operations)


@Operations.implementation_for(SystemOp)
def _run_system(operations: Operations, op: SystemOp) -> Any:
    return _migrations(operations).scope(operations, op.reason)


def _migrations(operations: Operations) -> Migrations:
    found: Migrations | None = operations.migration_context.opts.get(OPTION)
    if found is None:
        raise ConfigError(
            what="this migration needs to know the tenancy",
            why="env.py does not give it",
            fix="context.configure(target_metadata=…, **Migrations(tenancy).options(connection))",
        )
    return found


@renderers.dispatch_for(ProtectOp)
def _render_protect(context: AutogenContext, op: ProtectOp) -> list[str]:
    why = [f"# {'look twice: ' if op.name == 'axis_drift' else ''}{op.why}"] if op.why and op.sql else []
    if not op.sql:
        return [*([f"# nothing to undo: {op.why}"] if op.why else []), "pass"]
    prefix = context.opts.get("alembic_module_prefix") or ""
    return [*why, f"{prefix}{op.name}({op.sql!r})"]


@renderers.dispatch_for(FoundationOp)
def _render_foundation(context: AutogenContext, _: FoundationOp) -> str:
    return f"{context.opts.get('alembic_module_prefix') or ''}axis_foundation()"


def leaves(found: Sequence[Any]) -> Iterator[Any]:
    """The operations that run, without the groups that they stand in."""
    for op in found:
        if isinstance(op, ops.OpContainer):
            yield from leaves(op.ops)
        else:
            yield op


def keep_ours(upgrade: Any, tenancy: Tenancy, live: Snapshot) -> None:
    """Take out what autogenerate would undo: keys and indexes of ours, the key column's default, the foreign keys that carry the tenant."""
    protected = {name for name, declared in tenancy.model().protected().items() if declared.shape.via is None}

    def ours(op: Any) -> bool:
        schema = getattr(op, "schema", None) or getattr(op, "source_schema", None)
        if schema == "axis":
            return True
        table = (schema or "public", getattr(op, "table_name", None) or getattr(op, "source_table", None) or "")
        if table not in protected:
            return False
        if isinstance(op, ops.DropConstraintOp):
            return str(op.constraint_name).startswith("axis_")
        if isinstance(op, ops.DropIndexOp):
            return str(op.index_name).startswith("axis_")
        if isinstance(op, ops.AlterColumnOp) and op.column_name == tenancy.key:
            op.modify_nullable = None if op.modify_nullable else op.modify_nullable
            if op.modify_server_default is None:
                op.modify_server_default = False
            return not op.has_changes()
        if isinstance(op, ops.CreateForeignKeyOp):
            # The plan makes one that carries the tenant, from the same declaration, and would drop this one.
            target = (op.kw.get("referent_schema") or "public", op.referent_table)
            other = live.tables.get(target)
            carried = target in protected and other is not None and not other.partition_key
            return carried and not str(op.kw.get("onupdate") or "").upper().startswith("SET")
        return False

    kept = []
    for op in upgrade.ops:
        if isinstance(op, ops.OpContainer):
            keep_ours(op, tenancy, live)
            if op.ops:
                kept.append(op)
        elif not ours(op):
            kept.append(op)
    upgrade.ops[:] = kept

"""What the host declared, as plain values: the compiler's only input besides the live catalog. No ORM, no driver."""

from __future__ import annotations

from dataclasses import dataclass, field

from axis_security.core.errors import ConfigError
from axis_security.core.grants import Grant, OwnedByUser, PythonOnly
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles

__all__ = [
    "Access",
    "ColumnModel",
    "Declared",
    "ForeignKeyModel",
    "Model",
    "Name",
    "Open",
    "Protected",
    "TableModel",
    "UndeclaredTable",
    "UnusableTable",
    "quote",
]

Name = tuple[str, str]
"""Schema and table."""


class UndeclaredTable(ConfigError):
    """Tables of the metadata are neither protected nor open."""

    code = "rls.undeclared_table"

    def __init__(self, tables: list[str]) -> None:
        super().__init__(
            what=f"{len(tables)} table(s) are neither protected nor open",
            why="nobody decided who may see their rows: " + ", ".join(f"`{name}`" for name in tables),
            fix="call tenancy.protect(table, …), or tenancy.open(table, reason=…), for each",
        )


class UnusableTable(ConfigError):
    """A table cannot be protected the way it was declared."""

    code = "rls.unusable_table"


def quote(*names: str) -> str:
    """Identifiers, always quoted, joined with dots."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


@dataclass(frozen=True, slots=True)
class ColumnModel:
    """A column; *key_type* is the family that ids of it belong to, or ``None``."""

    name: str
    key_type: KeyType | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKeyModel:
    """A foreign key as declared. Actions in SQL words, ``NO ACTION`` where none is given."""

    columns: tuple[str, ...]
    target: Name
    target_columns: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    deferrable: bool = False
    deferred: bool = False
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableModel:
    """A table as declared in the metadata."""

    name: Name
    columns: tuple[ColumnModel, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKeyModel, ...] = ()
    serials: tuple[str, ...] = ()

    def column(self, name: str) -> ColumnModel | None:
        """The column called *name*."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The capability that each command needs; ``None``: whoever is bound to the tenant."""

    select: str | None = None
    insert: str | None = None
    update: str | None = None
    delete: str | None = None


@dataclass(frozen=True, slots=True)
class Protected:
    """Rows belong to the tenant named in the key column. (Shapes without a key column of their own will stand beside this one.)"""

    access: Access = field(default_factory=Access)


@dataclass(frozen=True, slots=True)
class Open:
    """Everybody may read; *writes* names what the app may do besides. The reason is for the reviewer."""

    reason: str
    writes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Declared:
    """A table and the decision about it."""

    table: TableModel
    shape: Protected | Open


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Everything declared. Tables and grants are sorted, so that the order of declaration does not show.

    Raises:
        UnusableTable: a protected table lacks the key column, or depends on a condition that SQL cannot evaluate.
    """

    key: str
    key_type: KeyType
    roles: DatabaseRoles
    tables: tuple[Declared, ...]
    grants: tuple[Grant, ...] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "tables", tuple(sorted(self.tables, key=lambda declared: declared.table.name)))
        if self.grants is not None:
            put(self, "grants", tuple(sorted(set(self.grants), key=repr)))
        for declared in self.tables:
            if isinstance(declared.shape, Protected):
                self._check(declared.table, declared.shape.access)

    def _check(self, table: TableModel, access: Access) -> None:
        name = ".".join(table.name)
        column = table.column(self.key)
        if column is None:
            raise UnusableTable(
                what=f"`{name}` cannot be protected",
                why=f"it has no column `{self.key}`",
                fix="add the tenant column, or open the table with a reason",
            )
        if column.key_type is not self.key_type:
            raise UnusableTable(
                what=f"`{name}` cannot be protected",
                why=f"its column `{self.key}` is not of the family of {self.key_type.value}",
                fix="give the tenant column the same type in every table: uuid, bigint or text",
            )
        for capability in filter(None, (access.select, access.insert, access.update, access.delete)):
            for grant in self.conditions(capability):
                if isinstance(grant, PythonOnly):
                    raise UnusableTable(
                        what=f"`{name}` cannot be protected with `{capability}`",
                        why=f"a grant of it depends on `{grant.name}`, which only Python can evaluate",
                        fix="use OwnedByUser(column) or an unconditional grant for capabilities that guard tables",
                    )
                if isinstance(grant, OwnedByUser) and (owner := table.column(grant.column)) is None:
                    raise UnusableTable(
                        what=f"`{name}` cannot be protected with `{capability}`",
                        why=f"a grant of it is for the row's `{grant.column}`, a column that the table lacks",
                        fix="name the table's own column, or use another capability for this table",
                    )
                if isinstance(grant, OwnedByUser) and owner is not None and owner.key_type is None:
                    raise UnusableTable(
                        what=f"`{name}` cannot be protected with `{capability}`",
                        why=f"`{grant.column}` holds no id",
                        fix="use a uuid, integer or text column",
                    )

    def conditions(self, capability: str) -> tuple[OwnedByUser | PythonOnly | None, ...]:
        """The distinct conditions under which roles hold *capability*."""
        found = {grant.when for grant in self.grants or () if grant.capability == capability}
        return tuple(sorted(found, key=repr))

    def protected(self) -> dict[Name, Declared]:
        """The protected tables by name."""
        return {declared.table.name: declared for declared in self.tables if isinstance(declared.shape, Protected)}

"""What the host declared, as plain values: the compiler's only input besides the live catalog. No ORM, no driver."""

from __future__ import annotations

from dataclasses import dataclass, field

from axis_security.core.errors import ConfigError
from axis_security.core.grants import Grant, OwnedByUser, PythonOnly
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.dialect import Dialect

__all__ = [
    "Access",
    "ColumnModel",
    "Declared",
    "ForeignKeyModel",
    "Model",
    "Name",
    "Open",
    "Protected",
    "ProtectedTable",
    "Sharing",
    "TableModel",
    "UndeclaredTable",
    "UnusableTable",
    "Via",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Via:
    """The row belongs to whom the row it points at belongs to: *pairs* of own column and the target's."""

    target: Name
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """Rows listed in *table* may be read by the tenant in its *grantee* column: *column* here is its *listed* there."""

    table: Name
    column: str
    listed: str
    grantee: str


@dataclass(frozen=True, slots=True)
class Protected:
    """Rows belong to the tenant named in the key column or, with *via*, to that of another row.

    Reading may reach further: to the tenant named in the column *visible_to*, to those that *shared* lists, and with *below* from a tenant to all
    that stand below it. *owner* narrows everything to the acting user's own rows. Writing never reaches beyond the own tenant.
    """

    access: Access = field(default_factory=Access)
    via: Via | None = None
    shared: Sharing | None = None
    visible_to: str | None = None
    below: bool = False
    owner: str | None = None

    @property
    def reads_further(self) -> bool:
        """Whether some rows may be read that may not be written."""
        return self.below or self.shared is not None or self.visible_to is not None


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


@dataclass(frozen=True, slots=True)
class ProtectedTable(Declared):
    """A table of which it is known that it is protected."""

    shape: Protected


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
    dialect: Dialect = Dialect.POSTGRESQL

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "tables", tuple(sorted(self.tables, key=lambda declared: declared.table.name)))
        if self.grants is not None:
            put(self, "grants", tuple(sorted(set(self.grants), key=repr)))
        for declared in self.tables:
            if isinstance(declared.shape, Protected):
                self._check(declared.table, declared.shape)

    def _check(self, table: TableModel, shape: Protected) -> None:
        name = ".".join(table.name)
        access = shape.access
        column = table.column(self.key)
        self._check_dialect(table, shape)
        for special, needs in ((shape.visible_to, (self.key_type,)), (shape.owner, tuple(KeyType))):
            found = None if special is None else table.column(special)
            if special is not None and (found is None or found.key_type not in needs):
                raise UnusableTable(
                    what=f"`{name}` cannot be protected",
                    why=f"`{special}` is no column of it that holds {'a tenant' if special == shape.visible_to else 'an id'}",
                    fix=f"name a column of the family of {self.key_type.value}"
                    if special == shape.visible_to
                    else "name a uuid, integer or text column",
                )
        if shape.via is not None and (shape.reads_further or column is not None):
            raise UnusableTable(
                what=f"`{name}` cannot be protected through `{'.'.join(shape.via.target)}`",
                why=f"it has a column `{self.key}` of its own"
                if column is not None
                else "what may be read further is decided where the tenant is",
                fix="leave out via=" if column is not None else "declare sharing on the table that it points at; it holds for this one too",
            )
        if shape.via is not None:
            return self._check_conditions(table, access)
        if column is None:
            raise UnusableTable(
                what=f"`{name}` cannot be protected",
                why=f"it has no column `{self.key}`",
                fix="add the tenant column, protect it through the table that it points at (via=), or open it with a reason",
            )
        if column.key_type is not self.key_type:
            raise UnusableTable(
                what=f"`{name}` cannot be protected",
                why=f"its column `{self.key}` is not of the family of {self.key_type.value}",
                fix="give the tenant column the same type in every table: uuid, bigint or text",
            )
        return self._check_conditions(table, access)

    def _check_dialect(self, table: TableModel, shape: Protected) -> None:
        if self.dialect is Dialect.POSTGRESQL:
            return
        why = fix = ""
        if shape.via is not None or shape.shared is not None or shape.below:
            why = "its rows would be found through other rows, and no sub-select may stand in a policy there"
            fix = "give the table the tenant column, or a visible_to column; leave out via=, shared_through= and reach="
        elif self.dialect is Dialect.CITUS and table.primary_key and self.key not in table.primary_key:
            why = f"its primary key lacks `{self.key}`: uniqueness holds within a node only, so a distributed table must have its column in every key"
            fix = f"make the primary key ({self.key}, {', '.join(table.primary_key)})"
        if why:
            raise UnusableTable(what=f"`{'.'.join(table.name)}` cannot be protected on {self.dialect.value}", why=why, fix=fix)

    def _check_conditions(self, table: TableModel, access: Access) -> None:
        name = ".".join(table.name)
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

    def check_links(self) -> None:
        """Whether what tables lean on is declared so that it can hold them.

        Raises:
            UnusableTable: a table leans on one that is not protected, on itself in a circle, or on a list of shares that its readers cannot read.
        """
        shapes = {declared.table.name: declared.shape for declared in self.tables}
        for declared in self.tables:
            seen, shape = [declared.table.name], declared.shape
            if isinstance(shape, Protected) and shape.shared is not None:
                lists = shapes.get(shape.shared.table)
                if not isinstance(lists, Protected) or lists.visible_to != shape.shared.grantee:
                    raise UnusableTable(
                        what=f"`{'.'.join(declared.table.name)}` cannot be shared through `{'.'.join(shape.shared.table)}`",
                        why="those it is shared with cannot read that table",
                        fix=f'protect it with visible_to="{shape.shared.grantee}"',
                    )
            while isinstance(shape, Protected) and shape.via is not None:
                target = shape.via.target
                shape = shapes.get(target, Open(""))
                if target in seen or not isinstance(shape, Protected):
                    raise UnusableTable(
                        what=f"`{'.'.join(seen[0])}` cannot be protected through `{'.'.join(target)}`",
                        why="the tables point at one another in a circle" if target in seen else "that table is not protected",
                        fix="protect one of them by its own tenant column" if target in seen else "protect it too",
                    )
                seen.append(target)

    def columns(self) -> set[str]:
        """The columns that policies speak of."""
        return {self.key}.union(*(self.columns_of(declared) for declared in self.protected().values()))

    def columns_of(self, declared: ProtectedTable) -> list[str]:
        """The columns that the policies of one table speak of."""
        shape = declared.shape
        found = {shape.visible_to, shape.owner, None if shape.shared is None else shape.shared.column}
        found |= {self.key} if shape.via is None else {own for own, _ in shape.via.pairs}
        for capability in filter(None, (shape.access.select, shape.access.insert, shape.access.update, shape.access.delete)):
            found |= {when.column for when in self.conditions(capability) if isinstance(when, OwnedByUser)}
        return sorted(filter(None, found))

    def protected(self) -> dict[Name, ProtectedTable]:
        """The protected tables by name."""
        return {
            declared.table.name: ProtectedTable(declared.table, declared.shape)
            for declared in self.tables
            if isinstance(declared.shape, Protected)
        }

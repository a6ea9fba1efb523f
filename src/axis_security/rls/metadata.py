"""Reads SQLAlchemy metadata into the model. The one place of the compiler's side that imports SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, FromClause, MetaData, Table, exists, inspect, types
from sqlalchemy.exc import NoInspectionAvailable

from axis_security.core.errors import ConfigError
from axis_security.core.ids import KeyType, TenantId
from axis_security.rls.model import ColumnModel, ForeignKeyModel, Model, Name, TableModel

__all__ = ["belonging", "link_between", "name_of", "table_model", "table_of"]

DEFAULT_SCHEMA: Final = "public"


def table_of(declared: object) -> Table:
    """The table behind a ``Table`` or a mapped class.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(declared, Table):
        return declared
    try:
        mapped: Any = inspect(declared)
        local = mapped.local_table
    except (NoInspectionAvailable, AttributeError):
        local = None
    if not isinstance(local, Table):
        raise ConfigError(
            what="not a table", why=f"got a `{type(declared).__name__}`", fix="pass a Table of the metadata, or a mapped class"
        )
    return local


def name_of(table: Table) -> Name:
    """Schema and name; a table without a schema lives in ``public``."""
    return str(table.schema or DEFAULT_SCHEMA), str(table.name)


def table_model(table: Table) -> TableModel:
    """*table* as plain values."""
    foreign_keys = tuple(
        ForeignKeyModel(
            columns=tuple(str(element.parent.name) for element in key.elements),
            target=name_of(key.referred_table),
            target_columns=tuple(str(element.column.name) for element in key.elements),
            on_delete=_action(key.ondelete),
            on_update=_action(key.onupdate),
            deferrable=bool(key.deferrable),
            deferred=(key.initially or "").upper() == "DEFERRED",
            name=None if key.name is None else str(key.name),
        )
        for key in sorted(table.foreign_key_constraints, key=lambda key: tuple(element.parent.name for element in key.elements))
    )
    serial = table.autoincrement_column
    return TableModel(
        name=name_of(table),
        columns=tuple(ColumnModel(str(column.name), _key_type(column)) for column in table.columns),
        primary_key=tuple(str(column.name) for column in table.primary_key.columns),
        foreign_keys=foreign_keys,
        serials=() if serial is None or serial.identity is not None or serial.server_default is not None else (str(serial.name),),
    )


def link_between(table: Table, target: Table) -> tuple[tuple[str, str], ...]:
    """The one foreign key of *table* that points at *target*, as pairs of columns.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found = [key for key in table.foreign_key_constraints if key.referred_table is target]
    if len(found) != 1:
        raise ConfigError(
            what=f"how `{table.fullname}` leans on `{target.fullname}` is not clear",
            why=f"{len(found)} foreign keys point there",
            fix="declare one foreign key" if not found else "keep the reference that decides in a foreign key alone",
        )
    return tuple((str(element.parent.name), str(element.column.name)) for element in found[0].elements)


def belonging(metadata: MetaData, model: Model, tenant: TenantId) -> Callable[[Table], ColumnElement[bool]]:
    """For any protected table, the condition that a row of it belongs to *tenant*, through whatever it leans on.

    What is returned raises ConfigError for a table that is not protected.
    """
    tables = {name_of(table): table for table in metadata.tables.values()}
    declared = model.protected()

    def condition(name: Name, rows: FromClause) -> ColumnElement[bool]:
        via = declared[name].shape.via
        if via is None:
            return rows.c[model.key] == tenant.value
        target = tables[via.target].alias()
        return (
            exists().where(*(target.c[theirs] == rows.c[own] for own, theirs in via.pairs), condition(via.target, target)).correlate(rows)
        )

    def belongs(table: Table) -> ColumnElement[bool]:
        name = name_of(table)
        if name not in declared:
            raise ConfigError(what=f"`{'.'.join(name)}` belongs to nobody", why="it is not protected", fix="ask for protected tables only")
        return condition(name, table)

    return belongs


def _action(words: str | None) -> str:
    # SQLAlchemy passes on `SET NULL (column)`; the columns are ours to choose.
    return (words or "NO ACTION").upper().partition("(")[0].strip()


def _key_type(column: Column[Any]) -> KeyType | None:
    kind = column.type.dialect_impl(_DIALECT) if isinstance(column.type, types.TypeDecorator) else column.type
    if isinstance(kind, types.TypeDecorator):
        kind = kind.impl_instance
    if isinstance(kind, types.Uuid):
        return KeyType.UUID
    if isinstance(kind, types.Integer):
        return KeyType.INT
    return KeyType.TEXT if isinstance(kind, types.String) and not isinstance(kind, types.Enum) else None


def _postgresql() -> Any:
    from sqlalchemy.dialects import postgresql

    return postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


_DIALECT: Final = _postgresql()

"""Seal old rows anew: after a key was rotated (:func:`reencrypt`) and after an index key was (:func:`reindex`).

Both walk a table by its primary key in small transactions. A row is replaced only where it still holds the bytes that were read, so that a write of
the application is never lost; what remains to do is visible in the rows themselves, so that a run that was killed is simply started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    func,
    literal,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.engine import Engine

from axis_security.core.errors import ConfigError
from axis_security.core.ids import TenantId
from axis_security.crypto.attribute import row_bytes, sealed
from axis_security.crypto.blindindex import IndexKeys
from axis_security.crypto.columns import EncryptedBytes, SealedBytes, acting_tenant
from axis_security.crypto.envelope import read_header
from axis_security.crypto.keyring import KeyRing

__all__ = ["Progress", "SealedColumn", "reencrypt", "reindex", "remaining", "sealed_columns"]

_PASSES: Final = 5
_BYTES: Final = LargeBinary()


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column that holds sealed bytes. Args: table, name: where; field: what it was sealed as; bind_row: whether bound to its row."""

    table: Table
    name: str
    field: str
    bind_row: bool

    def __str__(self) -> str:
        return f"{self.table.name}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is. Args: done: rows sealed anew; contested: rows that somebody else wrote meanwhile, which were left alone."""

    done: int = 0
    contested: int = 0


Report = Callable[[Progress], object]
"""Called after each page."""


def sealed_columns(metadata: MetaData) -> Sequence[SealedColumn]:
    """Every sealed column of *metadata*, in a stable order."""
    return [
        SealedColumn(table, column.name, column.type.field, isinstance(column.type, SealedBytes) and column.type.bind_row)
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, EncryptedBytes | SealedBytes)
    ]


def remaining(engine: Engine, ring: KeyRing, column: SealedColumn, *, tenant_column: str | None = "tenant_id") -> int:
    """How many of the acting tenant's rows are sealed under another key than the active one. Raises as :func:`reencrypt`."""
    tenant = acting_tenant(column.field)
    count = (
        select(func.count()).select_from(column.table).where(*_outdated(ring, column, tenant), *_of(column.table, tenant, tenant_column))
    )
    with engine.connect() as connection:
        return int(connection.execute(count).scalar_one())


def reencrypt(
    engine: Engine,
    ring: KeyRing,
    column: SealedColumn,
    *,
    tenant_column: str | None = "tenant_id",
    batch: int = 500,
    report: Report | None = None,
) -> Progress:
    """Seal the acting tenant's rows of *column* under the active key.

    Run it inside ``acting_as`` of a principal that may write the table; with an engine that the tenancy guards, row security holds here as everywhere.

    Args:
        column: one of :func:`sealed_columns`.
        tenant_column: filters the table besides; ``None`` where it has none and row security does it alone.
        batch: rows of one transaction.
        report: called after each page.

    Raises:
        TenantRequired: nobody is acting.
        ConfigError: the table has no primary key, or *batch* is not positive.
        SealError: a row does not open. Pages before it are done; it is not skipped, because somebody should look.
    """
    tenant = acting_tenant(column.field)

    def anew(row: Mapping[str, Any]) -> dict[str, bytes]:
        bound = row_bytes(row[key.name] for key in column.table.primary_key) if column.bind_row else None
        plain = ring.open(row[column.name], tenant=tenant, field=column.field, row=bound)
        return {column.name: ring.seal(plain, tenant=tenant, field=column.field, row=bound)}

    return _walk(
        engine,
        column.table,
        (column.name,),
        lambda: (*_outdated(ring, column, tenant), *_of(column.table, tenant, tenant_column)),
        anew,
        batch=batch,
        report=report,
    )


def reindex(
    engine: Engine,
    ring: KeyRing,
    keys: IndexKeys,
    model: type[Any],
    name: str,
    *,
    tenant_column: str | None = "tenant_id",
    batch: int = 500,
    report: Report | None = None,
) -> Progress:
    """Give the acting tenant's rows of the indexed field *name* of *model* index values under the current key, those included that have none yet.
    Arguments and errors as :func:`reencrypt`.

    When every tenant's run has come back with nothing done, the old index key can go.
    """
    attribute, table = vars(model).get(name), model.__table__
    if not isinstance(attribute, sealed) or attribute.index is None:
        raise ConfigError(what=f"`{name}` has no blind index", why="it is no sealed(…, index=…) of the model", fix="name an indexed field")
    index, raw, digest = attribute.index, name, f"{name}_bidx"
    tenant = acting_tenant(attribute.field)

    def anew(row: Mapping[str, Any]) -> dict[str, bytes]:
        bound = row_bytes(row[key.name] for key in table.primary_key) if attribute.bind_row else None
        value = ring.open(row[raw], tenant=tenant, field=attribute.field, row=bound).decode()
        return {digest: keys.digest(index.normalise(value), tenant=tenant, field=attribute.field, version=keys.current)}

    version = func.substr(type_coerce(table.c[digest], _BYTES), 1, 1)
    # NULL as well: rows from before the field was indexed.
    outdated = (type_coerce(table.c[raw], _BYTES).is_not(None), version.is_distinct_from(literal(bytes((keys.current,)), _BYTES)))
    return _walk(engine, table, (raw, digest), lambda: (*outdated, *_of(table, tenant, tenant_column)), anew, batch=batch, report=report)


def _walk(
    engine: Engine,
    table: Table,
    names: Sequence[str],
    outdated: Callable[[], Sequence[ColumnElement[bool]]],
    anew: Callable[[Mapping[str, Any]], dict[str, bytes]],
    *,
    batch: int,
    report: Report | None,
) -> Progress:
    key = list(table.primary_key.columns)
    if not key or batch < 1:
        raise ConfigError(
            what=f"`{table.name}` cannot be walked", why="it has no primary key, or the batch is empty", fix="give it a primary key"
        )
    raw = {name: type_coerce(table.c[name], _BYTES) for name in names}
    progress = Progress()
    # Processes with an older view go on writing under the old key for as long as their cache lives: look again until nothing is left.
    for _ in range(_PASSES):
        before, last = progress, None
        while True:
            conditions = [*outdated()]
            if last is not None:
                conditions.append(tuple_(*key) > tuple_(*(literal(value, column.type) for value, column in zip(last, key, strict=True))))
            page = select(*key, *(value.label(name) for name, value in raw.items())).where(*conditions).order_by(*key).limit(batch)
            with engine.begin() as connection:
                rows = [dict(row) for row in connection.execute(page).mappings()]
                new = [anew(row) for row in rows]  # all of them before the first row is locked: a key service may be asked here
                done: int = sum(_replace(connection, table, raw, row, values) for row, values in zip(rows, new, strict=True))
            progress = Progress(done=progress.done + done, contested=progress.contested + len(rows) - done)
            if rows and report is not None:
                report(progress)
            if len(rows) < batch:
                break
            last = [rows[-1][column.name] for column in key]
        if progress == before:
            break
    return progress


def _replace(
    connection: Connection, table: Table, raw: Mapping[str, ColumnElement[Any]], row: Mapping[str, Any], new: Mapping[str, bytes]
) -> int:
    key = list(table.primary_key.columns)
    # A row that a transaction of the application holds is passed over, and met again in the next pass: waiting for it, with rows of this page
    # locked, is how a rotator would run into deadlocks with the application.
    free = (
        select(*key)
        .where(*(column == row[column.name] for column in key))
        .where(*(value.is_not_distinct_from(literal(row[name], _BYTES)) for name, value in raw.items()))
        .with_for_update(skip_locked=True)
    )
    change = (
        update(table)
        .where(tuple_(*key).in_(free))
        # Typed as bytes: these are sealed already, and the column's own type would seal them again.
        .values({name: bindparam(f"new_{name}", value, type_=_BYTES) for name, value in new.items()})
    )
    return int(connection.execute(change).rowcount)


def _outdated(ring: KeyRing, column: SealedColumn, tenant: TenantId) -> Iterable[ColumnElement[bool]]:
    # From the ring each time: a rotation during the run moves the goal, and the run follows.
    active = read_header(ring.seal(b"", tenant=tenant, field=column.field), name=column.field).key_id
    return [func.substr(type_coerce(column.table.c[column.name], _BYTES), 3, 4) != literal(active.to_bytes(4, "big"), _BYTES)]


def _of(table: Table, tenant: TenantId, tenant_column: str | None) -> Iterable[ColumnElement[bool]]:
    return [] if tenant_column is None else [table.c[tenant_column] == tenant.value]

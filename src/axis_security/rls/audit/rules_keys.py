"""Rules about keys and indexes: what a constraint tells about hidden rows, and which index row security takes away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axis_security.core.checks import Severity
from axis_security.rls.audit.facts import ForeignKey, Index, Relation
from axis_security.rls.audit.ground import Ground
from axis_security.rls.audit.rule import Hit, rule
from axis_security.rls.model import quote

__all__ = [
    "counted_key",
    "exclusion_not_scoped",
    "foreign_key_cascades",
    "foreign_key_not_scoped",
    "foreign_key_not_valid",
    "operator_not_leakproof",
    "primary_key_guessable",
    "unique_not_scoped",
]

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_INFO: Final = Severity.INFO
_COUNTED: Final = frozenset({"smallint", "integer", "bigint"})


def _columns(index: Index) -> tuple[str, ...]:
    return tuple(key.column for key in index.keys)


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(quote(column) for column in columns)


@rule(
    "rls.unique_not_scoped",
    _WARNING,
    what="a unique constraint spans tenants",
    why="a value that is refused as taken (23505) is known to exist with another tenant, who also blocks it for everybody else",
    modes=(18, 19),
)
def unique_not_scoped(ground: Ground) -> Iterator[Hit]:
    """UNIQUE without the tenant column; the primary key has a rule of its own."""
    key = ground.scope.key or ""
    for table in ground.keyed:
        for index in table.indexes:
            if index.unique and not index.primary and not index.exclusion and key not in _columns(index) and not _random(table, index):
                drop = (
                    f"ALTER TABLE {table.sql} DROP CONSTRAINT {quote(index.constraint)};"
                    if index.constraint
                    else f"DROP INDEX {quote(table.schema, index.name)};"
                )
                plain = all(_columns(index)) and not index.partial
                add = f"ALTER TABLE {table.sql} ADD UNIQUE ({_names((key, *_columns(index)))});"
                yield Hit(
                    object=f"{table.label}: {index.name}",
                    fix=f"{drop}\n{add}" if plain else f"{drop}\n-- and the same with {quote(key)} first: {index.definition}",
                    evidence={"columns": list(_columns(index))},
                )


@rule(
    "rls.primary_key_guessable",
    _WARNING,
    what="the primary key is a value that people choose",
    why="the key spans tenants: inserting a value that another tenant has is refused with 23505, which tells that it exists",
    modes=(18, 19),
)
def primary_key_guessable(ground: Ground) -> Iterator[Hit]:
    """A natural key (a slug, an e-mail address) without the tenant in it."""
    key = ground.scope.key or ""
    for table in ground.keyed:
        for index in table.indexes:
            columns = _columns(index)
            if index.primary and key not in columns and not _random(table, index) and not _generated(table, index):
                yield Hit(
                    object=f"{table.label}: {index.name}",
                    fix=f"ALTER TABLE {table.sql} DROP CONSTRAINT {quote(index.constraint or index.name)};\n"
                    f"ALTER TABLE {table.sql} ADD PRIMARY KEY ({_names((key, *columns))});",
                    evidence={"columns": list(columns)},
                )


def _random(table: Relation, index: Index) -> bool:
    """Whether a key has a part that nobody can guess."""
    return any(table.columns[column].type == "uuid" for column in _columns(index) if column)


def _generated(table: Relation, index: Index) -> bool:
    """Whether the database counts it, or it is a whole number that the application draws."""
    return any(
        column in table.columns
        and (table.columns[column].identity or table.columns[column].default is not None or table.columns[column].type in _COUNTED)
        for column in _columns(index)
    )


@rule(
    "rls.exclusion_not_scoped",
    _WARNING,
    what="an exclusion constraint spans tenants",
    why="a booking that is refused (23P01) tells what another tenant has booked",
    modes=(19,),
)
def exclusion_not_scoped(ground: Ground) -> Iterator[Hit]:
    """EXCLUDE without `tenant WITH =`."""
    key = ground.scope.key or ""
    for table in ground.keyed:
        for index in table.indexes:
            if index.exclusion and key not in _columns(index):
                yield Hit(
                    object=f"{table.label}: {index.name}",
                    fix=f"-- with the tenant: EXCLUDE USING gist ({quote(key)} WITH =, …), which needs the extension btree_gist",
                    evidence={"columns": list(_columns(index))},
                )


@rule(
    "rls.foreign_key_not_scoped",
    _WARNING,
    what="a foreign key lets a row point to another tenant's row",
    why="row security is not applied when keys are checked: the insert succeeds for a row that is hidden, and fails for one that is missing",
    modes=(19, 20),
)
def foreign_key_not_scoped(ground: Ground) -> Iterator[Hit]:
    """Both tables have the tenant column, and the key between them leaves it out."""
    for table, key, target in _unscoped(ground):
        if key.on_delete not in ("CASCADE", "SET NULL", "SET DEFAULT"):
            yield _scoped(ground, table, key, target)


@rule(
    "rls.foreign_key_cascades",
    _ERROR,
    what="a delete by one tenant reaches another tenant's rows",
    why="the cascade runs with row security off, and the key lets a row of one tenant hang on a row of another",
    modes=(20,),
)
def foreign_key_cascades(ground: Ground) -> Iterator[Hit]:
    """The same, with ON DELETE CASCADE or SET NULL."""
    for table, key, target in _unscoped(ground):
        if key.on_delete in ("CASCADE", "SET NULL", "SET DEFAULT"):
            yield _scoped(ground, table, key, target)


def _unscoped(ground: Ground) -> Iterator[tuple[Relation, ForeignKey, Relation]]:
    tenant = ground.scope.key or ""
    keyed = {table.oid: table for table in ground.keyed}
    for table in ground.keyed:
        for key in table.foreign_keys:
            target = keyed.get(key.target)
            # A key that is the tenant column leads to the table of tenants.
            if (
                target is not None
                and (tenant, tenant) not in zip(key.columns, key.target_columns, strict=True)
                and key.columns != (tenant,)
            ) and not any(
                set(key.columns) < set(other.columns) and other.target == key.target and tenant in other.columns
                for other in table.foreign_keys
            ):
                yield table, key, target


def _scoped(ground: Ground, table: Relation, key: ForeignKey, target: Relation) -> Hit:
    tenant = ground.scope.key or ""
    own, theirs = (tenant, *key.columns), (tenant, *key.target_columns)
    lines = []
    if not any(index.unique and set(_columns(index)) == set(theirs) for index in target.indexes):
        lines.append(f"ALTER TABLE {target.sql} ADD UNIQUE ({_names(theirs)});")
    delete = key.on_delete if key.on_delete not in ("SET NULL", "SET DEFAULT") else f"{key.on_delete} ({_names(key.columns)})"
    delete = "" if delete == "NO ACTION" else f" ON DELETE {delete}"
    lines += [
        f"ALTER TABLE {table.sql} DROP CONSTRAINT {quote(key.name)};",
        f"ALTER TABLE {table.sql} ADD CONSTRAINT {quote(key.name)} FOREIGN KEY ({_names(own)}) REFERENCES {target.sql} ({_names(theirs)}){delete} NOT VALID;",
        f"ALTER TABLE {table.sql} VALIDATE CONSTRAINT {quote(key.name)};",
    ]
    return Hit(
        object=f"{table.label}: {key.name}",
        fix="\n".join(lines),
        evidence={"columns": list(key.columns), "references": target.label, "on_delete": key.on_delete},
    )


@rule(
    "rls.foreign_key_not_valid",
    _WARNING,
    what="a foreign key was never validated",
    why="rows from before it may point to another tenant's rows",
    modes=(20,),
)
def foreign_key_not_valid(ground: Ground) -> Iterator[Hit]:
    """NOT VALID, and VALIDATE forgotten."""
    for table in ground.guarded:
        for key in table.foreign_keys:
            if not key.valid and key.target in ground.guarded_ids:
                yield Hit(object=f"{table.label}: {key.name}", fix=f"ALTER TABLE {table.sql} VALIDATE CONSTRAINT {quote(key.name)};")


@rule(
    "rls.counted_key",
    _INFO,
    what="the primary key is a counter that every tenant shares",
    why="a tenant that makes a row now and one next week reads off how many rows all tenants made in between",
    modes=(19, 29),
)
def counted_key(ground: Ground) -> Iterator[Hit]:
    """Identity or serial as the whole primary key of a guarded table."""
    for table in ground.keyed:
        for index in table.indexes:
            columns = [table.columns[name] for name in _columns(index) if name]
            if index.primary and any(c.identity or (c.default or "").startswith("nextval(") for c in columns):
                yield Hit(
                    object=f"{table.label}: {index.name}",
                    fix="-- a random key (uuid), or a public handle beside it that is random",
                    evidence={"columns": [c.name for c in columns]},
                )


_REWRITES: Final = {
    "enum": "store it as text with a CHECK, or as a smallint with a lookup table: both compare with leakproof operators",
    "numeric": "store whole units as bigint (cents), or use double precision: both compare with leakproof operators",
    "pattern": "search prefixes with column ^@ 'abc' on an index with COLLATE \"C\": starts_with is leakproof, LIKE is not",
    "expression": "keep the computed value in a column (GENERATED ALWAYS AS … STORED) and index that",
    "other": "put the tenant column first in the index (btree_gin, btree_gist), so that at least that part is used",
}


@rule(
    "rls.operator_not_leakproof",
    _WARNING,
    what="row security keeps this index from being used",
    why="its operators are not leakproof, so they run after the policy, on rows that were fetched without the index (0.5 ms became 140 ms where measured)",
    modes=(25,),
)
def operator_not_leakproof(ground: Ground) -> Iterator[Hit]:
    """The operator advisor: an index key, beside the tenant, whose type or expression compares with leaky operators."""
    for table in ground.keyed:
        if not table.enabled:
            continue
        for index in table.indexes:
            for key in index.keys:
                # Uniqueness needs the index whether or not a query can use it.
                kind = None if index.unique or index.exclusion else _leaky(table, key.column, key.opclass, key.leaks)
                if kind is not None:
                    yield Hit(
                        object=f"{table.label}: {index.name}",
                        fix=f"-- {_REWRITES[kind]}",
                        evidence={
                            "column": key.column or "(expression)",
                            "type": table.columns[key.column].type if key.column else "",
                            "operators": list(key.leaks),
                        },
                    )
                    break


def _leaky(table: Relation, column: str, opclass: str, leaks: tuple[str, ...]) -> str | None:
    if not column:
        return "expression"
    if opclass.endswith("pattern_ops"):
        return "pattern"
    if not leaks:
        return None
    kind = table.columns[column]
    return "enum" if kind.type_kind == "e" else "numeric" if kind.type.startswith("numeric") else "other"

"""Keys between protected tables. Row security is not asked when a foreign key is checked or cascades, so the tenant must be part of the key.

A foreign key that does not carry the tenant lets a row point at another tenant's row (an existence oracle), and a CASCADE delete across.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from axis_security.core.checks import Finding, Severity
from axis_security.rls.catalog import LiveForeignKey, LiveTable, Snapshot
from axis_security.rls.model import Declared, ForeignKeyModel, Model, Name, ProtectedTable, quote
from axis_security.rls.step import Step

__all__ = ["compile_keys", "made_name"]


def made_name(*words: str) -> str:
    """A name of ours from *words*; cut to PostgreSQL's 63 bytes with a digest, so that it stays unique."""
    name = "_".join(words)
    if len(name.encode()) <= 63:
        return name
    return name.encode()[:52].decode(errors="ignore") + "_" + hashlib.sha256(name.encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class _Link:
    """A reference between protected tables, apart from the tenant."""

    table: Name
    pairs: tuple[tuple[str, str], ...]
    target: Name
    on_delete: str
    on_update: str
    deferrable: bool
    deferred: bool

    @classmethod
    def of(cls, table: Name, key: str, fk: ForeignKeyModel | LiveForeignKey) -> _Link:
        pairs = tuple((own, theirs) for own, theirs in zip(fk.columns, fk.target_columns, strict=True) if (own, theirs) != (key, key))
        return cls(table, pairs, fk.target, fk.on_delete, fk.on_update, fk.deferrable, fk.deferred)

    @property
    def identity(self) -> tuple[Name, tuple[tuple[str, str], ...], Name]:
        return self.table, tuple(sorted(self.pairs)), self.target


def compile_keys(model: Model, live: Snapshot, findings: list[Finding]) -> list[Step]:
    """Unique keys, foreign keys with the tenant in them, and a tenant-leading index for each protected table."""
    every = model.protected()
    protected = {name: declared for name, declared in every.items() if declared.shape.via is None}
    uniques: dict[tuple[Name, tuple[str, ...]], Step] = {}
    links: list[Step] = []
    for declared in protected.values():
        table = live.tables[declared.table.name]
        for link, scoped, bare in _links(model, declared, table, protected):
            if not _scopable(link, live.tables[link.target], model.key, findings):
                continue
            wanted = (model.key, *(theirs for _, theirs in link.pairs))
            if not any(index.unique and sorted(index.columns) == sorted(wanted) for index in live.tables[link.target].indexes):
                uniques.setdefault((link.target, tuple(sorted(wanted))), _unique(link.target, wanted))
            links += _scoped_link(model.key, link, table, scoped, bare)
        findings += _unscoped_uniques(model.key, table)
    steps = list(uniques.values())
    leading = {name for name, columns in uniques}
    for declared in protected.values():
        table = live.tables[declared.table.name]
        if table.name not in leading and not any(index.columns[:1] == (model.key,) for index in table.indexes):
            steps.append(_index(table, (model.key, *(column for column in declared.table.primary_key if column != model.key))))
    for declared in every.values():
        steps += _leaning(declared, live.tables[declared.table.name], every, findings)
    return steps + links


def _leaning(declared: ProtectedTable, table: LiveTable, protected: dict[Name, ProtectedTable], findings: list[Finding]) -> Iterator[Step]:
    """An index for a table that leans on another one; and the references to and from it that cannot carry a tenant."""
    via = declared.shape.via
    if via is not None:
        columns = tuple(own for own, _ in via.pairs)
        if not any(index.columns[: len(columns)] == columns for index in table.indexes):
            yield _index(table, columns)
    for fk in declared.table.foreign_keys:
        target = protected.get(fk.target)
        if target is None or (
            via is not None and fk.target == via.target and set(zip(fk.columns, fk.target_columns, strict=True)) == set(via.pairs)
        ):
            continue
        if via is not None or target.shape.via is not None:
            findings.append(
                Finding(
                    code="rls.foreign_key_without_tenant",
                    severity=Severity.WARNING,
                    object=".".join(declared.table.name),
                    what=f"the foreign key ({', '.join(fk.columns)}) cannot carry the tenant",
                    why="one of the two tables has no tenant column, so a row may point at a row that its tenant cannot see, and learn that it exists",
                    fix="give both a tenant column, unless the ids are random",
                )
            )


def _links(
    model: Model, declared: Declared, live: LiveTable, protected: dict[Name, ProtectedTable]
) -> Iterator[tuple[_Link, list[LiveForeignKey], list[LiveForeignKey]]]:
    found: dict[object, tuple[_Link, list[LiveForeignKey], list[LiveForeignKey]]] = {}
    declared_and_live: list[ForeignKeyModel | LiveForeignKey] = [*declared.table.foreign_keys, *live.foreign_keys]
    for fk in declared_and_live:
        link = _Link.of(declared.table.name, model.key, fk)
        if fk.target not in protected or not link.pairs:
            continue
        _, scoped, bare = found.setdefault(link.identity, (link, [], []))
        if isinstance(fk, LiveForeignKey):
            (scoped if (model.key, model.key) in zip(fk.columns, fk.target_columns, strict=True) else bare).append(fk)
    for identity in sorted(found, key=repr):
        yield found[identity]


def _scopable(link: _Link, target: LiveTable, key: str, findings: list[Finding]) -> bool:
    why = ""
    if link.on_update in ("SET NULL", "SET DEFAULT"):
        why = f"ON UPDATE {link.on_update} would also change the tenant"
    elif not set(target.partition_key) <= {key, *(theirs for _, theirs in link.pairs)}:
        why = "the target is partitioned by a column outside the key, so it can have no unique key of tenant and id"
    if why:
        columns = ", ".join(own for own, _ in link.pairs)
        findings.append(
            Finding(
                code="rls.foreign_key_without_tenant",
                severity=Severity.ERROR,
                object=".".join(link.table),
                what=f"the foreign key ({columns}) cannot carry the tenant",
                why=why,
                fix="drop it, or change the action or the partition key, then plan again",
            )
        )
    return not why


def _unique(table: Name, columns: tuple[str, ...]) -> Step:
    name = made_name("axis", table[1], *columns, "key")
    return Step(
        sql=f"ALTER TABLE {quote(*table)} ADD CONSTRAINT {quote(name)} UNIQUE ({_list(columns)})",
        reverse=f"ALTER TABLE {quote(*table)} DROP CONSTRAINT {quote(name)}",
        why="foreign keys that carry the tenant point at this; it is the tenant-leading index as well",
    )


def _index(table: LiveTable, columns: tuple[str, ...]) -> Step:
    name = made_name("axis", table.name[1], *columns, "idx")
    return Step(
        sql=f"CREATE INDEX {quote(name)} ON {quote(*table.name)} ({_list(columns)})",
        reverse=f"DROP INDEX {quote(table.name[0], name)}",
        why="every statement filters by tenant (on a big live table, make it CONCURRENTLY before; the plan then leaves it alone)",
    )


def _scoped_link(key: str, link: _Link, table: LiveTable, scoped: list[LiveForeignKey], bare: list[LiveForeignKey]) -> Iterator[Step]:
    name = quote(*link.table)
    good = [fk for fk in scoped if _same(key, link, fk)]
    if not good:
        for fk in scoped:
            yield Step(
                sql=f"ALTER TABLE {name} DROP CONSTRAINT {quote(fk.name)}",
                reverse=f"ALTER TABLE {name} ADD CONSTRAINT {quote(fk.name)} {_definition(fk)}",
                why="the live foreign key is not the declared one",
                flagged=True,
            )
        own, theirs = (key, *(a for a, _ in link.pairs)), (key, *(b for _, b in link.pairs))
        fk = LiveForeignKey(
            made_name("axis", link.table[1], *own, "fkey"),
            own,
            link.target,
            theirs,
            link.on_delete,
            link.on_update,
            link.deferrable,
            link.deferred,
            True,
            own[1:] if link.on_delete.startswith("SET") else (),
        )
        later = "" if table.kind == "p" else " NOT VALID"  # partitioned tables take NOT VALID only from PostgreSQL 18 on
        yield Step(
            sql=f"ALTER TABLE {name} ADD CONSTRAINT {quote(fk.name)} {_definition(fk)}{later}",
            reverse=f"ALTER TABLE {name} DROP CONSTRAINT {quote(fk.name)}",
            why="a row may only point at a row of its own tenant, and a CASCADE stays inside it",
        )
        good = [fk] if later else []
        unchecked = good
    else:
        unchecked = [] if any(fk.valid for fk in good) else good[:1]
    for fk in unchecked:
        yield Step(
            sql=f"ALTER TABLE {name} VALIDATE CONSTRAINT {quote(fk.name)}",
            reverse="",
            why="the rows that exist are held to it; a failure here names a row that crosses tenants",
        )
    for fk in bare:
        yield Step(
            sql=f"ALTER TABLE {name} DROP CONSTRAINT {quote(fk.name)}",
            reverse=f"ALTER TABLE {name} ADD CONSTRAINT {quote(fk.name)} {_definition(fk)}",
            why="it let a row point at another tenant's row, and told which ids exist there",
        )


def _same(key: str, link: _Link, fk: LiveForeignKey) -> bool:
    wanted = (link.on_delete, link.on_update, link.deferrable, link.deferred)
    if (fk.on_delete, fk.on_update, fk.deferrable, fk.deferred) != wanted:
        return False
    return not link.on_delete.startswith("SET") or (bool(fk.set_columns) and key not in fk.set_columns)


def _definition(fk: LiveForeignKey) -> str:
    text = f"FOREIGN KEY ({_list(fk.columns)}) REFERENCES {quote(*fk.target)} ({_list(fk.target_columns)})"
    if fk.on_update != "NO ACTION":
        text += f" ON UPDATE {fk.on_update}"
    if fk.on_delete != "NO ACTION":
        text += f" ON DELETE {fk.on_delete}" + (f" ({_list(fk.set_columns)})" if fk.set_columns else "")
    if fk.deferrable:
        text += " DEFERRABLE INITIALLY " + ("DEFERRED" if fk.deferred else "IMMEDIATE")
    return text


def _unscoped_uniques(key: str, table: LiveTable) -> Iterator[Finding]:
    for index in table.indexes:
        if index.unique and not index.primary and key not in index.columns:
            columns = ", ".join(column or "(expression)" for column in index.columns)
            yield Finding(
                code="rls.unique_across_tenants",
                severity=Severity.WARNING,
                object=".".join(table.name),
                what=f"`{index.name}` is unique over all tenants ({columns})",
                why="an insert that fails tells one tenant what another one has",
                fix=f"make it unique over ({key}, {columns}), unless its values are random",
            )


def _list(columns: tuple[str, ...]) -> str:
    return ", ".join(quote(column) for column in columns)

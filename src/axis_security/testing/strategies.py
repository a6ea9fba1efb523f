"""Hypothesis strategies for tenants, schemas and statements, and the isolation machine for a host's own engine in one line.

    TestIsolation = isolation_test(tenancy, engine)

What is drawn never depends on a database. The oracle for statements is the database itself without row security: a statement of a tenant must
do exactly what the same statement with ``AND tenant = …`` does for an administrator.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from axis_security.core.ids import IdValue, KeyType
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.metadata import name_of
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.isolation import IsolationLab, isolation_machine
from axis_security.testing.kit import KitError

__all__ = ["SchemaSpec", "TableSpec", "isolation_lab", "isolation_test", "schemas", "statement_pairs", "tenants"]


def tenants(kind: KeyType) -> st.SearchStrategy[IdValue]:
    """Ids of tenants of one key type."""
    if kind is KeyType.UUID:
        return st.uuids(version=4)
    if kind is KeyType.INT:
        return st.integers(1, 2**31 - 1)
    return st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)


# Schemas


@dataclass(frozen=True)
class TableSpec:
    """One table: what its key is, what it points at, and what else it has.

    Args:
        counted: a counter as primary key, else a UUID.
        parents: numbers of earlier tables that it points at.
        on_delete: for those keys.
        unique: a unique name within the table.
        partitioned: into two hash partitions of the primary key.
        open: the same for every tenant.
    """

    counted: bool
    parents: tuple[int, ...]
    on_delete: str | None
    unique: bool
    partitioned: bool
    open: bool


@dataclass(frozen=True)
class SchemaSpec:
    """A small schema."""

    key_type: KeyType
    key: str
    tables: tuple[TableSpec, ...]

    def tenancy(self, roles: DatabaseRoles) -> Tenancy:
        """Metadata with these tables, all declared."""
        metadata = sa.MetaData()
        kind: Any = {KeyType.UUID: sa.Uuid, KeyType.INT: sa.BigInteger, KeyType.TEXT: sa.Text}[self.key_type]
        made: list[sa.Table] = []
        tenancy = Tenancy(metadata, key=self.key, roles=roles, seal=SealKeyring(current=SealKey.generate(1)), key_type=self.key_type)
        for number, spec in enumerate(self.tables):
            columns: list[Any] = [
                sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)
                if spec.counted
                else sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()"))
            ]
            if not spec.open:
                columns.append(sa.Column(self.key, kind, nullable=False))
            columns.append(sa.Column("name", sa.Text))
            columns += [
                sa.Column(f"t{parent}_id", sa.ForeignKey(f"t{parent}.id", ondelete=spec.on_delete), index=True)
                for parent in spec.parents
                if not (self.tables[parent].open or spec.open or self.tables[parent].partitioned)
            ]
            if spec.unique and not spec.partitioned and not spec.open:
                columns.append(sa.UniqueConstraint(self.key, "name"))
            options: dict[str, Any] = {"postgresql_partition_by": "HASH (id)"} if spec.partitioned else {}
            made.append(sa.Table(f"t{number}", metadata, *columns, **options))
        for table, spec in zip(made, self.tables, strict=True):
            if spec.open:
                tenancy.open(table, reason="drawn so")
            else:
                tenancy.protect(table)
        return tenancy

    def partitions(self) -> list[str]:
        """Statements that make the partitions."""
        return [
            f"CREATE TABLE t{number}_{part} PARTITION OF t{number} FOR VALUES WITH (MODULUS 2, REMAINDER {part})"
            for number, spec in enumerate(self.tables)
            if spec.partitioned
            for part in range(2)
        ]


@st.composite
def schemas(draw: st.DrawFn, *, max_tables: int = 4) -> SchemaSpec:
    """Schemas of a few tables, the first of them always protected."""
    made = [
        TableSpec(
            counted=draw(st.booleans()),
            parents=tuple(sorted(draw(st.sets(st.integers(0, number - 1), max_size=2)))) if number else (),
            on_delete=draw(st.sampled_from([None, "CASCADE", "SET NULL", "RESTRICT"])),
            unique=draw(st.booleans()),
            partitioned=draw(st.integers(0, 4)) == 0,
            open=number > 0 and draw(st.integers(0, 4)) == 0,
        )
        for number in range(draw(st.integers(1, max_tables)))
    ]
    return SchemaSpec(
        key_type=draw(st.sampled_from(list(KeyType))),
        key=draw(st.sampled_from(["tenant_id", "org_id", 'Odd "%s" Id'])),
        tables=tuple(made),
    )


# Statements


def statement_pairs(table: sa.Table, key: str, tenant: IdValue, names: Iterable[str]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Pairs of statements: one as a tenant would write it, and one that says whose rows it means, for an administrator.

    Args:
        table: a protected table with the columns ``id`` and ``name``.
        key: the tenant column.
        tenant: whose.
        names: texts that occur in ``name``.
    """
    known = sorted(names)
    name = table.c.name
    atoms = st.one_of(
        st.just(sa.true()),
        st.sampled_from(known).map(lambda text: name == text),
        st.sampled_from(known).map(lambda text: name > text),
        st.sampled_from(known).map(lambda text: name.like(text[:2] + "%")),
        st.just(name.is_(None)),
        st.just(table.c[key].is_not(None)),
        st.just(table.c[key] != sa.literal(tenant, table.c[key].type)),
        st.just(sa.exists(sa.select(table.alias("other").c.id))),
    )
    where = st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: sa.and_(*pair)),
            st.tuples(inner, inner).map(lambda pair: sa.or_(*pair)),
            inner.map(sa.not_),
        ),
        max_leaves=5,
    )
    columns = [table.c.id, table.c.name]
    kinds: dict[str, Callable[[Any], Any]] = {
        "select": lambda condition: sa.select(*columns).where(condition),
        "count": lambda condition: sa.select(sa.func.count()).select_from(table).where(condition),
        "update": lambda condition: sa.update(table).where(condition).values(name="changed"),
        "update returning": lambda condition: sa.update(table).where(condition).values(name="changed").returning(*columns),
        "delete": lambda condition: sa.delete(table).where(condition),
        "delete returning": lambda condition: sa.delete(table).where(condition).returning(*columns),
    }

    def pair(kind: str, condition: Any) -> tuple[Any, Any]:
        return kinds[kind](condition), kinds[kind](sa.and_(condition, table.c[key] == sa.literal(tenant, table.c[key].type)))

    return st.builds(pair, st.sampled_from(sorted(kinds)), where)


# The machine for a host's own engine


_KEYS: Final[Mapping[KeyType, Callable[[], IdValue]]] = {
    KeyType.UUID: uuid.uuid4,
    KeyType.INT: lambda: uuid.uuid4().int >> 98,
    KeyType.TEXT: lambda: f"kit-{uuid.uuid4().hex[:20]}",
}


def isolation_lab(
    tenancy: Tenancy,
    engine: Engine | AsyncEngine,
    *,
    table: sa.Table | None = None,
    new_tenant: Callable[[], IdValue] | None = None,
    role: str | None = None,
    fill: Callable[[], dict[str, Any]] | None = None,
) -> IsolationLab:
    """What the isolation machine works with, taken from a declaration.

    Args:
        tenancy: installed on *engine*.
        engine: the host's own, of a database for tests; rows stay there.
        table: a protected table with one primary key column and a text column; chosen unless told.
        new_tenant: makes a tenant; a random id of the key's type unless told. Needed where the tenant column points at a table.
        role: a role of the host that may read and write *table*; found in the policy unless told.
        fill: values for the table's other columns that need one.

    Raises:
        KitError: no table fits, or something must be told.
    """
    model = tenancy.model()
    protected = model.protected()
    candidates = [table] if table is not None else sorted(tenancy.metadata.tables.values(), key=lambda one: (len(one.columns), one.name))
    chosen = next((one for one in candidates if name_of(one) in protected and _fits(one, tenancy.key, filled=fill is not None)), None)
    if chosen is None:
        raise KitError(
            "no protected table fits the machine: it needs one primary key column, a text column, and no other column that must be given; pass table= and fill="
        )
    if new_tenant is None and chosen.c[tenancy.key].foreign_keys:
        raise KitError(f"`{chosen.name}.{tenancy.key}` points at a table of tenants: pass new_tenant=, which makes one and returns its id")
    [key] = chosen.primary_key.columns
    if role is None:
        access = protected[name_of(chosen)].shape.access
        needed = {name for name in (access.select, access.insert, access.update, access.delete) if name}
        held: dict[str, set[str]] = {}
        for grant in model.grants or ():
            if grant.when is None:
                held.setdefault(grant.role, set()).add(grant.capability)
        role = next((name for name in sorted(held) if needed <= held[name]), None) if needed else "member"
        if role is None:
            raise KitError(f"no role holds {sorted(needed)} without a condition: pass role=, or another table=")
    return IsolationLab(
        engines={"the host's engine": engine},
        table=chosen,
        new_tenant=new_tenant or _KEYS[tenancy.key_type],
        key=key.name,
        tenant=tenancy.key,
        text=_text_column(chosen, tenancy.key).name,  # type: ignore[union-attr]  # it fits, so it has one
        role=role,
        new_key=uuid.uuid4 if isinstance(key.type, sa.Uuid) else None,
        fill=fill or dict,
    )


def _text_column(table: sa.Table, key: str) -> sa.Column[Any] | None:
    for one in table.columns:
        plain = isinstance(one.type, sa.String) and not isinstance(one.type, sa.Enum) and (one.type.length or 100) >= 40
        if plain and not one.primary_key and one.name != key and not one.foreign_keys:
            return one
    return None


def _fits(table: sa.Table, key: str, *, filled: bool) -> bool:
    text = _text_column(table, key)
    keys = list(table.primary_key.columns)
    if key not in table.c or text is None or len(keys) != 1 or not isinstance(keys[0].type, sa.Uuid | sa.BigInteger):
        return False
    needed = [one for one in table.columns if not one.nullable and one.server_default is None and one.identity is None]
    return filled or all(one.primary_key or one.name in (key, text.name) for one in needed)


def isolation_test(tenancy: Tenancy, engine: Engine | AsyncEngine, *, examples: int = 200, steps: int = 12, **told: Any) -> type:
    """A test class that runs the isolation machine on the host's own engine; assign it to a name that pytest collects.

    Args:
        tenancy: installed on *engine*.
        engine: the host's own, of a database for tests.
        examples, steps: how many runs, of how many steps each.
        told: further arguments of :func:`isolation_lab`.

    Raises:
        KitError: no table fits, or something must be told.
    """
    case: type = isolation_machine(isolation_lab(tenancy, engine, **told)).TestCase
    # Generation only: the first failure is told with its dozen steps, and shrinking over a real database can outlast any time limit.
    case.settings = settings(  # type: ignore[attr-defined]
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    return case

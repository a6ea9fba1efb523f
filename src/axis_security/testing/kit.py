"""The policy lab: a live schema, a few tenants with rows in every guarded table, and a way to act as anybody, all inside one transaction.

It works on any schema with row-level security, whoever wrote its policies: the tables and keys come from the catalog, rows are made from
column types, and the host says how a tenant is bound. :meth:`PolicyLab.of` takes all of it from a ``Tenancy``.

Nothing stays: the lab works in one transaction of an administrator's connection, becomes the application's role with SET LOCAL ROLE, and
rolls back. So it needs no cleaning up, sees what is not committed, and can change policies to see whether anybody notices.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from axis_security.core.flow import Statement, drive
from axis_security.core.ids import IdValue, KeyType
from axis_security.core.principal import Principal
from axis_security.rls.audit.engine import scope_of
from axis_security.rls.audit.facts import Column, Facts, Relation
from axis_security.rls.audit.ground import Ground, Scope
from axis_security.rls.audit.read import read_facts
from axis_security.rls.model import quote
from axis_security.rls.sealed import Sealer
from axis_security.rls.tenancy import Tenancy

__all__ = ["Actor", "KitError", "PolicyLab", "escaped", "twin_tenants"]


class KitError(AssertionError):
    """The lab cannot be set up: what is missing, and what the host can give."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody to act as: a tenant, a user, a role of the host."""

    tenant: IdValue
    user: IdValue = "kit"
    role: str = "member"


Bind = Callable[[Actor], Sequence[tuple[str, Sequence[Any]]]]
"""Statements (with %s parameters) that bind the open transaction to an actor."""
Fill = Mapping[tuple[str, str], Callable[[], Any]]
"""Values for columns that cannot be made from their type, by table and column."""


def twin_tenants(kind: KeyType) -> tuple[IdValue, IdValue]:
    """Two tenants that are one to a comparison which folds case, cuts, casts or strips a prefix."""
    if kind is KeyType.UUID:
        head = uuid.uuid4().hex[:20]
        return uuid.UUID(head + "0" * 12), uuid.UUID(head + "0" * 11 + "1")
    if kind is KeyType.INT:
        return 7, 7 + 2**16
    return "tenant-of-a-long-enough-name-a", "tenant-of-a-long-enough-name-A"


_MADE: Final[Mapping[str, Callable[[int], Any]]] = {
    "uuid": lambda n: uuid.uuid4(),
    "smallint": lambda n: n % 30_000,
    "integer": lambda n: n,
    "bigint": lambda n: n,
    "numeric": lambda n: n,
    "real": float,
    "double precision": float,
    "boolean": lambda n: False,
    "text": lambda n: f"kit{n}",
    "character varying": lambda n: f"k{n}",
    "character": lambda n: "k",
    "citext": lambda n: f"kit{n}",
    "bytea": lambda n: n.to_bytes(8, "big"),
    "json": lambda n: json.dumps({"kit": n}),
    "jsonb": lambda n: json.dumps({"kit": n}),
    "date": lambda n: "2026-03-01",
    "timestamp with time zone": lambda n: "2026-03-01T00:00:00Z",
    "timestamp without time zone": lambda n: "2026-03-01T00:00:00",
    "time without time zone": lambda n: "12:00",
    "interval": lambda n: "1 day",
    "inet": lambda n: "192.0.2.1",
}


@dataclass(kw_only=True)
class PolicyLab:
    """Tenants with rows, and a way to act as anybody.

    Args:
        connection: an administrator's (superuser's) psycopg connection to a database of the tests' own; rolled back at the end.
        scope: the tenant column, the application's role, the system role; :meth:`PolicyLab.of` takes them from a declaration.
        bind: how a transaction is bound to an actor.
        tenants: two tenants, best ones that are hard to tell apart: :func:`twin_tenants`.
        roles: the host's roles to act in, one at a time; the first may read and write everything of its tenant.
        fill: values for columns that cannot be made from their type.
        may: whether a role may run a command on a table; every role everything, unless told.
        forge: makes a binding that is not genuine from a genuine one; ``None`` where the context is a plain setting.
        rows_each: rows of each tenant in each table.
        user: who acts, and whose the rows are in tables that are held to a user's own.
        colleague: another user, of the same tenant.
        owned: labels (``schema.table``) of tables that are held to a user's own rows.
    """

    connection: psycopg.Connection[Any]
    scope: Scope
    bind: Bind
    tenants: tuple[IdValue, IdValue]
    roles: Sequence[str] = ("member",)
    fill: Fill = field(default_factory=dict)
    may: Callable[[str, str, str], bool] = lambda role, table, command: True
    forge: Bind | None = None
    rows_each: int = 2
    user: IdValue = "kit"
    colleague: IdValue = "kit2"
    owned: frozenset[str] = frozenset()
    facts: Facts = field(init=False, default_factory=Facts)
    ground: Ground = field(init=False)
    tables: list[Relation] = field(init=False, default_factory=list)
    seeded: dict[int, dict[IdValue, list[dict[str, Any]]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._count = itertools.count(1_000_000)
        self._labels: dict[str, str] = {}

    @classmethod
    def of(
        cls, tenancy: Tenancy, connection: psycopg.Connection[Any], *, fill: Fill | None = None, roles: Sequence[str] | None = None
    ) -> Self:
        """The lab for a declaration whose plan was applied; *roles* are those of the policy unless told.

        Raises:
            KitError: the tenancy has no seal, so nothing can be bound.
        """
        if tenancy.seal is None:
            raise KitError("the tenancy has no seal keys: pass Tenancy(…, seal=…)")
        model = tenancy.model()
        sealer = Sealer(tenancy.seal)
        grants = model.grants or ()
        access = {f"{d.table.name[0]}.{d.table.name[1]}": d.shape.access for d in model.protected().values()}

        leans = {".".join(d.table.name): ".".join(d.shape.via.target) for d in model.protected().values() if d.shape.via}

        def bind(actor: Actor) -> Sequence[tuple[str, Sequence[Any]]]:
            sealed = sealer(Principal(tenant=actor.tenant, user=actor.user, role=actor.role))
            return [("SELECT pg_catalog.set_config('axis.context', %s, true)", [sealed])]

        def forge(actor: Actor) -> Sequence[tuple[str, Sequence[Any]]]:
            [(text, [sealed])] = bind(actor)
            return [(text, [sealed[:-1] + ("0" if sealed[-1] != "0" else "1")])]

        def may(role: str, table: str, command: str) -> bool:
            # A row that leans on another is found through it, so that one must be readable too.
            if table in leans and not may(role, leans[table], "SELECT"):
                return False
            needed = getattr(access.get(table), command.lower(), None)
            return needed is None or any(grant.role == role and grant.capability == needed and grant.when is None for grant in grants)

        owners = [(d.table, d.shape.owner) for d in model.protected().values() if d.shape.owner is not None]
        kinds = {column.key_type for table, name in owners if (column := table.column(name)) is not None}
        user: IdValue = 4711 if KeyType.INT in kinds else uuid.uuid4() if KeyType.UUID in kinds else "kit"
        colleague: IdValue = 4712 if KeyType.INT in kinds else uuid.uuid4() if KeyType.UUID in kinds else "kit2"
        own = {(".".join(table.name), name): lambda: user for table, name in owners}
        known = tuple(dict.fromkeys(grant.role for grant in grants)) or ("member",)
        full = [
            role
            for role in known
            if all(may(role, table, command) for table in access for command in ("SELECT", "INSERT", "UPDATE", "DELETE"))
        ]
        ordered = tuple(dict.fromkeys([*full[:1], *known]))
        return cls(
            connection=connection,
            scope=scope_of(model),
            bind=bind,
            tenants=twin_tenants(tenancy.key_type),
            roles=ordered if roles is None else roles,
            fill={**own, **(fill or {})},
            user=user,
            colleague=colleague,
            owned=frozenset(".".join(table.name) for table, _ in owners),
            may=may,
            forge=forge,
        )

    # The transaction

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """Read the catalog, make the rows, and roll everything back at the end.

        Raises:
            KitError: a row cannot be made, or there is nothing to guard.
        """
        if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            raise KitError("the lab needs a connection without an open transaction")
        with self.connection.transaction(force_rollback=True):
            self.facts = drive(read_facts(), self._perform)
            self.execute("SET LOCAL search_path = public")
            self.ground = Ground(self.facts, self.scope)
            self.tables = self._guarded()
            if not self.tables:
                raise KitError("no guarded table has the tenant column: is the plan applied, and is the key's name right?")
            self._labels = dict(
                self.rows(
                    "SELECT pg_catalog.format_type(enumtypid, NULL), pg_catalog.min(enumlabel::text) FROM pg_catalog.pg_enum GROUP BY 1"
                )
            )
            self.seeded = {}
            for table in self.tables:
                self.seeded[table.oid] = {tenant: [self.make_row(table, tenant) for _ in range(self.rows_each)] for tenant in self.tenants}
            yield self

    def _guarded(self) -> list[Relation]:
        """The tables with the tenant column, and those that point at one of them, parents first."""
        found: list[Relation] = []
        known: set[int] = set()
        for table in _parents_first(self.ground.guarded):
            if self.ground.reachable(table) and (self.key in table.columns or any(key.target in known for key in table.foreign_keys)):
                found.append(table)
                known.add(table.oid)
        return found if any(self.key in table.columns for table in found) else []

    def _perform(self, statement: Statement) -> Any:
        return self.rows(statement.sql, statement.params)

    def rows(self, text: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a statement answers; whatever row factory the connection has."""
        with self.connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(text.encode(), tuple(params) or None)
            return cursor.fetchall() if cursor.description else []

    def execute(self, text: str, params: Sequence[Any] = ()) -> int:
        """How many rows a statement reached."""
        with self.connection.cursor() as cursor:
            cursor.execute(text.encode(), tuple(params) or None)
            return cursor.rowcount

    @contextmanager
    def trial(self) -> Iterator[None]:
        """A savepoint that is always rolled back; errors of the database pass through."""
        with self.connection.transaction(force_rollback=True):
            yield

    @contextmanager
    def acting(self, actor: Actor | None, *, role: str | None = None, bind: Bind | None = None, keys: bool = True) -> Iterator[None]:
        """Inside a trial: bound to *actor* (or to nobody), as the application's role or as *role*; without *keys*, no foreign key is checked."""
        with self.trial():
            if not keys:
                self.execute("SET LOCAL session_replication_role = replica")
            if actor is not None:
                for text, params in (bind or self.bind)(actor):
                    self.execute(text, params)
            name = role or self.app
            self.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(name)).as_string(self.connection))
            yield

    @contextmanager
    def focused(self, table: int | None) -> Iterator[None]:
        """Only the table with this object id is asked about; ``None``: all."""
        before = self.tables
        self.tables = [one for one in before if table in (None, one.oid)]
        try:
            yield
        finally:
            self.tables = before

    @property
    def app(self) -> str:
        """The application's role."""
        if not self.ground.app:
            raise KitError("the application's role does not exist: apply the plan, or name it in the scope")
        return self.ground.app[0].name

    @property
    def system(self) -> str | None:
        """The system role, where there is one."""
        return min(self.scope.system, default=None)

    @property
    def key(self) -> str:
        """The tenant column."""
        return self.scope.key or ""

    def others(self, tenant: IdValue) -> IdValue:
        """The tenant that is not *tenant*."""
        return self.tenants[1] if tenant == self.tenants[0] else self.tenants[0]

    # Rows

    def pin(self, table: Relation, tenant: IdValue) -> dict[str, Any]:
        """What makes a row of *table* the row of *tenant*: the tenant column, or the key of a parent of that tenant's."""
        if self.key in table.columns:
            return {self.key: tenant}
        key = next(key for key in table.foreign_keys if key.target in self.seeded)
        parent = self.seeded[key.target][tenant][0]
        return {own: parent[theirs] for own, theirs in zip(key.columns, key.target_columns, strict=True)}

    def total(self, table: Relation, tenant: IdValue) -> int:
        """How many rows *tenant* has; rows that lean on others are the lab's own."""
        if self.key not in table.columns:
            return self.rows_each
        [(count,)] = self.rows(f"SELECT pg_catalog.count(*) FROM {escaped(table.sql)} WHERE {escaped(quote(self.key))} = %s", (tenant,))
        return int(count)

    def values_for(self, table: Relation, tenant: IdValue) -> dict[str, Any]:
        """A row of *table* for *tenant* that every constraint known here allows; its parents are seeded rows of the same tenant."""
        values: dict[str, Any] = {}
        for column in table.columns.values():
            made = self.fill.get((table.name, column.name)) or self.fill.get((table.label, column.name))
            if made is not None:
                values[column.name] = made()
            elif column.name == self.key:
                values[column.name] = tenant
            elif column.notnull and column.default is None and not column.identity:
                values[column.name] = self._value(table, column)
        for key in table.foreign_keys:
            parents = self.seeded.get(key.target, {}).get(tenant)
            if parents:
                values.update(
                    {own: parents[0][theirs] for own, theirs in zip(key.columns, key.target_columns, strict=True) if own != self.key}
                )
        return values

    def _value(self, table: Relation, column: Column) -> Any:
        if column.type.endswith("[]"):
            return []
        if column.type in self._labels:
            return self._labels[column.type]
        make = _MADE.get(column.type)
        if make is None:
            raise KitError(
                f'no value for {table.label}.{column.name} ({column.type}): pass fill={{("{table.name}", "{column.name}"): lambda: …}}'
            )
        return make(next(self._count))

    def make_row(self, table: Relation, tenant: IdValue) -> dict[str, Any]:
        """Insert a row as the administrator, and return it.

        Raises:
            KitError: the database refuses it.
        """
        values = self.values_for(table, tenant)
        try:
            with self.connection.transaction(), self.connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(f"{self.insert_text(table, values)} RETURNING *".encode(), tuple(values.values()))
                names = [column.name for column in cursor.description or ()]
                return dict(zip(names, cursor.fetchone() or (), strict=True))
        except psycopg.Error as error:
            said = error.diag.message_primary or type(error).__name__
            raise KitError(f'cannot make a row of {table.label}: {said}; pass fill={{("{table.name}", "…"): lambda: …}}') from None

    def insert_text(self, table: Relation, values: Mapping[str, Any]) -> str:
        """INSERT with one placeholder for each value."""
        names = ", ".join(escaped(quote(name)) for name in values)
        return f"INSERT INTO {escaped(table.sql)} ({names}) VALUES ({', '.join(['%s'] * len(values))})"

    def primary(self, table: Relation) -> tuple[str, ...]:
        """The columns that name one row of *table*."""
        index = next((index for index in table.indexes if index.primary), None)
        return tuple(key.column for key in index.keys) if index else tuple(table.columns)


def escaped(text: str) -> str:
    """Text for a statement that has parameters, where a % must be doubled."""
    return text.replace("%", "%%")


def _parents_first(tables: Sequence[Relation]) -> list[Relation]:
    by_oid = {table.oid: table for table in tables}
    ordered: list[Relation] = []
    seen: set[int] = set()

    def visit(table: Relation) -> None:
        if table.oid in seen:
            return
        seen.add(table.oid)
        for key in table.foreign_keys:
            if key.target in by_oid:
                visit(by_oid[key.target])
        ordered.append(table)

    for table in tables:
        visit(table)
    return ordered

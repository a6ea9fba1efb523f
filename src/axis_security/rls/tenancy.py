"""The host's declaration: which column names the tenant, and what is decided about each table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError
from axis_security.core.events import EventSink, LoggingSink
from axis_security.core.grants import CapabilityLike, GrantTable
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.rls.bind import TenantBinder
from axis_security.rls.context import base_part
from axis_security.rls.dialect import Dialect
from axis_security.rls.hierarchy import hierarchy_part
from axis_security.rls.install import install
from axis_security.rls.metadata import belonging, link_between, name_of, table_model, table_of
from axis_security.rls.model import Access, Declared, Model, Name, Open, Protected, Sharing, UndeclaredTable, Via
from axis_security.rls.plan import Declaration, Plan, plan_flow, run
from axis_security.rls.posture import Posture
from axis_security.rls.sealed import Sealer, SealKeyring
from axis_security.rls.system import SystemAccess, SystemBinder, SystemScope

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, MetaData, Table

    from axis_security.core.ids import TenantId
    from axis_security.rls.audit.report import AuditReport
    from axis_security.rls.explain import Explanation

__all__ = ["Tenancy"]

T = TypeVar("T")

_WRITES: Final = frozenset({"INSERT", "UPDATE", "DELETE"})


class Tenancy:
    """Declares the isolation of the tables of *metadata*.

    Args:
        metadata: the host's SQLAlchemy metadata; every table in it must be protected or open.
        key: the tenant column's name, the same in all tables.
        policy: who holds which capability; ``None``: whoever is bound to a tenant may read and write its rows.
        roles: the PostgreSQL roles; cluster-wide, so two products on one server need two prefixes.
        seal: the keys of the sealed context; ``None`` leaves the keys in the database alone.
        key_type: the tenant column's type; read from the first protected table unless told.
        parts: further parts of schema ``axis``, planned together with the base part.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        key: str = "tenant_id",
        policy: GrantTable | None = None,
        roles: DatabaseRoles | None = None,
        seal: SealKeyring | None = None,
        key_type: KeyType | None = None,
        parts: Sequence[SchemaPart] = (),
    ) -> None:
        self.metadata: Final = metadata
        self.key: Final = key
        self.policy: Final = policy
        self.roles: Final = roles or DatabaseRoles()
        self.seal: Final = seal
        self.parts: Final = tuple(parts)
        self._key_type: KeyType | None = key_type
        self._declared: dict[Name, Declared] = {}
        self._binder: TenantBinder | None = None
        self._system: SystemAccess | None = None

    def protect(
        self,
        table: object,
        *,
        read: CapabilityLike | str | None = None,
        write: CapabilityLike | str | None = None,
        insert: CapabilityLike | str | None = None,
        update: CapabilityLike | str | None = None,
        delete: CapabilityLike | str | None = None,
        via: object = None,
        owner: str | None = None,
        reach: Literal["own", "below"] = "own",
        visible_to: str | None = None,
        shared_through: object = None,
    ) -> None:
        """Isolate the rows of *table* (a ``Table`` or a mapped class) by tenant.

        Args:
            read, write: the capability that the commands need; where none is named, being bound to the tenant is enough.
            insert, update, delete: instead of *write*, for one command.
            via: the protected table that a foreign key of this one points at: rows belong to the tenant of the row they point at, and can be read
                where it can. For tables without a tenant column.
            owner: a column of user ids: every command is held to the acting user's own rows.
            reach: ``below`` lets a tenant read the rows of tenants that stand below it (``axis.set_parent``); writing stays with the own tenant.
            visible_to: a column with the id of another tenant that may read the row besides its own.
            shared_through: the protected table that lists which rows other tenants may read: its foreign key points here, and its ``visible_to``
                column says to whom. Protect it before this one.

        Raises:
            UnusableTable: it lacks the key column, or a grant of a capability depends on a condition that SQL cannot evaluate, or the ways to reach
                its rows contradict one another.
            ConfigError: not a table of the metadata, declared twice, or a capability without a policy.
        """
        made = self._new(table)
        named = {"select": read, "insert": insert or write, "update": update or write, "delete": delete or write}
        access = Access(**{command: _wire(capability) for command, capability in named.items()})
        if self.policy is None and access != Access():
            raise ConfigError(
                what=f"`{'.'.join(made.name)}` names capabilities",
                why="the tenancy has no policy that grants them",
                fix="pass Tenancy(…, policy=…), or name none",
            )
        shape = Protected(
            access,
            via=None if via is None else Via(target=name_of(table_of(via)), pairs=link_between(table_of(table), table_of(via))),
            shared=None if shared_through is None else self._sharing(table_of(table), table_of(shared_through)),
            visible_to=visible_to,
            below=reach == "below",
            owner=owner,
        )
        declared = Declared(made, shape)
        column = made.column(self.key)
        key_type = self._key_type or (None if column is None else column.key_type)
        # Checks this table by itself, so that the error is raised at the line that declares it.
        Model(key=self.key, key_type=key_type or KeyType.TEXT, roles=self.roles, tables=(declared,), grants=self._grants())
        self._key_type = key_type
        self._declared[made.name] = declared

    def open(self, table: object, *, reason: str, writes: Iterable[str] = ()) -> None:
        """Let every tenant read all rows of *table*; *writes* (``insert``, ``update``, ``delete``) names what the app may do besides.

        Raises:
            ConfigError: no reason, an unknown command, not a table of the metadata, or declared twice.
        """
        words = frozenset(word.upper() for word in writes)
        made = self._new(table)
        if not reason.strip() or not words <= _WRITES:
            raise ConfigError(
                what=f"`{'.'.join(made.name)}` cannot be opened like this",
                why="a reason is missing, or `writes` names something else than insert, update, delete",
                fix='tenancy.open(table, reason="reference data, same for all")',
            )
        self._declared[made.name] = Declared(made, Open(" ".join(reason.split()), words))

    @property
    def key_type(self) -> KeyType:
        """The tenant column's type.

        Raises:
            ConfigError: nothing is protected yet, and no type was given.
        """
        if self._key_type is None:
            raise ConfigError(
                what="the tenant key's type is not known", why="no table is protected", fix="protect a table, or pass key_type="
            )
        return self._key_type

    def model(self) -> Model:
        """The declaration as plain values.

        Raises:
            UndeclaredTable: tables of the metadata are neither protected nor open; all are named.
            UnusableTable: a table leans on another one that cannot hold it.
        """
        undeclared = sorted(".".join(name_of(table)) for table in self.metadata.tables.values() if name_of(table) not in self._declared)
        if undeclared:
            raise UndeclaredTable(undeclared)
        model = Model(key=self.key, key_type=self.key_type, roles=self.roles, tables=tuple(self._declared.values()), grants=self._grants())
        model.check_links()
        return model

    def belongs(self, table: Table, tenant: TenantId) -> ColumnElement[bool]:
        """The condition that a row of the protected *table* belongs to *tenant*, for work across tenants: what is shared or below is not its own.

        Raises:
            ConfigError: the table is not protected.
        """
        return belonging(self.metadata, self.model(), tenant)(table)

    def plan(self, connection: Any, *, parts: Sequence[SchemaPart] = ()) -> Plan:
        """What the live database lacks or has otherwise; writes nothing that stays.

        Args:
            connection: a SQLAlchemy ``Engine`` or ``Connection``, or a psycopg ``Connection``, with the rights that :meth:`Plan.apply` names.
            parts: further parts of schema ``axis``, after those of the tenancy.

        Raises:
            UndeclaredTable: tables of the metadata are neither protected nor open.
            MissingTable, MissingColumn: declared tables, or columns that their policies speak of, do not exist in the database.
        """
        declaration = self.declaration(parts)
        return run(connection, lambda: plan_flow(declaration), keep=False)

    def script(self, dialect: Dialect = Dialect.POSTGRESQL, *, parts: Sequence[SchemaPart] = ()) -> str:
        """The whole declaration as SQL for bare tables, without asking a server: for a review, and for servers that :meth:`plan` does not know.

        Seal keys are not printed: ``$1`` and ``$2`` stand for the blocks of each.

        Args:
            dialect: for Citus and CockroachDB the script is written and parsed, and was run by nobody here; it says so.
            parts: as for :meth:`plan`.

        Raises:
            UndeclaredTable: tables of the metadata are neither protected nor open.
            UnusableTable: the dialect cannot hold a table as it was declared.
            ConfigError: a part has no form for the dialect.
        """
        from axis_security.rls.script import script

        declaration = self.declaration(parts)
        return script(replace(declaration.model, dialect=dialect), declaration.parts, declaration.keyring)

    def audit(self, connection: Any, *, accept: Mapping[str, str] | None = None, parts: Sequence[SchemaPart] = ()) -> AuditReport:
        """Compare the live database with this declaration and with the rules of row-level security; writes nothing that stays.

        Args:
            connection: as for :meth:`plan`.
            accept: findings to set aside, each with the reason: by code, or by code and object with a space between.
            parts: as for :meth:`plan`.

        Raises:
            UndeclaredTable: tables of the metadata are neither protected nor open.
            MissingTable, MissingColumn: declared tables, or columns that their policies speak of, do not exist in the database.
            ConfigError: an accepted finding has no reason, or names no rule.
        """
        from axis_security.rls.audit.engine import declared_audit_flow

        declaration = self.declaration(parts)
        return run(connection, lambda: declared_audit_flow(declaration, accept=accept), keep=False)

    def explain(self, statement: object, connection: Any = None) -> Explanation:
        """Why *statement* reached nothing, or would: unbound, not allowed, stale or hidden, for the acting principal and with its own rights.

        A row that is missing and a row of another tenant get the same answer.

        Args:
            statement: a SQLAlchemy ``select``, ``insert``, ``update`` or ``delete`` of one declared table.
            connection: the guarded connection or session that it ran on; without it, only what the declaration says is answered.

        Raises:
            ConfigError: another statement, or a table that is not declared.
        """
        from axis_security.rls.explain import explain_statement

        return explain_statement(self.model(), statement, connection)

    def foundation(self, connection: Any, *, parts: Sequence[SchemaPart] = ()) -> Plan:
        """What the database lacks besides the tables: roles, schema ``axis``, seal keys, the table of roles and capabilities.

        For databases whose tables come from migrations: an administrator applies this first, then the tables' owner can run all the rest.
        """
        declaration = self.declaration(parts)
        bare = replace(declaration, model=replace(declaration.model, tables=()))
        return run(connection, lambda: plan_flow(bare), keep=False)

    def declaration(self, parts: Sequence[SchemaPart] = ()) -> Declaration:
        """All that a plan is made from, as values.

        Raises:
            UndeclaredTable: tables of the metadata are neither protected nor open.
        """
        model = self.model()
        below = any(declared.shape.below for declared in model.protected().values())
        own = (base_part(self.key_type), *((hierarchy_part(self.key_type),) if below else ()))
        return Declaration(model=model, parts=(*own, *self.parts, *parts), keyring=self.seal)

    def install(self, target: T, *, system: Any = None, sink: EventSink | None = None, clock: Clock = SYSTEM_CLOCK) -> T:
        """Bind every transaction of *target* to the acting principal, from its BEGIN on; returns *target* (for a connection class, the class to use).

        Args:
            target: a SQLAlchemy ``Engine`` or ``AsyncEngine``, a psycopg or asyncpg connection or pool, or a psycopg connection class. Idempotent.
            system: an ``Engine`` or ``AsyncEngine`` of the system login, for :meth:`system`; usable nowhere else.
            sink: takes the events of system scopes and refused logins; the standard library's logging unless told.
            clock: tells when a system scope ends.

        Raises:
            UndeclaredTable: tables of the metadata are neither protected nor open.
            ConfigError: the tenancy has no seal, or *target* cannot be guarded.
        """
        self.model()
        if self._binder is None:
            if self.seal is None:
                raise ConfigError(
                    what="the tenancy cannot bind", why="it has no seal keys", fix="pass Tenancy(…, seal=SealKeyring.from_text(…))"
                )
            self._binder = TenantBinder(seal=Sealer(self.seal), key_type=self.key_type)
        events = LoggingSink() if sink is None else sink
        if system is not None:
            install(system, binder=SystemBinder(clock), posture=Posture(roles=self.roles, system=True, sink=events, clock=clock))
            self._system = SystemAccess(engine=system, sink=events, clock=clock)
        return install(target, binder=self._binder, posture=Posture(roles=self.roles, sink=events, clock=clock))

    def system(self, *, reason: str, lasting: timedelta) -> SystemScope:
        """Work across tenants, declared: ``with`` (or ``async with``) it to get a connection of the system login.

        An audit event is kept before anything is opened, and another at the end; a clean end commits. After *lasting* (at most eight hours)
        statements are refused, and the server ends what still runs.

        Raises:
            ConfigError: no system engine was installed, no reason was given, or the time is not usable.
        """
        if self._system is None:
            raise ConfigError(
                what="there is no system login",
                why="install() was given no system engine",
                fix="tenancy.install(engine, system=system_engine)",
            )
        return self._system.open(reason=reason, lasting=lasting)

    def _new(self, table: object) -> Any:
        found = table_of(table)
        name = name_of(found)
        if found.metadata is not self.metadata:
            raise ConfigError(
                what=f"`{'.'.join(name)}` is not a table of this tenancy",
                why="it belongs to another metadata",
                fix="declare it on the tenancy of its own metadata",
            )
        if name in self._declared:
            raise ConfigError(
                what=f"`{'.'.join(name)}` is declared twice", why="each table is decided once", fix="remove one of the declarations"
            )
        return table_model(found)

    def _sharing(self, table: Table, listing: Table) -> Sharing:
        lists = self._declared.get(name_of(listing))
        grantee = lists.shape.visible_to if lists is not None and isinstance(lists.shape, Protected) else None
        pairs = [pair for pair in link_between(listing, table) if pair != (self.key, self.key)]
        if grantee is None or len(pairs) != 1:
            raise ConfigError(
                what=f"`{listing.fullname}` cannot list shares of `{table.fullname}`",
                why="it is not protected with visible_to="
                if grantee is None
                else "it points here with more than one column besides the tenant",
                fix='first: tenancy.protect(listing, visible_to="…")' if grantee is None else "point at a single-column key",
            )
        return Sharing(table=name_of(listing), column=pairs[0][1], listed=pairs[0][0], grantee=grantee)

    def _grants(self) -> Any:
        return None if self.policy is None else tuple(self.policy.grants())


def _wire(capability: CapabilityLike | str | None) -> str | None:
    return capability if capability is None or isinstance(capability, str) else capability.name

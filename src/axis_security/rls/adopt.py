"""Adopting a live table: give its rows a tenant while the application reads and writes them.

Each stage looks at what is there and does what is missing, so that a run that was stopped is run again. Nothing waits long for a lock (whoever
waits for one makes everybody behind it wait too): a statement that needs the whole table gives up after ``lock_wait`` and comes back. What takes
time takes no lock that stops reads or writes: batches by primary key, ``VALIDATE``, ``CONCURRENTLY``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.principal import Principal
from axis_security.rls.keys import made_name
from axis_security.rls.metadata import name_of, table_of
from axis_security.rls.model import Name, Protected, quote
from axis_security.rls.plan import plan_flow, run
from axis_security.rls.predicate import SELF, policies_of, tenant_default
from axis_security.rls.sealed import seal

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from axis_security.rls.tenancy import Tenancy

__all__ = ["Adoption", "Backfilled", "Seen", "shadow"]

_ATTEMPTS: Final = 60
_ADOPT: Final = "axis_adopt"


@dataclass(frozen=True, slots=True)
class Backfilled:
    """How far the backfill is. ``orphans``: rows for which the expression gives no tenant; they stop the next stage."""

    done: int
    orphans: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a principal would see of a table under its policies. ``nobodys``: rows without a tenant, which nobody would see."""

    table: str
    principal: Principal
    visible: int
    hidden: int
    nobodys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """The way of one live table into its tenancy.

    Args:
        tenancy: declares the table protected, with the tenant column; its foundation is applied.
        table: the table, or its mapped class.
        tenant: SQL for a row's tenant, over the table's own columns (qualified with the table's name): written by you, never by a user.
        batch_time: how long one batch of the backfill may hold its rows; the number of rows follows it.
        lock_wait: how long a statement may wait for the table before it gives up and comes back.
        pause: between batches, so that others come first.
    """

    tenancy: Tenancy
    table: Any
    tenant: str
    batch_time: timedelta = timedelta(milliseconds=100)
    lock_wait: timedelta = timedelta(milliseconds=200)
    pause: timedelta = timedelta(milliseconds=5)
    progress: Callable[[str, int, int], None] | None = field(default=None)
    """Told of each stage: its name, how much is done, of how much (rows in the backfill, else 0 or 1 of 1)."""

    def __post_init__(self) -> None:
        declared = self.tenancy.model().protected().get(self.name)
        if declared is None or declared.shape.via is not None:
            raise ConfigError(
                what=f"`{'.'.join(self.name)}` cannot be adopted",
                why="it is not declared as protected by a tenant column of its own",
                fix="tenancy.protect(table) first",
            )
        if "$axis_adopt$" in self.tenant or not self.tenant.strip():
            raise ConfigError(what="unusable expression for a row's tenant", why="it is empty, or closes our quotes", fix="write plain SQL")
        if not self.primary_key:
            raise ConfigError(what=f"`{'.'.join(self.name)}` cannot be adopted", why="it has no primary key to go by", fix="declare one")

    @property
    def name(self) -> Name:
        """Schema and name."""
        return name_of(table_of(self.table))

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Its columns, without the tenant's."""
        return tuple(str(column.name) for column in table_of(self.table).primary_key if column.name != self.tenancy.key)

    def run(self, engine: Engine) -> Backfilled:
        """All stages: column, backfill, NOT NULL, index, keys; then the plan of the tenancy has nothing left that takes long.

        Args:
            engine: with the rights that :meth:`Plan.apply` names, and those of the tables' owner.

        Raises:
            ConfigError: rows are left without a tenant.
            Unavailable: the table was never free for as long as a statement needs.
        """
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            self.add_column(connection)
            filled = self.backfill(connection)
            if filled.orphans:
                raise ConfigError(
                    what=f"{filled.orphans} row(s) of `{'.'.join(self.name)}` have no tenant",
                    why="the expression gives none for them",
                    fix="give them one, or delete them; then run the adoption again",
                )
            self.require_tenant(connection)
            self.index(connection)
            self.keys(connection)
        return filled

    def add_column(self, connection: Connection) -> None:
        """Add the tenant column, empty, its default, and a trigger that gives new rows of an application that binds nobody yet their tenant.

        All of them change the catalog alone.
        """
        key, kind = quote(self.tenancy.key), self.tenancy.key_type.value
        self._tell("column", 0)
        if not self._one(connection, _COLUMN, key=self.tenancy.key):
            self._briefly(connection, f"ALTER TABLE {quote(*self.name)} ADD COLUMN IF NOT EXISTS {key} {kind}")
        if not self._one(connection, _DEFAULT, key=self.tenancy.key):
            self._briefly(connection, f"ALTER TABLE {quote(*self.name)} ALTER COLUMN {key} SET DEFAULT {tenant_default()}")
        if not self._one(connection, _TRIGGER, trigger=_ADOPT):
            function = self._function
            # As if the new row were the table, so that the expression reads as it does in the backfill.
            connection.exec_driver_sql(
                f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $axis_adopt$\nBEGIN\n"
                f"  IF NEW.{key} IS NULL THEN\n    SELECT ({self.tenant}) INTO NEW.{key} FROM (SELECT NEW.*) AS {quote(self.name[1])};\n  END IF;\n"
                "  RETURN NEW;\nEND\n$axis_adopt$".replace("%", "%%")
            )
            self._briefly(
                connection, f"CREATE TRIGGER {_ADOPT} BEFORE INSERT ON {quote(*self.name)} FOR EACH ROW EXECUTE FUNCTION {function}()"
            )
        self._tell("column", 1)

    def backfill(self, connection: Connection) -> Backfilled:
        """Give every row without a tenant its own, in batches along the primary key; again for what was added meanwhile."""
        done = 0
        total = int(self._one(connection, f"SELECT count(*) FROM {quote(*self.name)} WHERE {quote(self.tenancy.key)} IS NULL") or 0)
        while True:
            filled = self._pass(connection, done, total)
            done += filled
            left = int(self._one(connection, f"SELECT count(*) FROM {quote(*self.name)} WHERE {quote(self.tenancy.key)} IS NULL") or 0)
            if not left or not filled:
                return Backfilled(done, left)

    def _pass(self, connection: Connection, before: int, total: int) -> int:
        table, key = quote(*self.name), quote(self.tenancy.key)
        columns = ", ".join(quote(column) for column in self.primary_key)
        position: Sequence[Any] | None = None
        size, done = 500, 0
        while True:
            marks = ", ".join(f":p{n}" for n in range(len(self.primary_key)))
            after = "" if position is None else f"AND ({columns}) > ({marks})"
            given = {} if position is None else {f"p{n}": value for n, value in enumerate(position)}
            rows = connection.execute(
                _text(f"SELECT {columns} FROM {table} WHERE {key} IS NULL {after} ORDER BY {columns} LIMIT {size}"), given
            ).all()
            if not rows:
                return done
            first, position = rows[0], rows[-1]
            between = {f"f{n}": value for n, value in enumerate(first)} | {f"p{n}": value for n, value in enumerate(position)}
            froms = ", ".join(f":f{n}" for n in range(len(self.primary_key)))
            started = time.monotonic()
            result = connection.execute(
                _text(
                    f"UPDATE {table} SET {key} = ({self.tenant}) WHERE {key} IS NULL AND ({columns}) >= ({froms}) AND ({columns}) <= ({marks}) "
                    f"AND ({self.tenant}) IS NOT NULL"
                ),
                between,
            )
            done += result.rowcount
            self._tell("backfill", before + done, max(total, before + done))
            took = time.monotonic() - started
            size = max(100, min(20_000, int(size * max(0.5, min(2.0, self.batch_time.total_seconds() / max(took, 0.001))))))
            time.sleep(self.pause.total_seconds())

    def require_tenant(self, connection: Connection) -> None:
        """NOT NULL without a scan under lock: a constraint that is checked while others write, then the column takes its word."""
        table, key = quote(*self.name), quote(self.tenancy.key)
        check = quote(made_name("axis", self.name[1], self.tenancy.key, "check"))
        self._tell("not null", 0)
        if not self._one(connection, _NOT_NULL, key=self.tenancy.key):
            self._briefly(connection, f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}")
            self._briefly(connection, f"ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({key} IS NOT NULL) NOT VALID")
            connection.execute(_text(f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}"))
            self._briefly(connection, f"ALTER TABLE {table} ALTER COLUMN {key} SET NOT NULL")
        self._briefly(connection, f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check}")
        self._tell("not null", 1)

    def index(self, connection: Connection) -> None:
        """The unique index of tenant and primary key, made while others write: filters use it, and other tables' keys point at it."""
        index = made_name("axis", self.name[1], self.tenancy.key, *self.primary_key, "key")
        columns = ", ".join(quote(column) for column in (self.tenancy.key, *self.primary_key))
        self._tell("index", 0)
        valid = self._one(connection, _INDEX, index=index)
        if valid is False:  # what a stopped CONCURRENTLY leaves behind
            connection.execute(_text(f"DROP INDEX CONCURRENTLY IF EXISTS {quote(self.name[0], index)}"))
        if not valid:
            connection.execute(_text(f"CREATE UNIQUE INDEX CONCURRENTLY {quote(index)} ON {quote(*self.name)} ({columns})"))
        self._tell("index", 1)

    def keys(self, connection: Connection) -> None:
        """Foreign keys with the tenant in them, to tables that have been adopted: added NOT VALID, validated while others write, the old ones dropped."""
        self._tell("keys", 0)
        mine = quote(*self.name)
        declaration = self.tenancy.declaration()
        waiting = self._waiting(connection)
        ready = tuple(
            each
            for each in declaration.model.tables
            if each.table.name not in waiting and isinstance(each.shape, Protected) and each.shape.via is None and each.shape.shared is None
        )
        # Tables that are still to be adopted have no column yet that a policy could be worded with.
        planned = replace(declaration, model=replace(declaration.model, tables=ready))
        for step in run(connection.engine, lambda: plan_flow(planned), keep=False).steps:
            if step.sql.startswith(f"ALTER TABLE {mine} ") and " CONSTRAINT " in step.sql and " UNIQUE " not in step.sql:
                if " VALIDATE " in step.sql:
                    connection.execute(_text(step.sql))
                else:
                    self._briefly(connection, step.sql)
        self._tell("keys", 1)

    def protect(self, engine: Engine) -> None:
        """Apply the plan of the tenancy: policies, row security and FORCE, in one short transaction.

        Raises:
            ConfigError: something in the plan would take long; run the adoption of that table first.
        """
        with engine.connect() as connection:
            waiting = self._waiting(connection)
        if waiting:
            names = ", ".join(".".join(name) for name in sorted(waiting))
            raise ConfigError(what="the plan is not short", why=f"without a tenant column: {names}", fix="adopt those tables first")
        slow = [step.sql for step in self.tenancy.plan(engine).steps if any(word in step.sql for word in _SLOW)]
        if slow:
            raise ConfigError(what="the plan is not short", why=f"it would run {slow[0]}", fix="adopt that table first")
        for attempt in range(_ATTEMPTS):
            with engine.connect() as connection, connection.begin() as transaction:
                connection.execute(_text(f"SET LOCAL lock_timeout = {self._milliseconds}"))
                try:
                    # From here on the application binds, and the default fills the column; the trigger's look-ups would see too little.
                    connection.execute(_text(f"DROP TRIGGER IF EXISTS {_ADOPT} ON {quote(*self.name)}"))
                    connection.execute(_text(f"DROP FUNCTION IF EXISTS {self._function}()"))
                    self.tenancy.plan(connection).apply(connection)
                except Exception as error:
                    if not _was_busy(error):
                        raise
                    transaction.rollback()
                else:
                    return
            time.sleep(min(1.0, 0.05 * (attempt + 1)))
        raise self._busy()

    def _waiting(self, connection: Connection) -> set[Name]:
        """Tables declared with a tenant column that they do not have yet."""
        held = {(schema, table) for schema, table in connection.execute(_text(_HELD), {"key": self.tenancy.key})}
        declared = self.tenancy.model().protected().items()
        return {name for name, each in declared if each.shape.via is None and name not in held}

    @property
    def _function(self) -> str:
        return quote(self.name[0], made_name(_ADOPT, self.name[1]))

    @property
    def _milliseconds(self) -> int:
        return max(1, int(self.lock_wait.total_seconds() * 1000))

    def _briefly(self, connection: Connection, sql: str) -> None:
        connection.execute(_text(f"SET lock_timeout = {self._milliseconds}"))
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    connection.execute(_text(sql))
                except Exception as error:
                    if not _was_busy(error):
                        raise
                    time.sleep(min(1.0, 0.05 * (attempt + 1)))
                else:
                    return
            raise self._busy()
        finally:
            connection.execute(_text("RESET lock_timeout"))

    def _busy(self) -> Unavailable:
        return Unavailable(
            what=f"`{'.'.join(self.name)}` is never free",
            why=f"{_ATTEMPTS} attempts waited {self._milliseconds} ms each: somebody holds it in a long transaction",
            fix="end that transaction (pg_stat_activity), then run the adoption again",
        )

    def _one(self, connection: Connection, sql: str, **given: Any) -> Any:
        known = {"schema": self.name[0], "table": self.name[1], **given}
        return connection.execute(_text(sql), {name: value for name, value in known.items() if f":{name}" in sql}).scalar()

    def _tell(self, stage: str, done: int, total: int = 1) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)


_SLOW: Final = ("CREATE INDEX", "CREATE UNIQUE INDEX", "ADD CONSTRAINT", "VALIDATE CONSTRAINT", "SET NOT NULL")
_ATTRIBUTE: Final = (
    "FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :schema AND c.relname = :table AND a.attname = :key AND NOT a.attisdropped"
)
_COLUMN: Final = f"SELECT true {_ATTRIBUTE}"
_NOT_NULL: Final = f"SELECT a.attnotnull {_ATTRIBUTE}"
_DEFAULT: Final = f"SELECT a.atthasdef {_ATTRIBUTE}"
_HELD: Final = (
    "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE a.attname = :key AND NOT a.attisdropped AND c.relkind IN ('r', 'p')"
)
_TRIGGER: Final = (
    "SELECT true FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = :table AND t.tgname = :trigger"
)
_INDEX: Final = (
    "SELECT i.indisvalid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = :index"
)


def shadow(tenancy: Tenancy, engine: Engine, principals: Iterable[Principal]) -> tuple[Seen, ...]:
    """What each of *principals* would see of each protected table, before any policy holds: rows are counted, and nothing is changed or locked.

    The policies' own expressions are evaluated, in transactions that are bound as the application's would be and rolled back.

    Args:
        engine: as the tables' owner, on a database that has the tenancy's foundation.

    Raises:
        ConfigError: the tenancy has no seal keys.
    """
    if tenancy.seal is None:
        raise ConfigError(what="the tenancy cannot bind", why="it has no seal keys", fix="pass Tenancy(…, seal=…)")
    model = tenancy.model()
    found: list[Seen] = []
    for principal in principals:
        with engine.connect() as connection, connection.begin() as transaction:
            sealed = seal(principal, keyring=tenancy.seal, now=datetime.now(UTC))
            connection.execute(_text("SELECT set_config('axis.context', :sealed, true)"), {"sealed": sealed})
            for name, declared in sorted(model.protected().items()):
                policies = {policy.name: policy.using or "true" for policy in policies_of(model, declared.table, declared.shape)}
                seen = f"({policies['axis_floor']}) AND ({policies['axis_select']})".replace(SELF, quote(*name))
                nobodys = "false" if declared.shape.via is not None else f"{quote(model.key)} IS NULL"
                total, visible, nobody = connection.exec_driver_sql(
                    f"SELECT count(*), count(*) FILTER (WHERE {seen}), count(*) FILTER (WHERE {nobodys}) FROM {quote(*name)}".replace(
                        "%", "%%"
                    )
                ).one()
                found.append(Seen(".".join(name), principal, visible, total - visible, nobody))
            transaction.rollback()
    return tuple(found)


def _text(sql: str) -> Any:
    from sqlalchemy import text

    return text(sql)


def _was_busy(error: Exception) -> bool:
    """Whether the server gave up waiting for a lock, or broke a deadlock."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) in ("55P03", "40P01")

"""Binding for SQLAlchemy engines, sync and async.

The guard sits on the driver's own connection (:mod:`bind_psycopg`, :mod:`bind_asyncpg`), below everything that SQLAlchemy can do with it:
ORM, Core, raw SQL, ``raw_connection()`` and the driver connection taken out of the pool all meet the same rule. This module only sees to
it that no connection leaves the engine's pool without a guard, and that the pool's own pings need no principal.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import event, exc

from axis_security.core.errors import ConfigError
from axis_security.rls.bind import Binder, guarded_already
from axis_security.rls.posture import Posture

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["install_engine"]

_DRIVERS: Final = {
    "psycopg": "axis_security.rls.bind_psycopg",
    "psycopg_async": "axis_security.rls.bind_psycopg",
    "asyncpg": "axis_security.rls.bind_asyncpg",
}
_INSTALLED: Final[WeakKeyDictionary[Any, Binder]] = WeakKeyDictionary()


def install_engine(engine: Engine | AsyncEngine, *, binder: Binder, posture: Posture | None) -> None:
    """Guard every connection of *engine*, those already in its pool included; idempotent.

    Raises:
        ConfigError: not PostgreSQL through psycopg or asyncpg, connections are checked out, or another tenancy is installed.
    """
    # Not by its class: SQLAlchemy's asyncio module needs greenlet, which a sync app has no use for.
    sync: Any = getattr(engine, "sync_engine", engine)
    module = _DRIVERS.get(sync.dialect.driver) if sync.dialect.name == "postgresql" else None
    if module is None:
        raise ConfigError(
            what="the engine cannot be guarded",
            why=f"its driver is `{sync.dialect.name}+{sync.dialect.driver}`",
            fix="use postgresql+psycopg or postgresql+asyncpg",
        )
    dialect = sync.dialect
    if guarded_already("engine", _INSTALLED.get(dialect), binder):  # engines made with `execution_options()` share dialect and pool
        return
    if getattr(sync.pool, "checkedout", lambda: 0)() > 0:
        raise ConfigError(
            what="the engine is in use",
            why="connections that are checked out began unbound",
            fix="install the tenancy before the engine's first use",
        )
    driver: Any = import_module(module)

    def on_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        # SQLAlchemy's own first questions have been asked by now, and nobody has been given the connection yet.
        driver.guard(record.driver_connection, binder, posture)

    def on_checkout(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:
        if driver.is_closed(record.driver_connection) or not driver.is_guarded(record.driver_connection):
            raise exc.DisconnectionError  # closed by its guard, or made before the tenancy was installed: the pool replaces it

    ping: Callable[[Any], bool] = dialect.do_ping

    def guarded_ping(connection: Any) -> bool:
        with driver.upkeep(dialect.get_driver_connection(connection)):
            return ping(connection)

    rollback: Callable[[Any], None] = dialect.do_rollback

    def guarded_rollback(connection: Any) -> None:
        # On what its guard has closed there is nothing to undo, and the reason is on its way up: another error would hide it.
        if not driver.is_closed(connection.driver_connection):
            rollback(connection)

    to_savepoint: Callable[[Any, str], None] = dialect.do_rollback_to_savepoint

    def guarded_to_savepoint(connection: Any, name: str) -> None:
        # Undoing must work for whoever cleans up: a session rolled back after its principal has left undoes its savepoints first.
        with driver.upkeep(connection.connection.driver_connection):
            to_savepoint(connection, name)

    _INSTALLED[dialect] = binder
    event.listen(sync, "connect", on_connect)
    event.listen(sync, "checkout", on_checkout)
    dialect.do_ping = guarded_ping
    dialect.do_rollback = guarded_rollback
    dialect.do_rollback_to_savepoint = guarded_to_savepoint

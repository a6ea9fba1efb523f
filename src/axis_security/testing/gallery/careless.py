"""Ways of binding that look right and leak: the controls of the runtime attacks.

Each is a class of mistake seen in the wild, made small. They exist so that the gallery can show its attacks succeed against them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from axis_security.core.context import maybe_principal
from axis_security.core.principal import Principal
from axis_security.testing.gallery.world import World

__all__ = [
    "bind_at_savepoint",
    "bind_first_transaction_of_a_session",
    "bind_for_the_session",
    "bind_once_per_connection",
    "thread_local_principal",
    "trust_the_setting",
]

_SET_SESSION = "SELECT set_config('axis.context', %s, false)"


def bind_for_the_session(world: World) -> None:
    """The context is set when a connection leaves the pool, for the database session, and nobody takes it off again."""

    def make(**options: Any) -> Engine:
        engine = world.bare_engine(**options)

        @event.listens_for(engine, "checkout")
        def on_checkout(connection: Any, record: Any, proxy: Any) -> None:
            principal = maybe_principal()
            if principal is not None:
                connection.execute(_SET_SESSION, (world.sealed(principal),))

        @event.listens_for(engine, "checkin")
        def on_checkin(connection: Any, record: Any) -> None:
            if connection is not None:
                with contextlib.suppress(Exception):
                    connection.commit()

        return engine

    world.make_engine = make


def bind_once_per_connection(world: World) -> None:
    """The context is set for the database session by whoever uses the connection first."""

    def make(**options: Any) -> Engine:
        engine = world.bare_engine(**options)

        @event.listens_for(engine, "checkout")
        def on_checkout(connection: Any, record: Any, proxy: Any) -> None:
            principal = maybe_principal()
            if principal is not None and "bound" not in record.info:
                connection.execute(_SET_SESSION, (world.sealed(principal),))
                connection.commit()
                record.info["bound"] = True

        @event.listens_for(engine, "handle_error")
        def on_error(context: Any) -> None:
            context.invalidate_pool_on_disconnect = False  # one broken connection says nothing about the others, or so it thinks

        return engine

    world.make_engine = make


def bind_first_transaction_of_a_session(world: World) -> None:
    """An ORM hook binds a Session once, for the database session; its later transactions take what their connection has."""

    def new_session(engine: Engine) -> Session:
        session = Session(engine)

        @event.listens_for(session, "after_begin")
        def after_begin(_: Session, transaction: Any, connection: Any) -> None:
            principal = maybe_principal()
            if principal is not None and "bound" not in session.info:
                connection.exec_driver_sql(_SET_SESSION, (world.sealed(principal),))
                session.info["bound"] = True

        return session

    world.make_engine = world.bare_engine
    world.new_session = new_session


def bind_at_savepoint(world: World) -> None:
    """The context is set at BEGIN and again at each savepoint, with no look at whom the transaction belongs to."""

    def make(**options: Any) -> Engine:
        engine = world.bare_engine(**options)

        def set_context(connection: Any, *_: Any) -> None:
            principal = maybe_principal()
            if principal is not None:
                connection.execute(text("SELECT set_config('axis.context', :sealed, true)"), {"sealed": world.sealed(principal)})

        event.listen(engine, "begin", set_context)

        @event.listens_for(engine, "after_cursor_execute")
        def after_savepoint(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
            if statement.startswith("SELECT 'in the savepoint'"):
                set_context(connection)

        return engine

    world.make_engine = make


def thread_local_principal(world: World) -> None:
    """The principal lives in a thread-local, which tasks of one event loop share and which nobody resets; threads fall back to the last one."""
    local = threading.local()
    last: list[Principal] = []

    @contextmanager
    def acting(principal: Principal) -> Iterator[Principal]:
        local.principal = principal
        last.append(principal)
        yield principal

    def make(**options: Any) -> Engine:
        engine = world.bare_engine(**options)

        @event.listens_for(engine, "begin")
        def on_begin(connection: Any) -> None:
            principal = getattr(local, "principal", None) or (last[0] if last else None)
            if principal is not None:
                connection.execute(text("SELECT set_config('axis.context', :sealed, true)"), {"sealed": world.sealed(principal)})

        return engine

    world.acting = acting
    world.make_engine = make


def trust_the_setting(world: World, *, fallback: str | None = None) -> None:
    """The database believes whatever the setting says: no seal, no expiry; with *fallback*, even nothing at all is believed."""
    setting = "nullif(current_setting('axis.context', true), '')"
    if fallback is not None:
        setting = f"coalesce({setting}, 'axis1 1 0 {fallback} nobody owner x')"
    world.admin(f"CREATE OR REPLACE FUNCTION axis.context() RETURNS text LANGUAGE sql STABLE AS $$ SELECT {setting} $$")

"""Binding for asyncpg: the guard sits on the connection's protocol object.

Connections, prepared statements (SQLAlchemy keeps those and runs them without asking the connection again), cursors and COPY all end in
a handful of methods of the protocol object. The guard is a subclass that holds the rule there. asyncpg waits for each answer before it
sends again, so the context costs one round trip after BEGIN, and one more the first time on each connection, to prepare it.

The protocol is not public API of asyncpg; :func:`guard` refuses a version that lacks these methods.
"""

from __future__ import annotations

import contextlib
import functools
import re
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from axis_security.core.errors import ConfigError, MissingExtra
from axis_security.rls.bind import Binder, Bound, SessionNotClean, guarded_already, outside
from axis_security.rls.posture import Posture

if TYPE_CHECKING:
    from collections.abc import Awaitable

try:
    import asyncpg  # type: ignore[import-untyped]
except ImportError:
    raise MissingExtra(package="asyncpg", extra="asyncpg") from None

__all__ = ["guard", "guard_pool", "is_closed", "is_guarded", "upkeep"]

_BEGIN: Final = re.compile(r"BEGIN[ A-Z]*;?", re.ASCII)
_END: Final = re.compile(r"(COMMIT|ROLLBACK|ROLLBACK TO [\w]+|RELEASE SAVEPOINT [\w]+);?", re.ASCII)
"""What asyncpg's transaction objects send at the end; ending is always allowed."""
_CHECKED: Final = (
    "prepare",
    "bind_execute",
    "bind_execute_many",
    "bind",
    "execute",
    "copy_out",
    "copy_in",
)
_HOOKS: Final = (*_CHECKED, "query", "is_in_transaction", "abort")


class _State:
    __slots__ = ("binder", "bound", "connection", "posture", "prepared", "upkeep")

    def __init__(self, binder: Binder, posture: Posture | None, connection: Any) -> None:
        self.binder = binder
        self.posture = posture
        self.bound: Bound | None = None
        self.connection = weakref.ref(connection)
        self.prepared: dict[str, Any] = {}
        self.upkeep = False


@functools.cache
def _guarded_class(base: Any) -> Any:
    missing = [hook for hook in _HOOKS if not hasattr(base, hook)]
    if missing:
        raise ConfigError(
            what="this version of asyncpg cannot be guarded",
            why=f"its protocol lacks {', '.join(missing)}, where the binding is held",
            fix="use an asyncpg version that this release of axis-security was tested with",
        )

    class Guarded(base):  # type: ignore[misc]  # a class made at run time
        __slots__ = ()
        __module__ = base.__module__

        def _axis_check(self) -> None:
            state = self._axis
            if state.upkeep:
                return
            if self.is_in_transaction():
                state.binder.admit(state.bound)
            else:
                outside(state.binder)

        def query(self, query: str, timeout: float | None) -> Awaitable[Any]:
            state = self._axis
            if state.upkeep or _END.fullmatch(query):
                return super().query(query, timeout)  # type: ignore[no-any-return]
            if self.is_in_transaction():
                state.binder.admit(state.bound)
                return super().query(query, timeout)  # type: ignore[no-any-return]
            connection = state.connection()
            if connection is not None and query == connection.get_reset_query():
                return super().query(query, timeout)  # type: ignore[no-any-return]
            if _BEGIN.fullmatch(query):
                state.bound = None
                try:
                    bound = state.binder.begin()
                except BaseException:
                    # asyncpg has noted the transaction as open before sending BEGIN; nothing was sent.
                    if connection is not None:
                        connection._top_xact = None
                    raise
                return self._axis_begin(query, timeout, bound)
            return outside(state.binder)

        async def _axis_begin(self, query: str, timeout: float | None, bound: Bound) -> Any:
            state = self._axis
            try:
                if state.posture is not None:
                    state.posture.check((await self._axis_run(state.posture.question, (), timeout))[0][0])
                    state.posture = None
                answer = await super().query(query, timeout)
                if not (await self._axis_run(bound.sql, bound.params, timeout))[0][0]:
                    raise SessionNotClean
            except BaseException:
                # BEGIN may have reached the server and the context not: nobody may find that transaction. The connection is told, not the
                # protocol alone: before 0.32 a pool waits for ever for one whose protocol was aborted.
                connection = state.connection()
                (self.abort if connection is None else connection.terminate)()
                raise
            state.bound = bound
            return answer

        async def _axis_run(self, sql: str, params: tuple[str, ...], timeout: float | None) -> Any:
            prepared = self._axis.prepared.get(sql)
            if prepared is None:
                prepared = await super().prepare(
                    "",
                    sql,
                    timeout,
                    ignore_custom_codec=True,
                    record_class=asyncpg.Record,
                )
                prepared._init_types()
                prepared._init_codecs()
                self._axis.prepared[sql] = prepared
            # The unnamed statement, parsed again in the same flush: a named one would not survive a pooler in transaction mode.
            prepared.mark_unprepared()
            return await super().bind_execute(prepared, params, "", 1, False, timeout)

    for name in _CHECKED:
        setattr(Guarded, name, _checked(name, getattr(base, name)))
    Guarded.__name__ = Guarded.__qualname__ = f"Guarded{base.__name__}"
    return Guarded


def _checked(name: str, original: Any) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._axis_check()
        return original(self, *args, **kwargs)

    method.__name__ = name
    return method


def _protocol(connection: Any) -> Any:
    # A pool hands out proxies of its connections.
    return getattr(getattr(connection, "_con", connection), "_protocol", None)


def is_guarded(connection: object) -> bool:
    """Whether *connection* is guarded already."""
    return hasattr(_protocol(connection), "_axis")


def is_closed(connection: Any) -> bool:
    """Whether *connection* is closed already: by its guard, or by whoever."""
    return bool(connection.is_closed())


def guard(connection: Any, binder: Binder, posture: Posture | None) -> None:
    """Hold the rule on *connection* from now on; idempotent. *posture* is asked before the connection's first transaction.

    Raises:
        ConfigError: a transaction is open, the connection is guarded by another binder, or asyncpg lacks the methods to hold on to.
    """
    protocol = _protocol(connection)
    if guarded_already("connection", protocol._axis.binder if is_guarded(connection) else None, binder):
        return
    if protocol is None or protocol.is_in_transaction():
        raise ConfigError(
            what="the connection cannot be guarded",
            why="it is closed or in a transaction; what began unbound cannot be bound afterwards",
            fix="commit or roll back before installing the tenancy",
        )
    base: Any = type(protocol)
    guarded = _guarded_class(base)
    protocol._axis = _State(binder, posture, getattr(connection, "_con", connection))
    protocol.__class__ = guarded


@contextlib.contextmanager
def upkeep(connection: object) -> Iterator[None]:
    """The pool's own business on a connection that nobody has been given; see :func:`axis_security.rls.bind_psycopg.upkeep`."""
    state = getattr(_protocol(connection), "_axis", None)
    if state is None:
        yield
        return
    state.upkeep = True
    try:
        yield
    finally:
        state.upkeep = False


def guard_pool(pool: Any, binder: Binder, posture: Posture | None) -> None:
    """Guard every connection that *pool* (an ``asyncpg.Pool``) hands out, idempotent; its own ``setup=`` and ``reset=`` need no principal.

    Raises:
        ConfigError: the pool is guarded by another binder, or lacks what the guard holds on to.
    """
    if any(not hasattr(pool, name) for name in ("_acquire", "_setup", "_reset", "_holders")):
        raise ConfigError(
            what="this version of asyncpg cannot be guarded",
            why="its pool lacks `_acquire`, `_setup`, `_reset` or `_holders`",
            fix="use a version that this release was tested with",
        )
    if guarded_already("pool", getattr(pool, "_axis_binder", None), binder):
        return
    pool._setup, pool._reset = _in_upkeep(pool._setup), _in_upkeep(pool._reset)
    for holder in pool._holders:
        holder._setup = pool._setup
    base: Any = type(pool)

    class Guarded(base):  # type: ignore[misc]  # a class made at run time: the pool's attributes are slots
        __slots__ = ()
        __module__ = base.__module__
        _axis_binder = binder

        async def _acquire(self, timeout: float | None) -> Any:
            connection = await super()._acquire(timeout)
            try:
                guard(connection, binder, posture)
            except BaseException:
                await self.release(connection)
                raise
            return connection

    Guarded.__name__ = Guarded.__qualname__ = f"Guarded{base.__name__}"
    pool.__class__ = Guarded


def _in_upkeep(work: Any) -> Any:
    if work is None:
        return None

    async def awork(connection: Any) -> Any:
        with upkeep(connection):
            return await work(connection)

    return awork

"""Binding for psycopg 3: one guard for sync and async connections.

Every operation of psycopg (cursors of all kinds, COPY, ``executemany``, ``stream``, ``pipeline()``, ``transaction()``, two-phase) is a
generator that passes two points of its connection: ``_start_query`` before a statement, and ``_exec_command`` for what psycopg sends of
its own accord, BEGIN included. The guard is a subclass that holds the rule at these two. A connection is guarded by giving it that
class, so the same object that a pool or an engine already knows is the one that refuses.

BEGIN and the context go in one flush (libpq's pipeline mode), so the binding costs no round trip: psycopg would have waited for its own
BEGIN anyway, and after ours it sees an open transaction and sends none.

These two points are not public API of psycopg; :func:`guard` refuses a version that lacks them, and the tests fail if one is not passed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors as pg_errors
from psycopg import generators, pq
from psycopg.sql import Composable

from axis_security.core.errors import ConfigError
from axis_security.rls.bind import Binder, Bound, SessionNotClean, guarded_already, outside
from axis_security.rls.posture import Posture

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

__all__ = ["guard", "guard_class", "guard_pool", "is_closed", "is_guarded", "upkeep"]

_IDLE: Final = pq.TransactionStatus.IDLE
_TEXT: Final = pq.Format.TEXT
_FATAL: Final = pq.ExecStatus.FATAL_ERROR
_SYNC: Final = pq.ExecStatus.PIPELINE_SYNC
# Before 3.3 psycopg does not undo a `transaction()` that could not be entered: it goes on counting it, and asserts at the next one.
_COUNTS_REFUSED: Final = not hasattr(psycopg.Transaction, "_check_enter")
_HOOKS: Final = (
    "_start_query",
    "_exec_command",
    "_get_tx_start_command",
    "_check_connection_ok",
)


class _State:
    """What the guard knows of one connection."""

    __slots__ = ("binder", "bound", "posture", "upkeep")

    def __init__(self, binder: Binder, posture: Posture | None) -> None:
        self.binder = binder
        self.posture = posture
        """Still to be asked, before the first BEGIN."""
        self.bound: Bound | None = None
        self.upkeep = False


_NOTHING: Final[Any] = ()
_ENDS: Final = frozenset({b"COMMIT", b"ROLLBACK"})


def _exchange(pgconn: pq.abc.PGconn, *commands: tuple[bytes, list[bytes] | None]) -> PQGen[list[PGresult]]:
    """Send *commands* in one flush and read the answers, in libpq's pipeline mode (also within psycopg's, while nothing is in flight)."""
    results: list[PGresult] = []
    ours = pgconn.pipeline_status == pq.PipelineStatus.OFF
    try:
        if ours:
            pgconn.enter_pipeline_mode()
        for text, params in commands:
            pgconn.send_query_params(text, params)
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        while not results or results[-1].status != _SYNC:
            results += yield from generators.fetch_many(pgconn)
        if ours:
            pgconn.exit_pipeline_mode()
    except BaseException:
        # Half a pipeline is a connection that nobody can use safely; a closed one is refused by every pool.
        pgconn.finish()
        raise
    for result in results:
        if result.status == _FATAL:
            raise pg_errors.error_from_result(result)
    return results


@functools.cache
def _guarded_class(base: Any) -> Any:
    """A subclass of *base* that holds the rule. Made per class, with *base* alone as its base: only then does the layout stay the same."""
    missing = [hook for hook in _HOOKS if not hasattr(base, hook)]
    if missing:
        raise ConfigError(
            what="this version of psycopg cannot be guarded",
            why=f"its connections lack {', '.join(missing)}, where the binding is held",
            fix="use a psycopg version that this release of axis-security was tested with",
        )

    class Guarded(base):  # type: ignore[misc]  # a class made at run time
        __slots__ = ()  # the layout of *base*, which is what lets a connection change its class
        __module__ = base.__module__

        def _start_query(self) -> Any:
            # Not a generator itself, so that the check has no cost but the call; `yield from ()` is what the caller does with the answer.
            state = self._axis
            if state.upkeep:
                return super()._start_query()
            if self.pgconn.transaction_status != _IDLE:
                state.binder.admit(state.bound)
                return _NOTHING
            if self._autocommit:
                outside(state.binder)
            return super()._start_query()

        def _exec_command(self, command: Any, result_format: pq.Format = _TEXT) -> Any:
            state = self._axis
            if not state.upkeep:
                if isinstance(command, Composable):
                    command = command.as_bytes(self)
                elif isinstance(command, str):
                    command = command.encode()
                if command.startswith(b"BEGIN"):
                    return self._axis_begin(command)
                if command.startswith((b"FETCH", b"MOVE")):  # server-side cursors read on without `_start_query`
                    state.binder.admit(state.bound)
                elif command in _ENDS:
                    # In a pipeline the status says "active" until it is read: without this, the next statement would slip into no transaction.
                    state.bound = None
                    if self.pgconn.transaction_status == _IDLE:
                        return _NOTHING  # psycopg undoes a `transaction()` whose BEGIN was refused; nothing was sent
            return super()._exec_command(command, result_format)

        def _axis_begin(self, command: bytes) -> Any:
            state = self._axis
            state.bound = None
            try:
                bound = state.binder.begin()
                self._check_connection_ok()
                if state.posture is not None:
                    answer = (yield from _exchange(self.pgconn, (state.posture.question.encode(), None)))[0].get_value(0, 0)
                    state.posture.check(answer or b"")
                    state.posture = None
            except BaseException:
                # No BEGIN was sent, so none is open: nor is a two-phase one, which psycopg notes before it.
                self._tpc = None  # type: ignore[misc]  # the base class has a __dict__
                if _COUNTS_REFUSED:
                    self._num_transactions = 0  # type: ignore[misc]  # the base class has a __dict__
                raise
            context = (bound.sql.encode(), [value.encode() for value in bound.params])
            if self._pipeline:
                yield from super()._exec_command(command)
                self._pipeline.command_queue.append(partial(self.pgconn.send_query_params, *context))
                self._pipeline.result_queue.append(None)
                state.bound = bound
                return None
            begun, told, *_ = yield from _exchange(self.pgconn, (command, None), context)
            if not told.get_value(0, 0):
                self.pgconn.finish()  # what was planted stays with the session; a closed connection is refused by every pool
                raise SessionNotClean
            state.bound = bound
            return begun

    Guarded.__name__ = Guarded.__qualname__ = f"Guarded{base.__name__}"
    return Guarded


def is_guarded(connection: object) -> bool:
    """Whether *connection* is guarded already."""
    return "_axis" in getattr(connection, "__dict__", ())


def is_closed(connection: Any) -> bool:
    """Whether *connection* is closed already: by its guard, or by whoever."""
    return bool(connection.closed)


def guard(
    connection: Any,
    binder: Binder,
    posture: Posture | None,
) -> None:
    """Hold the rule on *connection* from now on; idempotent. *posture* is asked before the connection's first transaction.

    Raises:
        ConfigError: a transaction is open, the connection is guarded by another binder, or psycopg lacks the points to hold on to.
    """
    if guarded_already("connection", connection._axis.binder if is_guarded(connection) else None, binder):
        return
    if connection.info.transaction_status != _IDLE:
        raise ConfigError(
            what="the connection is in a transaction",
            why="what began unbound cannot be bound afterwards",
            fix="commit or roll back before installing the tenancy",
        )
    base: Any = type(connection)
    guarded = _guarded_class(base)
    connection._axis = _State(binder, posture)
    connection.__class__ = guarded


@contextlib.contextmanager
def upkeep(connection: Any) -> Iterator[None]:
    """The pool's own business (ping, reset, configure) on a connection that nobody has been given: it needs no principal.

    It runs unbound, so the database answers AX001 to anything that touches a tenant's rows.
    """
    if not is_guarded(connection):
        yield
        return
    state = connection._axis
    state.upkeep = True
    try:
        yield
    finally:
        state.upkeep = False


def guard_class(base: type[Any], binder: Binder, posture: Posture | None) -> type[Any]:
    """A subclass of *base* (a psycopg connection class) whose connections are guarded from birth."""

    class Guarded(_guarded_class(base)):  # type: ignore[misc]  # a class made at run time
        __slots__ = ()
        __module__ = base.__module__

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._axis = _State(binder, posture)  # type: ignore[misc]  # the base class has a __dict__

    Guarded.__name__ = Guarded.__qualname__ = f"Guarded{base.__name__}"
    return Guarded


def guard_pool(pool: Any, binder: Binder, posture: Posture | None) -> None:
    """Guard every connection that *pool* (of psycopg_pool, sync or async) hands out; its own checks and resets need no principal.

    Raises:
        ConfigError: the pool lacks what the guard holds on to.
    """
    if any(not hasattr(pool, name) for name in ("getconn", "_check", "_reset")):
        raise ConfigError(
            what="this version of psycopg_pool cannot be guarded",
            why="its pools lack `_check` or `_reset`",
            fix="use a version that this release was tested with",
        )
    if guarded_already("pool", getattr(pool, "_axis_binder", None), binder):
        return
    pool._axis_binder = binder
    getconn, putconn = pool.getconn, pool.putconn
    if inspect.iscoroutinefunction(getconn):

        async def agetconn(*args: Any, **kwargs: Any) -> Any:
            connection = await getconn(*args, **kwargs)
            try:
                guard(connection, binder, posture)
            except BaseException:
                await putconn(connection)
                raise
            return connection

        pool.getconn = agetconn
    else:

        def sgetconn(*args: Any, **kwargs: Any) -> Any:
            connection = getconn(*args, **kwargs)
            try:
                guard(connection, binder, posture)
            except BaseException:
                putconn(connection)
                raise
            return connection

        pool.getconn = sgetconn
    pool._check, pool._reset = _in_upkeep(pool._check), _in_upkeep(pool._reset)


def _in_upkeep(work: Any) -> Any:
    if work is None:
        return None
    if inspect.iscoroutinefunction(work):

        async def awork(connection: Any) -> Any:
            with upkeep(connection):
                return await work(connection)

        return awork

    def swork(connection: Any) -> Any:
        with upkeep(connection):
            return work(connection)

    return swork

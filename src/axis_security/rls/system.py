"""Declared work across tenants: another login, a reason, an end, and an audit event before anything is done.

There is no flag that lifts the policies: a setting that does can be set by injected SQL, and it costs every query its index. System work
connects as another role with its own policy. The application's engine keeps its rule inside a system scope as well.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar, Token
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, ClassVar, Final

from axis_security.core.clock import Clock
from axis_security.core.context import maybe_principal
from axis_security.core.errors import AxisError, ConfigError
from axis_security.core.events import MAX_TEXT, AuditEvent, EventKind, EventSink, Outcome, Scalar
from axis_security.rls.bind import Bound

__all__ = ["MAX_LASTING", "SystemAccess", "SystemBinder", "SystemScope", "SystemScopeEnded", "SystemScopeRequired"]

MAX_LASTING: Final = timedelta(hours=8)
"""Longest scope: a working day. Longer work asks again."""

# PostgreSQL 17 and later end the whole transaction at the deadline; before that, each statement and each pause.
_DEADLINE: Final = (
    "SELECT pg_catalog.set_config('statement_timeout',$1,true),pg_catalog.set_config('idle_in_transaction_session_timeout',$1,true),"
    "CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 170000 THEN pg_catalog.set_config('transaction_timeout',$1,true) END"
)


class SystemScopeRequired(AxisError):
    """The system login was used outside a declared scope."""

    code = "rls.system_scope_required"

    def __init__(self) -> None:
        super().__init__(
            what="the system login was used outside a system scope; the statement was not sent",
            why="work across tenants is declared, with a reason and an end",
            fix='use the connection that `with tenancy.system(reason="…", lasting=timedelta(minutes=15)) as connection:` gives',
        )


class SystemScopeEnded(AxisError):
    """The declared time is over."""

    code = "rls.system_scope_ended"
    http_status: ClassVar[int] = 403

    def __init__(self) -> None:
        super().__init__(
            what="the system scope has ended; the statement was not sent",
            why="its declared time is over",
            fix="open another scope for what is left; commit in batches that fit",
        )


class SystemScope:
    """One stretch of declared work; sync and async context manager that gives a connection.

    A clean end commits, an exception rolls back. After the deadline statements are refused here, and the server ends what still runs.
    """

    __slots__ = ("_access", "_connection", "_lasting", "_reason", "_token", "ends", "statements")

    def __init__(self, access: SystemAccess, *, reason: str, lasting: timedelta) -> None:
        self._access = access
        self._reason = reason
        self._lasting = lasting
        self._connection: Any = None
        self._token: Token[SystemScope | None] | None = None
        self.ends: datetime | None = None
        self.statements: int = 0

    def _open(self) -> None:
        if self.ends is not None:
            raise ConfigError(
                what="a system scope is used twice", why="each stretch of work is declared by itself", fix="call tenancy.system(...) again"
            )
        access = self._access
        # INVARIANT: the event is kept before the login is used; a sink that cannot keep it raises, and nothing is opened.
        access.emit(
            EventKind.SYSTEM_SCOPE_OPENED,
            Outcome.ALLOWED,
            self._reason,
            lasting_seconds=int(self._lasting.total_seconds()),
            login=access.login,
        )
        self.ends = access.clock.now() + self._lasting
        self._token = _SCOPE.set(self)

    def _closed(self, outcome: Outcome) -> None:
        access = self._access
        try:
            access.emit(EventKind.SYSTEM_SCOPE_CLOSED, outcome, self._reason, login=access.login, statements=self.statements)
        finally:
            if self._token is not None:
                with suppress(ValueError):  # left in another context than it was entered in, which never saw the scope
                    _SCOPE.reset(self._token)
                self._token = None

    def _in_time(self) -> None:
        if self.ends is None or self._access.clock.now() >= self.ends:
            raise SystemScopeEnded

    def __enter__(self) -> Any:
        """Open the scope and give a SQLAlchemy connection of the system login.

        Raises:
            Whatever the event sink raises: without the event there is no access.
        """
        self._open()
        try:
            self._connection = self._access.engine.connect()
        except BaseException:
            self._closed(Outcome.FAILED)
            raise
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        outcome = Outcome.FAILED
        try:
            try:
                if kind is None:
                    self._in_time()
                    self._connection.commit()
                    outcome = Outcome.ALLOWED
            finally:
                self._connection.close()  # rolls back what was not committed
        finally:
            self._closed(outcome)

    async def __aenter__(self) -> Any:
        """As :meth:`__enter__`, for an async system engine."""
        self._open()
        try:
            self._connection = await self._access.engine.connect()
        except BaseException:
            self._closed(Outcome.FAILED)
            raise
        return self._connection

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        outcome = Outcome.FAILED
        try:
            try:
                if kind is None:
                    self._in_time()
                    await self._connection.commit()
                    outcome = Outcome.ALLOWED
            finally:
                await self._connection.close()
        finally:
            self._closed(outcome)


_SCOPE: Final[ContextVar[SystemScope | None]] = ContextVar("axis_security.system_scope", default=None)


class SystemBinder:
    """Lets the system login be used inside an open scope only, and hands the deadline to the server."""

    __slots__ = ("_clock",)

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock

    def begin(self) -> Bound:
        """Bind the transaction to the open scope.

        Raises:
            SystemScopeRequired: no scope is open.
            SystemScopeEnded: its time is over.
        """
        scope = _SCOPE.get()
        if scope is None or scope.ends is None:
            raise SystemScopeRequired
        left = scope.ends - self._clock.now()
        if left <= timedelta(0):
            raise SystemScopeEnded
        scope.statements += 1
        return Bound(scope, _DEADLINE, (str(max(1, int(left.total_seconds() * 1000))),))

    def admit(self, bound: Bound | None) -> None:
        """Let the scope that the transaction began in through, while it lasts.

        Raises:
            SystemScopeRequired: no scope, or another one, is open.
            SystemScopeEnded: its time is over.
        """
        scope = _SCOPE.get()
        if scope is None or bound is None or bound.owner is not scope or scope.ends is None:
            raise SystemScopeRequired
        if self._clock.now() >= scope.ends:
            raise SystemScopeEnded
        scope.statements += 1


class SystemAccess:
    """Opens system scopes on one engine, whose login is the system role (or a login with its rights and no more).

    Args:
        engine: a SQLAlchemy ``Engine`` or ``AsyncEngine``, guarded with a :class:`SystemBinder`.
        sink: keeps the events; if it raises, there is no access.
        clock: tells the time.
    """

    __slots__ = ("_sink", "clock", "engine", "login")

    def __init__(self, *, engine: Any, sink: EventSink, clock: Clock) -> None:
        self.engine: Final = engine
        self.login: Final = str(engine.url.username or "")
        self._sink: Final = sink
        self.clock: Final = clock

    def open(self, *, reason: str, lasting: timedelta) -> SystemScope:
        """A scope, to be entered with ``with`` or ``async with``.

        Raises:
            ConfigError: no reason, or a time that is not usable.
        """
        words = " ".join(reason.split()) if isinstance(reason, str) else ""
        if not 3 <= len(words) <= MAX_TEXT or not timedelta(0) < lasting <= MAX_LASTING:
            raise ConfigError(
                what="a system scope was not opened",
                why="it needs a reason in words, and a time of at most eight hours",
                fix='tenancy.system(reason="INC-214 backfill", lasting=timedelta(minutes=15))',
            )
        return SystemScope(self, reason=words, lasting=lasting)

    def emit(self, kind: EventKind, outcome: Outcome, reason: str, **detail: Scalar) -> None:
        """Keep an event of the acting principal, or of nobody."""
        at, who = self.clock.now(), maybe_principal()
        event = AuditEvent.by(who, kind, at=at, outcome=outcome, target=None, reason=reason, **detail)
        self._sink.emit(event)

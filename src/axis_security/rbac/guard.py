"""``@requires`` and ``@public``: the decision in front of every call.

Deny is the default and the answer to every doubt: nobody acting, no policy in force, an unknown role, a condition that raises. The
usual yes (the role holds the capability outright) costs one test for membership in the capability's set of roles; everything else goes the long way
through :meth:`Policy.decide <axis_security.rbac.policy.Policy.decide>` and explains itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

from axis_security.core.context import _PRINCIPAL, maybe_principal
from axis_security.core.errors import ConfigError, PrincipalRequired
from axis_security.core.events import MAX_TEXT, AuditEvent, EventKind, Outcome
from axis_security.core.principal import Assurance, Principal
from axis_security.rbac.capability import Capability, Holders
from axis_security.rbac.decision import Decision, DecisionCode, PermissionDenied
from axis_security.rbac.registered import refuse_registered

__all__ = ["Guard", "Open", "Record", "decide", "guard_of", "public", "recording", "requires"]

F = TypeVar("F", bound=Callable[..., Any])
_HANDLERS: Final = (
    *("get", "post", "put", "patch", "delete", "head", "options", "trace", "query"),
    *("on_connect", "on_receive", "on_disconnect"),
)
_DISPATCHERS: Final = ("dispatch", "dispatch_request")
_current: Final = _PRINCIPAL.get  # bound once: the guard's own cost is counted in tens of nanoseconds


@dataclass(frozen=True, slots=True)
class Guard:
    """What a guarded function demands; kept on it as ``__axis_guard__`` for the audit of routes."""

    capability: str
    fresh: timedelta | None = None
    aal: Assurance | None = None
    inner: Guard | None = None
    """A guard below this one; both must say yes."""


@dataclass(frozen=True, slots=True)
class Open:
    """Why a function is open to everybody; kept on it as ``__axis_guard__``."""

    reason: str


class Record:
    """Whether a decision was made while handling a request; the gate refuses an answer without one."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made: bool = False


_RECORD: Final[ContextVar[Record | None]] = ContextVar("axis_security.rbac.record", default=None)


@contextmanager
def recording() -> Iterator[Record]:
    """Note in the yielded record whether any guard or :func:`decide` ran inside the block, in this context or a copy of it."""
    record = Record()
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)


def guard_of(function: object) -> Guard | Open | None:
    """The mark that :func:`requires` or :func:`public` left on *function*; ``None``: nobody decided anything about it."""
    mark = getattr(function, "__axis_guard__", None)
    return mark if isinstance(mark, (Guard, Open)) else None


def decide(
    principal: Principal | None,
    capability: Capability,
    resource: Any = None,
    *,
    fresh: timedelta | None = None,
    aal: Assurance | None = None,
) -> Decision:
    """May *principal* use *capability* (on *resource*)? By the policy in force; never raises for a no. A denial is written to the policy's events."""
    record = _RECORD.get()
    if record is not None:
        record.made = True
    policy = capability.in_force.policy
    if policy is None:
        return Decision(False, DecisionCode.NO_POLICY, capability.name, principal)
    decision = policy.decide(principal, capability, resource, fresh=fresh, aal=aal)
    if not decision.allowed:
        policy.events.emit(
            AuditEvent.by(
                principal,
                EventKind.DECISION,
                at=policy.clock.now(),
                outcome=Outcome.FAILED if decision.code is DecisionCode.CONDITION_ERROR else Outcome.DENIED,
                capability=decision.capability,
                code=str(decision.code),
                rule=None if decision.rule is None else decision.rule[:MAX_TEXT],
                missing=" ".join(decision.missing),
            )
        )
    return decision


def requires(
    capability: Capability,
    *,
    resource: str | Callable[..., Any] | None = None,
    fresh: timedelta | None = None,
    aal: Assurance | None = None,
) -> Callable[[F], F]:
    """Let a call through only if the acting principal holds *capability*.

    For functions, methods, generators, their async kinds, and classes of views (every handler, and a ``dispatch`` of their own, in subclasses too). A generator is
    checked when it is first advanced, before any of its body runs. Write it right above ``def``, below the route's decorator.

    Args:
        resource: the object that conditions look at: the name of a parameter, or a callable that takes the call's arguments and
            returns the object (or an awaitable of it, for async functions). It is only asked where a condition must be evaluated.
        fresh: how long ago the person may have signed in at most.
        aal: how strongly they must have signed in.

    Raises:
        ConfigError: (at decoration) not a capability, an unknown parameter, not a callable, or marked ``@public``.
        AlreadyRegistered: (at decoration) a framework already holds the unguarded function.
        PrincipalRequired: (at the call) nobody is acting.
        PermissionDenied: (at the call) the answer is no; carries the :class:`Decision`.
    """
    if not isinstance(capability, Capability):
        raise ConfigError(
            what="@requires takes a capability",
            why=f"it was given a {type(capability).__name__}",
            fix="write @requires(caps.users.manage), without quotes, and with the call",
        )
    if fresh is not None and fresh <= timedelta(0):
        raise ConfigError(
            what="`fresh` admits no sign-in", why="it is not a positive length of time", fix="write fresh=timedelta(minutes=5)"
        )

    def decorate(function: F) -> F:
        if callable(function) and not isinstance(function, (type, staticmethod, classmethod)):
            refuse_registered(function)
        return cast("F", _guarded(function, _Check(capability, resource, fresh, aal)))

    return decorate


def public(reason: str) -> Callable[[F], F]:
    """Mark an endpoint as open to everybody, with the *reason*; the only opt-out, and listed by the audit of routes.

    Raises:
        ConfigError: (at decoration) no reason, or the function is guarded as well.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigError(
            what="@public needs a reason", why="an endpoint open to everybody should say why", fix='write @public("health probe")'
        )

    def mark(function: F) -> F:
        if isinstance(guard_of(function), Guard):
            raise ConfigError(what="an endpoint is both guarded and public", why="@public stands above @requires", fix="keep one of them")
        function.__axis_guard__ = Open(reason)  # type: ignore[attr-defined]
        return function

    return mark


class _Check:
    """One guard's question; `admit` and `admit_async` are the long way."""

    __slots__ = ("aal", "capability", "fresh", "resource")

    def __init__(
        self, capability: Capability, resource: str | Callable[..., Any] | None, fresh: timedelta | None, aal: Assurance | None
    ) -> None:
        self.capability: Final = capability
        self.resource: Final = resource
        self.fresh: Final = fresh
        self.aal: Final = aal

    def bind(self, function: Callable[..., Any]) -> _Check:
        """With a parameter's name turned into a function that picks the argument."""
        if not isinstance(self.resource, str):
            return self
        signature = inspect.signature(function)
        name, parameters = self.resource, signature.parameters
        if name not in parameters and all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            raise ConfigError(
                what=f"`{function.__qualname__}` has no parameter `{name}`",
                why="resource= names the argument that conditions look at",
                fix="name one of its parameters, or pass a callable",
            )

        def pick(*args: Any, **kwargs: Any) -> Any:
            # A door of a class takes what its handlers name as **kwargs.
            return signature.bind(*args, **kwargs).arguments.get(name, kwargs.get(name))

        return _Check(self.capability, pick, self.fresh, self.aal)

    def _needs_resource(self, principal: Principal | None) -> bool:
        policy = self.capability.in_force.policy
        if self.resource is None or principal is None or policy is None:
            return False
        holding = policy.holding(principal.role, principal.tenant)
        return holding is not None and self.capability.bit in holding.conditional

    def _settle(self, principal: Principal | None, thing: Any) -> None:
        decision = decide(principal, self.capability, thing, fresh=self.fresh, aal=self.aal)
        if decision.allowed:
            return
        if decision.code is DecisionCode.NO_PRINCIPAL or (principal is None and decision.code is DecisionCode.NO_POLICY):
            raise PrincipalRequired
        raise PermissionDenied(decision)

    def _load(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.resource(*args, **kwargs) if callable(self.resource) else None

    def admit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        principal = maybe_principal()
        thing = None
        if self._needs_resource(principal):
            thing = self._load(args, kwargs)
            if inspect.isawaitable(thing):
                if inspect.iscoroutine(thing):
                    thing.close()
                thing = None
        self._settle(principal, thing)

    async def admit_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        principal = maybe_principal()
        thing = None
        if self._needs_resource(principal):
            thing = self._load(args, kwargs)
            if inspect.isawaitable(thing):
                thing = await thing
        self._settle(principal, thing)


def _guarded(function: Any, check: _Check) -> Any:
    if isinstance(function, type):
        return _guarded_class(function, check)
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(_guarded(function.__func__, check))
    if not callable(function) or isinstance(function, property):
        raise ConfigError(
            what="@requires cannot guard this",
            why=f"a {type(function).__name__} is not called",
            fix="put @requires right above `def`, below @property",
        )
    below = guard_of(function)
    if isinstance(below, Open):
        raise ConfigError(what="an endpoint is both guarded and public", why="@requires stands above @public", fix="keep one of them")
    check = check.bind(function)
    wrapper = _wrap(function, check)
    wrapper.__axis_guard__ = Guard(check.capability.name, check.fresh, check.aal, below)
    return wrapper


def _wrap(function: Callable[..., Any], check: _Check) -> Any:
    # The fast path is written out in each kind: a shared helper would cost a call.
    admit, admit_async, current, record_of = check.admit, check.admit_async, _current, _RECORD.get
    # A guard that asks for a step-up has no fast path: nobody holds it without condition.
    holders = check.capability.holders if check.fresh is None and check.aal is None else Holders()

    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004  # asking for its kind

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            who = current()
            if who is not None and who.role in holders.roles:
                record = record_of()
                if record is not None:
                    record.made = True
            else:
                await admit_async(args, kwargs)
            return await function(*args, **kwargs)

        return coroutine

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def async_generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            await admit_async(args, kwargs)
            inner = function(*args, **kwargs)
            try:
                step = inner.__anext__()
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001  # thrown in by the consumer: the guarded generator's to handle
                        step = inner.athrow(error)
                    else:
                        step = inner.asend(sent)
            finally:
                await inner.aclose()

        return async_generator

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            admit(args, kwargs)
            return (yield from function(*args, **kwargs))

        return generator

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        who = current()
        if who is not None and who.role in holders.roles:
            record = record_of()
            if record is not None:
                record.made = True
        else:
            admit(args, kwargs)
        return function(*args, **kwargs)

    return plain


def _plain_init_subclass(_: type, /, **kwargs: Any) -> None:
    object.__init_subclass__(**kwargs)


def _handlers(cls: type) -> list[str]:
    """The names of handlers that a framework may call on *cls*: the usual ones, and what Django and Flask are told besides."""
    told = [getattr(cls, "http_method_names", ()), getattr(cls, "methods", ())]
    return list(dict.fromkeys((*_HANDLERS, *(str(name).lower() for names in told if isinstance(names, Collection) for name in names))))


def _guarded_class(cls: type, check: _Check) -> type:
    names = [name for name in _handlers(cls) if callable(getattr(cls, name, None))]
    # What a class writes into its own door runs before every handler. And one that has no handler but its framework's `options` does its work there.
    names += [name for name in _DISPATCHERS if callable(getattr(cls, name, None)) and (name in cls.__dict__ or {*names} <= {"options"})]
    if not names:
        raise ConfigError(
            what=f"class `{cls.__qualname__}` has no handlers",
            why="@requires on a class guards get, post, …, or dispatch",
            fix="guard its methods one by one",
        )
    for name in names:
        setattr(cls, name, _guarded(inspect.getattr_static(cls, name), check))
    cls.__axis_guard__ = Guard(check.capability.name, check.fresh, check.aal)  # type: ignore[attr-defined]
    below = cls.__init_subclass__

    def guard_subclass(sub: type, /, **kwargs: Any) -> None:
        inherited: Callable[..., None] = getattr(below, "__func__", _plain_init_subclass)
        inherited(sub, **kwargs)
        # What a subclass defines anew, or has from a mixin, would otherwise be open while the class still looks guarded.
        for name in (*_handlers(sub), *_DISPATCHERS):
            own = inspect.getattr_static(sub, name, None)
            if own is not inspect.getattr_static(cls, name, None) and callable(getattr(sub, name)) and not isinstance(guard_of(own), Guard):
                setattr(sub, name, _guarded(own, check))

    cls.__init_subclass__ = classmethod(guard_subclass)  # type: ignore[assignment]
    return cls

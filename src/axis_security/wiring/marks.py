"""Marks on endpoints: what was decided about who may call them, and the one mark that asks for a session but for no capability."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError, PrincipalRequired
from axis_security.core.principal import Assurance
from axis_security.rbac.decision import Decision, DecisionCode, PermissionDenied, StepUp
from axis_security.rbac.guard import Guard, Open, guard_of
from axis_security.rbac.registered import refuse_registered
from axis_security.wiring.visit import maybe_visit

__all__ = ["SIGNED_IN", "mark_of", "signed_in"]

F = TypeVar("F", bound=Callable[..., Any])
SIGNED_IN: Final = "signed-in"
"""Stands for a capability in the mark of :func:`signed_in`; no capability's name looks like this."""


def mark_of(endpoint: object, method: str | None = None) -> Guard | Open | None:
    """The mark of an endpoint: a function, a method, a partial, a class of handlers, or an app.

    Args:
        method: for a class whose handlers carry the marks, the HTTP method; ``None`` asks for one mark that fits them all.
    """
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    mark = guard_of(endpoint)
    if mark is not None or method is None:
        return mark
    handler = getattr(endpoint, method.lower(), None)
    if handler is None and method == "HEAD":
        handler = getattr(endpoint, "get", None)
    return guard_of(handler)


def signed_in(*, fresh: timedelta | None = None, aal: Assurance | None = None, clock: Clock = SYSTEM_CLOCK) -> Callable[[F], F]:
    """Let a call through for whoever has a session, in any workspace or none: one's own devices, password, second factor, the choice of workspace.

    Args:
        fresh: how long ago the person may have signed in at most.
        aal: how strongly they must have signed in.

    Raises:
        ConfigError: (at decoration) a generator, a class, or a function that is marked already.
        AlreadyRegistered: (at decoration) a framework already holds the unguarded function.
        PrincipalRequired: (at the call) nobody is signed in.
        PermissionDenied: (at the call) a step-up is asked for.
    """
    needs = None if fresh is None and aal is None else StepUp(aal, fresh)

    def admit() -> None:
        visit = maybe_visit()
        session = None if visit is None else visit.session
        if visit is None or session is None:
            raise PrincipalRequired
        visit.note_decision()
        weak = aal is not None and session.live.assurance < aal
        if weak or (fresh is not None and not session.is_fresh(now=clock.now(), within=fresh)):
            raise PermissionDenied(Decision(False, DecisionCode.STEP_UP_REQUIRED, SIGNED_IN, visit.principal, needs=needs))

    def decorate(function: F) -> F:
        if (
            isinstance(function, type)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
            or guard_of(function) is not None
        ):
            raise ConfigError(
                what="@signed_in cannot guard this",
                why="it is a class, a generator, or marked already",
                fix="put it right above the `def` of one handler; @requires implies a session",
            )
        refuse_registered(function)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                admit()
                return await function(*args, **kwargs)
        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                admit()
                return function(*args, **kwargs)

        wrapper.__axis_guard__ = Guard(SIGNED_IN, fresh, aal)  # type: ignore[attr-defined]  # where `guard_of` looks
        return cast("F", wrapper)

    return decorate

"""Who already holds a function: the check behind the decorator-order trap.

``@requires`` written *above* ``@app.route`` receives the very function that the framework has just registered; the framework would go
on calling it unguarded. No framework is imported to find out: a freshly defined function is held by nobody. Where the reference
count says that somebody holds it (cheap, and the usual answer is no), the garbage collector is asked who, and whoever is neither a
namespace nor a wrapper around it counts as a registry: a route object, a list of handlers, a dictionary of views.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

from axis_security.core.errors import ConfigError

__all__ = ["AlreadyRegistered", "refuse_registered"]

_DEPTH: Final = 6


class AlreadyRegistered(ConfigError):
    """The guard was written above the decorator that registers the function, so the framework holds the unguarded one."""

    code = "rbac.already_registered"

    def __init__(self, *, function: str, holder: str) -> None:
        super().__init__(
            what=f"`{function}` is already registered unguarded",
            why=f"{holder} holds the function itself, and would call it without the check",
            fix="swap the decorators: the one that registers goes on top, @requires or @public right above `def`",
        )


def refuse_registered(function: Callable[..., Any]) -> None:
    """Refuse a function that something already holds.

    Raises:
        AlreadyRegistered: naming the holder's type.
    """
    chain, counts = _chain(function)
    for link, count, fresh in zip(chain, counts, (_FRESH, *[_WRAPPED] * len(chain)), strict=False):
        if count > fresh and (holder := _holder(link, chain)) is not None:
            raise AlreadyRegistered(function=getattr(link, "__qualname__", repr(type(link))), holder=holder)


def _chain(function: Callable[..., Any]) -> tuple[list[Any], list[int]]:
    """The function and what it wraps, each with its reference count."""
    chain: list[Any] = [function]
    while hasattr(chain[-1], "__wrapped__") and len(chain) < 32:
        chain.append(chain[-1].__wrapped__)
    return chain, [sys.getrefcount(link) for link in chain]


def _holder(target: Any, chain: list[Any]) -> str | None:
    own = {id(chain)}
    for link in chain:
        own |= {id(link), id(getattr(link, "__dict__", None)), id(getattr(link, "__closure__", None))}
        own |= {id(cell) for cell in getattr(link, "__closure__", None) or ()}
    seen: set[int] = set(own)
    frontier: list[Any] = [target]
    seen.add(id(frontier))
    container: str | None = None
    for _ in range(_DEPTH):
        following: list[Any] = []
        seen.add(id(following))
        for referrer in _referrers(frontier, seen):
            if isinstance(referrer, (types.FrameType, types.ModuleType, types.GeneratorType, types.CoroutineType, type)) or _is_namespace(
                referrer
            ):
                continue
            # Another guarded wrapper around the same function is no leak, wherever it is registered.
            if isinstance(referrer, types.FunctionType) and hasattr(referrer, "__axis_guard__"):
                continue
            if isinstance(
                referrer,
                (
                    dict,
                    list,
                    set,
                    frozenset,
                    tuple,
                    types.CellType,
                    types.FunctionType,
                    types.MethodType,
                    staticmethod,
                    classmethod,
                    property,
                ),
            ):
                if isinstance(referrer, (dict, list, set, frozenset)):
                    container = container or f"a {type(referrer).__name__}"
                following.append(referrer)
                continue
            kind = type(referrer)
            if kind.__module__ not in ("builtins", "functools", "weakref"):
                return f"a {kind.__module__}.{kind.__qualname__}"
            following.append(referrer)
        if not following:
            break
        frontier = following
        seen.add(id(frontier))
    return container


def _referrers(frontier: list[Any], seen: set[int]) -> Iterator[Any]:
    found = gc.get_referrers(*frontier)
    seen.add(id(found))
    for referrer in found:
        if id(referrer) not in seen:
            seen.add(id(referrer))
            yield referrer


def _is_namespace(thing: Any) -> bool:
    """Module, exec and class namespaces, and wrappers' attributes: holding a function there is what ``def`` and ``wraps`` do."""
    return isinstance(thing, (dict, types.MappingProxyType)) and (
        "__builtins__" in thing or "__name__" in thing or "__module__" in thing or "__qualname__" in thing or "__wrapped__" in thing
    )


def _calibrate() -> tuple[int, int]:
    """Reference counts of a function that nobody holds, and of one held by its wrapper only, looked at from as deep as the real thing."""
    seen: list[list[int]] = []

    def look(function: Callable[..., Any]) -> None:
        seen.append(_chain(function)[1])

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        look(function)
        return function

    def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper() -> Any:
            return function()

        return wrapper

    @decorate
    def fresh() -> None:
        """Held by nobody."""

    @decorate
    @wrapping
    def wrapped() -> None:
        """Held by its wrapper."""

    del fresh, wrapped
    return seen[0][0], seen[1][1]


_FRESH, _WRAPPED = _calibrate()

"""The list of an app's routes, each with its guard or its reason: what ``audit(app)`` returns, whatever the framework."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from axis_security.rbac.guard import Guard, Open
from axis_security.wiring.errors import UnmarkedRoutes

if TYPE_CHECKING:
    from axis_security.wiring.gate import Gate

__all__ = ["Audit", "ListedRoute", "gate_routes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRoute:
    """One way into the app.

    Args:
        path: the full template, mounts included.
        methods: in order; ``WEBSOCKET`` for a WebSocket, ``*`` where the framework does not say.
        endpoint: the code's name, to find it by.
        mark: who may; ``None``: nobody decided.
        by: where the mark stands: ``endpoint``, ``dependency``, ``mount``, ``open`` or ``gate``.
        target: the code itself.
    """

    path: str
    methods: tuple[str, ...]
    endpoint: str
    mark: Guard | Open | None
    by: str = "endpoint"
    target: object = field(default=None, repr=False, compare=False)

    @property
    def may(self) -> str:
        """Who may, in words: capabilities, ``signed-in``, ``public: reason`` or ``UNMARKED``."""
        match self.mark:
            case Guard():
                return " and ".join(_demands(self.mark))
            case Open(reason):
                return f"public: {reason}"
            case None:
                return "UNMARKED"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form with stable key order."""
        guards = _demands(self.mark) if isinstance(self.mark, Guard) else []
        return {
            "path": self.path,
            "methods": list(self.methods),
            "endpoint": self.endpoint,
            "guards": guards,
            "reason": self.mark.reason if isinstance(self.mark, Open) else None,
            "by": self.by if self.mark is not None else None,
            "ok": self.mark is not None,
        }


def _demands(mark: Guard) -> list[str]:
    found, at = [], mark
    while True:
        more = []
        if at.aal is not None:
            more.append(f"AAL{int(at.aal)}")
        if at.fresh is not None:
            more.append(f"signed in within {int(at.fresh.total_seconds())} s")
        found.append(at.capability + (f" ({', '.join(more)})" if more else ""))
        if at.inner is None:
            return found
        at = at.inner


@dataclass(frozen=True, slots=True)
class Audit:
    """Every route of an app, in the app's order."""

    routes: Sequence[ListedRoute]

    @classmethod
    def of(cls, routes: Iterable[ListedRoute]) -> Audit:
        """From what a framework's lister gives."""
        return cls(tuple(routes))

    @property
    def unmarked(self) -> tuple[ListedRoute, ...]:
        """Routes that nobody decided about."""
        return tuple(route for route in self.routes if route.mark is None)

    def text(self) -> str:
        """A table: methods, path, who may, endpoint."""
        return "\n".join(_lines(self.routes))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"routes": [route.as_dict() for route in self.routes], "unmarked": len(self.unmarked)}

    def require_marked(self) -> None:
        """Refuse an app with an unmarked route; in a test, ``audit(app).require_marked()`` is the assertion.

        Raises:
            UnmarkedRoutes: naming each.
        """
        if self.unmarked:
            raise UnmarkedRoutes("\n".join(_lines(self.unmarked)))


def gate_routes(gate: Gate) -> list[ListedRoute]:
    """The addresses that *gate* answers itself."""
    return [
        ListedRoute(
            path=each.path, methods=("GET", "HEAD"), endpoint=type(each).__qualname__, mark=Open(each.reason), by="gate", target=each
        )
        for each in gate.endpoints
    ]


def _lines(routes: Sequence[ListedRoute]) -> list[str]:
    rows = [(" ".join(route.methods), route.path, route.may, route.endpoint) for route in routes]
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(3)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows]

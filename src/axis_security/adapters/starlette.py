"""Starlette: the gate around the app, and a look at the endpoint between routing and the first line of its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axis_security.adapters.asgi import ASGIApp, GateMiddleware, Receive, Scope, Send
from axis_security.adapters.starlette_routes import hides, router_of, routes
from axis_security.core.errors import ConfigError, MissingExtra
from axis_security.core.settings import Environment
from axis_security.rbac.guard import Guard, Open
from axis_security.wiring.facts import WEBSOCKET
from axis_security.wiring.gate import Gate
from axis_security.wiring.marks import mark_of
from axis_security.wiring.routes import Audit, ListedRoute, gate_routes
from axis_security.wiring.visit import maybe_visit

__all__ = ["install", "listed"]

_INSTALLED: Final = "__axis_installed__"


def install(app: Any, gate: Gate, *, opened: Mapping[str, str] | None = None) -> None:
    """Put *app* (Starlette or FastAPI) behind *gate*. Call it once, where the app is made; routes may be added before and after.

    In development the app does not start while one of its routes is unmarked; in production such a route answers 403.

    Args:
        app: the application object.
        gate: decides.
        opened: path templates of routes that cannot be decorated (a package's own), with the reason why each is open to everybody.

    Raises:
        ConfigError: a gate is installed already, the app has started, or a reason is empty.
        MissingExtra: Starlette is not installed.
    """
    try:
        from starlette.middleware import Middleware
    except ImportError:
        raise MissingExtra(package="starlette", extra="starlette") from None
    if hasattr(app, _INSTALLED) or app.middleware_stack is not None:
        raise ConfigError(
            what="the gate cannot be installed", why="it is installed already, or the app has started", fix="install once, at import"
        )
    opened = dict(opened or {})
    if any(not reason.strip() for reason in opened.values()):
        raise ConfigError(what="an open path needs a reason", why="the audit of routes shows it", fix='opened={"/docs": "API reference"}')
    watch = _Watch(app, gate, opened)
    setattr(app, _INSTALLED, watch)
    # The gate stands before all middleware that is there, so that none of it works for a stranger; the look stands behind it, at the router.
    app.user_middleware.insert(0, Middleware(GateMiddleware, gate=gate, on_start=watch.start, routed=True))
    app.router.middleware_stack = watch.around(app.router.middleware_stack)


def listed(app: Any) -> list[ListedRoute]:
    """Every route of *app*, with the paths that :func:`install` was told to open."""
    watch: _Watch | None = getattr(app, _INSTALLED, None)
    if watch is None:
        return list(routes(app))
    return [*gate_routes(watch.gate), *routes(app, watch.opened)]


class _Watch:
    """Sees which endpoint a router chose, before it runs."""

    def __init__(self, app: Any, gate: Gate, opened: Mapping[str, str]) -> None:
        self._app, self.gate, self.opened = app, gate, opened
        self._found: dict[int, tuple[object, Guard | Open | None]] = {}

    def start(self) -> None:
        audit = Audit.of(routes(self._app, self.opened))
        stale = self.opened.keys() - {route.path for route in audit.routes}
        if stale:
            raise ConfigError(
                what="an open path leads nowhere",
                why=f"no route has the path {sorted(stale)}",
                fix="remove it from `opened`, or correct it",
            )
        if self.gate.environment is Environment.DEVELOPMENT:
            audit.require_marked()

    def around(self, router: ASGIApp) -> ASGIApp:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await router(scope, receive, send)
            else:
                await router(_WatchedScope(scope, self), receive, send)

        return watched

    def chosen(self, scope: Scope, endpoint: Any, route: Any) -> None:
        """Tell the gate; an app in which another router will choose is not told about yet."""
        visit = maybe_visit()
        if visit is None:
            raise ConfigError(
                what="a request went past the gate", why="the router was called without the middleware", fix="call the app, not its router"
            )
        method = WEBSOCKET if scope["type"] == "websocket" else scope["method"]
        if hides(endpoint, method):
            mark = None  # the class's mark speaks of its handlers
        elif (mark := mark_of(endpoint, "on_connect" if method == WEBSOCKET else method)) is None:
            if router_of(endpoint) is not None:
                return
            mark = self._elsewhere(endpoint)
        self.gate.reached(visit, mark, f"{method} {getattr(route, 'path', None) or scope['path']}")

    def _elsewhere(self, endpoint: Any) -> Guard | Open | None:
        """A mark that is not on the endpoint but on a dependency, or on a mount above it. Looked up when an endpoint is first met."""
        if id(endpoint) not in self._found:
            marks = [route.mark for route in routes(self._app, self.opened) if route.target is endpoint]
            guards = [mark for mark in marks if isinstance(mark, Guard)]
            # One endpoint may be reached in several ways; it counts as marked where all of them are.
            mark = None if not marks or None in marks else guards[0] if guards else marks[0]
            self._found[id(endpoint)] = (endpoint, mark)
        return self._found[id(endpoint)][1]


class _WatchedScope(dict[str, Any]):
    """A scope that tells when a router writes the chosen endpoint into it, and writes everything through to the scope it stands for."""

    def __init__(self, scope: Scope, watch: _Watch) -> None:
        super().__init__(scope)
        self._outer, self._watch = scope, watch

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._outer[key] = value
        if key == "endpoint":
            self._watch.chosen(self, value, self.get("route"))

    def update(self, *args: Any, **kwargs: Any) -> None:
        given = dict(*args, **kwargs)
        super().update(given)
        self._outer.update(given)
        if "endpoint" in given:
            self._watch.chosen(self, given["endpoint"], given.get("route") or self.get("route"))

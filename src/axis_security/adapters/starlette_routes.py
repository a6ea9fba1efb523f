"""Every way into a Starlette or FastAPI app: routes, class views, WebSockets, mounts, hosts, included routers, static files, FastAPI's own pages.

No framework is imported: routes are known by what they have. A route of a kind that is not known here is listed as unmarked.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from axis_security.rbac.guard import Guard, Open
from axis_security.wiring.marks import mark_of
from axis_security.wiring.routes import ListedRoute

__all__ = ["dependency_mark", "routes"]

_HANDLERS: Final = ("get", "head", "post", "put", "patch", "delete", "options", "trace", "query")
_SOCKET_HANDLERS: Final = ("on_connect", "on_receive", "on_disconnect")
_MAX_DEPTH: Final = 32


def routes(app: object, opened: Mapping[str, str] | None = None) -> Iterator[ListedRoute]:
    """The routes of *app* (an application, a router, or middleware around one), in the order of the app.

    Args:
        opened: paths that :func:`~axis_security.adapters.starlette.install` was told to leave open, with the reasons.
    """
    yield from _app(app, "", None, opened or {}, 0)


def _app(app: object, prefix: str, above: Open | Guard | None, opened: Mapping[str, str], depth: int) -> Iterator[ListedRoute]:
    router = router_of(app)
    mark = mark_of(app) or above
    if router is None or depth > _MAX_DEPTH:
        yield ListedRoute(path=f"{prefix}/*", methods=("*",), endpoint=_name(app), mark=mark, by="mount" if mark else "endpoint")
        return
    inside = getattr(router, "router", router)
    for route in (*_flat(router.routes), *getattr(inside, "_low_priority_routes", ())):
        yield from _route(route, prefix, mark, opened, depth)
    default = getattr(inside, "default", None)
    if default is not None and getattr(default, "__func__", None) is not getattr(type(inside), "not_found", None):
        # Somebody's own answer to addresses that no route has.
        yield ListedRoute(path=f"{prefix}/*", methods=("*",), endpoint=_name(default), mark=mark_of(default) or mark, target=default)


def router_of(app: object) -> Any:
    """The app or router with ``routes`` inside any number of middleware; ``None`` if there is none."""
    for _ in range(_MAX_DEPTH):
        if app is None or isinstance(getattr(app, "routes", None), (list, tuple)):
            return app
        app = getattr(app, "app", None)
    return None


def _flat(found: Iterable[Any]) -> Iterator[Any]:
    """FastAPI keeps included routers as branches; each branch knows its routes with the prefixes and dependencies that hold there."""
    for route in found:
        if not hasattr(route, "effective_route_contexts"):
            yield route
            continue
        for context in (*route.effective_route_contexts(), *route.effective_low_priority_routes()):
            inner = getattr(context, "starlette_route", None)
            yield context if inner is None else inner


def _route(route: Any, prefix: str, above: Open | Guard | None, opened: Mapping[str, str], depth: int) -> Iterator[ListedRoute]:
    endpoint = getattr(route, "endpoint", None)
    if endpoint is None:
        yield from _without_endpoint(route, prefix, above, opened, depth)
        return
    path = prefix + str(getattr(route, "path_format", None) or getattr(route, "path", ""))
    for methods, mark, name in _marked(route, endpoint):
        found, by = (mark, "endpoint") if mark is not None else (dependency_mark(getattr(route, "dependant", None)), "dependency")
        if found is None and above is not None:
            found, by = above, "mount"
        if found is None and path in opened:
            found, by = Open(opened[path]), "open"
        yield ListedRoute(path=path, methods=methods, endpoint=name, mark=found, by=by, target=endpoint)


def _without_endpoint(route: Any, prefix: str, above: Open | Guard | None, opened: Mapping[str, str], depth: int) -> Iterator[ListedRoute]:
    """Mounts and hosts, which hold an app; and groups of static files of FastAPI, which hold routes of their own."""
    whole = getattr(route, "app", None)
    inner = getattr(route, "_base_app", None) or whole
    origin = getattr(route, "original_route", route)
    if inner is not None and origin is route:
        host = getattr(route, "host", None)
        path = f"{prefix}//{host}" if host is not None else prefix + str(getattr(route, "path", ""))
        yield from _app(inner, path.rstrip("/"), mark_of(whole) or above, opened, depth + 1)
        return
    mark = dependency_mark(getattr(route, "dependant", None))
    base = prefix + str(getattr(route, "frontend_prefix", ""))
    for each in getattr(origin, "routes", None) or (route,):
        path = base + str(getattr(each, "path", "?")).rstrip("/") + "/*"
        yield ListedRoute(
            path=path, methods=("GET", "HEAD"), endpoint=_name(each), mark=mark or above, by="dependency" if mark else "mount"
        )


def _marked(route: Any, endpoint: Any) -> Iterator[tuple[tuple[str, ...], Guard | Open | None, str]]:
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    methods = getattr(route, "methods", None)
    if methods is None and hasattr(route, "original_route"):
        methods = getattr(route.original_route, "methods", None)
    is_view = inspect.isclass(endpoint) or (not inspect.isroutine(endpoint) and mark_of(endpoint) is None)
    if is_view and methods is None:
        if any(hasattr(endpoint, name) for name in _SOCKET_HANDLERS):
            yield ("WEBSOCKET",), _socket_mark(endpoint), _name(endpoint)
            return
        handlers = [name for name in _HANDLERS if callable(getattr(endpoint, name, None))]
        for name in handlers:
            both = ("GET", "HEAD") if name == "get" and "head" not in handlers else (name.upper(),)
            yield both, mark_of(endpoint, name.upper()), f"{_name(endpoint)}.{name}"
        if not handlers:
            yield ("*",), mark_of(endpoint), _name(endpoint)
        return
    is_socket = not methods and "ebsocket" in type(route).__name__.lower()
    yield ("WEBSOCKET",) if is_socket else tuple(sorted(methods or ("*",))), mark_of(endpoint), _name(endpoint)


def _socket_mark(endpoint: Any) -> Guard | Open | None:
    """A class of WebSocket handlers is guarded by a mark on the class, or on the handler that runs first."""
    return mark_of(endpoint) or mark_of(getattr(endpoint, "on_connect", None))


def hides(endpoint: Any, method: str) -> bool:
    """Whether *method* names a method of a class view that is no handler. Older Starlette runs whatever of the class bears the name that a request gives."""
    return inspect.isclass(endpoint) and method.lower() not in _HANDLERS and callable(getattr(endpoint, method.lower(), None))


def dependency_mark(dependant: Any, depth: int = 0) -> Guard | Open | None:
    """The first guard among FastAPI's dependencies of an endpoint, however deep."""
    for inner in getattr(dependant, "dependencies", ()) if depth < _MAX_DEPTH else ():
        mark = mark_of(getattr(inner, "call", None)) or dependency_mark(inner, depth + 1)
        if mark is not None:
            return mark
    return None


def _name(thing: Any) -> str:
    found = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{found.__module__}.{found.__qualname__}"

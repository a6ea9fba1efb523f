"""``audit(app)``: every route of an app with its guard or its reason, whatever the framework.

In a test, ``audit(app).require_marked()`` is the assertion: it fails with the list of the routes that nobody decided about.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

from axis_security.core.errors import ConfigError
from axis_security.wiring.marks import mark_of
from axis_security.wiring.routes import Audit, ListedRoute

__all__ = ["audit"]

_FRAMEWORKS: Final = ("starlette", "fastapi", "flask", "django")
_MAX_DEPTH: Final = 32


def audit(app: Any) -> Audit:
    """Every route of *app*: Starlette, FastAPI, Flask, Django's WSGI or ASGI handler, or middleware around one of them.

    Another framework's app lists itself with a method ``__axis_routes__()`` that gives
    :class:`~axis_security.wiring.routes.ListedRoute` values. An app of no known kind is one route that leads everywhere.

    Raises:
        ConfigError: *app* is no app, or a path that was opened leads nowhere.
    """
    seen, layer = app, app
    for _ in range(_MAX_DEPTH):
        own = getattr(layer, "__axis_routes__", None)
        if callable(own):
            listed: Iterable[ListedRoute] = own()
            return Audit.of(listed)
        found = _listed(layer)
        if found is not None:
            return found
        inner = getattr(layer, "app", None) or getattr(layer, "wsgi_app", None) or getattr(layer, "application", None)
        if inner is None:
            break
        layer = inner
    if not callable(seen):
        raise ConfigError(
            what="this cannot be audited", why=f"a {type(seen).__name__} is no app", fix="pass the app object that the server runs"
        )
    name = getattr(layer, "__qualname__", type(layer).__qualname__)
    return Audit.of([ListedRoute(path="/*", methods=("*",), endpoint=name, mark=mark_of(seen) or mark_of(layer), target=layer)])


def _listed(app: Any) -> Audit | None:
    kinds = {kind.__module__.partition(".")[0] for kind in type(app).__mro__} & {*_FRAMEWORKS}
    if kinds & {"starlette", "fastapi"} and isinstance(getattr(app, "routes", None), list):
        return Audit.of(import_module("axis_security.adapters.starlette").listed(app))
    if "flask" in kinds and hasattr(app, "url_map"):
        extension = app.extensions.get("axis_security")
        return Audit.of(import_module("axis_security.adapters.flask").routes(app, None if extension is None else extension.opened))
    if "django" in kinds and hasattr(app, "get_response"):
        whole: Audit = import_module("axis_security.adapters.django.routes").audit()
        return whole
    return None

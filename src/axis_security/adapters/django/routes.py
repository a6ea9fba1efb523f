"""Every pattern of a URLconf, ``include()`` and the admin's included, with its guard or its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from axis_security.adapters.django.settings import gate
from axis_security.adapters.django.settings import opened as opened_setting
from axis_security.core.errors import ConfigError, MissingExtra
from axis_security.rbac.guard import Guard, Open
from axis_security.wiring.marks import mark_of
from axis_security.wiring.routes import Audit, ListedRoute, gate_routes

try:
    from django.urls import URLResolver, get_resolver
    from django.views.generic.base import View
except ModuleNotFoundError:
    raise MissingExtra(package="django", extra="django") from None

__all__ = ["audit", "mark_for", "routes"]


def audit(urlconf: Any = None) -> Audit:
    """Every route of *urlconf* (``ROOT_URLCONF`` unless told), and the addresses that the gate answers itself.

    Raises:
        ConfigError: the settings name no gate, or a path in ``AXIS_SECURITY["OPENED"]`` leads nowhere.
    """
    return Audit.of([*routes(urlconf, opened_setting()), *gate_routes(gate())])


def routes(urlconf: Any = None, opened: Mapping[str, str] | None = None) -> Iterator[ListedRoute]:
    """The patterns in the order in which Django tries them; class views method by method where the marks are on methods.

    Raises:
        ConfigError: a path in *opened* leads nowhere.
    """
    opened = dict(opened or {})
    found = [("/" + path, view) for path, view in _patterns(get_resolver(urlconf), "")]
    stale = opened.keys() - {path for path, _ in found}
    if stale:
        raise ConfigError(
            what="an open path leads nowhere", why=f"no pattern reads {sorted(stale)}", fix="remove it from `OPENED`, or correct it"
        )
    for path, view in found:
        view_class = _class_of(view)
        whole = mark_for(view, path, None, opened)
        methods = ("*",) if view_class is None else _methods(view_class)
        name = f"{getattr(view, '__module__', '?')}.{getattr(view_class or view, '__qualname__', type(view).__qualname__)}"
        by = "open" if path in opened and mark_for(view, path, None, {}) is None else "endpoint"
        if whole is not None or view_class is None:
            yield ListedRoute(path=path, methods=methods, endpoint=name, mark=whole, by=by)
        else:
            for method in methods:
                yield ListedRoute(path=path, methods=(method,), endpoint=name, mark=mark_of(view_class, method))


def mark_for(view: Any, path: str, method: str | None, opened: Mapping[str, str]) -> Guard | Open | None:
    """What was decided about *view*: its own mark, its class's, its handler's for *method*, or the reason in *opened*."""
    found = mark_of(view) or mark_of(_class_of(view), method)
    return Open(opened[path]) if found is None and path in opened else found


def _class_of(view: Any) -> Any:
    # Django's own class views, and those of the REST framework.
    return getattr(view, "view_class", None) or getattr(view, "cls", None)


def _methods(view_class: Any) -> tuple[str, ...]:
    names = [name for name in getattr(view_class, "http_method_names", ()) if hasattr(view_class, name)]
    if getattr(view_class, "options", None) is getattr(View, "options", None) and len(names) > 1:
        names.remove("options")  # Django's own answer: the names of the methods
    return tuple(name.upper() for name in names) or ("*",)


def _patterns(resolver: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for pattern in resolver.url_patterns:
        # As Django joins them in ResolverMatch.route, which is what a request knows.
        path = prefix + (str(pattern.pattern).removeprefix("^") if prefix else str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern, path)
        else:
            yield path, pattern.callback

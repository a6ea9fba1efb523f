"""Flask: the gate around the app, and a look at the endpoint before any code of a view, a hook or a blueprint runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from axis_security.adapters.wsgi import REFUSED, AxisWsgi, is_answer
from axis_security.core.errors import AxisError, ConfigError, MissingExtra
from axis_security.core.settings import Environment
from axis_security.rbac.guard import Guard, Open
from axis_security.wiring.gate import Gate
from axis_security.wiring.marks import mark_of
from axis_security.wiring.routes import Audit, ListedRoute, gate_routes
from axis_security.wiring.visit import current_visit, maybe_visit

try:
    import flask
    from flask.signals import request_started
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
except ImportError:
    raise MissingExtra(package="flask", extra="flask") from None

if TYPE_CHECKING:
    from werkzeug.routing import Rule

__all__ = ["AxisFlask", "routes"]

_EXTENSION: Final = "axis_security"
_OPTIONS: Final = Open("OPTIONS, answered by Flask: the methods of the address")


class AxisFlask:
    """The extension: ``AxisFlask(gate).init_app(app)``, or ``AxisFlask(gate, app)``.

    In development the first request fails while one of the app's routes is unmarked (Flask has no earlier moment at which all routes are there);
    in production such a route answers 403. Templates get ``csrf_token()`` and ``csp_nonce()``.

    Args:
        gate: with a sync identity store.
        app: the app, where it is there already.
        opened: rules of routes that cannot be decorated (``/static/<path:filename>``, a package's own), with the reason why each is open to everybody.

    Raises:
        ConfigError: a gate is installed already, the app has served a request, a reason is empty, or the gate is for async servers.
    """

    def __init__(self, gate: Gate, app: flask.Flask | None = None, *, opened: Mapping[str, str] | None = None) -> None:
        self.gate: Final = gate
        self.opened: Final = dict(opened or {})
        if any(not reason.strip() for reason in self.opened.values()):
            raise ConfigError(
                what="an open path needs a reason", why="the audit of routes shows it", fix='opened={"/docs": "API reference"}'
            )
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Put *app* behind the gate. Call it once; routes may be added before and after."""
        if _EXTENSION in app.extensions or app._got_first_request:  # noqa: SLF001  # what Flask's own setup check asks
            raise ConfigError(
                what="the gate cannot be installed",
                why="it is installed already, or the app has served a request",
                fix="install it once, at import",
            )
        app.extensions[_EXTENSION] = self
        # Outermost of all that is there; what the host wraps around later stands before the gate, as a proxy does.
        gated = AxisWsgi(app.wsgi_app, self.gate)
        app.wsgi_app = _Checked(app, gated, self) if self.gate.environment is Environment.DEVELOPMENT else gated  # type: ignore[method-assign]
        app.register_error_handler(AxisError, _leave_to_the_gate)
        app.template_context_processors[None].append(_for_templates)
        # Sent before url processors and hooks. Held strongly by the extension: the signal itself holds it weakly.
        self._reached = _reporter(self)
        request_started.connect(self._reached, app)

    def audit(self, app: flask.Flask) -> Audit:
        """Every route of *app* with its guard or its reason.

        Raises:
            ConfigError: a rule in ``opened`` leads nowhere.
        """
        return Audit.of(routes(app, self.opened))

    def mark(self, app: flask.Flask, rule: Rule, method: str) -> Guard | Open | None:
        """What was decided about *rule*."""
        view = app.view_functions.get(rule.endpoint)
        found = mark_of(view) or mark_of(getattr(view, "view_class", None), method)
        if found is None and rule.rule in self.opened:
            return Open(self.opened[rule.rule])
        return found


class _Checked:
    """In development: no request is served before every route is marked."""

    def __init__(self, app: flask.Flask, below: AxisWsgi, extension: AxisFlask) -> None:
        self._app, self._below, self._extension = app, below, extension
        self._done = False

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if not self._done:
            self._extension.audit(self._app).require_marked()
            self._done = True
        return self._below(environ, start_response)


def routes(app: flask.Flask, opened: Mapping[str, str] | None = None) -> Iterator[ListedRoute]:
    """Every rule of *app*, blueprints included, method views method by method; and what is mounted beside it, as far as it can be seen.

    Raises:
        ConfigError: a rule in *opened* leads nowhere.
    """
    opened = dict(opened or {})
    stale = opened.keys() - {rule.rule for rule in app.url_map.iter_rules()}
    if stale:
        raise ConfigError(
            what="an open path leads nowhere", why=f"no rule reads {sorted(stale)}", fix="remove it from `opened`, or correct it"
        )
    for rule in app.url_map.iter_rules():
        if rule.redirect_to is None:  # those are answered by the router: no code of anybody's
            yield from _rule(app, rule, opened)
    yield from _mounted(app.wsgi_app)
    extension = app.extensions.get(_EXTENSION)
    if extension is not None:
        yield from gate_routes(extension.gate)


def _rule(app: flask.Flask, rule: Rule, opened: Mapping[str, str]) -> Iterator[ListedRoute]:
    view = app.view_functions.get(rule.endpoint)
    view_class = getattr(view, "view_class", None)
    methods = sorted(rule.methods) if rule.methods is not None else ["*"]
    if getattr(rule, "provide_automatic_options", False) and len(methods) > 1:
        methods.remove("OPTIONS")  # no view runs for it
    whole = mark_of(view)
    if whole is not None or view_class is None:
        marks = [(tuple(methods), whole)]
    else:
        marks = [((method,), mark_of(view_class, method)) for method in methods]
    for these, mark in marks:
        told = mark is None and rule.rule in opened
        yield ListedRoute(
            path=f"{rule.subdomain or rule.host or ''}{rule.rule}",
            methods=these,
            endpoint=_name(view_class or view, rule.endpoint),
            mark=Open(opened[rule.rule]) if told else mark,
            by="open" if told else "endpoint",
        )


def _mounted(wsgi: Any, prefix: str = "") -> Iterator[ListedRoute]:
    """Apps that werkzeug's dispatcher serves beside this one, wherever in the chain of middlewares it stands."""
    seen: set[int] = set()
    while wsgi is not None and id(wsgi) not in seen:
        seen.add(id(wsgi))
        if isinstance(wsgi, DispatcherMiddleware):
            for path, other in wsgi.mounts.items():
                yield from _beside(other, prefix + path)
        wsgi = getattr(wsgi, "app", None) or getattr(wsgi, "_below", None)


def _beside(other: Any, prefix: str) -> Iterator[ListedRoute]:
    inner = other
    while not isinstance(inner, flask.Flask) and isinstance(inner, AxisWsgi):
        inner = inner.app
    if isinstance(inner, flask.Flask):
        extension = inner.extensions.get(_EXTENSION)
        for route in routes(inner, None if extension is None else extension.opened):
            # Without its own extension nobody tells the gate what it reached, and every answer of it is withheld.
            yield replace(route, path=prefix + route.path, mark=None if extension is None else route.mark)
    else:
        gated = isinstance(other, AxisWsgi)
        yield ListedRoute(
            path=f"{prefix}/*", methods=("*",), endpoint=_name(inner, "?"), mark=mark_of(inner) if gated else None, by="mount"
        )


def _name(thing: object, other: str) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', None) or other}"


def _reporter(extension: AxisFlask) -> Any:
    def reached(app: flask.Flask, **_: Any) -> None:
        request = flask.request
        visit = maybe_visit()
        if visit is None:
            raise ConfigError(
                what="a request went past the gate",
                why="app.wsgi_app was replaced after init_app, or the view is called by hand",
                fix="call init_app last, or wrap app.wsgi_app instead of replacing it; in tests use app.test_client()",
            )
        rule = request.url_rule
        if request.routing_exception is not None or rule is None:
            return
        extension.gate.reached(visit, extension.mark(app, rule, request.method), f"{request.method} {rule.rule}")
        if request.method == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
            visit.mark = _OPTIONS  # no view runs

    return reached


def _leave_to_the_gate(error: AxisError) -> Any:
    if not is_answer(error):
        raise error
    flask.request.environ[REFUSED] = error
    return flask.Response(status=error.http_status)


def _for_templates() -> dict[str, Any]:
    return {"csrf_token": lambda: current_visit().csrf_token(), "csp_nonce": lambda: current_visit().nonce}

"""WSGI and Flask do what every adapter must: the same requests, the same verdicts, refusals equal to the byte."""

from __future__ import annotations

from datetime import date
from typing import Any

import flask
import pytest
from flask.views import MethodView

from axis_security.adapters.audit import audit
from axis_security.adapters.flask import AxisFlask
from axis_security.adapters.wsgi import AxisWsgi
from axis_security.core.events import NullSink
from axis_security.ops.disclosure import SecurityTxt
from axis_security.ops.health import HealthMonitor
from axis_security.testing.adapter_clients import Got, Sent, WsgiClient
from axis_security.testing.adapter_conformance import PAGES, AdapterDiffers, Little, LittleRoute, conforms
from axis_security.testing.gate_world import GateWorld, Person
from axis_security.wiring.endpoints import health, security_txt
from axis_security.wiring.gate import Gate


def made() -> tuple[Little, Gate]:
    """A world, its little routes, and the gate that the suite asks for."""
    world = GateWorld()
    return Little(world), world.gate(pages=PAGES, anonymous=("/static/",))


def wsgi_app(little: Little, gate: Gate) -> Any:
    """A router of a few lines; each endpoint carries its mark, and tells the gate by being an AxisWsgi of its own."""

    def endpoint(route: LittleRoute) -> Any:
        def app(environ: Any, start_response: Any) -> Any:
            text = route.handler(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)))
            start_response("200 OK", [("Content-Type", "text/plain")])
            return (piece.encode() for piece in text) if route.streams else [text.encode()]

        app.__axis_guard__ = route.mark  # type: ignore[attr-defined]
        return AxisWsgi(app, gate, endpoint=True)

    table = {(route.method, route.path): endpoint(route) for route in little.routes}

    def router(environ: Any, start_response: Any) -> Any:
        method = environ["REQUEST_METHOD"]
        found = table.get(("GET" if method == "HEAD" else method, environ["PATH_INFO"]))
        if found is not None:
            return found(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b""]

    return AxisWsgi(router, gate)


def flask_app(little: Little, gate: Gate, *, install: bool = True, methods: bool = False) -> flask.Flask:
    """View functions on the app and on a blueprint, or method views."""
    app = flask.Flask(__name__, static_folder=None)
    blueprint = flask.Blueprint("little", __name__)

    def answer(route: LittleRoute) -> Any:
        text = route.handler(flask.request.get_data())
        return flask.Response(flask.stream_with_context(text) if route.streams else text, mimetype="text/plain")

    if install:
        AxisFlask(gate).init_app(app)
    by_path: dict[str, list[LittleRoute]] = {}
    for route in little.routes:
        by_path.setdefault(route.path, []).append(route)
    for number, (path, several) in enumerate(by_path.items()):
        if methods:
            handlers = {}
            for route in several:

                def handler(self: Any, route: LittleRoute = route) -> Any:
                    return answer(route)

                handler.__axis_guard__ = route.mark  # type: ignore[attr-defined]
                handlers[route.method.lower()] = handler
            made_view: Any = type(f"View{number}", (MethodView,), handlers)
            app.add_url_rule(path, view_func=made_view.as_view(f"v{number}"))
            continue
        for route in several:

            def view(route: LittleRoute = route) -> Any:
                return answer(route)

            view.__axis_guard__ = route.mark  # type: ignore[attr-defined]
            (app if number % 2 else blueprint).add_url_rule(path, f"r{number}{route.method}", view, methods=[route.method])
    app.register_blueprint(blueprint)
    return app


BUILDERS = {
    "wsgi": wsgi_app,
    "flask views": flask_app,
    "flask method views": lambda little, gate: flask_app(little, gate, methods=True),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_adapter_conforms(name: str) -> None:
    """Every case of the suite."""
    little, gate = made()
    with WsgiClient(BUILDERS[name](little, gate)) as client:
        assert conforms(client.send, little, gate) > 40


@pytest.mark.parametrize(
    "breaks",
    [
        lambda gate: setattr(gate, "reached", lambda *_: None),
        lambda gate: setattr(gate, "leave", lambda *_, **__: None),
        lambda gate: setattr(gate, "_forged", lambda visit: iter(())),
    ],
    ids=["reached", "leave", "forged"],
)
def test_the_control_an_adapter_that_skips_a_point_is_found(breaks: Any) -> None:
    """An adapter that leaves out one of the gate's points does not pass."""
    little, gate = made()
    lame = little.world.gate(pages=PAGES, anonymous=("/static/",))
    breaks(lame)
    with pytest.raises((AdapterDiffers, TypeError)), WsgiClient(flask_app(little, lame)) as client:
        conforms(client.send, little, gate)


def test_the_control_flask_without_the_extension_is_found() -> None:
    """Flask alone, with the same decorators."""
    little, gate = made()
    app = flask_app(little, gate, install=False)
    app.testing = False
    with pytest.raises(AdapterDiffers), WsgiClient(app) as client:
        conforms(client.send, little, gate)


@pytest.mark.parametrize("name", BUILDERS)
def test_health_and_security_txt_are_answered_by_the_gate(name: str) -> None:
    """Every framework has them, without a view, a session, or a store; details are for whoever may ask."""
    world = GateWorld()
    monitor = HealthMonitor([], sink=NullSink())
    text = SecurityTxt(contact=("mailto:security@example.com",), reviewed_on=date(2026, 1, 1))
    endpoints = (*health(monitor, capability=world.caps.users.manage), *security_txt(text, clock=world.world))
    little, gate = Little(world), world.gate(endpoints=endpoints)
    owner, member = world.person("oli", tenant="t", role="owner"), world.person("mia", tenant="t", role="member")
    with WsgiClient(BUILDERS[name](little, gate)) as client:

        def ask(target: str, who: Person | None = None, method: str = "GET") -> Got:
            return client.send(Sent(method=method, target=target, headers=tuple((who.headers() if who else {}).items())))

        assert ask("/livez").body == b'{"status": "ok"}'
        assert b"mailto:security@example.com" in ask("/.well-known/security.txt").body
        assert [ask("/readyz?verbose", who).status for who in (None, member, owner)] == [401, 403, 200]
        assert ask("/livez", method="POST").status == 405
        assert (ask("/livez", method="HEAD").status, ask("/livez", method="HEAD").body) == (200, b"")
    if name != "wsgi":
        app = BUILDERS[name](little, gate)
        assert {"/livez", "/readyz", "/startupz", "/.well-known/security.txt"} <= {route.path for route in audit(app).routes}

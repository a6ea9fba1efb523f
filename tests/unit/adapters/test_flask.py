"""Flask: what is particular to it (hooks, blueprints, error handlers, OPTIONS, mounted apps, templates), and the audit of its routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import flask
import pytest
from flask.views import MethodView, View
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import Rule

from axis_security import current_principal, public, requires
from axis_security.adapters.flask import AxisFlask, routes
from axis_security.adapters.wsgi import AxisWsgi
from axis_security.core.context import maybe_principal
from axis_security.core.errors import ConfigError
from axis_security.core.settings import Environment
from axis_security.rbac.registered import AlreadyRegistered
from axis_security.testing.gate_world import GateWorld, Person
from axis_security.wiring.errors import UnmarkedRoutes
from axis_security.wiring.marks import signed_in
from axis_security.wiring.routes import Audit


class World(GateWorld):
    """With a Flask app."""

    def flask(self, *, opened: dict[str, str] | None = None, **settings: Any) -> flask.Flask:
        app = flask.Flask("little", static_folder=None)
        AxisFlask(self.gate(**settings), app, opened=opened)
        return app


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ann(world: World) -> Person:
    return world.person("ann", tenant="acme", role="member")


def ask(app: flask.Flask, path: str, who: Person | None = None, *, method: str = "GET") -> Any:
    headers = {} if who is None else who.headers(unsafe=method not in {"GET", "HEAD", "OPTIONS"})
    headers.pop("host", None)
    return app.test_client(use_cookies=False).open(path, method=method, headers=headers, base_url="https://app.example.com")


def test_nothing_of_the_app_runs_before_the_gate(world: World, ann: Person) -> None:
    """Url processors, hooks of app and blueprint, and the view: none of them runs for a request that is refused."""
    app = world.flask()
    ran: list[str] = []
    blueprint = flask.Blueprint("b", __name__)
    app.url_value_preprocessor(lambda endpoint, values: ran.append("processor"))
    app.before_request(lambda: ran.append("app"))
    blueprint.before_request(lambda: ran.append("blueprint"))

    @blueprint.route("/x/<int:number>")
    @requires(world.caps.contacts.read)
    def x(number: int) -> str:
        ran.append("view")
        return str(current_principal().tenant)

    @blueprint.route("/unmarked")
    def unmarked() -> str:
        return "!"

    app.register_blueprint(blueprint)
    assert ask(app, "/x/1").status_code == 401
    assert ask(app, "/unmarked", ann).status_code == 403
    assert ran == []
    assert ask(app, "/x/1", ann).text == "acme"
    assert ran == ["processor", "app", "blueprint", "view"]


def test_a_hook_that_answers_in_place_of_the_view_is_withheld(world: World, ann: Person) -> None:
    """A cache in a hook has asked no guard: the answer does not go out; a hook's refusal does."""
    app = world.flask()

    @app.route("/x")
    @requires(world.caps.contacts.read)
    def x() -> str:
        return "x"

    answer: list[Any] = ["cached"]
    app.before_request(lambda: answer[0])
    got = ask(app, "/x", ann)
    assert (got.status_code, got.json["code"]) == (500, "gate.no_decision")
    answer[0] = ("later", 429)
    assert ask(app, "/x", ann).status_code == 429


def test_error_handlers_of_the_host(world: World, ann: Person) -> None:
    """A host's handler for everything does not swallow a refusal; one for refusals is the host's answer, unless it says 200."""
    app = world.flask()
    viewer = world.person("vic", tenant="acme", role="viewer")

    @app.errorhandler(Exception)
    def everything(error: Exception) -> Any:
        return "ok!", 200

    @app.errorhandler(404)
    def nowhere(error: Any) -> Any:
        return "nowhere", 404

    blueprint = flask.Blueprint("b", __name__)

    @blueprint.errorhandler(Exception)
    def blueprints(error: Exception) -> Any:
        return "ok!", 200

    @app.route("/x")
    @requires(world.caps.contacts.write)
    def x() -> str:
        return "x"

    blueprint.add_url_rule("/y", view_func=requires(world.caps.contacts.write)(lambda: "y"))
    app.register_blueprint(blueprint)
    assert ask(app, "/x", viewer).json["code"] == "rbac.denied"
    assert ask(app, "/x").status_code == 401
    assert ask(app, "/y").status_code == 500  # the blueprint says 200 and nobody was asked: withheld
    assert ask(app, "/nowhere", ann).text == "nowhere"


def test_options_and_head(world: World, ann: Person) -> None:
    """Flask answers OPTIONS itself: for whoever may reach the address; HEAD is guarded as GET is."""
    app = world.flask()

    @app.route("/x")
    @requires(world.caps.contacts.read)
    def x() -> str:
        return "x"

    @app.route("/unmarked")
    def unmarked() -> str:
        return "!"

    assert ask(app, "/x", method="OPTIONS").status_code == 401
    assert set(ask(app, "/x", ann, method="OPTIONS").headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert ask(app, "/unmarked", ann, method="OPTIONS").status_code == 403
    assert ask(app, "/x", method="HEAD").status_code == 401
    assert ask(app, "/x", ann, method="HEAD").status_code == 200
    assert ask(app, "/x", ann, method="POST").status_code == 405


def test_a_slash_is_added_and_the_target_is_guarded(world: World, ann: Person) -> None:
    """The router's own redirect passes; it names nothing that the path did not."""
    app = world.flask()
    app.add_url_rule("/x/", view_func=requires(world.caps.contacts.read)(lambda: "x"), endpoint="x")
    assert ask(app, "/x").status_code == 308
    assert ask(app, "/x/").status_code == 401


def test_method_views(world: World, ann: Person) -> None:
    """Marks on methods, on the class, and through `decorators`; a method without one is refused."""
    app = world.flask()
    caps = world.caps

    class Each(MethodView):
        @requires(caps.contacts.read)
        def get(self) -> str:
            return "get"

        @requires(caps.users.manage)
        def post(self) -> str:
            return "post"

        def put(self) -> str:
            return "put"

    @requires(caps.contacts.read)
    class Whole(MethodView):
        def get(self) -> str:
            return "whole"

    class Decorated(View):
        decorators = [requires(caps.contacts.read)]

        def dispatch_request(self) -> str:
            return "decorated"

    for view in (Each, Whole, Decorated):
        app.add_url_rule(f"/{view.__name__}", view_func=view.as_view(view.__name__))
    assert [ask(app, "/Each", ann, method=method).status_code for method in ("GET", "HEAD", "POST", "PUT")] == [200, 200, 403, 403]
    assert ask(app, "/Each", ann, method="PUT").json["code"] == "gate.unmarked_endpoint"
    assert [ask(app, path, ann).text for path in ("/Whole", "/Decorated")] == ["whole", "decorated"]
    assert [ask(app, path).status_code for path in ("/Each", "/Whole", "/Decorated")] == [401] * 3


def test_streams_and_templates(world: World, ann: Person) -> None:
    """A stream keeps its principal; templates have the form's token and the page's nonce."""
    app = world.flask()

    @app.route("/stream")
    @requires(world.caps.contacts.read)
    def stream() -> Any:
        return flask.Response(flask.stream_with_context(str(current_principal().tenant) for _ in range(3)))

    @app.route("/page")
    @requires(world.caps.contacts.read)
    def page() -> str:
        return flask.render_template_string("{{ csrf_token() }} {{ csp_nonce() }}")

    app.add_url_rule(
        "/post", view_func=requires(world.caps.contacts.write)(lambda: flask.request.form["text"]), endpoint="post", methods=["POST"]
    )
    assert ask(app, "/stream", ann).text == "acme" * 3
    got = ask(app, "/page", ann)
    token, nonce = got.text.split()
    assert f"'nonce-{nonce}'" in got.headers["Content-Security-Policy"]
    headers = {"Cookie": ann.cookie, "Origin": "https://app.example.com"}
    form = {"csrf_token": token, "text": "hello"}
    assert app.test_client(use_cookies=False).post("/post", data=form, headers=headers, base_url="https://app.example.com").text == "hello"
    assert (
        app.test_client(use_cookies=False)
        .post("/post", data={"text": "hello"}, headers=headers, base_url="https://app.example.com")
        .status_code
        == 403
    )
    assert maybe_principal() is None


def test_async_views(world: World, ann: Person) -> None:
    """Flask runs them on a loop of their own; the guard is asked and the principal is there, after every await."""
    app = world.flask()

    @app.get("/x")
    @requires(world.caps.contacts.read)
    async def x() -> str:
        seen = [str(current_principal().tenant)]
        await asyncio.sleep(0)
        seen.append(await asyncio.to_thread(lambda: str(current_principal().tenant)))
        return " ".join(seen)

    assert ask(app, "/x").status_code == 401
    assert ask(app, "/x", ann).text == "acme acme"


def test_in_development_an_unmarked_route_stops_the_app(world: World) -> None:
    """The first request says which; in production the route alone is refused."""
    app = world.flask(environment=Environment.DEVELOPMENT)
    app.add_url_rule("/open", view_func=public("everybody")(lambda: "open"), endpoint="open")
    app.add_url_rule("/forgotten", view_func=lambda: "!", endpoint="forgotten")
    with pytest.raises(UnmarkedRoutes) as caught:
        ask(app, "/open")
    assert "/forgotten" in str(caught.value)
    fine = world.flask(environment=Environment.DEVELOPMENT)
    fine.add_url_rule("/open", view_func=public("everybody")(lambda: "open"), endpoint="open")
    assert ask(fine, "/open").text == "open"


def test_installing(world: World) -> None:
    """Once, before the first request, with reasons; and never by hand past the gate."""
    app = world.flask()
    with pytest.raises(ConfigError):
        AxisFlask(world.gate(), app)
    with pytest.raises(ConfigError):
        AxisFlask(world.gate(), opened={"/x": " "})
    late = flask.Flask("late")
    late.test_client(use_cookies=False).get("/")
    with pytest.raises(ConfigError):
        AxisFlask(world.gate()).init_app(late)
    app.add_url_rule("/open", view_func=public("everybody")(lambda: "open"), endpoint="open")
    del app.wsgi_app  # as a host that replaces it would
    assert ask(app, "/open").status_code == 500


def test_the_decorators_order_is_checked(world: World) -> None:
    """`@requires` above `@app.route` guards nothing: refused where it is written."""
    app = world.flask()
    with pytest.raises(AlreadyRegistered):

        @requires(world.caps.contacts.read)
        @app.route("/x")
        def x() -> str:
            return "x"


def test_static_files_are_opened_by_name(world: World, tmp_path: Any) -> None:
    """Flask's own routes cannot be decorated: the host opens them with a reason."""
    (tmp_path / "app.css").write_text("css")
    app = flask.Flask("little", static_folder=str(tmp_path), static_url_path="/static")
    extension = AxisFlask(world.gate(), app, opened={"/static/<path:filename>": "files that everybody may load"})
    with ask(app, "/static/app.css") as got:
        assert got.text == "css"
    assert [route.may for route in extension.audit(app).routes] == ["public: files that everybody may load"]
    other = AxisFlask(world.gate(), opened={"/nowhere": "a mistake"})
    with pytest.raises(ConfigError):
        other.audit(app)


Plant = Callable[[flask.Flask, World], object]


def _blueprint(app: flask.Flask, world: World, **options: Any) -> flask.Blueprint:
    blueprint = flask.Blueprint("planted", __name__, **options)
    blueprint.add_url_rule("/planted", view_func=lambda: "!", endpoint="p")
    return blueprint


def _nested(app: flask.Flask, world: World) -> None:
    outer = flask.Blueprint("outer", __name__, url_prefix="/outer")
    outer.register_blueprint(_blueprint(app, world))
    app.register_blueprint(outer)


def _method(name: str) -> type[MethodView]:
    return type("Planted", (MethodView,), {name: lambda self: "!"})


def _half(app: flask.Flask, world: World) -> None:
    class Half(MethodView):
        @requires(world.caps.contacts.read)
        def get(self) -> str:
            return ""

        def delete(self) -> str:
            return ""

    app.add_url_rule("/planted", view_func=Half.as_view("planted"))


def _mounted(app: flask.Flask, mounted: Any) -> None:
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/planted": mounted})  # type: ignore[method-assign]


def _other_flask() -> flask.Flask:
    other = flask.Flask("other", static_folder=None)
    other.add_url_rule("/x", view_func=public("marked, but behind no gate")(lambda: "!"), endpoint="x")
    return other


def _dispatching(app: flask.Flask, world: World) -> None:
    class Planted(View):
        methods = ["GET", "POST"]

        def dispatch_request(self) -> str:
            return "!"

    app.add_url_rule("/planted", view_func=Planted.as_view("planted"))


def _later(app: flask.Flask, world: World) -> None:
    app.url_map.add(Rule("/planted", endpoint="p"))
    app.endpoint("p")(lambda: "!")


PLANTED: dict[str, Plant] = {
    "a view": lambda app, _: app.add_url_rule("/planted", view_func=lambda: "!", endpoint="p"),
    "a decorator": lambda app, _: app.route("/planted")(lambda: "!"),
    "app.post": lambda app, _: app.post("/planted")(lambda: "!"),
    "a rule with converters": lambda app, _: app.add_url_rule("/planted/<int:a>/<path:b>", view_func=lambda a, b: "!", endpoint="p"),
    "a blueprint": lambda app, world: app.register_blueprint(_blueprint(app, world)),
    "a blueprint with a prefix": lambda app, world: app.register_blueprint(_blueprint(app, world), url_prefix="/planted"),
    "a nested blueprint": _nested,
    "a blueprint's static files": lambda app, _: app.register_blueprint(
        flask.Blueprint("planted", __name__, static_folder="static", url_prefix="/planted")
    ),
    "a method view": lambda app, _: app.add_url_rule("/planted", view_func=_method("get").as_view("p")),
    "a method view's other method": _half,
    "a class view": _dispatching,
    "an endpoint bound to a rule later": _later,
    "a rule without a function": lambda app, _: app.url_map.add(Rule("/planted", endpoint="missing")),
    "an own OPTIONS": lambda app, _: app.add_url_rule("/planted", view_func=lambda: "!", endpoint="p", methods=["OPTIONS"]),
    "a subdomain": lambda app, _: app.add_url_rule("/planted", view_func=lambda: "!", endpoint="p", subdomain="admin"),
    "a mounted Flask": lambda app, _: _mounted(app, _other_flask()),
    "a mounted WSGI app": lambda app, _: _mounted(app, lambda environ, start_response: []),
    "a mounted app with a mark but no gate": lambda app, _: _mounted(app, public("a reason")(lambda environ, start_response: [])),
    "a mounted app under a middleware": lambda app, world: _mounted(app, AxisWsgi(lambda environ, start_response: [], world.gate())),
    "a second rule of one view": lambda app, _: [
        app.add_url_rule(path, view_func=view, endpoint="p") for view in [lambda: "!"] for path in ("/planted", "/planted/again")
    ],
}  # fmt: skip


def marked_app(world: World) -> flask.Flask:
    """Every shape, marked: nothing to find."""
    app = flask.Flask("marked", static_folder="static")
    caps = world.caps

    @app.route("/a")
    @requires(caps.contacts.read)
    def a() -> str:
        return ""

    @app.route("/b", methods=["GET", "POST"])
    @public("everybody")
    def b() -> str:
        return ""

    @app.route("/c")
    @signed_in()
    def c() -> str:
        return ""

    @requires(caps.contacts.write)
    class Whole(MethodView):
        def get(self) -> str:
            return ""

    app.add_url_rule("/d", view_func=Whole.as_view("d"))
    app.add_url_rule("/old", redirect_to="/a", endpoint="old", view_func=None)
    return app


OPENED = {"/static/<path:filename>": "files that everybody may load"}


def test_the_audit_finds_nothing_in_a_marked_app(world: World) -> None:
    """Guards, reasons, sessions, classes, static files and redirects."""
    app = marked_app(world)
    audit = Audit.of(routes(app, OPENED))
    assert audit.unmarked == ()
    audit.require_marked()
    assert {route.path: route.may for route in audit.routes} == {
        "/static/<path:filename>": "public: files that everybody may load",
        "/a": "contacts.read",
        "/b": "public: everybody",
        "/c": "signed-in",
        "/d": "contacts.write",
    }


@pytest.mark.parametrize("shape", PLANTED)
def test_the_audit_finds_each_planted_route(world: World, shape: str) -> None:
    """One unguarded route among marked ones: found, alone, and an app in development does not serve."""
    app = marked_app(world)
    extension = AxisFlask(world.gate(environment=Environment.DEVELOPMENT), app, opened=OPENED)
    if shape == "a subdomain":
        app.subdomain_matching = True
    PLANTED[shape](app, world)
    unmarked = extension.audit(app).unmarked
    assert unmarked
    assert all("planted" in route.path or "/x" in route.path for route in unmarked)
    if not shape.startswith("a mounted"):
        with pytest.raises(UnmarkedRoutes):
            ask(app, "/b")

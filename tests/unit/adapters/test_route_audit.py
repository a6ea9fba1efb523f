"""The audit of routes finds each hole and nothing else, and what it finds is shut in production."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from tests.unit.adapters import planted as shapes

from axis_security import public, requires
from axis_security.adapters import fastapi as axis_fastapi
from axis_security.adapters import starlette as axis_starlette
from axis_security.adapters.asgi import GateMiddleware
from axis_security.adapters.audit import audit
from axis_security.adapters.fastapi import needs, opens
from axis_security.cli.routes import command
from axis_security.core.errors import ConfigError
from axis_security.core.settings import Environment
from axis_security.rbac.guard import Open
from axis_security.testing.adapter_clients import AsgiClient, Sent
from axis_security.testing.gate_world import GateWorld
from axis_security.wiring.errors import UnmarkedRoutes
from axis_security.wiring.marks import signed_in
from axis_security.wiring.routes import Audit, ListedRoute


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.__name__)
def test_the_hole_is_found_and_nothing_else(shape: shapes.Shape, tmp_path: Path) -> None:
    """One unmarked route of each shape, named with its path and methods."""
    made = shapes.planted(shape, GateWorld(), tmp_path)
    found = audit(made.app)
    assert [(route.path, route.methods) for route in found.unmarked] == [made.hole]
    assert len(found.routes) > 1
    with pytest.raises(UnmarkedRoutes, match="UNMARKED"):
        found.require_marked()


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.__name__)
def test_in_production_nobody_falls_into_the_hole(shape: shapes.Shape, tmp_path: Path) -> None:
    """Not even an owner; the endpoint's own code does not run, and nothing of its answer gets out."""
    world = GateWorld()
    made = shapes.planted(shape, world, tmp_path)
    axis_starlette.install(made.app, world.gate())
    owner = world.person("oli", tenant="t1", role="owner")
    headers = owner.headers(unsafe=True)
    path, methods = made.hole
    with AsgiClient(made.app) as client:
        fine = client.send(Sent(method="GET", target="/contacts", headers=tuple(owner.headers().items())))
        assert fine.status == 200
        if methods == ("WEBSOCKET",):
            messages = client.talk(path, headers=headers.items(), says=["hello"])
            assert [message["type"] for message in messages] == ["websocket.http.response.start", "websocket.http.response.body"]
            assert messages[0]["status"] == 403
            assert made.reached == []
            return
        method, target = made.asks or ("GET", "/hole")
        if path.startswith("//"):
            headers["host"] = path.split("/")[2]
        got = client.send(Sent(method=method, target=target, headers=tuple(headers.items())))
    assert got.status in ({500} if shape in (shapes.built_frontend, shapes.own_default) else {403})
    assert b"secret" not in got.body
    assert made.reached == []


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.__name__)
def test_in_development_an_app_with_a_hole_does_not_start(shape: shapes.Shape, tmp_path: Path) -> None:
    """The developer learns of it before anybody else."""
    world = GateWorld()
    made = shapes.planted(shape, world, tmp_path)
    axis_starlette.install(made.app, world.gate(environment=Environment.DEVELOPMENT))
    with AsgiClient(made.app) as client, pytest.raises(UnmarkedRoutes):
        client.start()


def whole_app(world: GateWorld, folder: Path) -> FastAPI:
    """Every way of marking a route."""
    caps = world.caps
    app = FastAPI()
    axis_fastapi.install(app, world.gate(), opened={"/openapi.json": "the document", "/docs": "docs", "/redoc": "docs"})

    @app.get("/contacts")
    @requires(caps.contacts.read)
    async def contacts() -> str:
        return "contacts"

    @app.get("/me")
    @signed_in()
    async def me() -> str:
        return "me"

    @app.get("/docs/oauth2-redirect-not")
    @public("a page")
    def page() -> str:
        return "page"

    inner = APIRouter()

    @inner.get("/by-parameter")
    async def by_parameter(who: Any = needs(caps.users.manage)) -> str:
        return str(who.role)

    @inner.post("/by-router")
    async def by_router() -> str:
        return "by router"

    app.include_router(inner, prefix="/admin", dependencies=[needs(caps.users.manage)])
    (folder / "index.html").write_text("hello")
    built = APIRouter(dependencies=[opens("the built frontend")])
    built.frontend("/ui", directory=folder)
    app.include_router(built)
    app.mount("/static", public("files")(StaticFiles(directory=folder)))
    sub = Starlette(routes=[Route("/anything", lambda request: None)])
    app.mount("/sub", public("a package's own pages")(sub))
    return app


def test_every_way_of_marking_is_seen(tmp_path: Path) -> None:
    """Decorators, dependencies on routers and parameters, marks on mounts, and opened paths; and each says who may."""
    world = GateWorld()
    app = whole_app(world, tmp_path)
    found = audit(app)
    assert [route.path for route in found.unmarked] == ["/docs/oauth2-redirect"]
    may = {(route.path, route.by): route.may for route in found.routes}
    assert may["/admin/by-parameter", "dependency"] == "users.manage"
    assert may["/admin/by-router", "dependency"] == "users.manage"
    assert may["/me", "endpoint"] == "signed-in"
    assert may["/ui/*", "dependency"] == "public: the built frontend"
    assert may["/static/*", "mount"] == "public: files"
    assert may["/sub/anything", "mount"] == "public: a package's own pages"
    assert may["/openapi.json", "open"] == "public: the document"
    assert "UNMARKED" in found.text()


def test_what_is_marked_can_be_reached(tmp_path: Path) -> None:
    """Each of those marks opens its route to whom it names, and to nobody else."""
    world = GateWorld()
    app = whole_app(world, tmp_path)
    people = {"owner": world.person("oli", tenant="t1", role="owner"), "member": world.person("mia", tenant="t1", role="member")}
    wanted = {
        ("GET", "/admin/by-parameter"): (200, 403, 401),
        ("POST", "/admin/by-router"): (200, 403, 401),
        ("GET", "/contacts"): (200, 200, 401),
        ("GET", "/me"): (200, 200, 401),
        ("GET", "/ui/"): (200, 200, 200),
        ("GET", "/static/index.html"): (200, 200, 200),
        ("GET", "/openapi.json"): (200, 200, 200),
        ("GET", "/docs/oauth2-redirect"): (403, 403, 403),
        ("GET", "/contacts/"): (307, 307, 307),
    }
    with AsgiClient(app) as client:
        for (method, target), statuses in wanted.items():
            for who, status in zip((people["owner"], people["member"], None), statuses, strict=True):
                headers = {"host": "app.example.com"} if who is None else who.headers(unsafe=method == "POST")
                got = client.send(Sent(method=method, target=target, headers=tuple(headers.items())))
                assert (target, got.status) == (target, status)


def test_the_document_says_who_needs_a_session(tmp_path: Path) -> None:
    """Guarded operations carry the cookie scheme, unsafe ones the token too; open ones carry nothing."""
    world = GateWorld()
    document = whole_app(world, tmp_path).openapi()
    paths = document["paths"]
    assert paths["/contacts"]["get"]["security"] == [{"session": []}]
    assert paths["/admin/by-router"]["post"]["security"] == [{"session": [], "csrf": []}]
    assert "security" not in paths["/docs/oauth2-redirect-not"]["get"]
    assert document["components"]["securitySchemes"]["session"]["name"] == "__Host-axis_session"
    assert set(paths["/contacts"]["get"]["responses"]) >= {"200", "401", "403"}


def test_an_opened_path_must_exist_and_have_a_reason() -> None:
    """A stale opening, or one without a reason, is refused."""
    world = GateWorld()
    with pytest.raises(ConfigError, match="reason"):
        axis_starlette.install(Starlette(), world.gate(), opened={"/x": " "})
    app = Starlette()
    axis_starlette.install(app, world.gate(), opened={"/x": "not there"})
    with AsgiClient(app) as client, pytest.raises(ConfigError, match="leads nowhere"):
        client.start()
    with pytest.raises(ConfigError, match="installed"):
        axis_starlette.install(app, world.gate())


def test_other_apps_list_themselves() -> None:
    """An app with `__axis_routes__`, one of no known kind, and what is no app at all."""

    class Own:
        def __axis_routes__(self) -> list[ListedRoute]:
            return [ListedRoute(path="/x", methods=("GET",), endpoint="x", mark=None)]

    async def raw(scope: Any, receive: Any, send: Any) -> None:
        """Nothing."""

    assert len(audit(Own()).unmarked) == 1
    world = GateWorld()
    assert audit(GateMiddleware(raw, gate=world.gate())).unmarked[0].path == "/*"
    assert audit(public("a probe")(raw)).unmarked == ()
    with pytest.raises(ConfigError, match="no app"):
        audit(object())


def test_the_command_lists_and_fails_on_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """`axis-security routes MODULE:APP`: a table or JSON, exit status 1 with a hole, 0 without."""
    world = GateWorld()
    made = shapes.planted(shapes.function, world, Path())
    module = types.ModuleType("an_app_to_list")
    module.app = made.app  # type: ignore[attr-defined]
    module.make = lambda: Starlette(routes=[Mount("/s", public("files")(StaticFiles(directory=".")))])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    run = CliRunner().invoke
    table = run(command, [f"{module.__name__}:app"])
    assert table.exit_code == 1
    assert "UNMARKED" in table.output
    assert "/hole" in table.output
    told = run(command, [f"{module.__name__}:app", "--json"])
    assert [route["path"] for route in json.loads(told.output)["routes"] if not route["ok"]] == ["/hole"]
    assert run(command, [f"{module.__name__}:make", "--factory"]).exit_code == 0
    assert run(command, ["no_such_module:app"]).exit_code == 2


def test_guards_are_worded() -> None:
    """What a route demands reads as a sentence, inner guards and step-ups included."""
    world = GateWorld()
    from datetime import timedelta

    @requires(world.caps.users.manage, fresh=timedelta(minutes=5))
    @requires(world.caps.contacts.read)
    def both() -> None:
        """Two guards."""

    route = ListedRoute(path="/x", methods=("GET",), endpoint="x", mark=both.__axis_guard__)  # type: ignore[attr-defined]
    assert route.may == "users.manage (signed in within 300 s) and contacts.read"
    assert Audit.of([route]).as_dict()["unmarked"] == 0
    assert ListedRoute(path="/", methods=("GET",), endpoint="x", mark=Open("why")).as_dict()["reason"] == "why"

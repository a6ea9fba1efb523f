"""ASGI, Starlette and FastAPI: the conformance suite, and adapters that are broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from axis_security.adapters import fastapi as axis_fastapi
from axis_security.adapters import starlette as axis_starlette
from axis_security.adapters.asgi import GateMiddleware, Receive, Scope, Send
from axis_security.testing.adapter_clients import AsgiClient
from axis_security.testing.adapter_conformance import PAGES, AdapterDiffers, Little, LittleRoute, Reference, conforms
from axis_security.testing.gate_world import GateWorld
from axis_security.wiring.gate import Gate
from axis_security.wiring.marks import mark_of
from axis_security.wiring.visit import Visit, current_visit

Build = Callable[[Little, Gate], Any]


def endpoint_of(route: LittleRoute) -> Callable[[Request], Any]:
    """A Starlette endpoint around the route's handler, with its mark."""

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        if route.streams:
            return StreamingResponse(route.handler(body), media_type="text/plain")
        return PlainTextResponse(route.handler(body))

    if route.mark is not None:
        endpoint.__axis_guard__ = route.mark  # type: ignore[attr-defined]
    return endpoint


def plain(little: Little, gate: Gate) -> Any:
    """An ASGI app without any framework: it tells the gate which endpoint it reached."""
    found = {(route.method, route.path): route for route in little.routes}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        route = found.get(("GET" if request.method == "HEAD" else request.method, request.url.path))
        if route is None:
            await PlainTextResponse("no such page", 404)(scope, receive, send)
            return
        endpoint = endpoint_of(route)
        gate.reached(current_visit(), mark_of(endpoint), route.path)
        await (await endpoint(request))(scope, receive, send)

    return GateMiddleware(app, gate=gate)


def starlette(little: Little, gate: Gate) -> Starlette:
    """A Starlette app."""
    app = Starlette(routes=[Route(route.path, endpoint_of(route), methods=[route.method]) for route in little.routes])
    axis_starlette.install(app, gate)
    return app


def mounted(little: Little, gate: Gate) -> Starlette:
    """A Starlette app inside another: its own error handling answers 500 before the refusal gets out."""
    inner = Starlette(routes=[Route(route.path, endpoint_of(route), methods=[route.method]) for route in little.routes])
    app = Starlette(routes=[Mount("/", inner)])
    axis_starlette.install(app, gate)
    return app


def fastapi(little: Little, gate: Gate) -> FastAPI:
    """A FastAPI app."""
    app = FastAPI(openapi_url=None)
    axis_fastapi.install(app, gate)
    for route in little.routes:
        methods = ["GET", "HEAD"] if route.method == "GET" else [route.method]
        app.add_api_route(route.path, endpoint_of(route), methods=methods, response_model=None)
    return app


def behind_middleware(little: Little, gate: Gate) -> FastAPI:
    """The same behind middleware that runs the app in a task of its own, and behind one that compresses."""

    async def timed(request: Request, call_next: Callable[[Request], Any]) -> Response:
        response: Response = await call_next(request)
        response.headers["x-took"] = "1"
        return response

    app = FastAPI(openapi_url=None)
    app.add_middleware(BaseHTTPMiddleware, dispatch=timed)
    app.add_middleware(GZipMiddleware)
    axis_fastapi.install(app, gate)
    for route in little.routes:
        methods = ["GET", "HEAD"] if route.method == "GET" else [route.method]
        app.add_api_route(route.path, endpoint_of(route), methods=methods, response_model=None)
    return app


def included(little: Little, gate: Gate) -> FastAPI:
    """A FastAPI app whose routes are in a router that is included."""
    from fastapi import APIRouter

    app, router = FastAPI(openapi_url=None), APIRouter()
    axis_fastapi.install(app, gate)
    for route in little.routes:
        methods = ["GET", "HEAD"] if route.method == "GET" else [route.method]
        router.add_api_route(route.path, endpoint_of(route), methods=methods, response_model=None)
    app.include_router(router)
    return app


def made(build: Build) -> Iterator[tuple[Any, Little, Gate]]:
    world = GateWorld()
    little = Little(world)
    gate = world.gate(pages=PAGES, anonymous=("/static/",))
    yield build(little, gate), little, gate


@pytest.mark.parametrize("build", [plain, starlette, mounted, fastapi, included, behind_middleware], ids=lambda build: build.__name__)
def test_an_adapter_conforms(build: Build) -> None:
    """Same requests, same verdicts, refusals equal to the byte."""
    ((app, little, gate),) = made(build)
    with AsgiClient(app) as client:
        assert conforms(client.send, little, gate) > 45


def test_the_reference_conforms() -> None:
    """The contract, driven by hand, keeps itself."""
    ((_, little, gate),) = made(plain)
    assert conforms(Reference(little, gate).send, little, gate) > 45


class Careless(Gate):
    """A gate whose adapter forgets one of its points."""

    forgets = ""

    def reached(self, visit: Visit, mark: Any, route: str) -> None:
        """Forgotten, or not."""
        if self.forgets != "reached":
            super().reached(visit, mark, route)
        else:
            visit.mark, visit.route = mark, route

    def leave(self, visit: Visit, *, status: int) -> Any:
        """Forgotten, or not."""
        return None if self.forgets == "leave" else super().leave(visit, status=status)

    def _forged(self, visit: Visit) -> Any:
        if self.forgets == "csrf":
            yield from ()
            return None
        return (yield from super()._forged(visit))


@pytest.mark.parametrize("point", ["reached", "leave", "csrf"])
def test_an_adapter_that_forgets_a_point_is_found(point: str) -> None:
    """The control: without any one of the points the suite turns red."""
    world = GateWorld()
    little = Little(world)
    gate = world.gate(pages=PAGES, anonymous=("/static/",))
    careless = Careless(
        auth=world.auth, identity=world.identity, events=world.world, clock=world.world, key=world.key, pages=PAGES, anonymous=("/static/",)
    )
    careless.forgets = point
    with AsgiClient(starlette(little, careless)) as client, pytest.raises(AdapterDiffers):
        conforms(client.send, little, gate)

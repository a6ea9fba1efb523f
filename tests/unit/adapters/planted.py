"""Unguarded routes in every shape that Starlette and FastAPI have. Each builds an app where everything else is marked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from axis_security import public, requires
from axis_security.testing.gate_world import GateWorld

__all__ = ["SHAPES", "Planted"]

Endpoint = Callable[..., Any]


@dataclass(frozen=True)
class Planted:
    """An app with one hole.

    Args:
        hole: the path that the audit must name, and the methods.
        asks: a request that would fall into it; ``None`` for a WebSocket, or another host.
    """

    app: Any
    hole: tuple[str, tuple[str, ...]]
    asks: tuple[str, str] | None
    reached: list[str]


class Parts:
    """What shapes are made of."""

    def __init__(self, world: GateWorld, reached: list[str], folder: Path) -> None:
        self.caps = world.caps
        self.reached = reached
        self.folder = folder

    def open(self) -> Endpoint:
        """An endpoint that nobody marked."""

        async def hole(request: Request) -> Response:
            self.reached.append("hole")
            return PlainTextResponse("secret")

        return hole

    def guarded(self) -> Endpoint:
        """A guarded one."""

        @requires(self.caps.contacts.read)
        async def contacts(request: Request) -> Response:
            return PlainTextResponse("contacts")

        return contacts

    def socket(self) -> Endpoint:
        """An unmarked WebSocket."""

        async def live(websocket: WebSocket) -> None:
            self.reached.append("hole")
            await websocket.accept()
            await websocket.send_text("secret")

        return live

    def fastapi(self) -> FastAPI:
        """An app with one guarded route."""
        app = FastAPI(openapi_url=None)
        app.add_api_route("/contacts", self.guarded(), response_model=None)
        return app

    def starlette(self, *routes: Any, **settings: Any) -> Starlette:
        """Likewise."""
        return Starlette(routes=[Route("/contacts", self.guarded()), *routes], **settings)


Shape = Callable[[Parts], tuple[Any, str, tuple[str, ...], tuple[str, str] | None]]


def function(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_route("/hole", parts.open(), response_model=None)
    return app, "/hole", ("GET",), ("GET", "/hole")


def other_method(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_route("/contacts", parts.open(), methods=["DELETE"], response_model=None)
    return app, "/contacts", ("DELETE",), ("DELETE", "/contacts")


def head_only(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_route("/contacts", parts.open(), methods=["HEAD"], response_model=None)
    return app, "/contacts", ("HEAD",), ("HEAD", "/contacts")


def options_only(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_route("/contacts", parts.open(), methods=["OPTIONS"], response_model=None)
    return app, "/contacts", ("OPTIONS",), ("OPTIONS", "/contacts")


def several_methods(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_route("/hole", parts.open(), methods=["PUT", "PATCH"], response_model=None)
    return app, "/hole", ("PATCH", "PUT"), ("PATCH", "/hole")


def path_parameter(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_route("/hole/{name:path}", parts.open(), response_model=None)
    return app, "/hole/{name}", ("GET",), ("GET", "/hole/a/b")


def included_router(parts: Parts) -> Any:
    app, router = parts.fastapi(), APIRouter(prefix="/a")
    router.add_api_route("/hole", parts.open(), response_model=None)
    app.include_router(router)
    return app, "/a/hole", ("GET",), ("GET", "/a/hole")


def router_in_router(parts: Parts) -> Any:
    app, outer, inner = parts.fastapi(), APIRouter(prefix="/a"), APIRouter(prefix="/b")
    inner.add_api_route("/hole", parts.open(), response_model=None)
    outer.include_router(inner)
    app.include_router(outer, prefix="/v1")
    return app, "/v1/a/b/hole", ("GET",), ("GET", "/v1/a/b/hole")


def added_after_inclusion(parts: Parts) -> Any:
    app, router = parts.fastapi(), APIRouter(prefix="/a")
    app.include_router(router)
    router.add_api_route("/hole", parts.open(), response_model=None)
    return app, "/a/hole", ("GET",), ("GET", "/a/hole")


def harmless_dependency(parts: Parts) -> Any:
    async def database() -> int:
        return 1

    app = parts.fastapi()
    app.add_api_route("/hole", parts.open(), dependencies=[Depends(database)], response_model=None)
    return app, "/hole", ("GET",), ("GET", "/hole")


def hidden_from_the_schema(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_route("/hole", parts.open(), include_in_schema=False, response_model=None)
    return app, "/hole", ("GET",), ("GET", "/hole")


def starlette_route_in_fastapi(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_route("/hole", parts.open())
    return app, "/hole", ("GET", "HEAD"), ("GET", "/hole")


def appended_to_the_router(parts: Parts) -> Any:
    app = parts.starlette()
    app.router.routes.append(Route("/hole", parts.open()))
    return app, "/hole", ("GET", "HEAD"), ("GET", "/hole")


def socket(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_websocket_route("/live", parts.socket())
    return app, "/live", ("WEBSOCKET",), None


def socket_in_a_router(parts: Parts) -> Any:
    app, router = parts.fastapi(), APIRouter(prefix="/a")
    router.add_api_websocket_route("/live", parts.socket())
    app.include_router(router)
    return app, "/a/live", ("WEBSOCKET",), None


def class_of_handlers(parts: Parts) -> Any:
    class View(HTTPEndpoint):
        @requires(parts.caps.contacts.read)
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("contacts")

        async def delete(self, request: Request) -> Response:
            parts.reached.append("hole")
            return PlainTextResponse("gone")

    return parts.starlette(Route("/view", View)), "/view", ("DELETE",), ("DELETE", "/view")


def class_of_socket_handlers(parts: Parts) -> Any:
    class Live(WebSocketEndpoint):
        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            parts.reached.append("hole")

    return parts.starlette(WebSocketRoute("/live", Live)), "/live", ("WEBSOCKET",), None


def partial(parts: Parts) -> Any:
    async def hole(request: Request, name: str) -> Response:
        parts.reached.append("hole")
        return PlainTextResponse(name)

    return (
        parts.starlette(Route("/hole", functools.partial(hole, name="x"), methods=["GET"])),
        "/hole",
        ("GET", "HEAD"),
        ("GET", "/hole"),
    )


def bound_method(parts: Parts) -> Any:
    class Views:
        async def hole(self, request: Request) -> Response:
            parts.reached.append("hole")
            return PlainTextResponse("secret")

    return parts.starlette(Route("/hole", Views().hole)), "/hole", ("GET", "HEAD"), ("GET", "/hole")


def callable_object(parts: Parts) -> Any:
    class View:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            parts.reached.append("hole")
            await PlainTextResponse("secret")(scope, receive, send)

    return parts.starlette(Route("/hole", View())), "/hole", ("*",), ("GET", "/hole")


def wrapped_without_wraps(parts: Parts) -> Any:
    guarded = parts.guarded()

    async def outer(request: Request) -> Response:
        parts.reached.append("hole")
        response: Response = await guarded(request)
        return response

    return parts.starlette(Route("/hole", outer)), "/hole", ("GET", "HEAD"), ("GET", "/hole")


def mounted_app(parts: Parts) -> Any:
    inner = Starlette(routes=[Route("/hole", parts.open())])
    return parts.starlette(Mount("/sub", inner)), "/sub/hole", ("GET", "HEAD"), ("GET", "/sub/hole")


def mounted_fastapi(parts: Parts) -> Any:
    inner = parts.fastapi()
    inner.add_api_route("/hole", parts.open(), response_model=None)
    app = parts.fastapi()
    app.mount("/sub", inner)
    return app, "/sub/hole", ("GET",), ("GET", "/sub/hole")


def mounted_behind_middleware(parts: Parts) -> Any:
    routes = [Route("/hole", parts.open())]
    app = parts.starlette(Mount("/sub", routes=routes, middleware=[Middleware(GZipMiddleware)]))
    return app, "/sub/hole", ("GET", "HEAD"), ("GET", "/sub/hole")


def router_mounted_in_a_router(parts: Parts) -> Any:
    inner = Router(routes=[Route("/hole", parts.open())])
    return parts.starlette(Mount("/a", routes=[Mount("/b", inner)])), "/a/b/hole", ("GET", "HEAD"), ("GET", "/a/b/hole")


def mounted_asgi_function(parts: Parts) -> Any:
    async def raw(scope: Any, receive: Any, send: Any) -> None:
        parts.reached.append("hole")
        await PlainTextResponse("secret")(scope, receive, send)

    return parts.starlette(Mount("/raw", raw)), "/raw/*", ("*",), ("GET", "/raw/x")


def static_files(parts: Parts) -> Any:
    (parts.folder / "secret.txt").write_text("secret")
    return parts.starlette(Mount("/files", StaticFiles(directory=parts.folder))), "/files/*", ("*",), ("GET", "/files/secret.txt")


def other_host(parts: Parts) -> Any:
    inner = Router(routes=[Route("/hole", parts.open())])
    return parts.starlette(Host("admin.example.com", inner)), "//admin.example.com/hole", ("GET", "HEAD"), None


def built_frontend(parts: Parts) -> Any:
    (parts.folder / "index.html").write_text("secret")
    app = parts.fastapi()
    app.frontend("/ui", directory=parts.folder)
    return app, "/ui/*", ("GET", "HEAD"), ("GET", "/ui/")


def own_default(parts: Parts) -> Any:
    async def anything_else(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("secret")(scope, receive, send)

    app = parts.starlette()
    app.router.default = anything_else
    return app, "/*", ("*",), ("GET", "/whatever")


def route_of_another_kind(parts: Parts) -> Any:
    class Own(BaseRoute):
        path = "/hole"

        def matches(self, scope: Any) -> Any:
            return (Match.FULL, {}) if scope["path"] == self.path else (Match.NONE, {})

        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            scope["endpoint"] = self.handle
            parts.reached.append("hole")
            await PlainTextResponse("secret")(scope, receive, send)

    return parts.starlette(Own()), "/hole/*", ("GET", "HEAD"), ("GET", "/hole")


def api_document(parts: Parts) -> Any:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.add_api_route("/contacts", parts.guarded(), response_model=None)
    return app, "/openapi.json", ("GET", "HEAD"), ("GET", "/openapi.json")


def beside_a_public_one(parts: Parts) -> Any:
    app = parts.fastapi()
    app.add_api_route("/hello", public("says hello")(parts.open()), response_model=None)
    app.add_api_route("/hole", parts.open(), methods=["POST"], response_model=None)
    return app, "/hole", ("POST",), ("POST", "/hole")


SHAPES: tuple[Shape, ...] = (
    function,
    other_method,
    head_only,
    options_only,
    several_methods,
    path_parameter,
    included_router,
    router_in_router,
    added_after_inclusion,
    harmless_dependency,
    hidden_from_the_schema,
    starlette_route_in_fastapi,
    appended_to_the_router,
    socket,
    socket_in_a_router,
    class_of_handlers,
    class_of_socket_handlers,
    partial,
    bound_method,
    callable_object,
    wrapped_without_wraps,
    mounted_app,
    mounted_fastapi,
    mounted_behind_middleware,
    router_mounted_in_a_router,
    mounted_asgi_function,
    static_files,
    other_host,
    built_frontend,
    own_default,
    route_of_another_kind,
    api_document,
    beside_a_public_one,
)


def planted(shape: Shape, world: GateWorld, folder: Path) -> Planted:
    """The app of *shape*."""
    reached: list[str] = []
    app, path, methods, asks = shape(Parts(world, reached, folder))
    return Planted(app, (path, methods), asks, reached)

"""What the conformance suite does not ask of ASGI: WebSockets, streams whose guard speaks late, errors on the way, unknown connections, addresses of the gate's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from axis_security import Secret, public, requires
from axis_security.adapters import asgi
from axis_security.adapters import fastapi as axis_fastapi
from axis_security.adapters import starlette as axis_starlette
from axis_security.adapters.asgi import GateMiddleware
from axis_security.adapters.audit import audit
from axis_security.adapters.fastapi import CurrentPrincipal, CurrentSession, CurrentVisit, opens
from axis_security.core.checks import CheckResult
from axis_security.core.context import current_principal, maybe_principal
from axis_security.core.errors import CheckFailed, ConfigError, PrincipalRequired
from axis_security.core.events import EventKind
from axis_security.ops.disclosure import SecurityTxt
from axis_security.ops.health import HealthCheck, HealthMonitor
from axis_security.testing.adapter_clients import AsgiClient, Sent
from axis_security.testing.gate_world import ORIGIN, GateWorld
from axis_security.wiring.endpoints import health, metrics, security_txt
from axis_security.wiring.errors import NoVisit
from axis_security.wiring.marks import signed_in
from axis_security.wiring.refusals import Pages
from axis_security.wiring.visit import current_visit


def get(target: str, headers: dict[str, str] | None = None, method: str = "GET") -> Sent:
    """A request."""
    return Sent(method=method, target=target, headers=tuple((headers or {}).items()))


def socket_app(world: GateWorld, recheck_seconds: float = 60.0) -> FastAPI:
    """One guarded WebSocket, one that answers before any guard was asked."""
    app = FastAPI(openapi_url=None)
    axis_fastapi.install(app, world.gate())
    app.user_middleware[0].kwargs["recheck_seconds"] = recheck_seconds

    @app.websocket("/live")
    @requires(world.caps.contacts.read)
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{current_principal().tenant.text} {text}")

    async def quick(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("secret")

    quick.__axis_guard__ = live.__axis_guard__  # type: ignore[attr-defined]  # a mark without the guard behind it
    app.add_api_websocket_route("/quick", quick)
    return app


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    """The messages' types."""
    return [message["type"].removeprefix("websocket.") for message in messages]


def test_a_websocket_acts_for_its_person() -> None:
    """The principal is held for as long as the connection lives, and for nobody after it."""
    world = GateWorld()
    ann = world.person("ann", tenant="t1", role="viewer")
    with AsgiClient(socket_app(world)) as client:
        messages = client.talk("/live", headers=[*ann.headers().items(), ("origin", ORIGIN)], says=["a", "b"])
    assert [message.get("text") for message in messages if message["type"] == "websocket.send"] == ["t1 a", "t1 b"]
    assert maybe_principal() is None


@pytest.mark.parametrize("origin", [None, "https://evil.example", "https://app.example.com.evil.example", "null"])
def test_another_origin_opens_no_websocket_on_a_session(origin: str | None) -> None:
    """A browser always says where a handshake comes from; without our own origin there is none (RFC 6455 section 10.2)."""
    world = GateWorld()
    ann = world.person("ann", tenant="t1", role="viewer")
    headers = [*ann.headers().items(), *([("origin", origin)] if origin else [])]
    with AsgiClient(socket_app(world)) as client:
        messages = client.talk("/live", headers=headers, says=["a"])
        assert (kinds(messages)[0], messages[0]["status"]) == ("http.response.start", 403)
        assert kinds(client.talk("/live", headers=headers, says=["a"], whole=False)) == ["close"]


def test_a_stranger_opens_no_guarded_websocket() -> None:
    """Refused before it is accepted: the whole answer where the server can send one."""
    world = GateWorld()
    with AsgiClient(socket_app(world)) as client:
        messages = client.talk("/live", headers=[("origin", ORIGIN)])
        assert messages[0]["status"] == 401
        assert kinds(client.talk("/live", headers=[("origin", ORIGIN)], whole=False)) == ["close"]


def test_a_websocket_sends_nothing_without_a_decision() -> None:
    """Accepted, perhaps; but no word goes out before a guard was asked."""
    world = GateWorld()
    ann = world.person("ann", tenant="t1", role="viewer")
    with AsgiClient(socket_app(world)) as client:
        messages = client.talk("/quick", headers=[*ann.headers().items(), ("origin", ORIGIN)])
    assert kinds(messages) == ["accept", "close"]
    assert EventKind.NO_DECISION in world.world.kinds()


def test_a_websocket_ends_with_the_right_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is looked at again while the connection lives; what ended meanwhile ends the connection."""
    world = GateWorld()
    ann = world.person("ann", tenant="t1", role="viewer")
    headers = [*ann.headers().items(), ("origin", ORIGIN)]

    def says() -> Any:
        yield "a"
        yield "b"

    with AsgiClient(socket_app(world, recheck_seconds=0.0)) as client:
        before = client.talk("/live", headers=headers, says=says())
        assert kinds(before).count("send") == 2
        resolve = world.members.resolve
        looks = []

        def gone(tenant: Any, user: Any) -> Any:
            looks.append(user)
            return resolve(tenant, user) if len(looks) < 3 else None

        monkeypatch.setattr(world.members, "resolve", gone)
        after = client.talk("/live", headers=headers, says=says())
    assert kinds(after).count("send") <= 1
    assert kinds(after)[-1] == "close"
    assert after[-1]["code"] == 1008


def test_a_websocket_that_was_ended_stays_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that reads on after the end, as a second task of it would, hears nothing more of the client, and sends it nothing more."""
    world = GateWorld()
    ann = world.person("ann", tenant="t1", role="viewer")
    sent: list[Any] = []
    heard: list[str] = []
    now = [0.0]

    @requires(world.caps.contacts.read)
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        heard.append((await receive())["type"])
        now[0] += 61
        monkeypatch.setattr(world.members, "resolve", lambda tenant, user: None)
        for _ in range(3):
            heard.append((await receive())["type"])
            with pytest.raises(PrincipalRequired):
                await send({"type": "websocket.send", "text": "secret"})
        await send({"type": "websocket.close", "code": 1000})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.receive", "text": "do it"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in (*ann.headers().items(), ("origin", ORIGIN))]
    scope = {"type": "websocket", "path": "/", "scheme": "wss", "headers": headers, "client": ("192.0.2.1", 1)}
    monkeypatch.setattr(asgi, "time", SimpleNamespace(monotonic=lambda: now[0]))
    asyncio.run(GateMiddleware(app, gate=world.gate())(scope, receive, send))
    assert heard == ["websocket.receive", *["websocket.disconnect"] * 3]
    assert kinds(sent) == ["accept", "close"]


def guarded_stream(world: GateWorld) -> Any:
    """A generator that is guarded itself, behind an endpoint whose mark is not the guard's own."""

    @requires(world.caps.users.manage)
    async def rows() -> AsyncIterator[str]:
        yield "secret"

    async def export(request: Request) -> Response:
        return StreamingResponse(rows())

    export.__axis_guard__ = rows.__axis_guard__  # type: ignore[attr-defined]
    app = Starlette(routes=[Route("/export", export)])
    axis_starlette.install(app, world.gate())
    return app


def test_a_guard_that_speaks_at_the_first_piece_is_still_in_time() -> None:
    """The start of a stream waits for its first piece, so that the refusal is a whole one."""
    world = GateWorld()
    member, owner = world.person("mia", tenant="t1", role="member"), world.person("oli", tenant="t1", role="owner")
    with AsgiClient(guarded_stream(world)) as client:
        refused = client.send(get("/export", member.headers()))
        given = client.send(get("/export", owner.headers()))
    assert (refused.status, b"rbac.denied" in refused.body) == (403, True)
    assert (given.status, given.body) == (200, b"secret")


def test_an_error_of_the_app_is_the_apps_own() -> None:
    """Errors that do not speak to the stranger go to the framework's error handling; bytes that went out are not followed by a refusal."""
    world = GateWorld()

    @public("breaks")
    async def broken(request: Request) -> Response:
        raise CheckFailed(what="a check failed", why="a test", fix="none")

    @public("breaks later")
    async def late(request: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            current_principal()

        return StreamingResponse(pieces())

    async def handled(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", 500)

    app = Starlette(routes=[Route("/broken", broken), Route("/late", late)], exception_handlers={Exception: handled})
    axis_starlette.install(app, world.gate())
    with AsgiClient(app) as client:
        with pytest.raises(CheckFailed):
            client.send(get("/broken"))
        with pytest.raises(Exception, match="no principal is bound"):
            client.send(get("/late"))


def test_an_unknown_kind_of_connection_is_refused() -> None:
    """What this release does not know is not passed through."""
    world = GateWorld()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("passed through")

    async def call() -> None:
        await GateMiddleware(app, gate=world.gate())({"type": "webtransport"}, None, None)  # type: ignore[arg-type]

    with AsgiClient(app) as client, pytest.raises(RuntimeError, match="webtransport"):
        client.runner.run(call())


def test_an_app_without_routes_must_decide() -> None:
    """Any ASGI app: what answers without a decision is withheld, and a mark on the app itself opens it."""
    world = GateWorld()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({"secret": 1})(scope, receive, send)

    with AsgiClient(GateMiddleware(app, gate=world.gate())) as client:
        got = client.send(get("/"))
    assert (got.status, b"secret" in got.body) == (500, False)
    with AsgiClient(GateMiddleware(public("a demo")(app), gate=world.gate())) as client:
        assert client.send(get("/")).status == 200


def test_typed_dependencies() -> None:
    """The principal, the session and the visit as parameters; each refuses where there is none."""
    world = GateWorld()
    app = FastAPI(openapi_url=None)
    axis_fastapi.install(app, world.gate())

    @app.get("/mine")
    @signed_in()
    async def mine(session: CurrentSession, visit: CurrentVisit) -> str:
        return f"{session.user.text} {len(visit.csrf_token())}"

    @app.get("/either")
    @public("shows who asks")
    async def either(me: CurrentPrincipal) -> str:
        return me.role

    @app.get("/session")
    @public("shows who asks")
    async def session(session: CurrentSession) -> str:
        return session.user.text

    ann, hal = world.person("ann", tenant="t1", role="viewer"), world.person("hal")
    with AsgiClient(app) as client:
        assert client.send(get("/mine", hal.headers())).body == b'"hal 86"'
        assert client.send(get("/either", ann.headers())).body == b'"viewer"'
        assert b"gate.no_workspace" in client.send(get("/either", hal.headers())).body
        assert client.send(get("/session")).status == 401
    with pytest.raises(ConfigError, match="reason"):
        opens(" ")
    with pytest.raises(NoVisit):
        current_visit()


def probes(*, ok: bool) -> HealthMonitor:
    """A monitor with one check."""
    check = HealthCheck(name="db", run=lambda: CheckResult(name="db", ok=ok, seen="looked"))
    return HealthMonitor([check], sink=GateWorld().world)


TOKEN = "t" * 40


def own_addresses(world: GateWorld, *, ok: bool = True) -> Starlette:
    """An app whose gate answers for health, security.txt and metrics."""
    text = SecurityTxt(contact=("mailto:security@example.com",), reviewed_on=date(2025, 12, 1))
    endpoints = (
        *health(probes(ok=ok), capability=world.caps.users.manage),
        *security_txt(text, clock=world.world),
        *metrics(lambda: b"up 1\n", token=Secret(TOKEN)),
    )
    app = Starlette()
    axis_starlette.install(app, world.gate(endpoints=endpoints))
    return app


def test_the_gate_answers_for_health_and_disclosure() -> None:
    """Strangers see one word; details need the capability; no probe asks the session store."""
    world = GateWorld()
    owner, member = world.person("oli", tenant="t1", role="owner"), world.person("mia", tenant="t1", role="member")
    with AsgiClient(own_addresses(world)) as client:
        asked = len(world.world.ops)
        for path in ("/livez", "/readyz", "/startupz"):
            got = client.send(get(path, owner.headers()))
            assert (got.status, got.body, got.header("cache-control")) == (200, b'{"status": "ok"}', "no-store")
        assert len(world.world.ops) == asked
        assert b'"db"' in client.send(get("/readyz?verbose", owner.headers())).body
        assert client.send(get("/readyz?verbose", member.headers())).status == 403
        assert client.send(get("/readyz?verbose")).status == 401
        assert client.send(get("/livez", method="POST")).status == 405
        assert client.send(get("/livez", method="HEAD")).body == b""
        text = client.send(get("/.well-known/security.txt"))
        assert b"Contact: mailto:security@example.com" in text.body
        assert text.header("content-type") == "text/plain; charset=utf-8"
        assert text.header("strict-transport-security") is not None
    with AsgiClient(own_addresses(GateWorld(), ok=False)) as client:
        assert client.send(get("/livez")).status == 200
        assert client.send(get("/readyz")).status == 503


def test_strangers_write_nothing_into_the_audit_log() -> None:
    """Asking for details without a session is answered, and costs no event: else anybody could fill the log from outside."""
    world = GateWorld()
    with AsgiClient(own_addresses(world)) as client:
        assert client.send(get("/readyz?verbose")).status == 401
    assert world.world.events == []


def test_a_request_cannot_name_a_method_of_a_class_view_that_is_no_handler() -> None:
    """Older Starlette runs whatever of the class bears the name that the request gives; the mark of the class speaks of its handlers, QUERY among them."""
    world, ran = GateWorld(), list[str]()

    @requires(world.caps.users.manage)
    class Page(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("page")

        async def query(self, request: Request) -> Response:
            ran.append("queried")
            return PlainTextResponse("queried")

        async def erase(self, request: Request) -> Response:
            ran.append("erased")
            return PlainTextResponse("erased")

    app = Starlette(routes=[Route("/page", Page)])
    axis_starlette.install(app, world.gate())
    member, owner = (world.person(name, tenant="t1", role=name) for name in ("member", "owner"))
    with AsgiClient(app) as client:
        for person in (member, owner):
            headers = {**person.headers(), "x-csrf-token": person.token(), "origin": ORIGIN}
            assert client.send(get("/page", headers, method="ERASE")).status == 403
            assert client.send(get("/page", headers, method="NOTHING")).status == 405
            if person is member:
                assert client.send(get("/page", headers, method="QUERY")).status == 403
                assert ran == []
        assert client.send(get("/page", owner.headers())).body == b"page"
    assert "erased" not in ran


def test_metrics_need_the_scrapers_token() -> None:
    """No token, no metrics; and a token that can be guessed is refused."""
    with AsgiClient(own_addresses(GateWorld())) as client:
        assert client.send(get("/metrics")).status == 401
        assert client.send(get("/metrics", {"authorization": f"Bearer {TOKEN}x"})).status == 401
        assert client.send(get("/metrics", {"authorization": f"Bearer {TOKEN}"})).body == b"up 1\n"
    with pytest.raises(ConfigError, match="too short"):
        metrics(lambda: b"", token=Secret("short"))


def test_own_addresses_are_in_the_audit() -> None:
    """Whoever lists the routes sees them, with the reason."""
    found = {route.path: route.may for route in audit(own_addresses(GateWorld())).routes}
    assert found["/livez"] == "public: liveness probe: one word"
    assert len(found) == 5


def test_pages_are_plain_paths() -> None:
    """Where people are sent is an address of this app; and a host's own page may take the problem's place."""
    with pytest.raises(ConfigError):
        Pages(sign_in="https://evil.example/login")
    world = GateWorld()
    app = Starlette()
    axis_starlette.install(app, world.gate(pages=Pages(render=lambda status, public: f"<h1>{status} {public['code']}</h1>")))

    @requires(world.caps.contacts.read)
    async def contacts(request: Request) -> Response:
        return PlainTextResponse("contacts")

    app.router.routes.append(Route("/contacts", contacts))
    with AsgiClient(app) as client:
        page = client.send(get("/contacts", {"accept": "text/html"}))
    assert (page.status, page.body) == (401, b"<h1>401 axis.principal_required</h1>")
    assert page.header("content-type") == "text/html; charset=utf-8"


def test_the_way_back_after_login_is_a_path_of_this_app() -> None:
    """Whatever the address, `next` never leads elsewhere."""
    world = GateWorld()
    app = Starlette(routes=[Route("/{rest:path}", requires(world.caps.contacts.read)(_never))])
    axis_starlette.install(app, world.gate(pages=Pages(sign_in="/login")))
    with AsgiClient(app) as client:
        for target, back in (
            ("/a/b?x=1", "/a/b%3Fx%3D1"),
            ("//evil.example/x", "/"),
            ("/%5Cevil.example", "/"),
            ("/a%20b", "/"),
        ):
            got = client.send(get(target, {"accept": "text/html"}))
            assert (got.status, got.header("location")) == (303, f"/login?next={back}")


async def _never(request: Request) -> Response:
    raise AssertionError("reached")

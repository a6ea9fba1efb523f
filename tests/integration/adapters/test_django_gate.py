"""Django does what every adapter must, under WSGI and ASGI, with sync and async views; what is particular to it; and the audit of its routes."""

from __future__ import annotations

import asyncio
import gc
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.integration.adapters import django_site

from axis_security import current_principal, public, requires
from axis_security.core.context import maybe_principal
from axis_security.core.errors import ConfigError
from axis_security.core.events import NullSink
from axis_security.core.settings import Environment
from axis_security.ops.disclosure import SecurityTxt
from axis_security.ops.health import HealthMonitor
from axis_security.testing.adapter_clients import AsgiClient, Got, Sent, WsgiClient
from axis_security.testing.adapter_conformance import PAGES, AdapterDiffers, Little, conforms
from axis_security.testing.gate_world import GateWorld, Person
from axis_security.wiring.endpoints import health, security_txt
from axis_security.wiring.errors import UnmarkedRoutes
from axis_security.wiring.marks import signed_in
from axis_security.wiring.visit import current_visit

django_site.ready()

from django.contrib.admin.sites import AdminSite  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import FileResponse, HttpResponse, StreamingHttpResponse  # noqa: E402
from django.template import engines  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import include, path, re_path  # noqa: E402
from django.utils.decorators import method_decorator  # noqa: E402
from django.views import View  # noqa: E402
from django.views.decorators.http import require_http_methods  # noqa: E402
from django.views.generic import TemplateView  # noqa: E402
from tests.integration.adapters import django_models  # noqa: E402

from axis_security.adapters.django import audit  # noqa: E402

MIDDLEWARE = "axis_security.adapters.django.AxisMiddleware"
SETTINGS = {"GATE": "tests.integration.adapters.django_models.gate", "TENANCY": "tests.integration.adapters.django_models.tenancy"}


def urlconf(*patterns: Any) -> ModuleType:
    """A URLconf of its own: Django keeps its resolvers by the module."""
    made = ModuleType("urls_of_one_test")
    made.urlpatterns = list(patterns)  # type: ignore[attr-defined]
    return made


@contextmanager
def serving(
    gate: Any, *patterns: Any, middleware: tuple[str, ...] = (), opened: dict[str, str] | None = None, **more: Any
) -> Iterator[None]:
    """Django with this gate and these routes."""
    django_models.gate = gate
    settings = {
        "ROOT_URLCONF": urlconf(*patterns),
        "MIDDLEWARE": [MIDDLEWARE, *middleware],
        "AXIS_SECURITY": {**SETTINGS, "OPENED": opened or {}},
    }
    with override_settings(**settings, **more):
        yield


@pytest.fixture
def world() -> GateWorld:
    return GateWorld()


@pytest.fixture
def ann(world: GateWorld) -> Person:
    return world.person("ann", tenant="acme", role="member")


def ask(target: str, who: Person | None = None, *, method: str = "GET", body: bytes = b"", headers: dict[str, str] | None = None) -> Got:
    """Through WSGI."""
    sent = {} if who is None else who.headers(unsafe=method not in {"GET", "HEAD", "OPTIONS"})
    with WsgiClient(WSGIHandler()) as client:
        return client.send(
            Sent(method=method, target=target, headers=tuple({"host": "app.example.com", **sent, **(headers or {})}.items()), body=body)
        )


def little_urls(little: Little, *, asynchronous: bool, classes: bool) -> list[Any]:
    """One pattern for each path, as views or as class views."""
    by_path: dict[str, dict[str, Any]] = {}
    for route in little.routes:
        by_path.setdefault(route.path.removeprefix("/"), {})[route.method] = route

    def answer(route: Any, request: Any) -> Any:
        text = route.handler(request.body)
        return StreamingHttpResponse(text, content_type="text/plain") if route.streams else HttpResponse(text, content_type="text/plain")

    async def aanswer(route: Any, request: Any) -> Any:
        text = route.handler(request.body)
        if not route.streams:
            return HttpResponse(text, content_type="text/plain")

        async def pieces() -> AsyncIterator[str]:
            for piece in text:
                yield piece
                await asyncio.sleep(0)

        return StreamingHttpResponse(pieces(), content_type="text/plain")

    def handler(route: Any) -> Any:
        if asynchronous:

            async def aview(self: Any, request: Any = None) -> Any:
                return await aanswer(route, request or self)

            made: Any = aview
        else:

            def view(self: Any, request: Any = None) -> Any:
                return answer(route, request or self)

            made = view
        made.__axis_guard__ = route.mark
        return made

    found = []
    for target, by_method in by_path.items():
        if classes or len(by_method) > 1:
            methods = {method.lower(): handler(route) for method, route in by_method.items()}
            made: Any = type("Little", (View,), methods)
            found.append(path(target, made.as_view()))
        else:
            found += [path(target, handler(route)) for route in by_method.values()]
    return found


@pytest.mark.parametrize("classes", [False, True], ids=["functions", "classes"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync views", "async views"])
@pytest.mark.parametrize("server", ["wsgi", "asgi"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_the_adapter_conforms(server: str, asynchronous: bool, classes: bool) -> None:
    """Every case of the suite, whichever way Django is served and views are written."""
    world = GateWorld()
    little, gate = Little(world), world.gate(pages=PAGES, anonymous=("/static/",))
    with serving(gate, *little_urls(little, asynchronous=asynchronous, classes=classes)):
        with WsgiClient(WSGIHandler()) if server == "wsgi" else AsgiClient(ASGIHandler()) as client:
            assert conforms(client.send, little, gate) > 40


@pytest.mark.parametrize("breaks", ["reached", "leave", "_forged"])
def test_the_control_an_adapter_that_skips_a_point_is_found(breaks: str) -> None:
    """Without one of the gate's points the suite does not pass."""
    world = GateWorld()
    little, gate, lame = Little(world), world.gate(pages=PAGES, anonymous=("/static/",)), world.gate(pages=PAGES, anonymous=("/static/",))
    setattr(lame, breaks, (lambda visit: iter(())) if breaks == "_forged" else lambda *_, **__: None)
    with serving(lame, *little_urls(little, asynchronous=False, classes=False)), pytest.raises((AdapterDiffers, TypeError)):
        with WsgiClient(WSGIHandler()) as client:
            conforms(client.send, little, gate)


def test_forms_files_and_templates(world: GateWorld, ann: Person) -> None:
    """A template's field carries the token; Django reads the whole form after the gate has; the nonce is the answer's."""

    @requires(world.caps.contacts.write)
    def form(request: Any) -> Any:
        if request.method == "POST":
            return HttpResponse(f"{request.POST['text']} {request.FILES['file'].read().decode()}")
        page = engines.all()[0].from_string("{{ axis_csrf_field }}|{{ axis_nonce }}|{{ axis_csrf_token }}")
        return HttpResponse(page.render({}, request))

    templates = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"context_processors": ["axis_security.adapters.django.context"]},
        }
    ]
    with serving(world.gate(), path("form", form), TEMPLATES=templates):
        got = ask("/form", ann)
        field, nonce, token = got.body.decode().split("|")
        assert f"'nonce-{nonce}'" in (got.header("content-security-policy") or "")
        assert 'name="csrf_token"' in field
        assert token
        value = field.partition('value="')[2].partition('"')[0]
        parts = [("csrf_token", "", value), ("text", "", "hello"), ("file", '; filename="a.txt"', "x" * 200_000)]
        body = (
            "".join(f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{data}\r\n' for name, more, data in parts)
            + "--b--\r\n"
        )
        headers = {
            "host": "app.example.com",
            "cookie": ann.cookie,
            "origin": "https://app.example.com",
            "content-type": "multipart/form-data; boundary=b",
        }
        for server in (WsgiClient(WSGIHandler()), AsgiClient(ASGIHandler())):
            with server as client:
                length = {"content-length": str(len(body))}  # as every server passes it on
                sent = Sent(method="POST", target="/form", headers=tuple((headers | length).items()), body=body.encode())
                assert client.send(sent).body.decode() == f"hello {'x' * 200_000}"
                assert client.send(Sent(method="POST", target="/form", headers=sent.headers, body=b"text=x")).status == 403


def test_django_s_own_client_goes_through_the_gate(world: GateWorld, ann: Person) -> None:
    """What a host's tests use."""
    with serving(
        world.gate(), path("x", requires(world.caps.contacts.read)(lambda request: HttpResponse(current_principal().tenant.text)))
    ):
        client = Client(headers={"host": "app.example.com"})
        assert client.get("/x", secure=True).status_code == 401
        client.cookies.load(ann.cookie)
        got = client.get("/x", secure=True)
        assert (got.status_code, got.content) == (200, b"acme")
        assert got.headers["X-Frame-Options"] == "DENY"


def test_a_stream_and_its_teardown_keep_the_principal(world: GateWorld, ann: Person) -> None:
    """Sync and async generators, read to the end or broken off: each piece and the teardown are the request's, whoever collects the garbage."""
    seen: list[Any] = []

    def who() -> str:
        principal = maybe_principal()
        return "nobody" if principal is None else principal.tenant.text

    def pieces() -> Iterator[str]:
        try:
            for _ in range(3):
                yield who()
        finally:
            seen.append(who())

    async def apieces() -> AsyncIterator[str]:
        try:
            for _ in range(3):
                yield who()
                await asyncio.sleep(0)
        finally:
            seen.append(who())

    guard = requires(world.caps.contacts.read)
    headers = (("host", "app.example.com"), ("cookie", ann.cookie))
    patterns = [
        path("sync", guard(lambda request: StreamingHttpResponse(pieces()))),
        path("async", guard(lambda request: StreamingHttpResponse(apieces()))),
    ]
    with serving(world.gate(), *patterns):
        assert ask("/sync", ann).body == b"acme" * 3
        with AsgiClient(ASGIHandler()) as client:
            assert client.send(Sent(method="GET", target="/async", headers=headers)).body == b"acme" * 3
        handler = WSGIHandler()
        for sent in ("/sync",):
            environ: dict[str, Any] = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": sent,
                "wsgi.input": io.BytesIO(),
                "wsgi.url_scheme": "https",
                "SERVER_NAME": "x",
            }
            environ |= {"SERVER_PORT": "443", "HTTP_HOST": "app.example.com", "HTTP_COOKIE": ann.cookie}
            answer = handler(environ, lambda *_: None)
            assert next(iter(answer)) == b"acme"
            answer.close()
            assert maybe_principal() is None

        async def broken_off() -> None:
            received: list[Any] = []
            started: list[Any] = []
            gone = asyncio.Event()

            async def receive() -> dict[str, Any]:
                received.append(1)
                if len(received) == 1:
                    return {"type": "http.request", "body": b"", "more_body": False}
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: dict[str, Any]) -> None:
                started.append(message)
                if len(started) == 2:
                    gone.set()
                    await asyncio.Event().wait()

            scope = {
                "type": "http", "method": "GET", "path": "/async", "query_string": b"", "scheme": "https", "http_version": "1.1",
                "headers": [(name.encode(), value.encode()) for name, value in headers], "client": ("192.0.2.1", 1), "server": ("x", 443),
            }  # fmt: skip
            await ASGIHandler()(scope, receive, send)
            gc.collect()
            for _ in range(10):
                await asyncio.sleep(0)

        asyncio.run(broken_off())
    assert seen == ["acme"] * 4


def test_errors_hooks_and_other_middleware(world: GateWorld, ann: Person) -> None:
    """A refusal in a view, or while a template is rendered, is the gate's answer; another middleware's answer in the view's place is withheld."""
    viewer = world.person("vic", tenant="acme", role="viewer")

    @requires(world.caps.users.manage)
    def deep() -> str:
        return "deep"

    @requires(world.caps.contacts.read)
    def view(request: Any) -> Any:
        return HttpResponse(deep())

    class Late(TemplateView):
        template_name = "x"

        def render_to_response(self, context: Any, **more: Any) -> Any:
            response: Any = super().render_to_response(context, **more)
            response.resolve_template = lambda template: (_ for _ in ()).throw(ValueError("no"))
            response.__class__ = type("R", (type(response),), {"rendered_content": property(lambda self: deep())})
            return response

    late = requires(world.caps.contacts.read)(Late.as_view())
    templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    with serving(world.gate(), path("x", view), path("late", late), TEMPLATES=templates):
        for target in ("/x", "/late"):
            assert (ask(target, viewer).status, b"rbac.denied" in ask(target, viewer).body) == (403, True)
    with serving(world.gate(), path("x", view), middleware=(f"{__name__}.answers_itself",)):
        got = ask("/x", ann)
        assert (got.status, b"gate.no_decision" in got.body) == (500, True)


def answers_itself(get_response: Any) -> Any:
    """A middleware that is a cache."""

    def middleware(request: Any) -> Any:
        return HttpResponse("cached")

    return middleware


def test_class_views_and_options(world: GateWorld, ann: Person) -> None:
    """Marks on methods, on the class, on `dispatch`; HEAD is guarded as GET is; Django's own OPTIONS needs a mark of the whole view."""
    caps = world.caps

    class Each(View):
        @requires(caps.contacts.read)
        def get(self, request: Any) -> Any:
            return HttpResponse("get")

        @requires(caps.users.manage)
        def post(self, request: Any) -> Any:
            return HttpResponse("post")

        def put(self, request: Any) -> Any:
            return HttpResponse("put")

    @requires(caps.contacts.read)
    class Whole(View):
        def get(self, request: Any) -> Any:
            return HttpResponse("whole")

    @method_decorator(requires(caps.contacts.read), name="dispatch")
    class Dispatch(View):
        def get(self, request: Any) -> Any:
            return HttpResponse("dispatch")

    with serving(world.gate(), path("each", Each.as_view()), path("whole", Whole.as_view()), path("dispatch", Dispatch.as_view())):
        assert [ask("/each", ann, method=method).status for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS")] == [
            200,
            200,
            403,
            403,
            403,
        ]
        for target in ("/whole", "/dispatch"):
            assert [ask(target, ann, method=method).status for method in ("GET", "HEAD", "OPTIONS")] == [200, 200, 200]
            assert [ask(target, method=method).status for method in ("GET", "HEAD", "OPTIONS")] == [401, 401, 401]


def test_cookies_and_files(world: GateWorld, ann: Person) -> None:
    """Several cookies of ours and the app's all arrive, with their attributes; a file is sent; `Vary` adds up."""

    @public("sets cookies")
    def cookies(request: Any) -> Any:
        current_visit().send(
            [("Set-Cookie", "__Host-a=1; Path=/; Secure; HttpOnly; SameSite=Lax"), ("Set-Cookie", "b=2; Path=/; Max-Age=0")]
        )
        response = HttpResponse("x")
        response.set_cookie("own", "3")
        response["Vary"] = "Accept"
        return response

    @public("a file")
    def file(request: Any) -> Any:
        return FileResponse(Path(__file__).open("rb"))  # closed with the response

    with serving(world.gate(), path("cookies", cookies), path("file", file)):
        got = ask("/cookies", ann)
        lines = [value.strip() for name, value in got.headers if name == "set-cookie"]
        assert sorted(line.partition("=")[0] for line in lines) == ["__Host-a", "b", "own"]
        assert all(word in lines[-2] + lines[-1] + lines[0] for word in ("HttpOnly", "SameSite=Lax", "Secure", "Max-Age=0"))
        assert got.header("vary") == "Accept, Cookie"
        assert ask("/file", ann).body == Path(__file__).read_bytes()


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_health_and_security_txt_are_answered_by_the_gate(world: GateWorld, server: str) -> None:
    """Without a view, a session, or a store; details are for whoever may ask; and the audit lists them."""
    text = SecurityTxt(contact=("mailto:security@example.com",), reviewed_on=date(2026, 1, 1))
    monitor = HealthMonitor([], sink=NullSink())
    endpoints = (*health(monitor, capability=world.caps.users.manage), *security_txt(text, clock=world.world))
    owner, member = world.person("oli", tenant="t", role="owner"), world.person("mia", tenant="t", role="member")
    with serving(world.gate(endpoints=endpoints)):
        with WsgiClient(WSGIHandler()) if server == "wsgi" else AsgiClient(ASGIHandler()) as client:

            def asked(target: str, who: Person | None = None, method: str = "GET") -> Got:
                return client.send(Sent(method=method, target=target, headers=tuple((who.headers() if who else {}).items())))

            assert asked("/livez").body == b'{"status": "ok"}'
            assert b"mailto:security@example.com" in asked("/.well-known/security.txt").body
            assert [asked("/readyz?verbose", who).status for who in (None, member, owner)] == [401, 403, 200]
            assert asked("/livez", method="POST").status == 405
        assert {"/livez", "/readyz", "/startupz", "/.well-known/security.txt"} <= {route.path for route in audit().routes}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync views", "async views"])
def test_two_tenants_interleaved_on_one_loop(world: GateWorld, asynchronous: bool) -> None:
    """400 requests of two tenants at once, in views, in threads they start, and in streams: each saw its own; nothing is left behind."""
    people = [world.person("ann", tenant="acme", role="member"), world.person("bob", tenant="globex", role="member")]
    guard = requires(world.caps.contacts.read)

    def who() -> str:
        return current_principal().tenant.text

    @guard
    async def aview(request: Any) -> Any:
        seen = [who()]
        await asyncio.sleep(0)
        seen += [who(), await asyncio.to_thread(who), await asyncio.create_task(awho())]

        async def pieces() -> AsyncIterator[str]:
            for each in seen:
                await asyncio.sleep(0)
                yield f"{each} {who()} "

        return StreamingHttpResponse(pieces())

    async def awho() -> str:
        await asyncio.sleep(0)
        return who()

    @guard
    def view(request: Any) -> Any:
        return HttpResponse(f"{who()} " * 8)

    sent = [
        (Sent(method="GET", target="/x", headers=tuple({"host": "app.example.com", **person.headers()}.items())), f"{name} " * 8)
        for _ in range(200)
        for person, name in zip(people, ("acme", "globex"), strict=True)
    ]
    with serving(world.gate(), path("x", aview if asynchronous else view)), AsgiClient(ASGIHandler()) as client:

        async def everything() -> list[Got]:
            return await asyncio.gather(*(client.asend(each) for each, _ in sent))

        answers = client.runner.run(everything())
    assert [answer.body.decode() for answer in answers] == [wanted for _, wanted in sent]
    assert maybe_principal() is None


def test_in_development_an_unmarked_route_stops_django(world: GateWorld) -> None:
    """It does not start; in production the route alone is refused."""
    marked, forgotten = path("open", public("everybody")(lambda request: HttpResponse())), path("forgotten", lambda request: HttpResponse())
    with serving(world.gate(environment=Environment.DEVELOPMENT), marked, forgotten):
        for handler in (WSGIHandler, ASGIHandler):
            with pytest.raises(UnmarkedRoutes, match="forgotten"):
                handler()
    with serving(world.gate(environment=Environment.DEVELOPMENT), marked):
        WSGIHandler()
    with serving(world.gate(), marked, forgotten):
        assert [ask(target).status for target in ("/open", "/forgotten")] == [200, 403]


def test_settings_that_cannot_hold(world: GateWorld) -> None:
    """No gate, something else, an async gate under WSGI, an open path that leads nowhere or says no reason."""

    class Asynchronous:
        async def perform(self, request: Any) -> Any:
            return None

    for gate, opened in (
        (None, {}),
        (world, {}),
        (world.gate(identity=Asynchronous()), {}),
        (world.gate(), {"/x": "?"}),
        (world.gate(), {"/a": " "}),
    ):
        with serving(gate, path("a", public("everybody")(lambda request: HttpResponse())), opened=opened), pytest.raises(ConfigError):
            WSGIHandler()
    django_models.gate = world.gate()
    with override_settings(AXIS_SECURITY={}, MIDDLEWARE=[MIDDLEWARE], ROOT_URLCONF=urlconf()), pytest.raises(ConfigError):
        WSGIHandler()
    with (
        override_settings(AXIS_SECURITY={"GATE": "nowhere.gate"}, MIDDLEWARE=[MIDDLEWARE], ROOT_URLCONF=urlconf()),
        pytest.raises(ConfigError),
    ):
        WSGIHandler()


def bare(request: Any) -> Any:
    """Nobody decided."""
    return HttpResponse("!")


class Bare(View):
    """Nobody decided."""

    def get(self, request: Any) -> Any:
        return HttpResponse("!")


async def abare(request: Any) -> Any:
    """Nobody decided."""
    return HttpResponse("!")


class Callable_:
    """A view that is an object."""

    def __call__(self, request: Any) -> Any:
        return HttpResponse("!")


class RestFramework:
    """As the REST framework makes its views."""

    http_method_names = ("get", "post")

    def get(self, request: Any) -> Any:
        return HttpResponse("!")


def _rest() -> Callable[..., Any]:
    def view(request: Any) -> Any:
        return HttpResponse("!")

    view.cls = RestFramework  # type: ignore[attr-defined]
    return view


def _half(world: GateWorld) -> Any:
    class Half(View):
        @requires(world.caps.contacts.read)
        def get(self, request: Any) -> Any:
            return HttpResponse()

        def delete(self, request: Any) -> Any:
            return HttpResponse()

    return Half.as_view()


def _hidden(world: GateWorld) -> Any:
    guarded = requires(world.caps.contacts.read)(lambda request: HttpResponse())

    def wrapper(request: Any) -> Any:
        return HttpResponse("from a cache that forgot its wraps") or guarded(request)

    return wrapper


PLANTED: dict[str, Callable[[GateWorld], Any]] = {
    "a function": lambda world: path("planted", bare),
    "an async function": lambda world: path("planted", abare),
    "a class view": lambda world: path("planted", Bare.as_view()),
    "a class view's other method": lambda world: path("planted", _half(world)),
    "a generic view": lambda world: path("planted", TemplateView.as_view(template_name="x")),
    "an object": lambda world: path("planted", Callable_()),
    "a lambda": lambda world: path("planted", lambda request: HttpResponse()),
    "with converters": lambda world: path("planted/<int:a>/<path:b>", bare),
    "a regular expression": lambda world: re_path(r"^planted/(?P<a>\d+)$", bare),
    "an include": lambda world: path("planted/", include([path("x", bare)])),
    "an include in an include": lambda world: path("planted/", include([path("a/", include([path("b", bare)]))])),
    "a namespaced include": lambda world: path("planted/", include(([path("x", bare)], "app"), namespace="n")),
    "an include by regular expression": lambda world: re_path(r"^planted/", include([re_path(r"^x$", bare)])),
    "the admin": lambda world: path("planted/", AdminSite().urls),
    "the REST framework's way": lambda world: path("planted", _rest()),
    "under a decorator": lambda world: path("planted", require_http_methods(["POST"])(bare)),
    "under a decorator that hides the guard": lambda world: path("planted", _hidden(world)),
    "a login page of Django's": lambda world: path("planted/", include("django.contrib.auth.urls")),
    "a second path of an open one": lambda world: path("planted/docs", bare),
    "the root": lambda world: path("", bare, name="planted"),
}


def marked_urls(world: GateWorld) -> list[Any]:
    """Every shape, marked: nothing to find."""
    caps = world.caps
    guard = requires(caps.contacts.read)

    @guard
    class Whole(View):
        def get(self, request: Any) -> Any:
            return HttpResponse()

    class Each(View):
        @guard
        def get(self, request: Any) -> Any:
            return HttpResponse()

    return [
        path("a", guard(lambda request: HttpResponse())),
        path("b", public("everybody")(lambda request: HttpResponse())),
        path("c", signed_in()(lambda request: HttpResponse())),
        path("d/", include([path("e", Whole.as_view()), path("f", Each.as_view())])),
        path("g", guard(TemplateView.as_view(template_name="x"))),
        path("h", require_http_methods(["GET"])(guard(lambda request: HttpResponse()))),
        path("docs", bare),
    ]


OPENED = {"/docs": "the API's reference"}


def test_the_audit_finds_nothing_in_a_marked_urlconf(world: GateWorld) -> None:
    """Guards, reasons, sessions, classes, includes, decorators on top."""
    with serving(world.gate(environment=Environment.DEVELOPMENT), *marked_urls(world), opened=OPENED):
        found = audit()
        assert found.unmarked == ()
        assert {route.path: route.may for route in found.routes} == {
            "/a": "contacts.read",
            "/b": "public: everybody",
            "/c": "signed-in",
            "/d/e": "contacts.read",
            "/d/f": "contacts.read",
            "/g": "contacts.read",
            "/h": "contacts.read",
            "/docs": "public: the API's reference",
        }
        WSGIHandler()


@pytest.mark.parametrize("shape", PLANTED)
def test_the_audit_finds_each_planted_route(world: GateWorld, shape: str) -> None:
    """One unguarded route among marked ones: found, and alone; and Django does not start with it in development."""
    django_apps = ["django.contrib.contenttypes", "django.contrib.auth"] if "admin" in shape or "login" in shape else None
    more = {"INSTALLED_APPS": django_apps} if django_apps else {}
    with (
        override_settings(**more),
        serving(world.gate(environment=Environment.DEVELOPMENT), *marked_urls(world), PLANTED[shape](world), opened=OPENED),
    ):
        unmarked = audit().unmarked
        assert unmarked
        assert all("planted" in route.path or (shape == "the root" and route.path == "/") for route in unmarked)
        with pytest.raises(UnmarkedRoutes):
            WSGIHandler()

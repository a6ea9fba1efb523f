"""The WSGI middleware: each request through the gate, its principal until the last byte, and nobody's in between."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.adapters.wsgi_client import Got, call, environ, opened

from axis_security import public, requires
from axis_security.adapters.wsgi import AxisWsgi, Replayed
from axis_security.core.context import maybe_principal
from axis_security.core.errors import ConfigError, PrincipalRequired, Unavailable
from axis_security.core.events import EventKind
from axis_security.testing.gate_world import GateWorld, Person
from axis_security.wiring.errors import NoWorkspace
from axis_security.wiring.visit import current_visit, maybe_visit


class World(GateWorld):
    """With the WSGI app of a test."""

    def wsgi(self, app: Any, **settings: Any) -> AxisWsgi:
        return AxisWsgi(app, self.gate(**settings))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ann(world: World) -> Person:
    return world.person("ann", tenant="acme", role="member")


def who() -> bytes:
    principal = maybe_principal()
    return b"nobody" if principal is None else f"{principal.tenant}/{principal.user}".encode()


def plain(answer: bytes = b"hello", *, status: str = "200 OK", headers: list[tuple[str, str]] | None = None) -> Any:
    def app(env: Any, start_response: Any) -> list[bytes]:
        start_response(status, headers or [("Content-Type", "text/plain")])
        return [answer]

    return app


def test_a_guarded_app(world: World, ann: Person) -> None:
    """The app's own mark is asked: strangers and the wrong role are refused in one form, members are served, and the answer has our headers."""
    app = world.wsgi(requires(world.caps.contacts.write)(plain()))
    assert call(app).status == 401
    assert call(app).header("content-type") == "application/problem+json"
    got = call(app, headers={"cookie": ann.cookie})
    assert (got.status, got.body) == (200, b"hello")
    assert got.header("x-content-type-options") == "nosniff"
    assert got.header("cache-control") == "no-store"
    viewer = world.person("vic", tenant="acme", role="viewer")
    assert (call(app, headers={"cookie": viewer.cookie}).status, call(app, headers={"cookie": viewer.cookie}).code) == (403, "rbac.denied")
    assert maybe_principal() is None
    assert maybe_visit() is None


def test_the_default_is_no(world: World, ann: Person) -> None:
    """An answer to which no guard was asked is withheld, whoever asks; one that is open with a reason goes out, and so does a refusal of the app's."""
    assert call(world.wsgi(plain()), headers={"cookie": ann.cookie}).status == 500
    assert world.world.events[-1].kind is EventKind.NO_DECISION
    assert call(world.wsgi(plain(status="404 Not Found"))).status == 404
    assert call(world.wsgi(public("a page for everybody")(plain()))).body == b"hello"


def test_cross_site_requests_are_refused(world: World, ann: Person) -> None:
    """Without the token; a form's token is found in the body, and the app reads the whole body after that."""

    @requires(world.caps.contacts.read)
    def app(env: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % len(env["wsgi.input"].read(int(env["CONTENT_LENGTH"])))]

    gated, origin = world.wsgi(app), "https://app.example.com"
    assert call(gated, method="POST", headers={"cookie": ann.cookie, "origin": origin}).status == 403
    assert call(gated, method="POST", headers={"cookie": ann.cookie, "origin": origin, "x-csrf-token": ann.token()}).body == b"0"
    form = f"csrf_token={ann.token()}&text=".encode() + b"x" * 200_000
    headers = {"cookie": ann.cookie, "origin": origin, "content-type": "application/x-www-form-urlencoded"}
    assert call(gated, method="POST", headers=headers, body=form).body == b"%d" % len(form)
    assert call(gated, method="POST", headers={**headers, "origin": "https://evil.example"}, body=form).status == 403
    assert call(gated, method="POST", headers=headers, body=b"text=x").status == 403


@pytest.mark.parametrize("header", ["origin", "sec-fetch-site"])
def test_a_header_that_is_sent_empty_is_sent(world: World, header: str) -> None:
    """An empty origin is no origin of ours, as through every other adapter; it is not the same as a client that sends none."""
    login = world.wsgi(public("how one gets in")(plain()))
    assert call(login, method="POST").status == 200
    assert call(login, method="POST", headers={header: ""}).code == "gate.csrf"


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1", "1_0", "", "x"])
def test_an_odd_length_is_a_form_without_a_token(world: World, ann: Person, length: str) -> None:
    """A length that is no number, or longer than any number, is refused as a form without its token; the server is not made to fail."""
    env = environ(method="POST", headers={"cookie": ann.cookie, "origin": "https://app.example.com"}, body=b"text=x")
    env |= {"CONTENT_LENGTH": length, "CONTENT_TYPE": "application/x-www-form-urlencoded"}
    told: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None, /) -> Any:
        told.append(status)

    body = b"".join(world.wsgi(requires(world.caps.contacts.read)(plain()))(env, start_response))
    assert (told[0][:3], b"gate.csrf" in body) == ("403", True)


def test_streaming_and_close_keep_the_principal(world: World, ann: Person) -> None:
    """Every piece and the teardown of a generator run as the request's principal, and the thread is nobody's between them."""
    closed: list[bytes] = []

    def app(env: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            for _ in range(3):
                yield who() + b" "
        finally:
            closed.append(who())

    gated = world.wsgi(requires(world.caps.contacts.read)(app))
    env = environ(headers={"cookie": ann.cookie})
    with opened(gated, env) as (iterable, told):
        assert told == []
        pieces = iter(iterable)
        assert next(pieces) == b"acme/ann "
        assert told[0] == "200 OK"
        assert maybe_principal() is None
        assert next(pieces) == b"acme/ann "
    assert closed == [b"acme/ann"]


def test_a_guard_inside_a_stream_is_waited_for(world: World, ann: Person) -> None:
    """The status goes out with the first byte: a guard asked by then counts, and one that says no still answers 403."""

    @requires(world.caps.contacts.write)
    def body() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    def app(env: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body()

    viewer = world.person("vic", tenant="acme", role="viewer")
    assert call(world.wsgi(app), headers={"cookie": ann.cookie}).body == b"onetwo"
    assert call(world.wsgi(app), headers={"cookie": viewer.cookie}).status == 403
    assert call(world.wsgi(app)).status == 401


def test_an_error_after_the_first_byte_breaks_off(world: World, ann: Person) -> None:
    """There is no second status: the server sees the error."""

    @requires(world.caps.contacts.read)
    def app(env: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        raise PrincipalRequired

    with opened(world.wsgi(app), environ(headers={"cookie": ann.cookie})) as (iterable, _):
        pieces = iter(iterable)
        assert next(pieces) == b"one"
        with pytest.raises(PrincipalRequired):
            next(pieces)


def test_the_older_way_of_writing(world: World, ann: Person) -> None:
    """PEP 3333's `write`: sent where a guard was asked, withheld where none was."""

    def app(env: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"one ")
        return [b"two"]

    got = call(world.wsgi(app), headers={"cookie": ann.cookie})
    assert (got.status, got.code) == (500, "gate.no_decision")
    assert call(world.wsgi(public("everybody")(app))).body == b"one two"


def test_empty_answers_and_replaced_ones(world: World) -> None:
    """An answer without a body is sent; `exc_info` replaces a status that is not out yet."""

    def app(env: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError("late")
        except ValueError:
            import sys

            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return []

    assert call(world.wsgi(public("everybody")(app))).status == 500


def test_the_app_own_failures_are_its_own(world: World) -> None:
    """An error that does not speak to whoever asked goes to the server's error handling; an outage is answered 503."""

    def raising(error: Exception) -> Any:
        def app(env: Any, start_response: Any) -> list[bytes]:
            raise error

        return world.wsgi(public("everybody")(app))

    for mine in (ValueError("x"), ConfigError(what="a", why="b", fix="c")):
        with pytest.raises(type(mine)):
            call(raising(mine))
    assert call(raising(Unavailable(what="a", why="b", fix="c"))).status == 503
    assert call(raising(NoWorkspace())).status == 403


def test_headers_are_merged(world: World, ann: Person) -> None:
    """Ours win where a name stands once; the app's cookies and `Vary` stay."""
    theirs = [
        ("Content-Type", "text/plain"),
        ("X-Frame-Options", "ALLOWALL"),
        ("Cache-Control", "public"),
        ("Vary", "Accept"),
        ("Set-Cookie", "a=b"),
    ]
    got = call(world.wsgi(requires(world.caps.contacts.read)(plain(headers=theirs))), headers={"cookie": ann.cookie})
    assert [value for name, value in got.headers if name.lower() == "x-frame-options"] == ["DENY"]
    assert [value for name, value in got.headers if name.lower() == "cache-control"] == ["no-store"]
    assert {value for name, value in got.headers if name.lower() == "vary"} == {"Accept", "Cookie"}
    assert ("Set-Cookie", "a=b") in got.headers


def test_a_mounted_app_is_one_request(world: World, ann: Person) -> None:
    """A gate inside the gate marks an endpoint: one session look-up, one answer; an inner request of the app's own is a request of its own."""
    inner = world.wsgi(requires(world.caps.contacts.write)(plain(b"inner")))
    inner = AxisWsgi(inner.app, inner.gate)

    def outer(env: Any, start_response: Any) -> Any:
        return inner(env, start_response)

    viewer = world.person("vic", tenant="acme", role="viewer")
    gated = world.wsgi(outer)
    before = len(world.world.ops)
    assert call(gated, headers={"cookie": ann.cookie}).body == b"inner"
    assert len(world.world.ops) == before  # TwoStores asks the store below
    assert call(gated, headers={"cookie": viewer.cookie}).status == 403
    assert call(gated).status == 401

    @public("asks another app")
    def asking(env: Any, start_response: Any) -> Any:
        got = call(inner, headers={})
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % got.status]

    assert call(world.wsgi(asking), headers={"cookie": ann.cookie}).body == b"401"


def test_two_tenants_interleaved_over_threads(world: World, ann: Person) -> None:
    """400 streams of two tenants, their pieces interleaved and moved between threads: each piece is its own request's."""
    bob = world.person("bob", tenant="globex", role="member")

    def app(env: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(4):
            yield who()

    gated = world.wsgi(requires(world.caps.contacts.read)(app))
    people = [(ann, b"acme/ann"), (bob, b"globex/bob")]
    streams = []
    for person, name in itertools.islice(itertools.cycle(people), 400):
        streams.append((iter(gated(environ(headers={"cookie": person.cookie}), lambda *_: lambda _: None)), name))
    wrong: list[Any] = []

    def pull(at: int) -> None:
        for stream, name in streams[at::2]:
            piece = next(stream)
            if piece != name or maybe_principal() is not None:
                wrong.append((piece, name))

    for turn in range(4):
        threads = [threading.Thread(target=pull, args=((at + turn) % 2,)) for at in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_the_control_a_middleware_that_binds_around_the_call_leaks(world: World, ann: Person) -> None:
    """The usual way (bind, call the app, unbind) loses the principal in a stream: what the tests above measure is the context of its own."""

    def app(env: Any, start_response: Any) -> Iterator[bytes]:
        yield who()

    def usual(env: Any, start_response: Any) -> Any:
        from axis_security.core.context import acting_as
        from axis_security.core.principal import Principal

        with acting_as(Principal(tenant="acme", user="ann", role="member")):
            return app(env, start_response)

    assert list(usual({}, None)) == [b"nobody"]


def test_an_async_store_is_refused(world: World) -> None:
    """WSGI cannot await."""

    class Asynchronous:
        async def perform(self, request: Any) -> Any:
            return None

    with pytest.raises(ConfigError):
        world.wsgi(plain(), identity=Asynchronous())


def test_the_visit_is_at_hand(world: World, ann: Person) -> None:
    """A handler finds the request's token and nonce, and may add headers."""

    @requires(world.caps.contacts.read)
    def app(env: Any, start_response: Any) -> list[bytes]:
        visit = current_visit()
        visit.send([("Set-Cookie", "x=y")])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [visit.nonce.encode()]

    got: Got = call(world.wsgi(app), headers={"cookie": ann.cookie})
    assert got.body.decode() in (got.header("content-security-policy") or "")
    assert ("set-cookie", "x=y") in got.headers


@pytest.mark.parametrize("at", [0, 1, 5, 11])
def test_a_replayed_stream_reads_like_the_whole(at: int) -> None:
    """`read`, `readline`, `readlines` and iteration give what one stream would, wherever the gate stopped reading."""
    data = b"one\ntwo\r\n\nlast"

    def both() -> tuple[Any, Any]:
        return Replayed(data[:at], io.BytesIO(data[at:])), io.BytesIO(data)

    for ways in (
        lambda stream: stream.read(),
        lambda stream: stream.readlines(),
        lambda stream: list(stream),
        lambda stream: [stream.readline() for _ in range(6)],
        lambda stream: [stream.readline(2) for _ in range(9)],
        lambda stream: [stream.readline(0), stream.readline(-1), stream.read(None)],
    ):
        mine, whole = both()
        assert ways(mine) == ways(whole)
    mine, _ = both()
    assert b"".join(iter(lambda: mine.read(3), b"")) == data
    mine.close()


def test_a_replayed_body_cannot_be_rewound() -> None:
    """Frameworks ask before they seek; one that could seek in the stream below would find the body without its beginning."""
    assert Replayed(b"csrf_", io.BytesIO(b"token=x")).seekable() is False

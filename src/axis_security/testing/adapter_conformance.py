"""What every adapter must do: the same requests, the same verdicts, and refusals equal to the byte.

An adapter's test builds :func:`little_routes` in its own framework and sends :func:`cases` through it::

    with AsgiClient(my_app(little, gate)) as client:
        conforms(client.send, little, gate)

The reference is :class:`Reference`: the gate driven by hand, which is the contract in forty lines. Read it before writing an adapter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, Final

from axis_security.auth.cookies import CookieKind
from axis_security.core.context import current_principal
from axis_security.core.errors import AxisError, Unavailable
from axis_security.core.flow import drive
from axis_security.rbac.guard import Guard, Open, guard_of, public, requires
from axis_security.testing.adapter_clients import Got, Sent
from axis_security.testing.gate_world import GateWorld, Person
from axis_security.wiring.facts import RequestFacts, merged
from axis_security.wiring.gate import Call, Gate, ReadForm
from axis_security.wiring.marks import signed_in
from axis_security.wiring.refusals import Answer, Pages
from axis_security.wiring.visit import current_visit

__all__ = ["PAGES", "AdapterDiffers", "Little", "LittleRoute", "Reference", "cases", "conforms"]

PAGES: Final = Pages(sign_in="/login", step_up="/confirm")
"""The gate under test is made with these: ``world.gate(pages=PAGES, anonymous=("/static/",))``."""

FORM: Final = "application/x-www-form-urlencoded"


class AdapterDiffers(AxisError):
    """An adapter broke its contract."""

    code = "testing.adapter_differs"

    def __init__(self, why: str) -> None:
        super().__init__(what="the adapter breaks its contract", why=why, fix="see docs/how-to/write-an-adapter.md, and Reference.send")


@dataclass(frozen=True, slots=True)
class LittleRoute:
    """A route that every adapter builds.

    Args:
        handler: takes the body, gives text to answer with status 200 as ``text/plain``, or pieces of it to stream.
        streams: whether it gives pieces.
    """

    method: str
    path: str
    handler: Callable[[bytes], Any]
    streams: bool = False

    @property
    def mark(self) -> Guard | Open | None:
        """What the adapter must find on its endpoint; put it there as ``__axis_guard__``."""
        return guard_of(self.handler)


class Little:
    """A little app's routes over *world*, and what they did."""

    def __init__(self, world: GateWorld) -> None:
        caps = world.caps
        self.world: Final = world
        self.done: Final[list[str]] = []

        @public("says hello")
        def hello(body: bytes) -> str:
            self.done.append("hello")
            return "hello"

        @requires(caps.contacts.read)
        def contacts(body: bytes) -> str:
            who = current_principal()
            return f"{who.tenant.text} {who.user} {who.role} {who.session == str(_handle())}"

        @requires(caps.contacts.write)
        def add(body: bytes) -> str:
            self.done.append("add")
            return f"{len(body)} {body[-6:].decode()}"

        @requires(caps.users.manage)
        def invite(body: bytes) -> str:
            self.done.append("invite")
            return "invited"

        @requires(caps.users.manage, fresh=timedelta(minutes=5))
        def export(body: bytes) -> str:
            return "exported"

        @signed_in()
        def me(body: bytes) -> str:
            return str(_user())

        def bare(body: bytes) -> str:
            self.done.append("bare")
            return "nobody decided"

        @functools.wraps(contacts)
        def cached(body: bytes) -> str:
            return "what somebody else was told"

        @requires(caps.contacts.read)
        def broken(body: bytes) -> str:
            raise Unavailable(what="a store did not answer", why="it is down", fix="wait")

        @requires(caps.contacts.read)
        def stream(body: bytes) -> Iterator[str]:
            for _ in range(3):
                yield f"{current_principal().tenant.text} "

        @public("shows the page's own values")
        def page(body: bytes) -> str:
            current_visit().send([("X-Ours", "yes"), ("Set-Cookie", "theme=dark")])
            return current_visit().nonce

        @public("a file")
        def static(body: bytes) -> str:
            return "css"

        @public("would show a session where none is looked up")
        def anonymous(body: bytes) -> str:
            return str(current_visit().session)

        self.routes: Final = (
            LittleRoute("GET", "/hello", hello),
            LittleRoute("GET", "/contacts", contacts),
            LittleRoute("POST", "/contacts", add),
            LittleRoute("POST", "/people", invite),
            LittleRoute("GET", "/export", export),
            LittleRoute("GET", "/me", me),
            LittleRoute("GET", "/bare", bare),
            LittleRoute("POST", "/bare", bare),
            LittleRoute("GET", "/cached", cached),
            LittleRoute("GET", "/broken", broken),
            LittleRoute("GET", "/stream", stream, streams=True),
            LittleRoute("GET", "/page", page),
            LittleRoute("GET", "/static/app.css", static),
            LittleRoute("GET", "/static/who", anonymous),
        )


def _handle() -> object:
    session = current_visit().session
    return None if session is None else session.handle


def _user() -> object:
    session = current_visit().session
    return None if session is None else session.user


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCase:
    """One request and its verdict.

    Args:
        status: what must come back.
        code: the refusal's code; ``None`` for an answer of the app.
        body: the app's answer, where it is fixed.
        undone: what must not have run.
    """

    name: str
    sent: Sent
    status: int
    code: str | None = None
    body: bytes | None = None
    undone: str | None = None


def cases(world: GateWorld) -> Sequence[AdapterCase]:
    """Every request, with people made for it in *world*."""
    member = world.person("mia", tenant="t1", role="member")
    viewer = world.person("vic", tenant="t1", role="viewer")
    owner = world.person("oli", tenant="t2", role="owner")
    stranger = world.person("sam", tenant="t1")
    homeless = world.person("hal")
    closed = world.person("cleo", tenant="t3", role="owner", state="suspended")
    leaving = world.person("lee", tenant="t4", role="owner", state="deleting")
    thief = dict(member.headers(unsafe=True)) | {"x-csrf-token": owner.token()}
    page = {"accept": "text/html,*/*;q=0.8"}
    found: list[AdapterCase] = []

    def case(
        name: str, method: str, target: str, who: Person | dict[str, str] | None, status: int, code: str | None = None, **more: Any
    ) -> None:
        headers = who.headers(unsafe=method not in {"GET", "HEAD"}) if isinstance(who, Person) else who or {"host": "app.example.com"}
        headers = headers | more.pop("headers", {})
        sent = Sent(
            method=method,
            target=target,
            headers=tuple((key, value) for key, value in headers.items() if value is not None),
            body=more.pop("sends", b""),
        )
        found.append(AdapterCase(name=name, sent=sent, status=status, code=code, **more))

    mine = f"t1 {member.user} member True".encode()
    case("anybody sees an open page", "GET", "/hello", None, 200, body=b"hello")
    case("HEAD is GET without the body", "HEAD", "/hello", None, 200)
    case("a signed-in person sees it too", "GET", "/hello", member, 200, body=b"hello")
    case("a stranger is asked to sign in", "GET", "/contacts", None, 401, "axis.principal_required")
    case("so is HEAD, without a body", "HEAD", "/contacts", None, 401)
    case("a person is sent to the login page", "GET", "/contacts?sort=name", page, 303)
    case("a script is not", "GET", "/contacts", page | {"sec-fetch-mode": "cors"}, 401, "axis.principal_required")
    case("a member reads", "GET", "/contacts", member, 200, body=mine)
    case("another tenant's owner is another", "GET", "/contacts", owner, 200, body=f"t2 {owner.user} owner True".encode())
    case("no member of the workspace", "GET", "/contacts", stranger, 403, "gate.not_a_member")
    case("no workspace chosen", "GET", "/contacts", homeless, 403, "gate.no_workspace")
    case("a suspended workspace", "GET", "/contacts", closed, 403, "gate.workspace_closed")
    case("a workspace that waits for deletion", "GET", "/contacts", leaving, 403, "gate.workspace_closed")
    for name, who in (("the homeless", homeless), ("the stranger", stranger), ("the suspended", closed)):
        case(f"{name} still have their own pages", "GET", "/me", who, 200, body=who.user.text.encode())
    case("one's own page needs a session", "GET", "/me", None, 401, "axis.principal_required")
    case("a forged cookie is nobody", "GET", "/contacts", {"cookie": _forged(member)}, 401, "axis.principal_required")
    case("two cookies of one name are none", "GET", "/me", {"cookie": f"{member.cookie}; {owner.cookie}"}, 401, "axis.principal_required")
    case("a viewer may not write", "POST", "/contacts", viewer, 403, "rbac.denied", undone="add")
    case("a member writes", "POST", "/contacts", member, 200, body=b"0 ")
    case("a member may not invite", "POST", "/people", member, 403, "rbac.denied", undone="invite")
    case("an owner invites", "POST", "/people", owner, 200, body=b"invited")
    case("no token", "POST", "/contacts", member.headers(), 403, "gate.csrf", undone="add")
    case("another session's token", "POST", "/contacts", thief, 403, "gate.csrf", undone="add")
    case("another site", "POST", "/contacts", member, 403, "gate.csrf", undone="add", headers={"origin": "https://evil.example"})
    case("a sibling site", "POST", "/contacts", member, 403, "gate.csrf", undone="add", headers={"sec-fetch-site": "same-site"})
    case("another site, signed out", "POST", "/contacts", {"origin": "https://evil.example"}, 403, "gate.csrf", undone="add")
    form = member.headers() | {"origin": "https://app.example.com", "content-type": FORM}
    long = b"&note=" + b"x" * 200_000 + b"ending"
    token = b"csrf_token=" + member.token().encode()
    case(
        "a form's token, and the whole body after it",
        "POST",
        "/contacts",
        form,
        200,
        sends=token + long,
        body=b"%d ending" % len(token + long),
    )
    case("a form without a token", "POST", "/contacts", form, 403, "gate.csrf", sends=b"a=1", undone="add")
    case("a form with two", "POST", "/contacts", form, 403, "gate.csrf", sends=token + b"&" + token, undone="add")
    case("a token that comes too late in the form", "POST", "/contacts", form, 403, "gate.csrf", sends=b"a=1" + long + b"&" + token)
    files = form | {"content-type": "multipart/form-data; boundary=b0undary"}
    part = b'--b0undary\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n' + member.token().encode() + b"\r\n--b0undary--\r\n"
    case("a form with files", "POST", "/contacts", files, 200, sends=part, body=b"%d ry--\r\n" % len(part))
    case("nobody decided", "GET", "/bare", member, 403, "gate.unmarked_endpoint", undone="bare")
    case("nobody decided, nobody asks", "GET", "/bare", None, 403, "gate.unmarked_endpoint", undone="bare")
    case("nobody decided about writing", "POST", "/bare", owner, 403, "gate.unmarked_endpoint", undone="bare")
    case("an answer without a decision", "GET", "/cached", member, 500, "gate.no_decision")
    case("a store is down", "GET", "/broken", member, 503, "axis.unavailable")
    case("a stream", "GET", "/stream", member, 200, body=b"t1 t1 t1 ")
    case("a stream for nobody", "GET", "/stream", None, 401, "axis.principal_required")
    case("no such page", "GET", "/nowhere", member, 404)
    case("headers of our own", "GET", "/page", member, 200)
    case("a file", "GET", "/static/app.css", member, 200, body=b"css")
    case("no session is looked up for files", "GET", "/static/who", member, 200, body=b"None")
    case("export, freshly signed in", "GET", "/export", owner, 200, body=b"exported")
    return found


def later(world: GateWorld) -> Iterator[AdapterCase]:
    """Cases between which the world's clock goes on: send each before asking for the next."""
    owner = world.person("ora", tenant="t5", role="owner")
    headers = tuple(owner.headers().items())
    world.world.later(minutes=6)
    asked = Sent(method="GET", target="/export", headers=headers)
    yield AdapterCase(name="export asks to step up", sent=asked, status=403, code="rbac.step_up_required")
    page = Sent(method="GET", target="/export", headers=(*headers, ("accept", "text/html")))
    yield AdapterCase(name="a person is sent to the page that asks", sent=page, status=303)
    world.world.later(minutes=31)
    old = Sent(method="GET", target="/contacts", headers=headers)
    yield AdapterCase(name="a session that nobody used", sent=old, status=401, code="axis.principal_required")


def _forged(person: Person) -> str:
    name = person.browser.profile.name(CookieKind.SESSION)
    value = person.browser.jar[name]
    return f"{name}={value[:20]}{'A' if value[20] != 'A' else 'B'}{value[21:]}"


class Reference:
    """The gate driven by hand, without a framework: what every adapter is compared with."""

    def __init__(self, little: Little, gate: Gate) -> None:
        self._routes: Final = {(route.method, route.path): route for route in little.routes}
        self._gate: Final = gate

    def send(self, sent: Sent) -> Got:
        """One request."""
        gate = self._gate
        path, _, query = sent.target.partition("?")
        facts = RequestFacts(method=sent.method, path=path, query=query, headers=merged(sent.headers))

        def perform(request: Any) -> Any:
            match request:
                case ReadForm(limit):
                    return sent.body[:limit]
                case Call():
                    return request.sync()
                case _:
                    return gate.identity.perform(request)

        verdict = drive(gate.enter(facts), perform)
        if isinstance(verdict, Answer):
            return _got(verdict)
        with verdict.acting():
            route = self._routes.get(("GET" if sent.method == "HEAD" else sent.method, path))
            if route is None:
                return Got(status=404, headers=tuple(verdict.answer_headers()), body=b"")
            try:
                gate.reached(verdict, route.mark, f"{sent.method} {path}")
                text = route.handler(sent.body)
                body = text if isinstance(text, str) else "".join(text)
            except AxisError as error:
                return _got(gate.refuse(error, verdict))
            withheld = gate.leave(verdict, status=200)
            if withheld is not None:
                return _got(withheld)
            return Got(status=200, headers=tuple(verdict.answer_headers()), body=b"" if sent.method == "HEAD" else body.encode())


def _got(answer: Answer) -> Got:
    return Got(status=answer.status, headers=tuple(answer.headers), body=answer.body)


def conforms(send: Callable[[Sent], Got], little: Little, gate: Gate) -> int:
    """Send every case and compare with the reference. Returns how many were sent.

    Args:
        send: the adapter under test, over an app that has ``little.routes`` behind *gate*.
        gate: made with ``pages=PAGES, anonymous=("/static/",)``.

    Raises:
        AdapterDiffers: naming the case, what was promised, and what came.
    """
    reference = Reference(little, gate)
    sent = 0
    for case in chain(cases(little.world), later(little.world)):
        wanted = reference.send(case.sent)
        _compare(case, wanted, None)
        little.done.clear()
        _compare(case, send(case.sent), wanted if case.name != "headers of our own" else None)
        sent += 1
        if case.undone is not None and case.undone in little.done:
            raise AdapterDiffers(f"{case.name}: `{case.undone}` ran")
    return sent


def _compare(case: AdapterCase, got: Got, wanted: Got | None) -> None:
    if got.status != case.status:
        raise AdapterDiffers(f"{case.name}: expected status {case.status}, got {got.status} {got.body[:200]!r}")
    if case.code is not None and case.sent.method != "HEAD" and f'"code":"{case.code}"'.encode() not in got.body:
        raise AdapterDiffers(f"{case.name}: expected code {case.code}, got {got.body[:200]!r}")
    if case.body is not None and got.body != case.body:
        raise AdapterDiffers(f"{case.name}: expected {case.body!r}, got {got.body[:200]!r}")
    if case.name == "headers of our own":
        _own_headers(got)
    if wanted is None:
        return
    if case.code is not None or got.status == 303:
        if got != wanted:
            raise AdapterDiffers(f"{case.name}: a refusal differs: expected {wanted}, got {got}")
        return
    missing = [pair for pair in wanted.headers if pair not in got.headers]
    if missing:
        raise AdapterDiffers(f"{case.name}: these headers are missing: {missing}, of {got.headers}")
    ours = {name for name, _ in wanted.headers} - {"vary", "set-cookie"}
    doubled = [name for name in ours if sum(name == each for each, _ in got.headers) != 1]
    if doubled:
        raise AdapterDiffers(f"{case.name}: these headers were sent twice: {doubled}")


def _own_headers(got: Got) -> None:
    nonce = got.body.decode()
    if f"'nonce-{nonce}'" not in (got.header("content-security-policy") or ""):
        raise AdapterDiffers(f"the page's nonce is not in the policy: {got.header('content-security-policy')}")
    if got.header("x-ours") != "yes" or "theme=dark" not in (got.header("set-cookie") or ""):
        raise AdapterDiffers(f"headers that a handler sends are missing: {got.headers}")

"""The gate's own rules, one by one: settings that would weaken it, proxies, what a workspace's state does, and input of any kind."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security import Secret, public, requires
from axis_security.auth.session_ports import ListSessions
from axis_security.core.errors import ConfigError, PrincipalRequired
from axis_security.core.flow import drive
from axis_security.core.ids import KeyType
from axis_security.core.principal import Assurance
from axis_security.rbac.decision import PermissionDenied
from axis_security.rbac.guard import Open
from axis_security.testing.gate_world import HOST, ORIGIN, GateWorld, Person
from axis_security.wiring.endpoints import metrics
from axis_security.wiring.errors import NotAMember
from axis_security.wiring.facts import WEBSOCKET, RequestFacts, merged
from axis_security.wiring.form import form_token
from axis_security.wiring.gate import Gate, ReadForm
from axis_security.wiring.identity import Identified, Recheck, TwoStores
from axis_security.wiring.marks import mark_of, signed_in
from axis_security.wiring.refusals import Answer
from axis_security.wiring.visit import Visit, current_visit, maybe_visit


def enter(gate: Gate, facts: RequestFacts, body: bytes = b"") -> Visit | Answer:
    """One request through the first point."""
    return drive(
        gate.enter(facts), lambda request: body[: request.limit] if isinstance(request, ReadForm) else gate.identity.perform(request)
    )


def visit_of(gate: Gate, person: Person | None = None, **more: Any) -> Visit:
    """An admitted request."""
    headers = {"host": HOST} if person is None else person.headers()
    found = enter(gate, RequestFacts(method="GET", path="/", headers=headers | more.pop("headers", {}), **more))
    assert isinstance(found, Visit)
    return found


@pytest.mark.parametrize(
    "settings",
    [{"anonymous": ("/",)}, {"anonymous": ("static/",)}, {"anonymous": ("/static",)}, {"hops": -1}, {"hops": 9}],
    ids=str,
)
def test_settings_that_would_weaken_it_are_refused(settings: dict[str, Any]) -> None:
    """A prefix that covers the whole app, one that would match `/static-admin`, an impossible number of proxies."""
    with pytest.raises(ConfigError):
        GateWorld().gate(**settings)
    both = metrics(lambda: b"", token=Secret("t" * 40))
    with pytest.raises(ConfigError, match="share a path"):
        GateWorld().gate(endpoints=(*both, *both))


@pytest.mark.parametrize(
    ("hops", "secure", "proto", "wanted"),
    [
        (0, True, None, True),
        (0, False, "https", False),
        (1, False, "https", True),
        (1, True, "http", False),
        (1, True, None, False),
        (1, True, "https, http", False),
        (1, False, "http, https", True),
    ],
)
def test_only_our_own_proxy_says_that_tls_was_used(hops: int, secure: bool, proto: str | None, wanted: bool) -> None:
    """HSTS goes out over TLS only (RFC 6797 section 7.2); a client's own word for it counts for nothing."""
    headers = {} if proto is None else {"x-forwarded-proto": proto}
    visit = visit_of(GateWorld().gate(hops=hops), headers=headers, secure=secure)
    assert ("strict-transport-security" in dict(visit.answer_headers())) is wanted


def test_a_principal_holds_what_the_session_and_the_membership_say() -> None:
    """Tenant from the session, role from the membership, assurance and time from the sign-in."""
    world = GateWorld()
    ann = world.person("ann", tenant="t1", role="admin")
    principal = visit_of(world.gate(), ann).principal
    assert principal is not None
    assert (principal.tenant.text, principal.role, principal.user, principal.assurance) == ("t1", "admin", ann.user, Assurance.AAL1)
    assert principal.session == str(ann.session.handle)


def test_a_workspace_of_another_key_type_is_nobodys() -> None:
    """A session that names what cannot be a tenant of this product acts for nobody."""
    world = GateWorld()
    ann = world.person("ann", tenant="t1", role="admin")
    visit = visit_of(world.gate(key=KeyType.INT), ann)
    assert visit.principal is None
    assert isinstance(visit.problem, NotAMember)
    assert isinstance(visit_of(world.gate(identity=TwoStores(world.world.store, world.members, key=KeyType.UUID)), ann).problem, NotAMember)


def test_a_recheck_finds_the_session_by_its_handle() -> None:
    """Another person's handle, or one that ended, finds nothing."""
    world = GateWorld()
    ann, bob = world.person("ann", tenant="t1", role="admin"), world.person("bob", tenant="t1", role="viewer")
    listed = ListSessions(ann.user, world.world.now())
    found = world.identity.perform(Recheck(sessions=listed, handle=ann.session.handle, tenant="t1"))
    assert isinstance(found, Identified)
    assert found.membership is not None
    assert found.membership.role == "admin"
    assert world.identity.perform(Recheck(sessions=listed, handle=bob.session.handle, tenant="t1")) == Identified(None)
    assert drive(world.gate().still(visit_of(world.gate())), world.identity.perform), "an anonymous connection has nothing to lose"


def test_acting_ends_with_the_block() -> None:
    """Outside the block there is no visit and nobody acts."""
    world = GateWorld()
    visit = visit_of(world.gate(), world.person("ann", tenant="t1", role="admin"))
    with visit.acting():
        assert current_visit() is visit
    assert maybe_visit() is None


def test_signed_in_asks_for_a_session_and_for_freshness() -> None:
    """Nobody, outside a request, and too long ago: refused; and the mark can be read."""
    from datetime import timedelta

    world = GateWorld()
    gate = world.gate()

    @signed_in(fresh=timedelta(minutes=5), clock=world.world)
    def export() -> str:
        return "exported"

    @signed_in(aal=Assurance.AAL2)
    async def strong() -> str:
        return "strong"

    ann = world.person("ann")
    with pytest.raises(PrincipalRequired):
        export()
    with visit_of(gate).acting(), pytest.raises(PrincipalRequired):
        export()
    with visit_of(gate, ann).acting() as visit:
        assert export() == "exported"
        assert visit.decided
        with pytest.raises(PermissionDenied) as denied:
            drive(strong().__await__(), lambda request: request)
        assert denied.value.public()["step_up"]["aal"] == 2
    world.world.later(minutes=6)
    with visit_of(gate, ann).acting(), pytest.raises(PermissionDenied):
        export()


def test_signed_in_guards_single_handlers_only() -> None:
    """Classes, generators and functions that are marked already are refused at decoration."""
    world = GateWorld()

    class View:
        """A class."""

    def rows() -> Any:
        yield 1

    for thing in (View, rows, public("x")(lambda: None), requires(world.caps.users.manage)(lambda: None)):
        with pytest.raises(ConfigError):
            signed_in()(thing)


def test_marks_are_found_through_partials_and_classes() -> None:
    """`mark_of` looks where the framework will call."""
    import functools

    world = GateWorld()

    class View:
        @requires(world.caps.contacts.read)
        def get(self) -> None:
            """Guarded."""

    assert mark_of(View, "GET") == mark_of(View, "HEAD") is not None
    assert mark_of(View) is None
    assert mark_of(View, "POST") is None
    assert mark_of(functools.partial(functools.partial(public("open")(lambda a, b: None), 1), 2)) == Open("open")


def test_a_websocket_without_a_session_needs_no_token() -> None:
    """A stranger's handshake from our own page is fine; from another site it is not, session or none."""
    gate = GateWorld().gate()
    for origin, admitted in ((ORIGIN, True), (None, True), ("https://evil.example", False)):
        headers = {"host": HOST} | ({} if origin is None else {"origin": origin})
        found = enter(gate, RequestFacts(method=WEBSOCKET, path="/live", headers=headers))
        assert isinstance(found, Visit) is admitted


ANY_TEXT = st.text(st.characters(max_codepoint=0x2FF), max_size=60)


@given(
    method=st.sampled_from(["GET", "POST", "get", "", "PROPFIND", WEBSOCKET]),
    path=ANY_TEXT,
    headers=st.dictionaries(
        st.sampled_from(
            ["cookie", "host", "origin", "x-csrf-token", "content-type", "x-forwarded-for", "x-forwarded-proto", "accept", "user-agent"]
        ),
        ANY_TEXT,
    ),
    body=st.binary(max_size=80),
)
def test_no_request_makes_it_raise(method: str, path: str, headers: dict[str, str], body: bytes) -> None:
    """Whatever a request holds, the answer is a verdict, and nobody is signed in by it."""
    found = enter(SHARED, RequestFacts(method=method, path=path, headers=headers), body)
    assert isinstance(found, (Visit, Answer))
    if isinstance(found, Visit):
        assert found.principal is None


SHARED = GateWorld().gate(hops=1)


@given(
    body=st.binary(max_size=200), kind=st.sampled_from(["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "", ";"])
)
def test_no_body_makes_the_token_reader_raise(body: bytes, kind: str) -> None:
    """A token is ASCII text or absent."""
    found = form_token(kind, body)
    assert found is None or isinstance(found, str)


@given(token=st.text("abcDEF012_-", min_size=1, max_size=90), before=st.binary(max_size=40).filter(lambda data: b"csrf_token" not in data))
def test_the_token_is_read_from_both_kinds_of_form(token: str, before: bytes) -> None:
    """First field or later, it comes back as it was written."""
    parts = b'--b\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n' + token.encode() + b"\r\n--b--\r\n"
    assert form_token("multipart/form-data; boundary=b", parts) == token
    assert form_token("application/x-www-form-urlencoded", before + b"&csrf_token=" + token.encode()) == token


def test_a_body_made_to_cost_time_costs_little() -> None:
    """Half a megabyte of lines that each look like the beginning of the field: read in a fraction of a second, not in the square of its length (a minute)."""
    line = b'Content-Disposition: form-data; name="csrf_token"\r\n'
    began = time.process_time()
    assert form_token("multipart/form-data; boundary=b", line * (512 * 1024 // len(line))) is None
    assert time.process_time() - began < 10


def test_repeated_headers_never_pass_for_one() -> None:
    """Two origins are joined, and a joined origin is nobody's; cookies are joined as HTTP/2 does."""
    assert merged([("origin", ORIGIN), ("origin", "x"), ("cookie", "a=1"), ("cookie", "b=2")]) == {
        "origin": f"{ORIGIN}, x",
        "cookie": "a=1; b=2",
    }

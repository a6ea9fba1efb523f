"""Sessions: limits, rotation, reuse, devices, and what a cookie is worth without the store."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from axis_security.auth.cookies import CookieKind, CookieProblem, CookiesRead
from axis_security.auth.factors import ProofRefused
from axis_security.auth.recovery import DigestRing
from axis_security.auth.remember import RememberPolicy
from axis_security.auth.session_ports import IssueRemember, ResolveSession, StartSession
from axis_security.auth.sessions import NEVER, Anonymous, Authenticated, SessionPolicy, Started
from axis_security.auth.signing import SigningKeys
from axis_security.auth.visitor import Visitor
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import EventKind
from axis_security.core.ids import TenantId, UserId
from axis_security.core.secret import Secret
from axis_security.testing.auth_world import GOOD_PASSWORD, AuthWorld, TestBrowser

TOUCHED = {("Vary", "Cookie"), ("Cache-Control", "no-store")}


def signed_in(**settings: Any) -> tuple[AuthWorld, TestBrowser]:
    world = AuthWorld(**settings)
    world.account()
    browser = world.browser()
    browser.sign_in()
    return world, browser


def why(browser: TestBrowser) -> str:
    found = browser.resolve()
    return found.why if isinstance(found, Anonymous) else "signed in"


def test_the_idle_limit_holds_and_use_prolongs() -> None:
    """ASVS 7.3.1: 30 minutes without use end a session; use within them does not."""
    world, browser = signed_in()
    for _ in range(4):
        world.later(minutes=29)
        assert why(browser) == "signed in"
    world.later(minutes=31)
    assert why(browser) == "unknown"
    assert browser.cookie(CookieKind.SESSION) is None, "the dead cookie is taken away"


def test_the_absolute_limit_holds_through_use_and_rotation() -> None:
    """ASVS 7.3.2: 12 hours end a session, however busy, however often rotated."""
    world, browser = signed_in()
    for _ in range(36):
        world.later(minutes=19)
        browser.run(world.auth.sessions.rotate(browser.session(), visitor=browser.visitor, cause="role_change"))
        assert why(browser) == "signed in"
    world.later(minutes=37)
    assert why(browser) == "unknown"


def test_resolving_is_one_store_operation_and_a_forged_cookie_none() -> None:
    """One operation for a cookie of ours; none for one without our signature, whatever it looks like."""
    world, browser = signed_in()
    world.ops.clear()
    browser.resolve()
    assert [type(op) for op in world.ops] == [ResolveSession]
    world.ops.clear()
    genuine = browser.cookie(CookieKind.SESSION)
    assert genuine is not None
    for forged in (genuine[:-1] + ("A" if genuine[-1] != "A" else "E"), "A" * 99, genuine.partition(".")[0], "x"):
        browser.put(CookieKind.SESSION, forged)
        assert why(browser) == "bad_cookie"
    assert world.ops == []


def test_an_unknown_id_is_never_adopted() -> None:
    """Fixation: a validly signed id that the store does not know signs nobody in, and a login does not take it over."""
    world = AuthWorld()
    world.account()
    attacker = world.browser()
    attacker.sign_in()
    planted = attacker.cookie(CookieKind.SESSION)
    assert planted is not None
    attacker.sign_out()
    victim = world.browser()
    victim.put(CookieKind.SESSION, planted)
    assert why(victim) == "unknown"
    victim.put(CookieKind.SESSION, planted)
    victim.sign_in()
    assert victim.cookie(CookieKind.SESSION) != planted
    attacker.put(CookieKind.SESSION, planted)
    assert why(attacker) == "unknown"


def test_a_login_replaces_the_presented_session() -> None:
    """ASVS 7.2.4: the session that a login was made in is dead afterwards."""
    _, browser = signed_in()
    old = browser.copy()
    browser.sign_in()
    assert why(browser) == "signed in"
    assert why(old) == "unknown"


def test_rotation_has_a_grace_and_then_reuse_ends_the_session() -> None:
    """The old id answers for ten seconds, as superseded; after that it ends the session for everybody and says so."""
    world, browser = signed_in()
    old = browser.copy()
    browser.run(world.auth.sessions.rotate(browser.session(), visitor=browser.visitor, cause="role_change"))
    assert browser.cookie(CookieKind.SESSION) != old.cookie(CookieKind.SESSION)
    parallel = old.session()
    assert parallel.live.superseded
    assert parallel.handle == browser.session().handle
    assert world.run(world.auth.sessions.rotate(parallel, visitor=old.visitor, cause="again")) is None
    world.later(seconds=11)
    world.events.clear()
    assert why(old.copy()) == "reused"
    assert why(browser) == "unknown"
    assert EventKind.SESSION_REUSED in world.kinds()


def test_a_session_cookie_holds_no_more_than_route_and_id_and_the_store_never_sees_the_id() -> None:
    """The store gets an HMAC: the id itself, and its plain hash, are nowhere in what it is asked."""
    world, browser = signed_in()
    cookie = browser.cookie(CookieKind.SESSION)
    assert cookie is not None
    assert len(cookie) < 128
    identity = cookie[12:55]
    starts = [op for op in world.ops if isinstance(op, StartSession)]
    assert starts
    seen = repr(world.ops)
    assert identity not in seen
    assert repr(hashlib.sha256(identity.encode()).digest())[2:-1] not in seen
    assert "ann" not in cookie


def test_key_rotation_logs_nobody_out_and_a_generation_everybody() -> None:
    """Cookie and digest keys rotate under a live session; raising the generation ends it."""
    world, browser = signed_in()
    old, new = Secret(b"k" * 32), Secret(b"n" * 32)
    ring = DigestRing(active="d2", keys={"d1": Secret(b"d" * 32), "d2": Secret(b"e" * 32)})
    rotated = AuthWorld(store=world.store, keys=SigningKeys([old, new]), digests=ring, start=world.time)
    assert why(TestBrowser(rotated, jar=browser.jar)) == "signed in"
    raised = AuthWorld(store=world.store, session=SessionPolicy(generation=1), start=world.time)
    assert why(TestBrowser(raised, jar=dict(browser.jar))) == "unknown"
    assert why(browser) == "signed in", "control: the same cookie under the first settings"


def test_devices_are_listed_and_ended_by_public_handle() -> None:
    """ASVS 7.5.2: list, end one, end the others; a handle is not the cookie, and a stranger's handle finds nothing."""
    world, here = signed_in()
    there, third = world.browser("198.51.100.9"), world.browser()
    there.agent = "Phone\n\x1b[31m/" + "x" * 300
    there.sign_in()
    third.sign_in()
    world.account("bob@example.com")
    bob = world.browser()
    bob.sign_in("bob@example.com")
    sessions, session = world.auth.sessions, here.session()
    found = world.run(sessions.devices(session))
    assert len(found) == 3
    assert [device.current for device in found].count(True) == 1
    phone = next(device for device in found if device.network == "198.51.100.9")
    assert phone.client.isprintable()
    assert len(phone.client) <= 200
    assert all(str(device.handle) not in str(here.jar) for device in found)
    assert world.run(sessions.revoke(session, bob.session().handle, proof=session.proof())) is False
    assert why(bob) == "signed in"
    assert world.run(sessions.revoke(session, phone.handle, proof=session.proof())) is True
    assert why(there) == "unknown"
    assert world.run(sessions.revoke_others(session, proof=session.proof())) == 1
    assert (why(third), why(here)) == ("unknown", "signed in")


def test_ending_sessions_needs_a_fresh_proof_of_the_same_person() -> None:
    """A session that somebody found open cannot end the others: five minutes after the last proof it must step up first."""
    world, browser = signed_in()
    other = world.browser()
    other.sign_in()
    session = browser.session()
    world.later(minutes=6)
    sessions = world.auth.sessions
    for flow in (
        sessions.revoke_others(session, proof=session.proof()),
        sessions.revoke(session, other.session().handle, proof=session.proof()),
    ):
        with pytest.raises(ProofRefused):
            world.run(flow)
    assert (why(other), why(browser)) == ("signed in", "signed in")


def test_ending_sessions_is_told_to_the_log() -> None:
    """One device, or all others: the event says which, how many, and that it was the person's own doing."""
    world, browser = signed_in()
    other, third = world.browser(), world.browser()
    other.sign_in()
    third.sign_in()
    session = browser.session()
    world.run(world.auth.sessions.revoke(session, other.session().handle, proof=session.proof()))
    world.run(world.auth.sessions.revoke_others(session, proof=session.proof()))
    told = [event.detail for event in world.events if event.kind is EventKind.SESSION_REVOKED]
    assert [(detail["scope"], detail["count"], detail["cause"]) for detail in told] == [("one", 1, "self"), ("others", 1, "self")]


def test_signing_everybody_of_an_account_out_is_its_own_act() -> None:
    """ASVS 7.4.5: every session of a person ends at once, with an event; others stay."""
    world, browser = signed_in()
    second = world.browser()
    user = second.sign_in().user
    assert world.run(world.auth.sessions.revoke_all(user, cause="admin")) == 2
    assert (why(browser), why(second)) == ("unknown", "unknown")
    event = world.events[-1]
    assert (event.kind, event.detail["scope"], event.detail["count"], event.detail["cause"]) == (
        EventKind.SESSION_REVOKED,
        "all",
        2,
        "admin",
    )


def test_sign_out_kills_the_session_on_the_server() -> None:
    """ASVS 7.4.1: a cookie copied before the sign-out is worth nothing after it."""
    world, browser = signed_in()
    thief = browser.copy()
    browser.sign_out()
    assert why(thief) == "unknown"
    assert CookieKind.SESSION not in browser.visitor.cookies.values
    assert EventKind.LOGOUT in world.kinds()


def test_the_longest_unused_session_gives_way_at_the_limit() -> None:
    """ASVS 7.1.2: at the limit a new login ends the session that was unused for longest, and the policy says so in words."""
    world, first = signed_in(session=SessionPolicy(max_live=2))
    world.later(minutes=1)
    second = world.browser()
    second.sign_in()
    world.later(minutes=2)
    assert why(first) == "signed in"
    third = world.browser()
    third.sign_in()
    assert (why(first), why(second), why(third)) == ("signed in", "unknown", "signed in")
    assert "2 sessions" in world.auth.sessions.policy.documented()


def test_cve_2026_27205_every_touch_of_a_session_sets_vary_and_no_store() -> None:
    """Found, missing, forged, dead or reused: whatever the cookie was, caches are told that the answer depends on it."""
    world, browser = signed_in()
    answers = [browser.resolve(), world.browser().resolve()]
    forged = world.browser()
    forged.put(CookieKind.SESSION, "forged")
    answers.append(forged.resolve())
    gone = browser.copy()
    browser.sign_out()
    answers.append(gone.resolve())
    duplicate = Visitor(cookies=world.auth.profile.read("__Host-axis_session=a; __Host-axis_session=b"))
    answers.append(world.run(world.auth.sessions.resolve(duplicate)))
    assert {answer.why if isinstance(answer, Anonymous) else "in" for answer in answers} == {"in", "no_cookie", "bad_cookie", "unknown"}
    assert all(set(answer.headers) >= TOUCHED for answer in answers)
    refused = world.browser().login(password=Secret("wrong"))
    assert set(refused.headers) >= TOUCHED
    assert set(world.browser().login().headers) >= TOUCHED


def test_a_store_that_does_not_answer_signs_nobody_in() -> None:
    """Fail closed: the error goes up; it is never read as a session, nor as none."""

    class Down:
        def perform(self, op: object) -> object:
            raise Unavailable(what="down", why="test", fix="none")

    world, browser = signed_in()
    dead = AuthWorld(store=Down(), start=world.time)
    with pytest.raises(Unavailable):
        TestBrowser(dead, jar=browser.jar).resolve()


def test_a_session_says_how_and_when_and_never_the_role() -> None:
    """The principal gets handle, assurance and time from the session and the role from the caller; nothing of the session shows its id."""
    _, browser = signed_in()
    session = browser.session()
    principal = session.principal(tenant="acme", role="member")
    assert (principal.session, principal.role, principal.auth_time) == (str(session.handle), "member", session.live.auth_time)
    assert not hasattr(session.live, "role")
    cookie = browser.cookie(CookieKind.SESSION)
    assert cookie is not None
    outcome = browser.login()
    assert cookie[12:55] not in repr(session)
    assert "Set-Cookie" not in repr(outcome)


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle": timedelta(0)},
        {"idle": timedelta(hours=13)},
        {"absolute": timedelta(days=31)},
        {"touch_after": timedelta(minutes=10)},
        {"grace": timedelta(0)},
        {"grace": timedelta(minutes=2)},
        {"max_live": 0},
        {"generation": -1},
    ],
)
def test_limits_that_undo_the_protection_are_refused(wrong: dict[str, Any]) -> None:
    """No policy without an idle limit, an absolute limit or a grace."""
    with pytest.raises(ConfigError):
        SessionPolicy(**wrong)


def test_the_idle_touch_is_coarse() -> None:
    """A request within a minute of the last note writes none; the time seen moves only when it is older."""
    world, browser = signed_in()
    world.later(seconds=30)
    assert browser.session().live.seen_at == world.time - timedelta(seconds=30)
    world.later(seconds=40)
    browser.resolve()
    assert browser.session().live.seen_at == world.time


def test_a_development_host_problem_clears_no_cookie() -> None:
    """Where the profile may not set cookies for a host, an answer does not try to."""
    world = AuthWorld()
    visitor = Visitor(cookies=CookiesRead({}, {CookieKind.SESSION: CookieProblem.HOST}))
    assert world.run(world.auth.sessions.resolve(visitor)) == Anonymous("bad_cookie")
    assert isinstance(signed_in()[1].resolve(), Authenticated)
    assert GOOD_PASSWORD.reveal()


def test_the_limits_unless_told_otherwise() -> None:
    """ASVS 7.3: 30 minutes unused, 12 hours in all; a note a minute, ten seconds of grace, ten sessions. `NEVER` is 1970, fresh for nothing."""
    assert SessionPolicy() == SessionPolicy(
        idle=timedelta(minutes=30),
        absolute=timedelta(hours=12),
        touch_after=timedelta(seconds=60),
        grace=timedelta(seconds=10),
        max_live=10,
        generation=0,
    )
    assert datetime(1970, 1, 1, tzinfo=UTC) == NEVER


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ({"max_live": 1000}, {"max_live": 1001}),
        ({"max_live": 1}, {"max_live": 0}),
        ({"generation": 2**32 - 1}, {"generation": 2**32}),
        ({"grace": timedelta(seconds=1)}, {"grace": timedelta(milliseconds=999)}),
        ({"grace": timedelta(seconds=60)}, {"grace": timedelta(seconds=60, milliseconds=1)}),
        ({"touch_after": timedelta(minutes=7.5)}, {"touch_after": timedelta(minutes=7.51)}),
        ({"touch_after": timedelta(0)}, {"touch_after": timedelta(milliseconds=-1)}),
        ({"absolute": timedelta(days=30)}, {"absolute": timedelta(days=30, seconds=1)}),
    ],
)
def test_each_limit_holds_at_its_edge(inside: dict[str, Any], outside: dict[str, Any]) -> None:
    """The last value that is allowed, and the first that is not."""
    SessionPolicy(**inside)
    with pytest.raises(ConfigError):
        SessionPolicy(**outside)


def test_no_answer_shows_a_cookie_in_its_repr() -> None:
    """Answers end up in logs and tracebacks: neither headers nor the digests of a session are printed."""
    world, browser = signed_in()
    found = browser.resolve()
    assert isinstance(found, Authenticated)
    started = browser.run(world.auth.sessions.rotate(found.session, visitor=browser.visitor, cause="role_change"))
    for answer in (found, started, Anonymous("unknown")):
        assert "headers" not in repr(answer)
        assert "Vary" not in repr(answer)
    assert "SessionKey" not in repr(found.session)
    assert "key=" not in repr(found.session)


def test_a_new_session_says_when_it_ends() -> None:
    """Twelve hours after it began, as the answer to the login and as the store says."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    made = browser.sign_in()
    assert made.live.ends_at == world.time + timedelta(hours=12)
    assert (made.live.started_at, made.live.seen_at, made.live.auth_time) == (world.time,) * 3
    assert browser.session().live.ends_at == made.live.ends_at


def test_switching_the_workspace_gives_a_new_id_and_notes_which() -> None:
    """The id changes with the role (ASVS 7.2.4), the workspace is the session's, and `None` takes it away again."""
    world, browser = signed_in()
    before = browser.cookie(CookieKind.SESSION)
    for tenant in (TenantId("acme"), None):
        switched = browser.run(world.auth.sessions.switch_tenant(browser.session(), visitor=browser.visitor, tenant=tenant))
        assert isinstance(switched, Started)
        assert browser.session().live.tenant == (None if tenant is None else "acme")
        assert browser.cookie(CookieKind.SESSION) != before
    world.run(world.auth.sessions.rotate(browser.session(), visitor=browser.visitor, cause="role_change"))


def test_a_rotation_keeps_the_workspace_that_was_chosen() -> None:
    """Only switching changes it: a step-up in between does not send anybody elsewhere."""
    world, browser = signed_in()
    browser.run(world.auth.sessions.switch_tenant(browser.session(), visitor=browser.visitor, tenant=TenantId("acme")))
    browser.run(world.auth.sessions.rotate(browser.session(), visitor=browser.visitor, cause="role_change"))
    assert browser.session().live.tenant == "acme"


def test_handles_are_random_uuids_and_events_name_them() -> None:
    """A public handle is a version 4 UUID (RFC 9562) of 16 random bytes; the events of a session carry it, those of all sessions none."""
    world, browser = signed_in()
    assert world.auth.sessions.new_handle().version == 4
    handle = str(browser.session().handle)
    started = next(event for event in world.events if event.kind is EventKind.SESSION_STARTED)
    assert (started.session, started.detail["handle"]) == (handle, handle)
    world.run(world.auth.sessions.revoke_all(UserId("ann"), cause="leak"))
    revoked = world.events[-1]
    assert (revoked.kind, revoked.session, revoked.detail["handle"]) == (EventKind.SESSION_REVOKED, None, None)


def test_what_lies_in_the_store_is_found_again_after_an_upgrade() -> None:
    """Known answers, computed apart: HMAC-SHA-256 over label, generation (32 bits, big-endian) and id, each behind its length in 16 bits. With
    any other form an upgrade would sign everybody out."""
    world = AuthWorld(entropy=lambda size: b"\7" * size, session=SessionPolicy(generation=3), remember_policy=RememberPolicy(generation=3))
    world.account()
    world.browser().sign_in(remember=True)
    kept = {type(op): op.digest for op in world.ops if isinstance(op, StartSession | IssueRemember)}
    assert kept == {
        StartSession: ("d1", bytes.fromhex("b0db38fcadfd1deab3cf4aae3d3ddfef2a5c7a6420505ee4f57f932e9cb6d56b")),
        IssueRemember: ("d1", bytes.fromhex("218c1076beeb23e1eb59382c6836419dd999ae72bf98bd45c7a74d87f0002e61")),
    }

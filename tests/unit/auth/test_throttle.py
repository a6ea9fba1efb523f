"""Throttles: counted first, given back after success, and no weapon against the owner."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from axis_security.auth.cookies import CookieKind
from axis_security.auth.factors import LoadTotp
from axis_security.auth.login_states import NeedsSecondFactor, RefusalCode, Refused, SignedIn
from axis_security.auth.ports import CheckPassword, LoadSettings
from axis_security.auth.recovery import DigestRing
from axis_security.auth.signing import SigningKeys
from axis_security.auth.stepup import SteppedUp
from axis_security.auth.throttle import Rate, ThrottlePolicy
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import EventKind
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret
from axis_security.testing.auth_world import GOOD_PASSWORD, AuthWorld, TestBrowser

FIFTEEN = timedelta(minutes=15)

WRONG = Secret("not the password at all")


def guesses(world: AuthWorld, count: int, name: str = "ann@example.com", *, address: str | None = None) -> list[RefusalCode]:
    """Strangers guess, each from a network of their own unless *address* is given."""
    codes = []
    for number in range(count):
        outcome = world.browser(address or f"198.51.{number // 250}.{number % 250}").login(name, WRONG)
        assert isinstance(outcome, Refused)
        codes.append(outcome.code)
    return codes


def test_the_account_budget_holds_in_every_spelling_and_from_everywhere() -> None:
    """Ten guesses in a quarter of an hour, whatever the case of the name and whoever asks; then Retry-After; unknown names alike."""
    for name, again in (("ann@example.com", "ANN@Example.COM "), ("nobody@example.com", "NOBODY@example.com")):
        world = AuthWorld()
        world.account()
        assert guesses(world, 10, name) == [RefusalCode.MISMATCH] * 10
        outcome = world.browser("203.0.113.7").login(again, WRONG)
        assert isinstance(outcome, Refused)
        assert (outcome.code, outcome.http_status) == (RefusalCode.THROTTLED, 429)
        assert 1 <= outcome.retry_after <= 900
        assert ("Retry-After", str(outcome.retry_after)) in outcome.answer_headers
        world.later(seconds=outcome.retry_after)
        assert guesses(world, 1, name, address="203.0.113.8") == [RefusalCode.MISMATCH]


def test_strangers_cannot_lock_the_owner_out_of_their_own_browser() -> None:
    """While strangers exhaust the account's budget, a browser that has signed in before still signs in; a new one waits."""
    world = AuthWorld()
    world.account()
    own = world.browser()
    own.sign_in()
    own.sign_out()
    guesses(world, 10)
    assert isinstance(own.copy().login(), SignedIn)
    stranger = world.browser().login()
    assert isinstance(stranger, Refused)
    assert stranger.code is RefusalCode.THROTTLED


def test_the_cap_of_one_hundred_leaves_the_owner_their_last_ten() -> None:
    """Strangers reach ninety failures in a row and are compared no more; the owner's browser still is, and its success starts the count again."""
    world = AuthWorld(throttle_policy=ThrottlePolicy(account=Rate(1000, timedelta(minutes=15))))
    world.account()
    own = world.browser()
    own.sign_in()
    own.sign_out()
    codes = guesses(world, 95)
    assert codes == [RefusalCode.MISMATCH] * 90 + [RefusalCode.LOCKED] * 5
    stranger = world.browser("203.0.113.7").login()
    assert isinstance(stranger, Refused), "locked for strangers, even with the right password"
    assert isinstance(own.login(), SignedIn)
    assert guesses(world, 1, address="203.0.113.9") == [RefusalCode.MISMATCH]


def test_nist_no_account_is_compared_with_after_one_hundred_failures() -> None:
    """NIST SP 800-63B-4 section 3.2.2: the hundredth failure in a row is the last comparison, for known browsers too, until a reset."""
    world = AuthWorld()
    world.account()
    own = world.browser()
    own.sign_in()
    own.sign_out()
    settings = world.store.perform(LoadSettings("ann@example.com"))
    for _ in range(100):
        world.store.perform(CheckPassword(account="ann@example.com", settings=settings, digest=b"\0" * 32))
    assert own.login() == Refused(RefusalCode.LOCKED)


def test_the_device_cookie_is_for_its_account_and_cannot_be_made() -> None:
    """Another account's browser is a stranger; a forged or expired cookie is no cookie; a key rotation keeps it."""
    world = AuthWorld()
    world.account()
    world.account("eve@example.com")
    eve = world.browser()
    eve.sign_in("eve@example.com")
    browsers, now = world.auth.browsers, world.time
    met = browsers.read(eve.visitor, now=now)
    assert met is not None
    assert browsers.known(met, "eve@example.com") == met.id
    assert browsers.known(met, "ann@example.com") is None
    assert browsers.read(eve.visitor, now=now + timedelta(days=181)) is None
    assert browsers.read(eve.visitor, now=now - timedelta(days=1)) is None
    value = eve.cookie(CookieKind.DEVICE)
    assert value is not None
    forged = world.browser()
    forged.put(CookieKind.DEVICE, value.replace(met.id, "A" * 22))
    assert browsers.read(forged.visitor, now=now) is None
    rotated = AuthWorld(store=world.store, keys=SigningKeys([Secret(b"k" * 32), Secret(b"n" * 32)]))
    again = TestBrowser(rotated, jar=eve.jar)
    assert rotated.auth.browsers.known(rotated.auth.browsers.read(again.visitor, now=now), "eve@example.com") == met.id
    for number in range(8):
        world.account(f"user{number}@example.com")
        eve.sign_in(f"user{number}@example.com")
    last = browsers.read(eve.visitor, now=now)
    assert last is not None
    assert len(last.tags) == 5
    assert browsers.known(last, "user7@example.com") == met.id


def test_a_success_gives_back_one_attempt_and_clears_nothing() -> None:
    """A guesser who owns an account cannot wash their address with it: failures stay counted."""
    world = AuthWorld(throttle_policy=ThrottlePolicy(network=Rate(10, timedelta(minutes=15)), account=Rate(1000, timedelta(minutes=15))))
    world.account()
    world.account("eve@example.com")
    eve = "2001:db8:0:1::"
    for number in range(10):
        assert isinstance(world.browser(eve + str(number)).login("eve@example.com"), SignedIn)
        assert guesses(world, 1, address=eve + f"{number:x}f") == [RefusalCode.MISMATCH]
    assert guesses(world, 1, address=eve + "abcd") == [RefusalCode.THROTTLED]
    assert guesses(world, 1, address="2001:db8:0:2::1") == [RefusalCode.MISMATCH]


def test_a_throttled_attempt_costs_no_hash_and_leaves_an_event_without_names() -> None:
    """Refused before any work; the event names the network and a reference, not what was typed."""
    world = AuthWorld()
    guesses(world, 10, "typed@example.com")
    world.kdf.take()
    assert guesses(world, 1, "typed@example.com") == [RefusalCode.THROTTLED]
    assert world.kdf.take() == {}
    event = world.events[-1]
    assert event.kind is EventKind.THROTTLED
    assert event.detail["scope"] == "login.account"
    assert "typed" not in str(event.as_dict())


def test_letters_are_counted_by_account_and_by_network() -> None:
    """Three letters an hour to one address, thirty from one network; whether the address exists changes nothing, asked for or registered."""
    for name in ("ann@example.com", "nobody@example.com"):
        world = AuthWorld()
        world.account()
        register, fresh = world.auth.lifecycle.register, Secret("quite another sentence")
        codes = [
            world.run(register(user=UserId(f"u{n}"), identifier=name, password=fresh, visitor=world.browser(f"192.0.2.{n}").visitor))
            for n in range(4)
        ]
        assert [isinstance(code, Refused) for code in codes] == [False, False, False, True]
        ask = world.auth.lifecycle.forgot
        codes = [world.run(ask(identifier=name, visitor=world.browser(f"198.51.100.{n}").visitor)) for n in range(4)]
        assert [isinstance(code, Refused) for code in codes] == [False, False, False, True]
        many = [world.run(ask(identifier=f"{n}@example.com", visitor=world.browser("203.0.113.1").visitor)) for n in range(31)]
        assert [isinstance(code, Refused) for code in many] == [False] * 30 + [True]


def test_store_keys_are_digests() -> None:
    """A store of throttles holds neither names nor addresses, and another digest key gives other keys."""
    world = AuthWorld()
    guesses(world, 1)
    seen = repr(world.ops[0])
    assert "ann" not in seen
    assert "198.51" not in seen
    other = AuthWorld(digests=DigestRing(active="d2", keys={"d2": Secret(b"e" * 32)}))
    guesses(other, 1)
    assert repr(other.ops[0]) != seen


def test_caps_that_break_the_rule_are_refused() -> None:
    """More than 100, strangers above the owner, or a rate of nothing."""
    wrong: list[dict[str, Any]] = [{"max_failures": 101}, {"stranger_failures": 100}, {"stranger_failures": 0}]
    for caps in wrong:
        with pytest.raises(ConfigError):
            ThrottlePolicy(**caps)
    with pytest.raises(ConfigError):
        Rate(0, timedelta(minutes=1))


@pytest.mark.parametrize("away", [LoadSettings, LoadTotp])
def test_an_outage_uses_up_nobody_s_attempts(away: type[Any]) -> None:
    """What did not answer taught nobody anything: after an outage nobody waits at the login, at the second form or at a step-up."""
    policy = ThrottlePolicy(account=Rate(3, FIFTEEN), browser=Rate(3, FIFTEEN), network=Rate(9, FIFTEEN))
    world = AuthWorld(throttle_policy=policy)
    phone = world.phone(world.account())
    browser, other = world.browser("203.0.113.1"), world.browser("203.0.113.2")
    browser.login()
    browser.code(phone.at(world.time))
    session, kept = browser.session(), world.store
    other.login()
    world.later(seconds=30)

    def step_up() -> Any:
        code = phone.at(world.time)
        return browser.run(world.auth.step_up.confirm(session, password=GOOD_PASSWORD, visitor=browser.visitor, code=code))

    class Down:
        """One kind of request finds nobody there."""

        def perform(self, op: Any) -> Any:
            if isinstance(op, away):
                raise Unavailable(what="the store did not answer", why="test", fix="none")
            return kept.perform(op)

    world.store = Down()
    first, second = world.browser("203.0.113.3"), (lambda: other.code(phone.at(world.time)))
    for attempt in [first.login, step_up] if away is LoadSettings else [step_up, second]:
        for _ in range(20):
            with pytest.raises(Unavailable):
                attempt()
    world.store = kept
    assert isinstance(first.login(), NeedsSecondFactor)
    assert isinstance(second(), SignedIn)
    world.later(seconds=30)
    assert isinstance(step_up(), SteppedUp)

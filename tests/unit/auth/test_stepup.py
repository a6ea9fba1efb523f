"""Step-up and remember-me: what a fresh proof is, and what is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from axis_security.auth.cookies import CookieKind
from axis_security.auth.factors import ProofRefused
from axis_security.auth.login_states import NeedsSecondFactor, RefusalCode, Refused, SignedIn
from axis_security.auth.ports import Prune
from axis_security.auth.remember import RememberPolicy
from axis_security.auth.sessions import NEVER, Anonymous, Authenticated
from axis_security.auth.signing import SigningKeys
from axis_security.auth.stepup import CodeNeeded, NeedsStepUp, SteppedUp, needs_step_up
from axis_security.core.errors import ConfigError
from axis_security.core.events import EventKind
from axis_security.core.principal import Assurance
from axis_security.core.secret import Secret
from axis_security.testing.auth_world import GOOD_PASSWORD, AuthWorld, TestBrowser

FIVE = timedelta(minutes=5)


def remembered(world: AuthWorld, browser: TestBrowser) -> SignedIn | NeedsSecondFactor | Refused:
    outcome: SignedIn | NeedsSecondFactor | Refused = browser.run(world.auth.login.remembered(visitor=browser.visitor))
    return outcome


def refused_code(outcome: SignedIn | NeedsSecondFactor | Refused) -> RefusalCode | None:
    return outcome.code if isinstance(outcome, Refused) else None


def close(browser: TestBrowser) -> TestBrowser:
    """Close the browser: the session cookie goes, the remember cookie stays."""
    browser.jar.pop("__Host-axis_session", None)
    return browser


# --- step-up


def test_a_step_up_makes_fresh_and_gives_a_new_id() -> None:
    """ASVS 7.2.4 for re-authentication: another id, the old one dead after the grace, the same device, a new time."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    browser.sign_in()
    world.later(minutes=10)
    session, old = browser.session(), browser.copy()
    assert needs_step_up(session, now=world.time, fresh=FIVE) == NeedsStepUp(Assurance.AAL1, FIVE)
    assert needs_step_up(session, now=world.time) is None
    stepped = browser.run(world.auth.step_up.confirm(session, password=GOOD_PASSWORD, visitor=browser.visitor))
    assert isinstance(stepped, SteppedUp)
    assert browser.cookie(CookieKind.SESSION) != old.cookie(CookieKind.SESSION)
    assert browser.session().handle == session.handle
    assert needs_step_up(browser.session(), now=world.time, fresh=FIVE) is None
    stepped.proof.check(user=session.user, now=world.time)
    world.later(seconds=11)
    assert isinstance(old.resolve(), Anonymous)
    assert {EventKind.STEP_UP, EventKind.SESSION_ROTATED, EventKind.SESSION_REUSED} <= set(world.kinds())


def test_a_step_up_of_an_account_with_two_factors_needs_both() -> None:
    """The password alone makes nothing fresh; a wrong code neither; a spent code neither."""
    world = AuthWorld()
    user = world.account()
    browser = world.browser()
    browser.sign_in()
    phone = world.phone(user)
    world.later(minutes=10)
    confirm = world.auth.step_up.confirm
    session = browser.session()
    assert session.live.assurance is Assurance.AAL1
    assert browser.run(confirm(session, password=GOOD_PASSWORD, visitor=browser.visitor)) == CodeNeeded()
    assert browser.run(confirm(session, password=GOOD_PASSWORD, visitor=browser.visitor, code="000000")) == Refused(RefusalCode.CODE)
    code = phone.at(world.time)
    assert browser.run(confirm(session, password=Secret("wrong"), visitor=browser.visitor, code=code)) == Refused(RefusalCode.MISMATCH)
    assert needs_step_up(browser.session(), now=world.time, fresh=FIVE) is not None
    stepped = browser.run(confirm(session, password=GOOD_PASSWORD, visitor=browser.visitor, code=code))
    assert isinstance(stepped, SteppedUp)
    assert stepped.session.live.assurance is Assurance.AAL2
    again = browser.run(confirm(browser.session(), password=GOOD_PASSWORD, visitor=browser.visitor, code=code))
    assert again == Refused(RefusalCode.CODE)


def test_a_step_up_is_throttled_and_never_by_strangers() -> None:
    """Ten guesses in a stolen session and no more; they take nothing from the login's budget, nor the other way round."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    session = browser.sign_in()
    confirm = world.auth.step_up.confirm
    codes = [browser.run(confirm(session, password=Secret("wrong"), visitor=browser.visitor)).code for _ in range(11)]
    assert codes == [RefusalCode.MISMATCH] * 10 + [RefusalCode.THROTTLED]
    assert isinstance(world.browser("203.0.113.4").login(), SignedIn)


def test_ghsa_f66q_9rf6_8795_and_ghsa_97r5_pg8x_p63p_a_proof_is_for_one_person_session_and_act_and_once() -> None:
    """A proof of another person, another session, another act, or a spent or expired one confirms nothing."""
    world = AuthWorld()
    world.account()
    world.account("eve@example.com")
    here, elsewhere, eve = world.browser(), world.browser(), world.browser()
    mine, other, hers = here.sign_in(), elsewhere.sign_in(), eve.sign_in("eve@example.com")
    issue, spend = world.auth.step_up.issue_proof, world.auth.step_up.spend_proof
    proof = world.run(issue(mine, act="workspace.delete"))
    assert not world.run(spend(hers, proof.reveal(), act="workspace.delete"))
    assert not world.run(spend(other, proof.reveal(), act="workspace.delete"))
    assert not world.run(spend(mine, proof.reveal(), act="workspace.export"))
    for odd in ("", None, "x" * 43, proof):
        assert not world.run(spend(mine, odd, act="workspace.delete"))
    assert world.run(spend(mine, proof.reveal(), act="workspace.delete")), "control: the right one passes, and none of the above spent it"
    assert not world.run(spend(mine, proof.reveal(), act="workspace.delete"))
    late = world.run(issue(mine, act="workspace.delete"))
    world.later(minutes=5, seconds=1)
    assert not world.run(spend(mine, late.reveal(), act="workspace.delete"))
    with pytest.raises(ProofRefused):
        world.run(issue(mine, act="workspace.delete"))
    with pytest.raises(ConfigError):
        world.run(spend(mine, late.reveal(), act="No Name"))


def test_a_proof_survives_the_rotation_of_its_own_session() -> None:
    """The device is the same, so a form opened before a step-up can still be sent."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    proof = world.run(world.auth.step_up.issue_proof(browser.sign_in(), act="workspace.delete"))
    browser.run(world.auth.step_up.confirm(browser.session(), password=GOOD_PASSWORD, visitor=browser.visitor))
    assert world.run(world.auth.step_up.spend_proof(browser.session(), proof.reveal(), act="workspace.delete"))


# --- remember-me


def test_remember_begins_a_session_that_is_fresh_for_nothing() -> None:
    """The next token takes the place of the spent one; the session proves nothing, so what needs a fresh proof asks for the password."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    browser.sign_in(remember=True)
    before = browser.cookie(CookieKind.REMEMBER)
    world.later(hours=20)
    assert isinstance(browser.resolve(), Anonymous)
    outcome = remembered(world, close(browser))
    assert isinstance(outcome, SignedIn)
    assert browser.cookie(CookieKind.REMEMBER) not in {None, before}
    session = browser.session()
    assert session.live.auth_time == NEVER
    assert session.live.assurance is Assurance.AAL1
    assert needs_step_up(session, now=world.time, fresh=timedelta(days=365)) is not None
    with pytest.raises(ProofRefused):
        world.run(world.auth.sessions.revoke_others(session, proof=session.proof()))
    stepped = browser.run(world.auth.step_up.confirm(session, password=GOOD_PASSWORD, visitor=browser.visitor))
    assert isinstance(stepped, SteppedUp)


def test_a_copied_remember_token_gives_itself_away() -> None:
    """Whoever comes second with a spent token voids the line and every session, and the log says so."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    browser.sign_in(remember=True)
    thief = close(browser.copy())
    assert isinstance(remembered(world, thief), SignedIn)
    assert refused_code(remembered(world, close(browser.copy()))) is RefusalCode.REMEMBER_RACED, (
        "within the grace it may be a parallel request"
    )
    world.later(seconds=11)
    assert refused_code(remembered(world, close(browser))) is RefusalCode.REMEMBER_REUSED
    assert EventKind.REMEMBER_TOKEN_REUSED in world.kinds()
    assert isinstance(thief.resolve(), Anonymous), "the thief's session is over"
    assert refused_code(remembered(world, close(thief))) is RefusalCode.REMEMBER_UNKNOWN
    assert browser.cookie(CookieKind.REMEMBER) is None


def test_cve_2015_8314_a_stolen_remember_token_dies_when_the_server_says_so() -> None:
    """Its deadline is the server's, uses do not move it; sign-out, sign-out everywhere and a password change end it, whatever the cookie says."""

    def stolen() -> tuple[AuthWorld, TestBrowser, TestBrowser]:
        world = AuthWorld()
        world.account()
        browser = world.browser()
        browser.sign_in(remember=True)
        return world, browser, close(browser.copy())

    world, browser, thief = stolen()
    for _ in range(29):
        world.later(hours=24)
        assert isinstance(remembered(world, close(browser)), SignedIn)
    world.later(hours=25)
    assert isinstance(remembered(world, close(browser)), Refused)

    world, browser, thief = stolen()
    browser.sign_out()
    assert refused_code(remembered(world, thief)) is RefusalCode.REMEMBER_UNKNOWN

    for cookies in (lambda browser: browser, close):  # a session that has run out and left no row, with its cookie or without
        world, browser, thief = stolen()
        world.later(hours=13)
        world.store.perform(Prune(world.time))
        cookies(browser).sign_out()
        assert refused_code(remembered(world, thief)) is RefusalCode.REMEMBER_UNKNOWN

    world, browser, thief = stolen()
    world.run(world.auth.sessions.revoke_all(browser.session().user, cause="self"))
    assert refused_code(remembered(world, thief)) is RefusalCode.REMEMBER_UNKNOWN

    world, browser, thief = stolen()
    flow = world.auth.lifecycle.change_password(
        browser.session(), current=GOOD_PASSWORD, new=Secret("another uncommon sentence"), visitor=browser.visitor
    )
    browser.run(flow)
    assert isinstance(browser.resolve(), Authenticated)
    assert refused_code(remembered(world, thief)) is RefusalCode.REMEMBER_UNKNOWN

    _, _, thief = stolen()
    assert isinstance(remembered(thief.world, thief), SignedIn), "control: otherwise it signs in"


def test_remember_tokens_survive_key_rotation_and_end_with_a_generation() -> None:
    """A rotation forgets nobody; the generation forgets everybody."""
    world = AuthWorld()
    world.account()
    browser = world.browser()
    browser.sign_in(remember=True)
    keys = SigningKeys([Secret(b"k" * 32), Secret(b"n" * 32)])
    raised = AuthWorld(store=world.store, remember_policy=RememberPolicy(generation=1))
    assert refused_code(remembered(raised, TestBrowser(raised, jar=dict(close(browser).jar)))) is RefusalCode.REMEMBER_UNKNOWN
    rotated = AuthWorld(store=world.store, keys=keys)
    assert isinstance(remembered(rotated, TestBrowser(rotated, jar=dict(close(browser).jar))), SignedIn)
    wrong: list[dict[str, Any]] = [{"lasting": timedelta(days=91)}, {"grace": timedelta(0)}, {"generation": -1}]
    for settings in wrong:
        with pytest.raises(ConfigError):
            RememberPolicy(**settings)


def test_a_second_factor_after_a_remember_token_is_still_no_password() -> None:
    """Token and code: signed in, with one factor, fresh for nothing, until the password is given too."""
    world = AuthWorld()
    user = world.account()
    browser = world.browser()
    browser.sign_in(remember=True)
    phone = world.phone(user)
    outcome = remembered(world, close(browser))
    assert isinstance(outcome, NeedsSecondFactor)
    signed = browser.code(phone.at(world.time))
    assert isinstance(signed, SignedIn)
    assert signed.session.live.assurance is Assurance.AAL1
    assert signed.session.live.auth_time == NEVER
    assert signed.session.handle == outcome.pending.handle


def test_a_refused_step_up_names_the_factor_that_was_tried() -> None:
    """Six digits are a TOTP code, anything else a recovery code; the log says which was wrong."""
    world = AuthWorld()
    user = world.account()
    phone = world.phone(user)
    browser = world.browser()
    browser.login()
    browser.code(phone.at(world.time))
    session = browser.session()
    world.events.clear()
    for code in ("000000", "NO-SUCH-CODE"):
        browser.run(world.auth.step_up.confirm(session, password=GOOD_PASSWORD, visitor=browser.visitor, code=code))
    told = [event.detail["method"] for event in world.events if event.kind is EventKind.STEP_UP]
    assert told == ["totp", "recovery"]

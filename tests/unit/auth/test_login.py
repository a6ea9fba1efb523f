"""The login machine: every pair of state and step, one choke point, equal work on every path."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from axis_security.auth import browsers, lifecycle, login, remember, sessions, stepup, tokens
from axis_security.auth.cookies import CookieKind
from axis_security.auth.csrf import Csrf
from axis_security.auth.factors import ReauthProof
from axis_security.auth.foreign import bcrypt_ceiling
from axis_security.auth.identifiers import MAX_IDENTIFIER_CHARS, identifier_or_decoy
from axis_security.auth.kdf import Argon2Cost
from axis_security.auth.kdf_pool import Busy
from axis_security.auth.lifecycle import Answered
from axis_security.auth.login_states import (
    TRANSITIONS,
    LoginState,
    LoginStep,
    Method,
    NeedsSecondFactor,
    PendingLogin,
    RefusalCode,
    Refused,
    SignedIn,
)
from axis_security.auth.passwords import Passwords
from axis_security.auth.ports import (
    AccountOf,
    BumpEpoch,
    CheckPassword,
    ConsumeToken,
    IssueToken,
    LoadSettings,
    PeekToken,
    RefundThrottle,
    Register,
    Reserve,
    StoredHash,
)
from axis_security.auth.recovery import RecoveryCodes
from axis_security.auth.session_ports import StartSession
from axis_security.auth.sessions import Authenticated, Session
from axis_security.auth.stepup import SteppedUp
from axis_security.auth.totp import Totp
from axis_security.auth.work import AsyncAuthRunner, DerivePassword
from axis_security.core.events import EventKind, Outcome
from axis_security.core.flow import drive
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance
from axis_security.core.secret import Secret
from axis_security.testing.auth_world import GOOD_PASSWORD, AuthWorld, TestBrowser
from axis_security.testing.kdf import CountingKdf

WRONG = Secret("not the password at all")


# --- the table


class Machine:
    """A browser in one state, and every step as a person would take it."""

    def __init__(self, state: LoginState) -> None:
        self.world = AuthWorld()
        self.world.account("one@example.com")
        self.two = self.world.account("two@example.com")
        self.phone = self.world.phone(self.two)
        self.browser = self.world.browser()
        self.gone: Session | None = None
        match state:
            case LoginState.PENDING:
                self.browser.login("two@example.com")
            case LoginState.SIGNED_IN:
                self.browser.sign_in("one@example.com")
        assert self.state is state

    @property
    def state(self) -> LoginState:
        if isinstance(self.browser.copy().resolve(), Authenticated):
            return LoginState.SIGNED_IN
        pending = self.world.run(self.world.auth.login.pending(visitor=self.browser.visitor))
        return LoginState.ANONYMOUS if pending is None else LoginState.PENDING

    def take(self, step: LoginStep) -> None:
        browser, auth = self.browser, self.world.auth
        match step:
            case LoginStep.FIRST_FACTOR:
                browser.login("one@example.com")
            case LoginStep.FIRST_FACTOR_OF_TWO:
                browser.login("two@example.com")
            case LoginStep.SECOND_FACTOR:
                browser.code(self.phone.at(self.world.time))
            case LoginStep.STEP_UP:
                found = browser.copy().resolve()
                if isinstance(found, Authenticated):
                    browser.run(auth.step_up.confirm(found.session, password=GOOD_PASSWORD, visitor=browser.visitor))
                # Without a session there is nothing that the flow would take: see test_a_pending_login_is_no_session.
            case LoginStep.SIGN_OUT:
                browser.sign_out()
            case LoginStep.EXPIRE:
                self.world.later(hours=13)
            case LoginStep.WRONG:
                browser.login("one@example.com", WRONG)
                browser.code("000000")


@pytest.mark.parametrize(("state", "step"), list(product(LoginState, LoginStep)), ids=lambda x: x.name)
def test_every_pair_of_state_and_step_follows_the_table(state: LoginState, step: LoginStep) -> None:
    """Legal pairs lead where the table says; a pair that is not in it changes nothing."""
    machine = Machine(state)
    machine.take(step)
    assert machine.state is TRANSITIONS.get((state, step), state)


def test_the_table_keeps_its_invariant() -> None:
    """No step leads from anonymous to signed in but the first factor of an account without a second; and the test above can fail."""
    direct = {step for (start, step), end in TRANSITIONS.items() if start is LoginState.ANONYMOUS and end is LoginState.SIGNED_IN}
    assert direct == {LoginStep.FIRST_FACTOR}
    assert {end for (start, _), end in TRANSITIONS.items() if start is LoginState.PENDING} == set(LoginState)
    machine = Machine(LoginState.ANONYMOUS)
    machine.take(LoginStep.FIRST_FACTOR_OF_TWO)
    assert machine.state is not LoginState.SIGNED_IN


# --- pending is another type


def test_ghsa_xg6x_h9c9_2m83_a_pending_login_is_no_session() -> None:
    """Pending has its own type and its own cookie: no value of it resolves, in any cookie, and a cached answer of it signs nobody in."""
    world = AuthWorld()
    phone = world.phone(world.account())
    browser = world.browser()
    outcome = browser.login()
    assert isinstance(outcome, NeedsSecondFactor)
    assert not isinstance(outcome.pending, Session)
    assert browser.cookie(CookieKind.SESSION) is None
    value = browser.cookie(CookieKind.PENDING)
    assert value is not None
    for kind in CookieKind:
        thief = world.browser()
        thief.put(kind, value)
        assert not isinstance(thief.resolve(), Authenticated)
    assert not any(isinstance(op, StartSession) for op in world.ops)
    assert ("Cache-Control", "no-store") in outcome.headers
    accepted = [
        (owner.__name__, name)
        for owner in (sessions.Sessions, stepup.StepUp, lifecycle.Lifecycle, Csrf)
        for name, method in inspect.getmembers(owner, inspect.isfunction)
        if any("PendingLogin" in str(parameter.annotation) for parameter in inspect.signature(method).parameters.values())
    ]
    assert accepted == []
    assert isinstance(browser.code(phone.at(world.time)), SignedIn), "control: the second factor turns it into a session"


def test_every_way_in_asks_for_the_second_factor() -> None:
    """Each method that proves a first factor ends pending where the account has a second; a new one must be added here."""
    world = AuthWorld()
    user = world.account()
    remembering = world.browser()
    remembering.sign_in(remember=True)
    remembering.jar.pop("__Host-axis_session")
    world.phone(user)

    def by_remember() -> Any:
        return remembering.run(world.auth.login.remembered(visitor=remembering.visitor))

    ways: dict[Method, Callable[[], Any]] = {
        Method.PASSWORD: lambda: world.browser().login(),
        Method.EXTERNAL: lambda: world.run(world.auth.login.external(user=user, visitor=world.browser().visitor)),
        Method.REMEMBER: by_remember,
    }
    assert ways.keys() == {method for method in Method if not method.is_second}
    for method, way in ways.items():
        assert isinstance(way(), NeedsSecondFactor), method


def test_only_the_choke_point_starts_sessions() -> None:
    """`Sessions.begin` is called in one place, and `StartSession` is made in one place."""
    sources = {module.__name__: inspect.getsource(module) for module in (login, lifecycle, stepup, remember, tokens, browsers, sessions)}
    assert {name: text.count(".begin(") for name, text in sources.items() if ".begin(" in text} == {"axis_security.auth.login": 1}
    assert {name: text.count("StartSession(") for name, text in sources.items() if "StartSession(" in text} == {
        "axis_security.auth.sessions": 1
    }
    assert ".begin(" in inspect.getsource(login.Login.complete_login)


def test_cve_2025_61928_no_flow_takes_a_session_and_a_user() -> None:
    """Who is meant comes from the session or from the caller's guard, never from both: nothing of a request can name another person."""
    for owner in (login.Login, stepup.StepUp, lifecycle.Lifecycle, sessions.Sessions):
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            names = set(inspect.signature(method).parameters)
            assert not {"session", "user"} <= names, f"{owner.__name__}.{name}"
            assert not names & {"role", "tenant_id", "user_id", "account_id"}, f"{owner.__name__}.{name}"


def test_a_pending_login_is_spent_once_and_dies_with_the_password() -> None:
    """Two right codes make one session; a sign-out everywhere in between makes none."""
    world = AuthWorld()
    user = world.account()
    phone = world.phone(user)
    browser = world.browser()
    browser.login()
    copy = browser.copy()
    assert isinstance(browser.code(phone.at(world.time)), SignedIn)
    world.later(seconds=30)
    assert copy.code(phone.at(world.time)) == Refused(RefusalCode.NO_PENDING)
    other = world.browser()
    other.login()
    world.run(world.auth.sessions.revoke_all(user, cause="test"))
    world.later(seconds=30)
    assert other.code(phone.at(world.time)) == Refused(RefusalCode.STALE)


def test_a_second_pending_login_leaves_the_first_alone() -> None:
    """Whoever knows the password cannot keep throwing the owner's pending login away."""
    world = AuthWorld()
    phone = world.phone(world.account())
    owner, other = world.browser(), world.browser()
    owner.login()
    other.login()
    assert isinstance(owner.code(phone.at(world.time)), SignedIn)


def test_two_factors_are_aal2_and_a_recovery_code_is_one_of_them() -> None:
    """The session says what was proved."""
    world = AuthWorld()
    user = world.account()
    phone = world.phone(user)
    codes = world.run(world.auth.recovery.issue(user=user, proof=ReauthProof(user, world.time)))
    for code, method in ((phone.at(world.time), "totp"), (codes[0].reveal().lower(), "recovery")):
        browser = world.browser()
        browser.login()
        signed = browser.code(code)
        assert isinstance(signed, SignedIn)
        assert signed.session.live.assurance is Assurance.AAL2
        assert signed.session.live.methods == ("password", method)
    plain = world.browser()
    world.account("bob@example.com")
    assert plain.sign_in("bob@example.com").live.assurance is Assurance.AAL1


# --- equal work


def kinds_of_accounts(world: AuthWorld) -> dict[str, tuple[str, Secret[str]]]:
    """One account of every kind, and what is typed for it."""
    world.account("right@example.com")
    world.account("wrong@example.com")
    world.account("none@example.com", password=None)
    world.account("unverified@example.com", verified=False)
    disabled = world.account("disabled@example.com")
    world.run(world.auth.lifecycle.set_active(disabled, active=False, by="test"))
    world.phone(world.account("mfa@example.com"))
    world.account("locked@example.com")
    settings = world.store.perform(LoadSettings("locked@example.com"))
    for _ in range(100):
        world.store.perform(CheckPassword(account="locked@example.com", settings=settings, digest=b"\0" * 32))
    legacy = StoredHash("$2b$10$abcdefghijklmnopqrstuu" + "." * 31, b"\1" * 23)
    world.store.perform(Register(user=UserId("legacy"), identifier="legacy@example.com", hash=legacy, verified_at=world.time))
    return {
        "unknown": ("nobody@example.com", WRONG),
        "malformed": ("\0 no name", WRONG),
        "wrong": ("wrong@example.com", WRONG),
        "no password": ("none@example.com", WRONG),
        "unverified": ("unverified@example.com", GOOD_PASSWORD),
        "disabled": ("disabled@example.com", GOOD_PASSWORD),
        "locked": ("locked@example.com", GOOD_PASSWORD),
        "legacy": ("legacy@example.com", WRONG),
        "mfa": ("mfa@example.com", GOOD_PASSWORD),
        "right": ("right@example.com", GOOD_PASSWORD),
    }


def legacy_world() -> AuthWorld:
    kdf = CountingKdf()
    world = AuthWorld(passwords=Passwords(kdf=kdf, legacy=[bcrypt_ceiling(cost=10)]))
    world.kdf = kdf
    return world


def test_cve_2024_39329_and_cve_2025_13473_login_does_the_same_work_for_every_kind_of_account() -> None:
    """Counted, not timed: one KDF of equal cost, the same store operations, and one sentence, whatever the account."""
    world = legacy_world()
    cases = kinds_of_accounts(world)
    work, asked, said = {}, {}, {}
    for kind, (name, password) in cases.items():
        world.kdf.take()
        world.ops.clear()
        outcome = world.browser().login(name, password)
        work[kind] = world.kdf.take()
        if isinstance(outcome, Refused):
            asked[kind] = [type(op) for op in world.ops]
            said[kind] = (outcome.http_status, outcome.public_text, outcome.answer_headers)
    assert set(said) == cases.keys() - {"mfa", "right"}
    assert len({tuple(sorted(units.items())) for units in work.values()}) == 1, work
    assert work["unknown"], "control: there was work"
    assert all(ops[:3] == [Reserve, LoadSettings, CheckPassword] for ops in asked.values())
    matched = {"disabled", "unverified"}  # their password was right: only its owner sees another path, and the same answer
    assert len({tuple(ops) for kind, ops in asked.items() if kind not in matched}) == 1, asked
    assert len(set(said.values())) == 1


def test_forgot_resend_and_register_do_equal_work() -> None:
    """Existing, unknown, disabled and unusable names: the same work, operations, status and sentence; only the letter differs."""
    world = legacy_world()
    kinds_of_accounts(world)
    names = ["right@example.com", "nobody@example.com", "disabled@example.com", "unverified@example.com", "none@example.com", "\0 no name"]
    auth, seen = world.auth.lifecycle, {}
    for name in names:
        for flow in (auth.forgot, auth.resend):
            world.kdf.take()
            world.ops.clear()
            outcome = world.run(flow(identifier=name, visitor=world.browser("198.51.100.1").visitor))
            assert isinstance(outcome, Answered)
            seen[flow.__name__, name] = (
                sorted(world.kdf.take().items()),
                [type(op).__name__ for op in world.ops],
                outcome.public_text,
                outcome.http_status,
                outcome.headers,
            )
    assert len({str(one) for one in seen.values()}) == 1, seen
    world.browser().login("nobody@example.com", WRONG)
    of_a_login = sorted(world.kdf.take().items())
    assert of_a_login, "control: a login costs something"
    assert all(one[0] == of_a_login for one in seen.values()), "and a letter costs what a login costs"
    registered = {}
    for number, name in enumerate(["right@example.com", "new@example.com", "disabled@example.com"]):
        world.kdf.take()
        world.ops.clear()
        visitor = world.browser(f"203.0.113.{number}").visitor
        outcome = world.run(auth.register(user=UserId(f"new{number}"), identifier=name, password=GOOD_PASSWORD, visitor=visitor))
        assert isinstance(outcome, Answered)
        registered[name] = (sorted(world.kdf.take().items()), [type(op).__name__ for op in world.ops], outcome.public_text)
    assert len({str(one) for one in registered.values()}) == 1, registered


@pytest.mark.parametrize("password", ["", "x" * 81, "é" * 60, "a\0b", "\ud800", "x" * 1_000_000, "e\u0301" * 100])
def test_an_odd_password_is_a_typed_refusal_for_every_kind_of_account(password: str) -> None:
    """Longer than 72 bytes, with NUL, a lone surrogate, a megabyte: the same refusal for every kind of account, never an error."""
    world = legacy_world()
    outcomes = {
        (type(outcome), outcome.code if isinstance(outcome, Refused) and outcome.code is not RefusalCode.LOCKED else None)
        for name, _ in kinds_of_accounts(world).values()
        for outcome in [world.browser().login(name, Secret(password))]
    }
    assert outcomes <= {(Refused, RefusalCode.MISMATCH), (Refused, None)}


# --- the rest


def test_a_refusal_tells_a_stranger_one_sentence() -> None:
    """Every code has the same public text and status, but for the one that says to wait."""
    texts = {(Refused(code).public_text, Refused(code).http_status) for code in RefusalCode if code is not RefusalCode.THROTTLED}
    assert len(texts) == 1
    wait = Refused(RefusalCode.THROTTLED, 17)
    assert wait.http_status == 429
    assert ("Retry-After", "17") in wait.answer_headers


def test_a_full_queue_is_not_counted_as_an_attempt() -> None:
    """Busy gives the attempt back and goes up: a storm of logins locks nobody."""
    world = AuthWorld()
    world.account()

    def perform(request: Any) -> Any:
        if isinstance(request, DerivePassword):
            raise Busy(retry_after=1)
        return world.perform(request)

    with pytest.raises(Busy):
        drive(world.auth.login.password(identifier="ann@example.com", password=GOOD_PASSWORD, visitor=world.browser().visitor), perform)
    assert [type(op) for op in world.ops] == [Reserve, LoadSettings, RefundThrottle]


def test_an_aged_hash_is_replaced_on_login_and_sessions_stay() -> None:
    """A right password under an older cost leaves with a better hash; the event says from what to what."""
    world = AuthWorld()
    old = Passwords(kdf=world.kdf, cost=Argon2Cost(memory_kib=19_456, passes=2, lanes=1))
    user = UserId("ann")
    hashed = old.split(old.hash(GOOD_PASSWORD))
    world.store.perform(Register(user=user, identifier="ann@example.com", hash=hashed, verified_at=world.time))
    first = world.browser()
    first.sign_in()
    assert EventKind.PASSWORD_REHASHED in world.kinds()
    world.events.clear()
    world.browser().sign_in()
    assert EventKind.PASSWORD_REHASHED not in world.kinds()
    assert isinstance(first.resolve(), Authenticated)


def test_the_async_form_is_the_same_body() -> None:
    """One flow, run with await, signs in like the synchronous one."""
    world = AuthWorld()
    world.account()
    browser = world.browser()

    class Store:
        async def perform(self, op: Any) -> Any:
            await asyncio.sleep(0)
            return world.perform(op)

    async def main() -> Any:
        runner = AsyncAuthRunner(store=Store(), passwords=world.passwords)
        wrong = await runner.run(world.auth.login.password(identifier="ann@example.com", password=WRONG, visitor=browser.visitor))
        right = await runner.run(world.auth.login.password(identifier="ANN@example.com", password=GOOD_PASSWORD, visitor=browser.visitor))
        return wrong, right

    wrong, right = asyncio.run(main())
    assert wrong == Refused(RefusalCode.MISMATCH)
    browser.take(right.headers)
    assert isinstance(browser.resolve(), Authenticated)


def test_no_event_holds_a_secret_or_a_typed_name() -> None:
    """A whole life of an account is in the log, with no password, cookie, token, code, or name that might be a password."""
    world = AuthWorld()
    user = world.account()
    phone = world.phone(user)
    browser = world.browser()
    browser.login("my secret typed into the wrong field", Secret("hunter2 hunter2 hunter2"))
    browser.login(remember=True)
    code = phone.at(world.time)
    browser.code(code)
    world.later(seconds=30)
    session = browser.session()
    second = phone.at(world.time)
    stepped = browser.run(world.auth.step_up.confirm(session, password=GOOD_PASSWORD, visitor=browser.visitor, code=second))
    assert isinstance(stepped, SteppedUp)
    letter = world.run(world.auth.lifecycle.forgot(identifier="ann@example.com", visitor=browser.visitor)).letter
    log = str([event.as_dict() for event in world.events])
    hidden = [GOOD_PASSWORD.reveal(), "hunter2", "wrong field", letter.token.reveal(), *browser.jar.values()]
    assert [secret for secret in hidden if secret in log] == []
    assert f"'{code}'" not in log
    assert {
        EventKind.LOGIN,
        EventKind.SECOND_FACTOR,
        EventKind.SESSION_STARTED,
        EventKind.STEP_UP,
        EventKind.SESSION_ROTATED,
        EventKind.TOKEN_ISSUED,
    } <= set(world.kinds())


def test_an_unverified_account_may_sign_in_only_where_the_host_says_so() -> None:
    """By default the address must be confirmed first; the refusal says nothing about it."""
    for required, expected in ((True, Refused), (False, SignedIn)):
        world = AuthWorld(require_verified=required)
        world.account(verified=False)
        assert isinstance(world.browser().login(), expected)


def test_pending_payload_of_another_version_is_no_login() -> None:
    """What was written by a newer or older program is refused, never guessed at."""
    assert login._read(UserId("ann"), '{"v":2}') is None
    pending = PendingLogin(UserId("ann"), (Method.PASSWORD,), 3, AuthWorld().auth.sessions.new_handle(), True, "ann@é.example")
    assert login._read(UserId("ann"), login._written(pending)) == pending
    assert TestBrowser.__test__ is False
    world = AuthWorld()
    world.phone(world.account())
    browser, kept = world.browser(), world.store
    browser.login()

    class Older:
        """Says what another program would have written."""

        def perform(self, op: Any) -> Any:
            answer = kept.perform(op)
            return replace(answer, payload='{"v":0}') if isinstance(op, PeekToken) else answer

    world.store = Older()
    assert browser.code("000000") == Refused(RefusalCode.NO_PENDING)
    assert world.run(world.auth.login.pending(visitor=browser.visitor)) is None


@pytest.mark.parametrize("character", ["x", "é", "漢", '"', "\\"])
def test_the_longest_name_fits_a_pending_login(character: str) -> None:
    """Whatever 320 characters a login name has, its pending login fits the 1024 that a store keeps with a token."""
    name = identifier_or_decoy(character * MAX_IDENTIFIER_CHARS)
    assert name == character * MAX_IDENTIFIER_CHARS
    methods = (Method.REMEMBER, Method.EXTERNAL)
    pending = PendingLogin(UserId("ann"), methods, 2**31 - 1, AuthWorld().auth.sessions.new_handle(), False, name)
    assert len(login._written(pending)) <= 1024


def test_randomness_comes_from_the_system_and_ids_have_256_bits() -> None:
    """Wherever something is drawn, the default source is the operating system's; session ids and tokens have 256 bits."""
    drawing = (sessions.Sessions, tokens.PurposeTokens, remember.RememberTokens, browsers.Browsers, Csrf, Totp, RecoveryCodes, Passwords)
    for owner in drawing:
        assert inspect.signature(owner).parameters["entropy"].default is secrets.token_bytes, owner
    assert (sessions.ID_BYTES, tokens.TOKEN_BYTES) == (32, 32)


# --- each answer, and what the log is told


def logins(world: AuthWorld) -> list[tuple[Outcome, object, object, UserId | None]]:
    """Outcome, code, account and user of every login event so far."""
    found = [event for event in world.events if event.kind is EventKind.LOGIN]
    return [(event.outcome, event.detail["code"], event.detail["account"], event.user) for event in found]


def test_every_login_is_told_to_the_log_with_how_it_ended() -> None:
    """One event a step: refused, pending, signed in; the person is named only where the person is known."""
    world = AuthWorld()
    user = world.account()
    phone = world.phone(user)
    browser = world.browser()
    world.events.clear()
    browser.login(password=WRONG)
    browser.login()
    assert browser.code("000000") == Refused(RefusalCode.CODE)
    assert isinstance(browser.code(phone.at(world.time)), SignedIn)
    name = world.auth.throttle.reference("ann@example.com")
    assert logins(world) == [
        (Outcome.DENIED, "mismatch", name, None),
        (Outcome.ALLOWED, "second_factor_needed", "ann", user),
        (Outcome.DENIED, "code", "ann", None),
        (Outcome.ALLOWED, "signed_in", "ann", user),
    ]


def test_a_host_that_names_nobody_signs_nobody_in() -> None:
    """An external proof of a user that is not there is a refusal, told to the log under the name that was given."""
    world = AuthWorld()
    browser = world.browser()
    assert browser.run(world.auth.login.external(user=UserId("ghost"), visitor=browser.visitor)) == Refused(RefusalCode.MISMATCH)
    assert logins(world) == [(Outcome.DENIED, "mismatch", "ghost", None)]


def test_a_remember_token_of_before_a_sign_out_everywhere_signs_nobody_in() -> None:
    """The account has begun a new epoch between the token's use and the account's reading: refused as stale, and the cookie is taken away."""
    world = AuthWorld()
    user = world.account()
    browser = world.browser()
    browser.sign_in(remember=True)
    browser.jar.pop("__Host-axis_session")
    kept = world.store

    class Late:
        """Signs everybody out when the account is about to be read."""

        def perform(self, op: Any) -> Any:
            if isinstance(op, AccountOf):
                kept.perform(BumpEpoch(user))
            return kept.perform(op)

    world.store = Late()
    outcome = browser.run(world.auth.login.remembered(visitor=browser.visitor))
    world.store = kept
    assert outcome == Refused(RefusalCode.STALE, headers=outcome.headers)
    assert browser.cookie(CookieKind.REMEMBER) is None
    assert not isinstance(browser.resolve(), Authenticated)


def test_a_refusal_after_a_remember_token_hands_out_the_next_one() -> None:
    """The token was spent on the way to the refusal: a browser that kept the spent one would look like a thief, and end every session."""
    lax = AuthWorld(require_verified=False)
    lax.account(verified=False)
    browser = lax.browser()
    elsewhere = lax.browser()
    elsewhere.sign_in()
    browser.sign_in(remember=True)
    browser.jar.pop("__Host-axis_session")
    strict = AuthWorld(store=lax.store, start=lax.time)
    browser.world = strict
    for _ in range(3):
        outcome = browser.run(strict.auth.login.remembered(visitor=browser.visitor))
        assert isinstance(outcome, Refused)
        assert outcome.code is RefusalCode.UNVERIFIED
        strict.later(minutes=1)
    assert isinstance(elsewhere.resolve(), Authenticated)


def test_too_many_codes_from_one_network_wait() -> None:
    """The second form is throttled by network: the answer says how long, the login stays pending."""
    world = AuthWorld()
    world.phone(world.account())
    browser = world.browser()
    browser.login()
    for _ in range(1000):
        outcome = browser.code("000000")
        if isinstance(outcome, Refused) and outcome.code is RefusalCode.THROTTLED:
            break
    assert isinstance(outcome, Refused)
    assert outcome.code is RefusalCode.THROTTLED
    assert outcome.retry_after > 0
    assert outcome.http_status == 429
    assert browser.cookie(CookieKind.PENDING) is not None


def test_of_two_requests_that_spend_one_pending_login_the_later_is_refused() -> None:
    """Both read it before either spent it: the second finds it gone, and is told to begin again."""
    world = AuthWorld()
    user = world.account()
    codes = world.run(world.auth.recovery.issue(user=user, proof=ReauthProof(user, world.time)))
    world.phone(user)
    browser = world.browser()
    browser.login()
    other, kept = browser.copy(), world.store

    class Between:
        """Lets the other request through when this one's code has been looked at."""

        done = False

        def perform(self, op: Any) -> Any:
            if isinstance(op, ConsumeToken) and not self.done:
                self.done = True
                assert isinstance(other.code(codes[1].reveal()), SignedIn)
            return kept.perform(op)

    world.store = Between()
    assert browser.code(codes[0].reveal()) == Refused(RefusalCode.NO_PENDING)


@pytest.mark.parametrize("gone", [StartSession, IssueToken])
def test_an_account_that_is_signed_out_while_it_signs_in_is_not_let_in(gone: type[Any]) -> None:
    """A sign-out everywhere between reading the account and writing the session, or the pending login, wins."""
    world = AuthWorld()
    user = world.account()
    if gone is IssueToken:
        world.phone(user)
    kept = world.store

    class Late:
        """Begins a new epoch just before the write."""

        def perform(self, op: Any) -> Any:
            if isinstance(op, gone):
                kept.perform(BumpEpoch(user))
                if gone is IssueToken:
                    return False
            return kept.perform(op)

    world.store = Late()
    assert world.browser().login() == Refused(RefusalCode.STALE)
    assert logins(world)[-1] == (Outcome.DENIED, "stale", "ann", None)


def test_the_pending_cookie_goes_with_the_login_and_only_then() -> None:
    """Signed in with the second factor, the browser loses the cookie of the pending login; one that had none is told to drop none."""
    world = AuthWorld()
    phone = world.phone(world.account())
    browser = world.browser()
    browser.login()
    assert browser.cookie(CookieKind.PENDING) is not None
    signed = browser.code(phone.at(world.time))
    assert browser.cookie(CookieKind.PENDING) is None
    assert isinstance(signed, SignedIn)
    world.account("bob@example.com")
    plain = world.browser().login("bob@example.com")
    assert isinstance(plain, SignedIn)
    name = browser.profile.name(CookieKind.PENDING)
    assert [any(name in line for _, line in outcome.headers) for outcome in (signed, plain)] == [True, False]


def test_who_owes_a_second_factor_is_told_to_the_page() -> None:
    """`pending` answers the person, what was proved and whether to be remembered; nobody, where nothing is pending."""
    world = AuthWorld()
    user = world.account()
    world.phone(user)
    browser = world.browser()
    assert world.run(world.auth.login.pending(visitor=browser.visitor)) is None
    browser.login(remember=True)
    pending = world.run(world.auth.login.pending(visitor=browser.visitor))
    assert (pending.user, pending.methods, pending.remember, pending.identifier) == (user, (Method.PASSWORD,), True, "ann@example.com")


def test_nobody_is_remembered_unasked_and_addresses_must_be_confirmed_unless_told_otherwise() -> None:
    """The defaults of the ways in; and no browser gets a remember token from a login that did not ask for it."""
    for way in (login.Login.password, login.Login.external):
        assert inspect.signature(way).parameters["remember"].default is False
    assert inspect.signature(login.Login).parameters["require_verified"].default is True
    world = AuthWorld()
    user = world.account()
    browser = world.browser()
    browser.run(world.auth.login.password(identifier="ann@example.com", password=GOOD_PASSWORD, visitor=browser.visitor))
    browser.run(world.auth.login.external(user=user, visitor=browser.visitor))
    assert browser.cookie(CookieKind.REMEMBER) is None


@pytest.mark.parametrize("typed", ["", "a" * 64, "a" * 65, "a" * 1_000_000, "12345", "１２３４５６", "\ud800", b"123456", None, 123456])
def test_what_is_no_code_is_refused_without_asking_the_store(typed: Any) -> None:
    """Any text, and what is no text, is an answer; none of it is looked up."""
    world = AuthWorld()
    user = world.account()
    assert world.run(world.auth.login.check_code(user, typed)) is None
    assert world.ops == []
    assert world.events[-1].detail["code"] == "malformed"

"""A whole sign-in set-up in memory, with a clock that can be turned and browsers that keep cookies: for tests of a host's own pages and attacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pyotp

from axis_security.auth.cookies import CookieKind, CookieProfile, Header
from axis_security.auth.factors import ReauthProof
from axis_security.auth.kdf_pool import PasswordService, PoolSettings
from axis_security.auth.login_states import LoginOutcome, SignedIn
from axis_security.auth.passwords import Passwords
from axis_security.auth.ports import Op, Register
from axis_security.auth.recovery import DigestRing
from axis_security.auth.service import Auth
from axis_security.auth.sessions import Anonymous, Authenticated, Session
from axis_security.auth.signing import SigningKeys
from axis_security.auth.store_memory import MemoryVault
from axis_security.auth.totp import TotpPolicy
from axis_security.auth.visitor import Visitor
from axis_security.auth.work import AnyStore, AuthFlow, AuthRunner
from axis_security.core.events import AuditEvent, EventKind
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.testing.factors import TestSealer
from axis_security.testing.kdf import CountingKdf

__all__ = ["GOOD_PASSWORD", "AuthWorld", "TestBrowser"]

GOOD_PASSWORD = Secret("quite an uncommon sentence")
"""A password that every default rule lets through."""
_START = datetime(2026, 1, 1, tzinfo=UTC)


class AuthWorld:
    """One store, one clock, one :class:`~axis_security.auth.service.Auth`. The KDF counts instead of costing.

    Args:
        store: keeps everything; a :class:`~axis_security.auth.store_memory.MemoryVault` if not given.
        keys, digests, settings: as for :class:`~axis_security.auth.service.Auth`, to try other keys and policies on the same store.
        start: what the clock shows at first.
    """

    def __init__(
        self,
        *,
        store: AnyStore | None = None,
        keys: SigningKeys | None = None,
        digests: DigestRing | None = None,
        start: datetime = _START,
        passwords: Passwords | None = None,
        totp: TotpPolicy | None = None,
        **settings: Any,
    ) -> None:
        self.time = start
        self.events: list[AuditEvent] = []
        self.ops: list[Op[Any]] = []
        self.store: AnyStore = store or MemoryVault(environment=Environment.TEST)
        self.kdf = CountingKdf()
        self.passwords = PasswordService(passwords or Passwords(kdf=self.kdf), PoolSettings(cores=2))
        self.keys = keys or SigningKeys([Secret(b"k" * 32)])
        self.digests = digests or DigestRing(active="d1", keys={"d1": Secret(b"d" * 32)})
        self.auth = Auth(
            keys=self.keys,
            digests=self.digests,
            totp=totp or TotpPolicy(issuer="Axis"),
            sealer=TestSealer(),
            origins=("https://app.example.com",),
            events=self,
            clock=self,
            **settings,
        )
        self._runner = AuthRunner(store=self, passwords=self.passwords)

    def now(self) -> datetime:
        """What the clock shows."""
        return self.time

    def later(self, **by: float) -> None:
        """Turn the clock forward."""
        self.time += timedelta(**by)

    def emit(self, event: AuditEvent) -> None:
        """Keep an event."""
        self.events.append(event)

    def perform(self, op: Any) -> Any:
        """Note an operation, and have the store carry it out."""
        self.ops.append(op)
        return self.store.perform(op)

    def run(self, flow: AuthFlow[Any]) -> Any:
        """Run a flow."""
        return self._runner.run(flow)

    def kinds(self) -> list[EventKind]:
        """The kinds of the events so far."""
        return [event.kind for event in self.events]

    def account(self, name: str = "ann@example.com", *, password: Secret[str] | None = GOOD_PASSWORD, verified: bool = True) -> UserId:
        """An account without a second factor."""
        user = UserId(name.partition("@")[0])
        stored = None if password is None else self.passwords.passwords.split(self.passwords.hash(password))
        if not self.store.perform(Register(user=user, identifier=name, hash=stored, verified_at=self.time if verified else None)):
            raise ValueError("the account is there already")
        return user

    def phone(self, user: UserId) -> pyotp.TOTP:
        """Enrol a second factor; returns the authenticator. The code of the present moment is spent."""
        enrolment = self.run(self.auth.totp.enrol(user=user, account=user.text, proof=ReauthProof(user, self.time)))
        phone = pyotp.TOTP(enrolment.secret_base32.reveal())
        self.run(self.auth.totp.confirm(user=user, code=phone.at(self.time)))
        self.later(seconds=30)
        return phone

    def browser(self, address: str = "192.0.2.1") -> TestBrowser:
        """A browser that has never been here."""
        return TestBrowser(self, address)


@dataclass
class TestBrowser:
    """Keeps cookies as a browser does, and sends what it has."""

    __test__ = False

    world: AuthWorld
    address: str = "192.0.2.1"
    jar: dict[str, str] = field(default_factory=dict)
    agent: str = "TestBrowser/1"

    @property
    def profile(self) -> CookieProfile:
        """How cookies are named."""
        return self.world.auth.profile

    @property
    def visitor(self) -> Visitor:
        """A request of this browser."""
        header = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        return Visitor(cookies=self.profile.read(header or None), address=self.address, agent=self.agent, host="app.example.com")

    def take(self, headers: Iterable[Header]) -> None:
        """Do what an answer's ``Set-Cookie`` headers say."""
        for name, line in headers:
            if name != "Set-Cookie":
                continue
            pair, _, attributes = line.partition(";")
            cookie, _, value = pair.partition("=")
            if "Max-Age=0" in attributes:
                self.jar.pop(cookie, None)
            else:
                self.jar[cookie] = value

    def cookie(self, kind: CookieKind) -> str | None:
        """The value of one cookie."""
        return self.jar.get(self.profile.name(kind))

    def put(self, kind: CookieKind, value: str) -> None:
        """Plant a cookie."""
        self.jar[self.profile.name(kind)] = value

    def copy(self) -> TestBrowser:
        """A thief with all of this browser's cookies."""
        return TestBrowser(self.world, self.address, dict(self.jar), self.agent)

    def run(self, flow: AuthFlow[Any]) -> Any:
        """Run a flow and take its cookies."""
        outcome = self.world.run(flow)
        self.take(getattr(outcome, "headers", ()))
        return outcome

    def login(self, name: str = "ann@example.com", password: Secret[str] = GOOD_PASSWORD, *, remember: bool = False) -> LoginOutcome:
        """Fill in the login form."""
        outcome: LoginOutcome = self.run(
            self.world.auth.login.password(identifier=name, password=password, visitor=self.visitor, remember=remember)
        )
        return outcome

    def code(self, code: str) -> LoginOutcome:
        """Fill in the second form."""
        outcome: LoginOutcome = self.run(self.world.auth.login.second_factor(code=code, visitor=self.visitor))
        return outcome

    def resolve(self) -> Authenticated | Anonymous:
        """Ask for any page."""
        answer: Authenticated | Anonymous = self.run(self.world.auth.sessions.resolve(self.visitor))
        return answer

    def session(self) -> Session:
        """The session of this browser.

        Raises:
            LookupError: it is not signed in.
        """
        found = self.resolve()
        if isinstance(found, Authenticated):
            return found.session
        raise LookupError(found.why)

    def sign_in(self, name: str = "ann@example.com", password: Secret[str] = GOOD_PASSWORD, *, remember: bool = False) -> Session:
        """Sign in to an account without a second factor.

        Raises:
            LookupError: refused.
        """
        outcome = self.login(name, password, remember=remember)
        if isinstance(outcome, SignedIn):
            return outcome.session
        raise LookupError(str(outcome))

    def sign_out(self) -> None:
        """Press the button."""
        self.take(self.world.run(self.world.auth.sessions.end(self.visitor)))

    def devices(self) -> set[UUID]:
        """Handles in the list of devices."""
        return {device.handle for device in self.world.run(self.world.auth.sessions.devices(self.session()))}

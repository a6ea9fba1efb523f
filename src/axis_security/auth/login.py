"""Signing in: the flows of the login machine whose table is in :mod:`axis_security.auth.login_states`.

Equal work (ASVS 6.3.8): a login spends one KDF of equal cost whether the account is unknown, disabled, locked, without a password, with an
older hash, or right with a second factor owed; all are told one sentence. Attempts are counted before the password is looked at.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from typing import Any, Final

from axis_security.auth.browsers import Browsers
from axis_security.auth.cookies import TOUCHED_HEADERS, CookieKind, Header
from axis_security.auth.identifiers import identifier_or_decoy
from axis_security.auth.login_states import LoginOutcome, Method, NeedsSecondFactor, PendingLogin, RefusalCode, Refused, SignedIn
from axis_security.auth.password_check import PasswordWrong, check_password
from axis_security.auth.ports import Account, AccountOf, TokenGrant
from axis_security.auth.recovery import RecoveryCodes, RecoveryUsed
from axis_security.auth.remember import Remembered, RememberTokens
from axis_security.auth.sessions import NEVER, Sessions
from axis_security.auth.signing import CookieSigner, SigningKeys
from axis_security.auth.throttle import Attempt, Scope, Throttle, TooMany
from axis_security.auth.tokens import LinkRefused, Purpose, PurposeTokens
from axis_security.auth.totp import CodeAccepted, Totp
from axis_security.auth.visitor import Visitor
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance
from axis_security.core.secret import Secret

__all__ = ["Login", "second_factor_method"]


def second_factor_method(code: object) -> Method:
    """Which factor a typed code is for: six digits are a TOTP code, everything else is read as a recovery code."""
    return Method.TOTP if isinstance(code, str) and len(code) == 6 and code.isascii() and code.isdigit() else Method.RECOVERY


class Login:
    """The ways in. Methods are flows, for :class:`~axis_security.auth.work.AuthRunner`; each answers ``SignedIn | NeedsSecondFactor | Refused``.

    Args:
        sessions: begins sessions.
        tokens: keeps pending logins.
        throttle: counts attempts.
        browsers: knows browsers.
        remember: remember-me tokens.
        totp, recovery: second factors.
        keys: the cookie keys.
        events: takes the audit events.
        require_verified: whether an account may sign in before its address was confirmed.
        clock: tells the time.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        tokens: PurposeTokens,
        throttle: Throttle,
        browsers: Browsers,
        remember: RememberTokens,
        totp: Totp,
        recovery: RecoveryCodes,
        keys: SigningKeys,
        events: EventSink,
        require_verified: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.sessions: Final = sessions
        self.throttle: Final = throttle
        self.totp: Final = totp
        self.recovery: Final = recovery
        self.tokens: Final = tokens
        self._browsers: Final = browsers
        self._remember: Final = remember
        self._pending: Final[CookieSigner] = keys.signer(CookieKind.PENDING.value)
        self._events: Final = events
        self._require_verified: Final = require_verified
        self._clock: Final = clock

    # --- the ways in

    def password(
        self, *, identifier: str, password: Secret[str], visitor: Visitor, remember: bool = False
    ) -> Generator[Any, Any, LoginOutcome]:
        """Sign in with a password. Any text is answered.

        Raises:
            Busy: too many logins at once; the attempt was not counted.
            Unavailable: a store did not answer; nobody was let in, and the attempt was not counted either.
        """
        name = identifier_or_decoy(identifier)
        browser = self._browsers.known(self._browsers.read(visitor, now=self._clock.now()), name)
        attempt = yield from self.throttle.attempt(scope=Scope.LOGIN, account=name, network=visitor.network, browser=browser)
        if isinstance(attempt, TooMany):
            return Refused(RefusalCode.THROTTLED, attempt.retry_after)
        checked = yield from self.throttle.carry_out(
            attempt, check_password(account=name, password=password, max_failures=attempt.max_failures, rehashed=self._rehashed)
        )
        if isinstance(checked, PasswordWrong):
            return self._refused(RefusalCode(checked.why), self.throttle.reference(name), Method.PASSWORD, visitor)
        return (
            yield from self.complete_login(
                checked.account, (Method.PASSWORD,), visitor=visitor, attempt=attempt, remember=remember, identifier=name
            )
        )

    def external(self, *, user: UserId, visitor: Visitor, remember: bool = False) -> Generator[Any, Any, LoginOutcome]:
        """Sign in somebody whom the host has authenticated by its own means (single sign-on). *user* comes from that proof and from
        nowhere else: never from a form. A second factor, where the account has one, is still asked for."""
        account: Account | None = yield AccountOf(user)
        if account is None:
            return self._refused(RefusalCode.MISMATCH, user.text, Method.EXTERNAL, visitor)
        return (yield from self.complete_login(account, (Method.EXTERNAL,), visitor=visitor, remember=remember))

    def remembered(self, *, visitor: Visitor) -> Generator[Any, Any, LoginOutcome]:
        """Sign in by the remember token; call it where :meth:`Sessions.resolve` found nobody. The session is fresh for nothing."""
        handle = self.sessions.new_handle()
        used = yield from self._remember.use(visitor, handle=handle)
        if not isinstance(used, Remembered):
            code = RefusalCode(f"remember_{used}")
            # Another request of the same browser has just got the next token: taking the cookie away would take that one.
            headers = TOUCHED_HEADERS if code is RefusalCode.REMEMBER_RACED else (self._remember.clear(visitor), *TOUCHED_HEADERS)
            return self._refused(code, None, Method.REMEMBER, visitor, headers)
        account: Account | None = yield AccountOf(used.used.user)
        if account is None or account.epoch != used.used.epoch:
            return self._refused(
                RefusalCode.STALE, used.used.user.text, Method.REMEMBER, visitor, (self._remember.clear(visitor), *TOUCHED_HEADERS)
            )
        return (yield from self.complete_login(account, (Method.REMEMBER,), visitor=visitor, handle=handle, headers=(used.header,)))

    def second_factor(self, *, code: str, visitor: Visitor) -> Generator[Any, Any, LoginOutcome]:
        """Finish a pending login with a TOTP or a recovery code. Any text is answered; a wrong code leaves the login pending.

        Raises:
            Unavailable: a store did not answer; nobody was let in.
        """
        found = yield from self._read_pending(visitor)
        if found is None:
            return self._refused(RefusalCode.NO_PENDING, None, second_factor_method(code), visitor)
        pending, token = found
        attempt = yield from self.throttle.attempt(scope=Scope.LOGIN, account=None, network=visitor.network)
        if isinstance(attempt, TooMany):
            return Refused(RefusalCode.THROTTLED, attempt.retry_after)
        account: Account | None = yield AccountOf(pending.user)
        if account is None or not account.active or account.epoch != pending.epoch:
            return self._refused(RefusalCode.STALE, pending.user.text, second_factor_method(code), visitor)
        method = yield from self.throttle.carry_out(attempt, self.check_code(pending.user, code))
        if method is None:
            return self._refused(RefusalCode.CODE, pending.user.text, second_factor_method(code), visitor)
        spent = yield from self.tokens.consume(Purpose.LOGIN_PENDING, token)
        if isinstance(spent, LinkRefused):
            return self._refused(RefusalCode.NO_PENDING, pending.user.text, method, visitor)
        return (
            yield from self.complete_login(
                account,
                (*pending.methods, method),
                visitor=visitor,
                attempt=attempt,
                remember=pending.remember,
                identifier=pending.identifier,
                handle=pending.handle,
            )
        )

    def check_code(self, user: UserId, code: str) -> Generator[Any, Any, Method | None]:
        """Spend a TOTP or recovery code of *user*; which it was, or ``None`` where it is not good."""
        method = second_factor_method(code)
        if method is Method.TOTP:
            return method if isinstance((yield from self.totp.verify(user=user, code=code)), CodeAccepted) else None
        typed = Secret(code if isinstance(code, str) else "")
        return method if isinstance((yield from self.recovery.use(user=user, code=typed)), RecoveryUsed) else None

    # --- the choke point

    def complete_login(
        self,
        account: Account,
        methods: tuple[Method, ...],
        *,
        visitor: Visitor,
        attempt: Attempt | None = None,
        remember: bool = False,
        identifier: str = "",
        handle: uuid.UUID | None = None,
        headers: tuple[Header, ...] = (),
    ) -> Generator[Any, Any, LoginOutcome]:
        """What every way in ends with: account state, second factor, session; in this order, for all of them.

        Args:
            account: as the store gave it in this request.
            methods: what was proved, in order.
            visitor: the request.
            attempt: to be given back on success.
            remember: whether a remember token was asked for.
            identifier: as typed, normalised, so that the browser is known from now on.
            handle: of the session to be; chosen here if not given.
            headers: to add to the answer.
        """
        who, last = account.user.text, methods[-1]
        # A refusal carries *headers* too: a remember token that was spent on the way here has a next one, and a browser that missed it
        # would come back with the spent one, which looks like theft.
        answer = (*headers, *TOUCHED_HEADERS)
        if not account.active:
            return self._refused(RefusalCode.DISABLED, who, last, visitor, answer)
        if self._require_verified and not account.verified:
            return self._refused(RefusalCode.UNVERIFIED, who, last, visitor, answer)
        if attempt is not None:
            yield from self.throttle.refund(attempt)
        handle = handle or self.sessions.new_handle()
        if account.has_totp and not any(method.is_second for method in methods):
            pending = PendingLogin(account.user, methods, account.epoch, handle, remember, identifier)
            return (yield from self._ask_second(pending, visitor, headers))
        first_only_remembered = Method.REMEMBER in methods
        two = not first_only_remembered and any(method.is_second for method in methods)
        started = yield from self.sessions.begin(
            account=account,
            visitor=visitor,
            handle=handle,
            assurance=Assurance.AAL2 if two else Assurance.AAL1,
            methods=tuple(method.value for method in methods),
            auth_time=NEVER if first_only_remembered else None,
        )
        if started is None:
            return self._refused(RefusalCode.STALE, who, last, visitor, answer)
        self._tell_login(Outcome.ALLOWED, who, last, visitor, "signed_in", user=account.user)
        extra = [*headers]
        if remember:
            token = yield from self._remember.issue(account, handle=handle, visitor=visitor)
            extra += [] if token is None else [token]
        if identifier:
            extra.append(self._browsers.met(visitor, identifier, now=self._clock.now()))
        if CookieKind.PENDING in visitor.cookies.values:
            extra.append(self.sessions.profile.clear(CookieKind.PENDING, host=visitor.host))
        return SignedIn(started.session, (*started.headers, *extra))

    # --- pending logins

    def _ask_second(self, pending: PendingLogin, visitor: Visitor, headers: tuple[Header, ...]) -> Generator[Any, Any, LoginOutcome]:
        if self.sessions.presented(visitor.cookies) is not None:
            yield from self.sessions.displace(visitor)  # a login in a signed-in browser ends what was there, before anything else
            headers = (*headers, self.sessions.profile.clear(CookieKind.SESSION, host=visitor.host))
        # Earlier pending logins stay: whoever has the password could otherwise keep throwing the owner's away.
        token = yield from self.tokens.issue(Purpose.LOGIN_PENDING, pending.user, payload=_written(pending), replace=False)
        if token is None:
            return self._refused(RefusalCode.STALE, pending.user.text, pending.methods[-1], visitor)
        self._tell_login(Outcome.ALLOWED, pending.user.text, pending.methods[-1], visitor, "second_factor_needed", user=pending.user)
        lasting = self.tokens.policy.of(Purpose.LOGIN_PENDING)
        cookie = self.sessions.profile.set(CookieKind.PENDING, self._pending.sign(token.reveal()), lasting=lasting, host=visitor.host)
        return NeedsSecondFactor(pending, (cookie, *headers, *TOUCHED_HEADERS))

    def pending(self, *, visitor: Visitor) -> Generator[Any, Any, PendingLogin | None]:
        """Who is owing a second factor, for the page that asks for it."""
        found = yield from self._read_pending(visitor)
        return None if found is None else found[0]

    def _read_pending(self, visitor: Visitor) -> Generator[Any, Any, tuple[PendingLogin, str] | None]:
        cookie = visitor.cookies.values.get(CookieKind.PENDING)
        token = None if cookie is None else self._pending.unsign(cookie.reveal())
        if token is None:
            return None
        grant: TokenGrant | LinkRefused = yield from self.tokens.peek(Purpose.LOGIN_PENDING, token)
        if isinstance(grant, LinkRefused) or grant.user is None:
            return None
        pending = _read(grant.user, grant.payload)
        return None if pending is None else (pending, token)

    # --- events

    def _rehashed(self, account: Account, scheme: str) -> None:
        detail = {"account": account.user.text, "scheme_from": scheme, "scheme_to": "axis1"}
        event = AuditEvent(
            kind=EventKind.PASSWORD_REHASHED, at=self._clock.now(), outcome=Outcome.ALLOWED, user=account.user, detail=detail
        )
        self._events.emit(event)

    def _refused(
        self, code: RefusalCode, account: str | None, method: Method, visitor: Visitor, headers: tuple[Header, ...] = TOUCHED_HEADERS
    ) -> Refused:
        self._tell_login(Outcome.DENIED, account, method, visitor, code.value)
        return Refused(code, headers=headers)

    def _tell_login(
        self, outcome: Outcome, account: str | None, method: Method, visitor: Visitor, code: str, *, user: UserId | None = None
    ) -> None:
        detail = {"account": account, "method": method.value, "client": visitor.label, "code": code}
        self._events.emit(AuditEvent(kind=EventKind.LOGIN, at=self._clock.now(), outcome=outcome, user=user, detail=detail))


def _written(pending: PendingLogin) -> str:
    parts = {
        "v": 1,
        "m": [method.value for method in pending.methods],
        "e": pending.epoch,
        "h": str(pending.handle),
        "r": pending.remember,
        "i": pending.identifier,
    }
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def _read(user: UserId, payload: str) -> PendingLogin | None:
    parts = json.loads(payload)
    if parts.get("v") != 1:
        return None  # written by another version; the person signs in once more
    methods = tuple(Method(name) for name in parts["m"])
    return PendingLogin(user, methods, parts["e"], uuid.UUID(parts["h"]), parts["r"] is True, parts["i"])

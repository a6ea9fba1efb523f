"""Accounts from the first letter to the last: register, verify, forgot, reset, change of password and of address, disabling.

Forgot, resend and register answer the same sentence whoever asks, after the same store operations and the same KDF work (ASVS 6.3.8). What differs is the
letter: hand it to a queue, since sending it in the request would tell by its time. Letters go to the account's own normalised address, never to what
was typed. A reset keeps the second factor, signs nobody in, and ends every session (ASVS 6.4.3); an administrator may start one, and never sees or
chooses the password (ASVS 6.4.6).
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final

from axis_security.auth.cookies import TOUCHED_HEADERS, Header
from axis_security.auth.factors import ReauthProof
from axis_security.auth.identifiers import identifier_or_decoy, normalise_identifier
from axis_security.auth.login_states import Method, RefusalCode, Refused
from axis_security.auth.password_check import PasswordWrong, check_password
from axis_security.auth.password_rules import PasswordRules, Rejected
from axis_security.auth.ports import (
    Account,
    ChangeIdentifier,
    ChangePassword,
    FindAccount,
    PasswordChecked,
    Register,
    ResetPassword,
    SetActive,
    StoredHash,
    VerifyIdentifier,
)
from axis_security.auth.sessions import Session, Sessions, Started
from axis_security.auth.throttle import Scope, Throttle, TooMany
from axis_security.auth.tokens import LinkRefused, Purpose, PurposeTokens
from axis_security.auth.visitor import Visitor
from axis_security.auth.work import HashPassword, SpendPassword
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.encoding import b64url_encode
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret

__all__ = ["AddressChanged", "Answered", "Letter", "LetterKind", "Lifecycle", "PasswordChanged", "PasswordSet"]


class LetterKind(enum.StrEnum):
    """What to write."""

    VERIFY = "verify"
    RESET = "reset"
    CHANGE_ADDRESS = "change_address"
    ALREADY_REGISTERED = "already_registered"


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter for the host's queue.

    Args:
        kind: what to write.
        to: the normalised address it goes to.
        token: for the link; ``None`` where the letter has none.
        user: whose account it is about.
    """

    kind: LetterKind
    to: str
    token: Secret[str] | None
    user: UserId


@dataclass(frozen=True, slots=True)
class Answered:
    """What to tell whoever asked, and the letter to send, if any. Show the same page in either case."""

    letter: Letter | None = field(repr=False)
    headers: tuple[Header, ...] = field(default=TOUCHED_HEADERS, repr=False)
    http_status: int = 202
    public_text: str = "If that address can be used here, we have sent a letter to it."


@dataclass(frozen=True, slots=True)
class PasswordSet:
    """The password was reset; every session has ended, the second factor is as it was. Send the person to the login page, and a letter about it."""

    user: UserId
    headers: tuple[Header, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PasswordChanged:
    """The password was changed; every other session has ended, this one has a new id."""

    session: Session
    headers: tuple[Header, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """The address is confirmed (and, for a change, in place). Tell the old address too (ASVS 6.3.7)."""

    account: Account
    headers: tuple[Header, ...] = field(repr=False)


class Lifecycle:
    """The flows around an account.

    Args:
        tokens: the tokens of letters.
        sessions: for what a change does to them.
        throttle: counts letters and registrations.
        rules: for new passwords.
        events: takes the audit events.
        clock: tells the time.
        entropy: random bytes.
    """

    def __init__(
        self,
        *,
        tokens: PurposeTokens,
        sessions: Sessions,
        throttle: Throttle,
        events: EventSink,
        rules: PasswordRules | None = None,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.rules: Final = rules or PasswordRules()
        self._tokens: Final = tokens
        self._sessions: Final = sessions
        self._throttle: Final = throttle
        self._events: Final = events
        self._clock: Final = clock
        self._entropy: Final = entropy

    # --- generic answers

    def register(
        self, *, user: UserId, identifier: str, password: Secret[str], visitor: Visitor
    ) -> Generator[Any, Any, Answered | Rejected | Refused]:
        """Create an account for a person who gave an address and a password, to be verified by letter.

        The same answer, work and store operations whether the address is free; somebody who has an account gets a letter that says so.

        Args:
            user: a fresh id, made by the host for this request.

        Raises:
            Busy, Unavailable: nothing was created.
        """
        name, asked = normalise_identifier(identifier), identifier_or_decoy(identifier)
        judged = self.rules.check(password, about=() if name is None else (name,))
        if isinstance(judged, Rejected):
            return judged  # depends on what was typed alone
        attempt = yield from self._throttle.attempt(scope=Scope.REGISTER, account=asked, network=visitor.network)
        if isinstance(attempt, TooMany):
            return Refused(RefusalCode.THROTTLED, attempt.retry_after)
        hashed: StoredHash = yield from self._throttle.carry_out(attempt, _asked(HashPassword(password)))
        created = name is not None and bool((yield Register(user=user, identifier=asked, hash=hashed)))
        owner: Account | None = yield FindAccount(asked)
        token = yield from self._tokens.issue(Purpose.VERIFY_EMAIL, user if created else self._nobody(), payload=name or "")
        if created and name is not None:
            self._tell(EventKind.ACCOUNT_REGISTERED, user)
            return Answered(Letter(LetterKind.VERIFY, name, token, user))
        if owner is None or name is None:
            return Answered(None)
        return Answered(Letter(LetterKind.ALREADY_REGISTERED, name, None, owner.user))

    def forgot(self, *, identifier: str, visitor: Visitor) -> Generator[Any, Any, Answered | Refused]:
        """Somebody says they forgot their password."""
        return (yield from self._letter(identifier, visitor, Purpose.PASSWORD_RESET, LetterKind.RESET))

    def resend(self, *, identifier: str, visitor: Visitor) -> Generator[Any, Any, Answered | Refused]:
        """Somebody says the letter that verifies their address did not come."""
        return (yield from self._letter(identifier, visitor, Purpose.VERIFY_EMAIL, LetterKind.VERIFY))

    def start_reset(self, *, user: UserId, identifier: str) -> Generator[Any, Any, Letter | None]:
        """An administrator starts a reset: the letter goes to the person, and nobody else sees its token (ASVS 6.4.6). Guard the call.

        Args:
            user: whose account.
            identifier: the account's own identifier, from the host's records.
        """
        token = yield from self._tokens.issue(Purpose.PASSWORD_RESET, user)
        return None if token is None else Letter(LetterKind.RESET, identifier, token, user)

    # --- what the links do, on POST

    def reset(self, *, token: object, password: Secret[str], visitor: Visitor) -> Generator[Any, Any, PasswordSet | Rejected | LinkRefused]:
        """Set a new password by a reset token, which is spent; all of it, or nothing.

        Args:
            token: as :meth:`PurposeTokens.landed` gave it, or as text.
        """
        judged = self.rules.check(password)
        if isinstance(judged, Rejected):
            return judged
        # Looked at before the hash, so that a made-up token costs no hash; whether it is still good then, the reset itself decides.
        grant = yield from self._tokens.peek(Purpose.PASSWORD_RESET, _text(token))
        if isinstance(grant, LinkRefused):
            return grant
        candidates = self._tokens.candidates(Purpose.PASSWORD_RESET, _text(token)) or ()
        hashed: StoredHash = yield HashPassword(password)
        account: Account | None = yield ResetPassword(candidates=candidates, new=hashed, now=self._clock.now())
        if account is None:
            return self._tokens.refused(Purpose.PASSWORD_RESET)
        self._tokens.consumed(Purpose.PASSWORD_RESET, account.user)
        self._tell(EventKind.PASSWORD_CHANGED, account.user, by="reset")
        return PasswordSet(account.user, self._tokens.leave(visitor=visitor))

    def verify(self, *, token: object, visitor: Visitor) -> Generator[Any, Any, AddressChanged | LinkRefused]:
        """Confirm the address that the token names, if the account still has it."""
        candidates = self._tokens.candidates(Purpose.VERIFY_EMAIL, _text(token))
        account: Account | None = None if candidates is None else (yield VerifyIdentifier(candidates=candidates, now=self._clock.now()))
        return self._confirmed(Purpose.VERIFY_EMAIL, account, visitor)

    def request_address(
        self, session: Session, *, identifier: str, proof: ReauthProof, visitor: Visitor
    ) -> Generator[Any, Any, Answered | Refused]:
        """Ask for another address: the letter goes to the new one, and its token names exactly that one. An earlier request is void.

        Raises:
            ProofRefused: the person has not signed in or stepped up in the last five minutes (ASVS 7.5.1).
        """
        proof.check(user=session.user, now=self._clock.now())
        attempt = yield from self._throttle.attempt(scope=Scope.MAIL, account=session.user.text, network=visitor.network)
        if isinstance(attempt, TooMany):
            return Refused(RefusalCode.THROTTLED, attempt.retry_after)
        name = normalise_identifier(identifier)
        if name is None:
            return Answered(None)
        token = yield from self._tokens.issue(Purpose.CHANGE_EMAIL, session.user, payload=name)
        return Answered(None if token is None else Letter(LetterKind.CHANGE_ADDRESS, name, token, session.user))

    def change_address(self, *, token: object, visitor: Visitor) -> Generator[Any, Any, AddressChanged | LinkRefused]:
        """Put the address that the token names in place of the old one; refused where it was taken meanwhile."""
        candidates = self._tokens.candidates(Purpose.CHANGE_EMAIL, _text(token))
        account: Account | None = None if candidates is None else (yield ChangeIdentifier(candidates=candidates, now=self._clock.now()))
        return self._confirmed(Purpose.CHANGE_EMAIL, account, visitor)

    # --- signed in

    def change_password(
        self, session: Session, *, current: Secret[str], new: Secret[str], visitor: Visitor
    ) -> Generator[Any, Any, PasswordChanged | Rejected | Refused]:
        """Change the password with the current one (ASVS 6.2.3): every other session ends, and this one gets a new id.

        Raises:
            Busy, Unavailable: nothing was changed, or the store says otherwise.
        """
        judged = self.rules.check(new)
        if isinstance(judged, Rejected):
            return judged
        attempt = yield from self._throttle.attempt(
            scope=Scope.STEP_UP, account=session.user.text, network=visitor.network, browser=str(session.handle)
        )
        if isinstance(attempt, TooMany):
            return Refused(RefusalCode.THROTTLED, attempt.retry_after)
        checked = yield from self._throttle.carry_out(
            attempt, check_password(account=session.user, password=current, max_failures=attempt.max_failures)
        )
        if isinstance(checked, PasswordWrong):
            self._tell(EventKind.STEP_UP, session.user, Outcome.DENIED, method=Method.PASSWORD.value, code=checked.why)
            return Refused(RefusalCode(checked.why))
        yield from self._throttle.refund(attempt)
        hashed: StoredHash = yield HashPassword(new)
        changed: PasswordChecked = yield ChangePassword(user=session.user, old=checked.stored, new=hashed, keep=session.handle)
        if changed.verdict != "match":
            return Refused(RefusalCode.STALE)
        self._tell(EventKind.PASSWORD_CHANGED, session.user, by="self")
        rotated: Started | None = yield from self._sessions.rotate(session, visitor=visitor, cause="password_changed")
        return Refused(RefusalCode.NO_SESSION) if rotated is None else PasswordChanged(rotated.session, rotated.headers)

    def set_active(self, user: UserId, *, active: bool, by: str) -> Generator[Any, Any, bool]:
        """Enable or disable an account; disabling ends its sessions and voids its tokens at once (ASVS 7.4.2). Guard the call.

        Args:
            by: who, for the audit log.
        """
        account: Account | None = yield SetActive(user, active)
        if account is not None and not active:
            self._tell(EventKind.ACCOUNT_DISABLED, user, by=by)
        return account is not None

    # --- parts

    def _letter(self, identifier: str, visitor: Visitor, purpose: Purpose, kind: LetterKind) -> Generator[Any, Any, Answered | Refused]:
        name = identifier_or_decoy(identifier)
        attempt = yield from self._throttle.attempt(scope=Scope.MAIL, account=f"{purpose.value}:{name}", network=visitor.network)
        if isinstance(attempt, TooMany):
            return Refused(RefusalCode.THROTTLED, attempt.retry_after)
        yield from self._throttle.carry_out(attempt, _asked(SpendPassword()))
        account: Account | None = yield FindAccount(name)
        wanted = account is not None and account.active and not (purpose is Purpose.VERIFY_EMAIL and account.verified)
        user = account.user if account is not None and wanted else self._nobody()
        token = yield from self._tokens.issue(purpose, user, payload=name if purpose is Purpose.VERIFY_EMAIL else "")
        return Answered(None if token is None else Letter(kind, name, token, user))

    def _nobody(self) -> UserId:
        # Nobody's account: the store is asked the same as for somebody's, and keeps nothing.
        return UserId("nobody-" + b64url_encode(self._entropy(16)))

    def _confirmed(self, purpose: Purpose, account: Account | None, visitor: Visitor) -> AddressChanged | LinkRefused:
        if account is None:
            return self._tokens.refused(purpose)
        self._tokens.consumed(purpose, account.user)
        return AddressChanged(account, self._tokens.leave(visitor=visitor))

    def _tell(self, kind: EventKind, user: UserId, outcome: Outcome = Outcome.ALLOWED, **detail: str) -> None:
        detail = {"account": user.text, **detail}
        self._events.emit(AuditEvent(kind=kind, at=self._clock.now(), outcome=outcome, user=user, detail=detail))


def _asked(request: HashPassword | SpendPassword) -> Generator[Any, Any, Any]:
    return (yield request)


def _text(token: object) -> object:
    return token.reveal() if isinstance(token, Secret) else token

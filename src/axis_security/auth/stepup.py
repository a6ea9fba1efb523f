"""Step-up: prove once more who you are, in the session you have, before something that cannot be taken back (ASVS 7.5.1, 7.5.3).

A step-up asks for the password and, where the account has a second factor, for a code too, and gives the session a new id (ASVS 7.2.4). What it
yields is fresh for five minutes. Where an act must be confirmed by itself, :meth:`StepUp.issue_proof` makes a proof of one purpose: good once, for
this person, in this session, for that purpose; a proof for anything else is simply unknown.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from axis_security.auth.cookies import Header
from axis_security.auth.factors import ProofRefused, ReauthProof
from axis_security.auth.login import Login, second_factor_method
from axis_security.auth.login_states import Method, RefusalCode, Refused
from axis_security.auth.password_check import PasswordWrong, check_password
from axis_security.auth.sessions import Session
from axis_security.auth.throttle import Scope, TooMany
from axis_security.auth.tokens import LinkRefused, Purpose
from axis_security.auth.visitor import Visitor
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.principal import Assurance
from axis_security.core.secret import Secret

__all__ = ["CodeNeeded", "NeedsStepUp", "StepUp", "SteppedUp", "needs_step_up"]

_PURPOSE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SteppedUp:
    """Confirmed. Use *session* from here on, and add *headers* to the answer; *proof* serves what asks for one in this request."""

    session: Session
    headers: tuple[Header, ...] = field(repr=False)
    proof: ReauthProof


@dataclass(frozen=True, slots=True)
class CodeNeeded:
    """The password is right, and the account has a second factor: ask for both in one form."""


@dataclass(frozen=True, slots=True)
class NeedsStepUp:
    """What this asks for is not met by the session as it is.

    Args:
        aal: the assurance asked for.
        fresh: how recent the proof must be, or ``None``.
    """

    aal: Assurance
    fresh: timedelta | None
    http_status: int = 401
    public_text: str = "Please confirm your password."


def needs_step_up(
    session: Session, *, now: datetime, aal: Assurance = Assurance.AAL1, fresh: timedelta | None = None
) -> NeedsStepUp | None:
    """Whether *session* must be stepped up first; ``None`` if it is good enough.

    Args:
        session: as resolved for this request.
        now: the present moment.
        aal: the assurance asked for.
        fresh: how recent the person's last proof must be; ``None`` for any.
    """
    good = session.live.assurance >= aal and (fresh is None or session.is_fresh(now=now, within=fresh))
    return None if good else NeedsStepUp(aal, fresh)


class StepUp:
    """Steps sessions up, and makes proofs. Methods are flows.

    Args:
        login: the login machine, for its factors and its throttle.
        events: takes the audit events.
        clock: tells the time.
    """

    def __init__(self, *, login: Login, events: EventSink, clock: Clock = SYSTEM_CLOCK) -> None:
        self._login: Final = login
        self._events: Final = events
        self._clock: Final = clock

    def confirm(
        self, session: Session, *, password: Secret[str], visitor: Visitor, code: str | None = None
    ) -> Generator[Any, Any, SteppedUp | CodeNeeded | Refused]:
        """Confirm *session* with the password, and a code where the account has a second factor. Any text is answered.

        The password is asked of the session's own user; no name is taken from the request.

        Raises:
            Busy: too many passwords at once; the attempt was not counted.
            Unavailable: a store or the key service did not answer; nothing was confirmed, and the attempt was not counted either.
        """
        throttle, handle = self._login.throttle, str(session.handle)
        attempt = yield from throttle.attempt(scope=Scope.STEP_UP, account=session.user.text, network=visitor.network, browser=handle)
        if isinstance(attempt, TooMany):
            return Refused(RefusalCode.THROTTLED, attempt.retry_after)
        checked = yield from throttle.carry_out(
            attempt, check_password(account=session.user, password=password, max_failures=attempt.max_failures)
        )
        if isinstance(checked, PasswordWrong):
            return self._refused(RefusalCode(checked.why), session, Method.PASSWORD)
        if not checked.account.active or checked.account.user != session.user:
            return self._refused(RefusalCode.DISABLED, session, Method.PASSWORD)
        methods = [Method.PASSWORD]
        if checked.account.has_totp:
            if not code:
                yield from throttle.refund(attempt)
                return CodeNeeded()
            second = yield from throttle.carry_out(attempt, self._login.check_code(session.user, code))
            if second is None:
                return self._refused(RefusalCode.CODE, session, second_factor_method(code))
            methods.append(second)
        yield from throttle.refund(attempt)
        now = self._clock.now()
        rotated = yield from self._login.sessions.rotate(
            session,
            visitor=visitor,
            cause="step_up",
            assurance=Assurance.AAL2 if len(methods) > 1 else Assurance.AAL1,
            methods=tuple(method.value for method in methods),
            auth_time=now,
        )
        if rotated is None:
            return self._refused(RefusalCode.NO_SESSION, session, methods[-1])
        self._tell(Outcome.ALLOWED, session, methods[-1], "confirmed")
        return SteppedUp(rotated.session, rotated.headers, ReauthProof(session.user, now))

    def issue_proof(self, session: Session, *, act: str) -> Generator[Any, Any, Secret[str]]:
        """A proof for one *act*, such as ``workspace.delete``: put it into the confirmation form. Good once, for five minutes.

        Raises:
            ProofRefused: the session is not fresh; step it up first.
            ConfigError: *act* is no lower-case name.
        """
        session.proof().check(user=session.user, now=self._clock.now())
        text = yield from self._login.tokens.issue(
            Purpose.STEP_UP, session.user, payload=act, replace=False, bound_to=_binding(session, act)
        )
        if text is None:
            raise ProofRefused("the account is disabled or gone")
        return text

    def spend_proof(self, session: Session, text: object, *, act: str) -> Generator[Any, Any, bool]:
        """Whether *text* is a proof of this person, in this session, for this *act*. It is spent; a proof of anything else is left alone."""
        grant = yield from self._login.tokens.consume(Purpose.STEP_UP, text, bound_to=_binding(session, act))
        return not isinstance(grant, LinkRefused) and grant.user == session.user and grant.payload == act

    def _refused(self, code: RefusalCode, session: Session, method: Method) -> Refused:
        self._tell(Outcome.DENIED, session, method, code.value)
        return Refused(code)

    def _tell(self, outcome: Outcome, session: Session, method: Method, code: str) -> None:
        detail = {"account": session.user.text, "method": method.value, "code": code}
        self._events.emit(
            AuditEvent(
                kind=EventKind.STEP_UP,
                at=self._clock.now(),
                outcome=outcome,
                user=session.user,
                session=str(session.handle),
                detail=detail,
            )
        )


def _binding(session: Session, act: str) -> bytes:
    if _PURPOSE.fullmatch(act) is None:
        raise ConfigError(
            what="unusable name of an act", why="it is a lower-case name of at most 63 characters", fix="use one such as `workspace.delete`"
        )
    return session.handle.bytes + act.encode("ascii")

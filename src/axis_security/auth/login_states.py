"""The login machine as a table, and what it answers.

Theory of operation. A browser is in one of three states, each with a cookie of its own: ``ANONYMOUS`` (none), ``PENDING`` (the first factor was right, the
second is owed), ``SIGNED_IN``. The pending cookie names a single-use token of ten minutes, not a session: no code that asks for a session can be
given one, by type and by cookie. Every way to prove a first factor ends in ``Login.complete_login``, which alone starts sessions, so no
way in can forget the second factor.

INVARIANT: SIGNED_IN is reached from ANONYMOUS only by a first factor of an account without a second, and otherwise only through PENDING.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from uuid import UUID

from axis_security.auth.cookies import TOUCHED_HEADERS, Header
from axis_security.auth.sessions import Session
from axis_security.core.ids import UserId

__all__ = [
    "TRANSITIONS",
    "LoginOutcome",
    "LoginState",
    "LoginStep",
    "Method",
    "NeedsSecondFactor",
    "PendingLogin",
    "RefusalCode",
    "Refused",
    "SignedIn",
]


class LoginState(enum.Enum):
    """Where a browser stands."""

    ANONYMOUS = "anonymous"
    PENDING = "pending"
    SIGNED_IN = "signed_in"


class LoginStep(enum.Enum):
    """What can happen to it."""

    FIRST_FACTOR = "first factor, and the account has no second"
    FIRST_FACTOR_OF_TWO = "first factor, and the account has a second"
    SECOND_FACTOR = "second factor"
    STEP_UP = "step-up"
    SIGN_OUT = "sign out"
    EXPIRE = "time runs out"
    WRONG = "a wrong password or code"


_A, _P, _S = LoginState.ANONYMOUS, LoginState.PENDING, LoginState.SIGNED_IN

TRANSITIONS: Final[Mapping[tuple[LoginState, LoginStep], LoginState]] = MappingProxyType(
    {
        (_A, LoginStep.FIRST_FACTOR): _S,
        (_A, LoginStep.FIRST_FACTOR_OF_TWO): _P,
        (_A, LoginStep.SIGN_OUT): _A,
        (_A, LoginStep.WRONG): _A,
        (_A, LoginStep.EXPIRE): _A,
        # Starting over is allowed; what was pending stays pending in the store until it expires, and nobody has its cookie any more.
        (_P, LoginStep.FIRST_FACTOR): _S,
        (_P, LoginStep.FIRST_FACTOR_OF_TWO): _P,
        (_P, LoginStep.SECOND_FACTOR): _S,
        (_P, LoginStep.SIGN_OUT): _A,
        (_P, LoginStep.EXPIRE): _A,
        (_P, LoginStep.WRONG): _P,
        # A login in a signed-in browser ends its session first, whoever logs in.
        (_S, LoginStep.FIRST_FACTOR): _S,
        (_S, LoginStep.FIRST_FACTOR_OF_TWO): _P,
        (_S, LoginStep.STEP_UP): _S,
        (_S, LoginStep.SIGN_OUT): _A,
        (_S, LoginStep.EXPIRE): _A,
        (_S, LoginStep.WRONG): _S,
    }
)
"""Every legal step; a pair that is not here is refused and changes nothing."""


class Method(enum.StrEnum):
    """How somebody proved who they are; kept on the session."""

    PASSWORD = "password"  # noqa: S105  # a name
    REMEMBER = "remember"
    EXTERNAL = "external"
    TOTP = "totp"
    RECOVERY = "recovery"

    @property
    def is_second(self) -> bool:
        """Whether it is a second factor."""
        return self in {Method.TOTP, Method.RECOVERY}


class RefusalCode(enum.StrEnum):
    """Why a login was refused. For logs and branches of the host's own code; strangers are told one sentence, or to wait."""

    MISMATCH = "mismatch"
    LOCKED = "locked"
    DISABLED = "disabled"
    UNVERIFIED = "unverified"
    STALE = "stale"
    THROTTLED = "throttled"
    NO_PENDING = "no_pending"
    CODE = "code"
    REMEMBER_UNKNOWN = "remember_unknown"
    REMEMBER_RACED = "remember_raced"
    REMEMBER_REUSED = "remember_reused"
    NO_SESSION = "no_session"


_ONE_SENTENCE: Final = "Sign-in failed. Please check what you entered and try again."
_WAIT: Final = "Too many attempts. Please wait and try again."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Signed in. Add *headers* to the answer, and redirect."""

    session: Session
    headers: tuple[Header, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """Somebody whose first factor was right and whose second is owed. No session, and nothing can be made of it but by the second factor.

    Args:
        user: who it would be.
        methods: what was proved so far.
        epoch: of the account at that moment; a password change since then voids this.
        handle: of the session to come.
        remember: whether a remember token was asked for.
        identifier: what was typed, normalised; ``""`` where nothing was.
    """

    user: UserId
    methods: tuple[Method, ...]
    epoch: int
    handle: UUID
    remember: bool = False
    identifier: str = ""


@dataclass(frozen=True, slots=True)
class NeedsSecondFactor:
    """The first factor was right; ask for a code. Add *headers* to the answer."""

    pending: PendingLogin
    headers: tuple[Header, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """Not signed in.

    Args:
        code: for logs; never for the stranger.
        retry_after: seconds to wait, where ``code`` is ``throttled``.
        headers: for the answer.
    """

    code: RefusalCode
    retry_after: int = 0
    headers: tuple[Header, ...] = field(default=TOUCHED_HEADERS, repr=False)

    @property
    def http_status(self) -> int:
        """401, or 429 for too many attempts. Neither depends on whether the account exists."""
        return 429 if self.code is RefusalCode.THROTTLED else 401

    @property
    def public_text(self) -> str:
        """The one sentence for every refusal; or to wait, which holds for any name alike."""
        return _WAIT if self.code is RefusalCode.THROTTLED else _ONE_SENTENCE

    @property
    def answer_headers(self) -> tuple[Header, ...]:
        """*headers*, and ``Retry-After`` where there is something to wait for."""
        return (*self.headers, ("Retry-After", str(self.retry_after))) if self.retry_after else self.headers


LoginOutcome = SignedIn | NeedsSecondFactor | Refused
"""What every way in answers."""

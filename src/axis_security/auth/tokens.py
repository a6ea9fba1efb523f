"""Links in letters: tokens for one purpose and one account, good once, for a short time.

A token is 256 random bits; the store has a keyed digest of it together with its purpose, so a token of one purpose is unknown for every other.
Mail scanners follow links, so a GET never consumes: it *lands* (:meth:`PurposeTokens.land`), which moves the token out of the address into a short
cookie and shows a page. The person's POST consumes. Nothing is looked up for a text that no token can be: empty, white space, another length.
"""

from __future__ import annotations

import enum
import re
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from axis_security.auth.cookies import TOUCHED_HEADERS, CookieKind, CookieProfile, Header
from axis_security.auth.ports import ConsumeToken, Digest, IssueToken, PeekToken, TokenGrant
from axis_security.auth.recovery import DigestRing
from axis_security.auth.signing import SigningKeys
from axis_security.auth.visitor import Visitor
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.encoding import b64url_encode
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret

__all__ = ["LANDING_HEADERS", "Landed", "LinkRefused", "Purpose", "PurposeTokens", "TokenPolicy"]

TOKEN_BYTES: Final = 32
LANDING_LASTS: Final = timedelta(minutes=10)
LANDING_HEADERS: Final[tuple[Header, ...]] = (*TOUCHED_HEADERS, ("Referrer-Policy", "no-referrer"))
"""For the page that a link opens: its address holds a token until the redirect, and must not travel on (ASVS 14.2.1)."""

_LABEL: Final = b"axis-security/token/v1"
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)


class Purpose(enum.StrEnum):
    """What a token is for. ``LOGIN_PENDING`` and ``STEP_UP`` never travel by mail."""

    VERIFY_EMAIL = "verify_email"
    CHANGE_EMAIL = "change_email"
    PASSWORD_RESET = "password_reset"  # noqa: S105  # a name
    INVITATION = "invitation"
    LOGIN_PENDING = "login_pending"
    STEP_UP = "step_up"


_LASTS: Final[Mapping[Purpose, timedelta]] = MappingProxyType(
    {
        Purpose.VERIFY_EMAIL: timedelta(hours=24),
        Purpose.CHANGE_EMAIL: timedelta(hours=1),
        # A letter that lets its reader set a password is an out-of-band authenticator: ten minutes (ASVS 6.5.5).
        Purpose.PASSWORD_RESET: timedelta(minutes=10),
        Purpose.INVITATION: timedelta(days=7),
        Purpose.LOGIN_PENDING: timedelta(minutes=10),
        Purpose.STEP_UP: timedelta(minutes=5),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPolicy:
    """How long tokens last, by purpose.

    Args:
        lasting: in place of the defaults: 24 h to verify an address, 1 h to change it, 10 min to reset a password, 7 days for an invitation.

    Raises:
        ConfigError: not between one minute and 30 days, or longer than the default for a reset, a pending login or a step-up times six.
    """

    lasting: Mapping[Purpose, timedelta] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for purpose, lasting in self.lasting.items():
            short = purpose in {Purpose.PASSWORD_RESET, Purpose.LOGIN_PENDING, Purpose.STEP_UP}
            if not timedelta(minutes=1) <= lasting <= (_LASTS[purpose] * 6 if short else timedelta(days=30)):
                raise ConfigError(
                    what=f"unusable lifetime of `{purpose.value}` tokens", why=f"{lasting}", fix="keep the default, or shorten it"
                )

        # A copy that cannot be changed: what was checked is what holds.
        object.__setattr__(self, "lasting", MappingProxyType(dict(self.lasting)))

    def of(self, purpose: Purpose) -> timedelta:
        """How long a token of *purpose* lasts."""
        return self.lasting.get(purpose, _LASTS[purpose])


@dataclass(frozen=True, slots=True)
class Landed:
    """The link is good for now: redirect to the page's own address, with *headers*; it shows a form whose POST consumes."""

    headers: tuple[Header, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LinkRefused:
    """The link is not good. ``code`` is for logs: ``malformed`` or ``unknown`` (never issued, spent, replaced or expired)."""

    code: str
    headers: tuple[Header, ...] = field(default=LANDING_HEADERS, repr=False)
    http_status: int = 400
    public_text: str = "This link is no longer valid. Please ask for a new one."


class PurposeTokens:
    """Issues tokens, shows what they are for, consumes them.

    Args:
        profile: how cookies are named and marked.
        keys: the cookie keys, for the landing cookie.
        digests: digest keys for tokens at rest.
        events: takes the audit events.
        policy: lifetimes.
        clock: tells the time.
        entropy: random bytes.
    """

    def __init__(
        self,
        *,
        profile: CookieProfile,
        keys: SigningKeys,
        digests: DigestRing,
        events: EventSink,
        policy: TokenPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.policy: Final = policy or TokenPolicy()
        self.profile: Final = profile
        self._signer: Final = keys.signer(CookieKind.LANDING.value)
        self._digests: Final = digests
        self._events: Final = events
        self._clock: Final = clock
        self._entropy: Final = entropy

    def issue(
        self, purpose: Purpose, user: UserId, *, payload: str = "", replace: bool = True, bound_to: bytes = b""
    ) -> Generator[Any, Any, Secret[str] | None]:
        """A token of *purpose* for *user*; earlier ones of that purpose stop working unless *replace* is false.

        Args:
            purpose: what it is for.
            user: whose.
            payload: what it says, such as the exact new address; at most 1024 characters.
            replace: whether it voids earlier ones.
            bound_to: something that must be known to use it, such as the session's handle.

        Returns:
            ``None`` where there is no such active account.
        """
        text = self.fresh_text()
        kept = yield IssueToken(
            purpose=purpose.value,
            user=user,
            digest=self._digests.digest(*_parts(purpose, text, bound_to)),
            now=self._clock.now(),
            lasting=self.policy.of(purpose),
            payload=payload,
            replace=replace,
        )
        if not kept:
            return None
        self._tell(EventKind.TOKEN_ISSUED, purpose, user, Outcome.ALLOWED)
        return text

    def fresh_text(self) -> Secret[str]:
        """256 random bits in 43 characters."""
        return Secret(b64url_encode(self._entropy(TOKEN_BYTES)))

    def candidates(self, purpose: Purpose, text: object, *, bound_to: bytes = b"") -> tuple[Digest, ...] | None:
        """The digests to look *text* up by, or ``None`` if it cannot be a token."""
        if not isinstance(text, str) or _TEXT.fullmatch(text) is None:
            return None
        return self._digests.candidates(*_parts(purpose, Secret(text), bound_to))

    def peek(self, purpose: Purpose, text: object, *, bound_to: bytes = b"") -> Generator[Any, Any, TokenGrant | LinkRefused]:
        """What a token stands for; it stays good."""
        candidates = self.candidates(purpose, text, bound_to=bound_to)
        if candidates is None:
            return self._refused(purpose, "malformed")
        grant: TokenGrant | None = yield PeekToken(purpose=purpose.value, candidates=candidates, now=self._clock.now())
        return grant if grant is not None else self._refused(purpose, "unknown")

    def consume(self, purpose: Purpose, text: object, *, bound_to: bytes = b"") -> Generator[Any, Any, TokenGrant | LinkRefused]:
        """What a token stands for; it is spent. Exactly one of parallel callers gets it."""
        candidates = self.candidates(purpose, text, bound_to=bound_to)
        if candidates is None:
            return self._refused(purpose, "malformed")
        grant: TokenGrant | None = yield ConsumeToken(purpose=purpose.value, candidates=candidates, now=self._clock.now())
        if grant is None:
            return self._refused(purpose, "unknown")
        self._tell(EventKind.TOKEN_CONSUMED, purpose, grant.user, Outcome.ALLOWED)
        return grant

    # --- links

    def land(self, purpose: Purpose, text: object, *, visitor: Visitor) -> Generator[Any, Any, Landed | LinkRefused]:
        """What a GET of the link does: nothing is consumed, and the token moves from the address into a cookie of ten minutes."""
        grant = yield from self.peek(purpose, text)
        if isinstance(grant, LinkRefused):
            return grant
        return Landed(self.landing_headers(purpose, Secret(str(text)), visitor=visitor))

    def landing_headers(self, purpose: Purpose, text: Secret[str], *, visitor: Visitor) -> tuple[Header, ...]:
        """Headers that keep a token in the landing cookie; for tokens whose record another store has (invitations)."""
        signed = self._signer.sign(f"{purpose.value}.{text.reveal()}")
        return (self.profile.set(CookieKind.LANDING, signed, lasting=LANDING_LASTS, host=visitor.host), *LANDING_HEADERS)

    def landed(self, purpose: Purpose, *, visitor: Visitor) -> Secret[str] | None:
        """The token that the landing cookie holds for *purpose*."""
        found = visitor.cookies.values.get(CookieKind.LANDING)
        payload = None if found is None else self._signer.unsign(found.reveal())
        name, _, text = (payload or "").partition(".")
        return Secret(text) if name == purpose.value and _TEXT.fullmatch(text) is not None else None

    def leave(self, *, visitor: Visitor) -> tuple[Header, ...]:
        """Headers that take the landing cookie away."""
        return (self.profile.clear(CookieKind.LANDING, host=visitor.host), *TOUCHED_HEADERS)

    def refused(self, purpose: Purpose) -> LinkRefused:
        """A refusal, with its event, where a store operation that consumes as part of its work has said no."""
        return self._refused(purpose, "unknown")

    def consumed(self, purpose: Purpose, user: UserId) -> None:
        """The event for a token that a store operation consumed as part of its work."""
        self._tell(EventKind.TOKEN_CONSUMED, purpose, user, Outcome.ALLOWED)

    def _refused(self, purpose: Purpose, code: str) -> LinkRefused:
        self._tell(EventKind.TOKEN_REFUSED, purpose, None, Outcome.DENIED, code=code)
        return LinkRefused(code)

    def _tell(self, kind: EventKind, purpose: Purpose, user: UserId | None, outcome: Outcome, **more: str) -> None:
        detail = {"account": None if user is None else user.text, "purpose": purpose.value, **more}
        self._events.emit(AuditEvent(kind=kind, at=self._clock.now(), outcome=outcome, user=user, detail=detail))


def _parts(purpose: Purpose, text: Secret[str], bound_to: bytes) -> tuple[bytes, ...]:
    return _LABEL, purpose.value.encode("ascii"), text.reveal().encode("ascii"), bound_to

"""Remember-me: a token of its own, beside the session, used once and then replaced.

It begins sessions without a password and proves nothing about who holds the browser: such a session is fresh for nothing, has one factor at
most, and an account with a second factor is asked for it again. Every use spends the token and makes the next of its line. A spent token that comes
back later was copied: the line is void, every session of the person ends, and the log says so. Its end is the server's: sign-out, sign-out everywhere,
a password change and thirty days all end it, whatever the cookie says.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from axis_security.auth.cookies import CookieKind, CookieProfile, Header
from axis_security.auth.ports import Account, Digest
from axis_security.auth.recovery import DigestRing
from axis_security.auth.session_ports import EndRemember, IssueRemember, RememberUsed, RevokeSessions, UseRemember
from axis_security.auth.signing import SigningKeys
from axis_security.auth.visitor import Visitor
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.encoding import b64url_encode
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome, Scalar

__all__ = ["RememberPolicy", "RememberTokens", "Remembered"]

_LABEL: Final = b"axis-security/remember/v1"
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberPolicy:
    """How long a browser is remembered.

    Args:
        lasting: from the login with a password, uses included.
        grace: how long a token that another request has just spent is refused without alarm.
        generation: raise it by one to void every remember token.

    Raises:
        ConfigError: not 1 hour to 90 days, or a grace outside 1 to 60 s.
    """

    lasting: timedelta = timedelta(days=30)
    grace: timedelta = timedelta(seconds=10)
    generation: int = 0

    def __post_init__(self) -> None:
        fits = timedelta(hours=1) <= self.lasting <= timedelta(days=90) and timedelta(seconds=1) <= self.grace <= timedelta(seconds=60)
        if not fits or not 0 <= self.generation < 2**32:
            raise ConfigError(what="unusable remember-me policy", why=repr(self), fix="1 hour to 90 days, and a grace of 1 to 60 seconds")


@dataclass(frozen=True, slots=True)
class Remembered:
    """A remember token was good and has been replaced.

    Args:
        used: whose it was.
        header: the next one of the line.
    """

    used: RememberUsed
    header: Header = field(repr=False)


class RememberTokens:
    """Issues and uses remember tokens. For the login machine; a host only chooses the policy.

    Args:
        profile: how cookies are named and marked.
        keys: the cookie keys.
        digests: digest keys for tokens at rest.
        events: takes the audit events.
        policy: how long.
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
        policy: RememberPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.policy: Final = policy or RememberPolicy()
        self._profile: Final = profile
        self._signer: Final = keys.signer(CookieKind.REMEMBER.value)
        self._digests: Final = digests
        self._events: Final = events
        self._clock: Final = clock
        self._entropy: Final = entropy
        self._generation: Final = self.policy.generation.to_bytes(4, "big")

    def issue(self, account: Account, *, handle: UUID, visitor: Visitor) -> Generator[Any, Any, Header | None]:
        """Begin a line of tokens with the session named *handle*; ``None`` where the account has changed meanwhile."""
        text, digest = self._new()
        kept = yield IssueRemember(
            user=account.user,
            handle=handle,
            digest=digest,
            epoch=account.epoch,
            now=self._clock.now(),
            lasting=self.policy.lasting,
            client=visitor.label,
        )
        return self._header(text, visitor) if kept else None

    def use(self, visitor: Visitor, *, handle: UUID) -> Generator[Any, Any, Remembered | str]:
        """Spend the visitor's token for a session that will be named *handle*.

        Returns:
            The next token; or ``unknown``, ``raced`` (another request has just spent it: keep the cookie), or ``reused``.
        """
        candidates = self._presented(visitor)
        if candidates is None:
            return "unknown"
        following, digest = self._new()
        used: RememberUsed | None = yield UseRemember(
            candidates=candidates, digest=digest, handle=handle, now=self._clock.now(), grace=self.policy.grace
        )
        if used is None:
            return "unknown"
        if used.verdict == "reused":
            # Whoever copied the token may be signed in with it already.
            count = yield RevokeSessions(user=used.user)
            self._alarm(used, visitor, count)
            return "reused"
        return Remembered(used, self._header(following, visitor)) if used.verdict == "live" else "raced"

    def end(self, visitor: Visitor) -> Generator[Any, Any, None]:
        """Void the visitor's token and its line, if there is one."""
        candidates = self._presented(visitor)
        if candidates is not None:
            yield EndRemember(candidates)

    def clear(self, visitor: Visitor) -> Header:
        """A header that takes the cookie away."""
        return self._profile.clear(CookieKind.REMEMBER, host=visitor.host)

    def _presented(self, visitor: Visitor) -> tuple[Digest, ...] | None:
        found = visitor.cookies.values.get(CookieKind.REMEMBER)
        text = None if found is None else self._signer.unsign(found.reveal())
        if text is None or _TEXT.fullmatch(text) is None:
            return None
        return self._digests.candidates(_LABEL, self._generation, text.encode("ascii"))

    def _new(self) -> tuple[str, Digest]:
        text = b64url_encode(self._entropy(32))
        return text, self._digests.digest(_LABEL, self._generation, text.encode("ascii"))

    def _header(self, text: str, visitor: Visitor) -> Header:
        return self._profile.set(CookieKind.REMEMBER, self._signer.sign(text), lasting=self.policy.lasting, host=visitor.host)

    def _alarm(self, used: RememberUsed, visitor: Visitor, count: int) -> None:
        at, who = self._clock.now(), used.user.text
        told: list[tuple[EventKind, Outcome, dict[str, Scalar]]] = [
            (EventKind.REMEMBER_TOKEN_REUSED, Outcome.DENIED, {"account": who, "client": visitor.label}),
            (EventKind.SESSION_REVOKED, Outcome.ALLOWED, {"account": who, "scope": "all", "count": count, "cause": "remember_reused"}),
        ]
        for kind, outcome, detail in told:
            self._events.emit(AuditEvent(kind=kind, at=at, outcome=outcome, user=used.user, detail=detail))

"""Requests from elsewhere that ride on a session: two independent rules, both must hold.

1. Where the browser says that an unsafe request comes from another site or origin (``Sec-Fetch-Site``, ``Origin``), it is refused.
2. An unsafe request on a session carries a token bound to that session, in the header ``X-CSRF-Token`` or a form field.

The token is an HMAC over the session's handle, masked afresh in each answer so that compression side channels learn nothing. The handle
stays when the id is rotated, so a form that is open in another tab survives a step-up; a login makes a new handle, so no token from before it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from axis_security.auth.signing import SigningKeys
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.encoding import MalformedEncoding, b64url_decode, b64url_encode
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.secret import Secret

__all__ = ["SAFE_METHODS", "Csrf", "CsrfAllowed", "CsrfRefused", "RequestOrigin"]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 section 9.2.1), and must not."""

_MAC_BYTES: Final = 32
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[1-9]\d{0,4})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class CsrfAllowed:
    """Nothing speaks against the request. ``why``: ``safe_method``, ``token`` or ``no_session``."""

    why: str


@dataclass(frozen=True, slots=True)
class CsrfRefused:
    """The request is not to be carried out. ``code``: ``cross_site``, ``bad_origin``, ``no_token`` or ``bad_token``."""

    code: str
    http_status: int = 403
    public_text: str = "This form has expired or was opened elsewhere. Please reload the page and try again."


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOrigin:
    """What a request says about where it comes from; ``None`` for an absent header.

    Args:
        method: the HTTP method; anything but exactly GET, HEAD, OPTIONS or TRACE is unsafe.
        path: for the audit log.
        origin, sec_fetch_site: those headers.
        token: from the header ``X-CSRF-Token`` or the form.
    """

    method: str
    path: str = ""
    origin: str | None = None
    sec_fetch_site: str | None = None
    token: str | None = None


class Csrf:
    """Issues tokens and judges requests.

    Args:
        keys: the cookie keys; a token made under an older one still passes.
        origins: the app's own, such as ``https://app.example.com``; compared whole, never by prefix.
        events: takes the audit events.
        clock: tells the time.
        entropy: random bytes for masks.

    Raises:
        ConfigError: no origin, or one that is not ``scheme://host[:port]`` in lower case.
    """

    def __init__(
        self,
        *,
        keys: SigningKeys,
        origins: tuple[str, ...],
        events: EventSink,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        if not origins or any(_ORIGIN.fullmatch(origin) is None for origin in origins):
            raise ConfigError(
                what="unusable origins",
                why="each is `scheme://host` or `scheme://host:port`, in lower case",
                fix="pass ('https://app.example.com',)",
            )
        self._keys: Final = keys.mac_key("csrf")
        self._origins: Final = frozenset(origins)
        self._events: Final = events
        self._clock: Final = clock
        self._entropy: Final = entropy

    def issue(self, session: UUID) -> Secret[str]:
        """A token for the session with that handle, different each time."""
        mask = self._entropy(_MAC_BYTES)
        return Secret(b64url_encode(mask + _xor(mask, _mac(self._keys[0], session))))

    def judge(self, request: RequestOrigin, *, session: UUID | None) -> CsrfAllowed | CsrfRefused:
        """Whether *request* may be carried out. Never raises, whatever the headers hold.

        Args:
            session: handle of the session that the request rides on; ``None`` for none, as on the login form, where only the first rule applies.
        """
        verdict = self._judge(request, session)
        if isinstance(verdict, CsrfRefused):
            detail = {
                "code": verdict.code,
                "origin": _short(request.origin),
                "method": _short(request.method),
                "path": _short(request.path),
            }
            handle = None if session is None else str(session)
            self._events.emit(
                AuditEvent(kind=EventKind.CSRF_REFUSED, at=self._clock.now(), outcome=Outcome.DENIED, session=handle, detail=detail)
            )
        return verdict

    def _judge(self, request: RequestOrigin, session: UUID | None) -> CsrfAllowed | CsrfRefused:
        if request.method in SAFE_METHODS:
            return CsrfAllowed("safe_method")
        # `none` is the person's own act (address bar, bookmark). A same-site origin is another app under our domain, and no friend.
        if request.sec_fetch_site is not None and request.sec_fetch_site not in {"same-origin", "none"}:
            return CsrfRefused("cross_site")
        if request.origin is not None and request.origin not in self._origins:
            return CsrfRefused("bad_origin")
        if session is None:
            return CsrfAllowed("no_session")
        if not request.token:
            return CsrfRefused("no_token")
        return CsrfAllowed("token") if self._fits(request.token, session) else CsrfRefused("bad_token")

    def _fits(self, token: str, session: UUID) -> bool:
        if not isinstance(token, str) or len(token) != 86:
            return False
        try:
            raw = b64url_decode(token)
        except MalformedEncoding:
            return False
        mac = _xor(raw[:_MAC_BYTES], raw[_MAC_BYTES:])
        return any(hmac.compare_digest(mac, _mac(key, session)) for key in self._keys)


def _mac(key: Secret[bytes], session: UUID) -> bytes:
    return hmac.new(key.reveal(), b"axis-security/csrf/v1" + session.bytes, hashlib.sha256).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _short(text: str | None) -> str | None:
    return None if text is None else text.encode("ascii", "backslashreplace").decode("ascii")[:200]

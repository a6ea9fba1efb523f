"""Browsers that have signed in before: a signed cookie that gives a person's own browser a budget of its own.

Without it, a lock on an account is a weapon: strangers who guess ten wrong passwords keep the owner out. With it they exhaust the strangers'
budget, and a browser in which that account has signed in before still has its own (the "device cookie" of OWASP). It is no factor and proves nothing
about the person: it decides only which budget an attempt is taken from.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from axis_security.auth.cookies import CookieKind, CookieProfile, Header
from axis_security.auth.signing import SigningKeys
from axis_security.auth.visitor import Visitor
from axis_security.core.encoding import b64url_encode

__all__ = ["Browser", "Browsers"]

MAX_ACCOUNTS: Final = 5
LASTS: Final = timedelta(days=180)
_FORM: Final = re.compile(r"([A-Za-z0-9_-]{22})\.(\d{1,11})((?:\.[A-Za-z0-9_-]{16}){1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser that we have met.

    Args:
        id: 128 random bits, base64url.
        tags: one for each account that has signed in with it, the latest last.
    """

    id: str
    tags: tuple[str, ...]


class Browsers:
    """Reads and writes the device cookie.

    Args:
        profile: how cookies are named and marked.
        keys: the cookie keys.
        entropy: random bytes.
    """

    def __init__(self, *, profile: CookieProfile, keys: SigningKeys, entropy: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._profile: Final = profile
        self._signer: Final = keys.signer(CookieKind.DEVICE.value)
        self._macs: Final = keys.mac_key(CookieKind.DEVICE.value)
        self._entropy: Final = entropy

    def read(self, visitor: Visitor, *, now: datetime) -> Browser | None:
        """The browser that *visitor* uses, if we have met it in the last 180 days. Never raises."""
        found = visitor.cookies.values.get(CookieKind.DEVICE)
        payload = None if found is None else self._signer.unsign(found.reveal())
        match = None if payload is None else _FORM.fullmatch(payload)
        if match is None or not 0 <= now.timestamp() - int(match[2]) < LASTS.total_seconds():
            return None
        return Browser(match[1], tuple(match[3][1:].split(".")))

    def known(self, browser: Browser | None, identifier: str) -> str | None:
        """The browser's id, if *identifier* (normalised) has signed in with it."""
        if browser is None:
            return None
        # All keys: a rotation makes no browser a stranger.
        tags = {_tag(key.reveal(), browser.id, identifier) for key in self._macs}
        return browser.id if tags.intersection(browser.tags) else None

    def met(self, visitor: Visitor, identifier: str, *, now: datetime) -> Header:
        """A ``Set-Cookie`` header after *identifier* has signed in; up to five accounts share a browser."""
        browser = self.read(visitor, now=now) or Browser(b64url_encode(self._entropy(16)), ())
        stale = {_tag(key.reveal(), browser.id, identifier) for key in self._macs}
        tags = [tag for tag in browser.tags if tag not in stale][-(MAX_ACCOUNTS - 1) :]
        tags.append(_tag(self._macs[0].reveal(), browser.id, identifier))
        payload = f"{browser.id}.{int(now.timestamp())}.{'.'.join(tags)}"
        return self._profile.set(CookieKind.DEVICE, self._signer.sign(payload), lasting=LASTS, host=visitor.host)


def _tag(key: bytes, browser: str, identifier: str) -> str:
    text = browser.encode("ascii") + b"\0" + identifier.encode("utf-8")
    return b64url_encode(hmac.new(key, text, hashlib.sha256).digest()[:12])

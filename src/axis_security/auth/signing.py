"""Signed cookie values: a cheap filter in front of the store, and never the session itself.

A signature says "we once issued this text for this purpose". It says nothing about whether the session still exists; the store does. What it
buys is that made-up ids cost one HMAC and no round trip.

Keys are a list, oldest first: the last one signs, all of them verify. A rotation appends a key and drops the first one later, so it signs
nobody out (sessions die by :meth:`~axis_security.auth.sessions.Sessions.revoke_all` or by ``SessionPolicy.generation``, which are acts of their own).
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

from itsdangerous import Signer

from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret

__all__ = ["MAX_SIGNED_CHARS", "CookieSigner", "SigningKeys"]

MAX_SIGNED_CHARS: Final = 2048
"""Longest signed text that is looked at, in characters."""

_PURPOSE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
_PAYLOAD: Final = re.compile(r"[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*", re.ASCII)


class CookieSigner:
    """Signs and checks texts of one purpose; a text of another purpose is refused. Made by :meth:`SigningKeys.signer`."""

    __slots__ = ("_keys", "_signer")

    def __init__(self, derived: Sequence[bytes], *, purpose: str) -> None:
        self._keys: Final = tuple(reversed(derived))
        self._signer: Final = Signer(list(derived), salt=purpose, key_derivation="none", digest_method=hashlib.sha256)

    def sign(self, payload: str) -> Secret[str]:
        """*payload* and its signature.

        Raises:
            ValueError: characters outside ``A-Z a-z 0-9 _ ~ - .``, or too long.
        """
        if _PAYLOAD.fullmatch(payload) is None or len(payload) > MAX_SIGNED_CHARS - 44:
            raise ValueError("a signed payload is non-empty, short, and of characters A-Z a-z 0-9 _ ~ - .")
        return Secret(self._signer.sign(payload).decode("ascii"))

    def unsign(self, text: str) -> str | None:
        """The payload, or ``None`` for any text that none of the keys signed for this purpose. Never raises."""
        if len(text) > MAX_SIGNED_CHARS or not text.isascii():
            return None
        payload, _, signature = text.encode("ascii").rpartition(b".")
        # The same check as Signer.unsign, on the text of the signature: decoding it first would take several spellings of the same bits.
        # Nothing else about the payload matters here: what verifies is what we signed.
        for key in self._keys:
            mac = binascii.b2a_base64(hmac.digest(key, payload, "sha256"), newline=False)
            if hmac.compare_digest(mac.translate(_URLSAFE)[:-1], signature):
                return payload.decode("ascii")
        return None


class SigningKeys:
    """The keys that sign cookies, oldest first.

    Args:
        keys: each 32 bytes or more (``axis-security secrets mint cookie``); the last one signs.

    Raises:
        ConfigError: no key, a short one, or one twice.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[Secret[bytes]]) -> None:
        raw = [key.reveal() for key in keys]
        if not raw or any(len(key) < 32 for key in raw) or len(set(raw)) != len(raw):
            raise ConfigError(
                what="unusable cookie keys",
                why="there is none, one is below 32 bytes, or one is there twice",
                fix="mint one with `axis-security secrets mint cookie`, and list keys oldest first",
            )
        self._keys: Final = tuple(raw)

    def __repr__(self) -> str:
        return f"SigningKeys({len(self._keys)} keys)"

    def signer(self, purpose: str) -> CookieSigner:
        """The signer of one *purpose*; its keys are derived, so no other purpose's signature fits.

        Raises:
            ValueError: *purpose* is no lower-case name.
        """
        if _PURPOSE.fullmatch(purpose) is None:
            raise ValueError("a purpose is a lower-case name of at most 32 characters")
        return CookieSigner([self._derived(key, purpose) for key in self._keys], purpose=purpose)

    def mac_key(self, purpose: str) -> tuple[Secret[bytes], ...]:
        """Keys for a MAC of *purpose*, newest first: the first one makes, all of them check."""
        return tuple(Secret(self._derived(key, f"mac/{purpose}")) for key in reversed(self._keys))

    @staticmethod
    def _derived(key: bytes, purpose: str) -> bytes:
        return hmac.new(key, b"axis-security/cookie/v1/" + purpose.encode("ascii"), hashlib.sha256).digest()

"""Pepper: a key outside the database, without which stolen hashes cannot be attacked at all.

The pepper is an HMAC over the password before Argon2id (NIST SP 800-63B-4 section 3.1.1.2: a keyed step whose key is stored
apart). Its key id stands beside each hash, so several can live at once: old ones verify, and the next login moves the account to
the active one. A pepper must never be lost: without it, every account under it needs a reset.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret

__all__ = ["NO_PEPPER", "PepperRing"]

NO_PEPPER: Final = "-"
"""Stands for the key id where a hash has no pepper."""

_ID: Final = re.compile(r"[A-Za-z0-9_]{1,32}", re.ASCII)
_LABEL: Final = b"axis-security/pepper/v1\0"
_MIN_KEY_BYTES: Final = 32


class PepperRing:
    """The pepper keys in use.

    Args:
        active: id of the key that new hashes get.
        keys: every key that some stored hash may still need, by id; each at least 32 bytes (`axis-security secrets mint pepper`).

    Raises:
        ConfigError: no such active key, a malformed id, or a short key.
    """

    __slots__ = ("_keys", "active")

    def __init__(self, *, active: str, keys: Mapping[str, Secret[bytes]]) -> None:
        if active not in keys:
            raise ConfigError(
                what="the active pepper is missing", why=f"`{active}` is not among {sorted(keys)}", fix="pass its key in `keys`"
            )
        for name, key in keys.items():
            if _ID.fullmatch(name) is None:
                raise ConfigError(
                    what="malformed pepper id", why="an id is 1 to 32 letters, digits or underscores", fix="rename it, such as `p2026`"
                )
            if len(key.reveal()) < _MIN_KEY_BYTES:
                raise ConfigError(
                    what="short pepper",
                    why=f"`{name}` has fewer than {_MIN_KEY_BYTES} bytes",
                    fix="mint one: axis-security secrets mint pepper",
                )
        self.active: Final = active
        self._keys: Final = MappingProxyType(dict(keys))

    def __repr__(self) -> str:
        return f"PepperRing(active={self.active!r}, ids={sorted(self._keys)})"

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def apply(self, key_id: str, secret: bytes) -> bytes:
        """HMAC-SHA256 of *secret* under the key *key_id*; the caller has checked that the ring has it."""
        return hmac.new(self._keys[key_id].reveal(), _LABEL + secret, hashlib.sha256).digest()

"""A factor ledger in memory and a sealer that needs no key service: for tests only."""

from __future__ import annotations

import hashlib
import hmac

from axis_security.auth.store_memory import MemoryVault
from axis_security.core.encoding import MalformedEncoding
from axis_security.core.settings import Environment

__all__ = ["MemoryFactors", "TestSealer"]


class MemoryFactors(MemoryVault):
    """A :class:`~axis_security.auth.store_memory.MemoryVault` that knows it is in a test."""

    def __init__(self) -> None:
        super().__init__(environment=Environment.TEST)


class TestSealer:
    """Binds bytes to a context with an HMAC and a keystream; enough to see that seeds are sealed and bound, and nothing more."""

    __test__ = False

    def __init__(self, key: bytes = b"test key") -> None:
        self._key = key

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt *plain* (at most 32 bytes)."""
        pad = hashlib.sha256(self._key + context).digest()
        body = bytes(a ^ b for a, b in zip(plain, pad, strict=False))
        return body + hmac.new(self._key, context + body, hashlib.sha256).digest()

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt.

        Raises:
            MalformedEncoding: not sealed under *context*.
        """
        body, tag = sealed[:-32], sealed[-32:]
        if not hmac.compare_digest(tag, hmac.new(self._key, context + body, hashlib.sha256).digest()):
            raise MalformedEncoding(expected="sealed value")
        return bytes(a ^ b for a, b in zip(body, hashlib.sha256(self._key + context).digest(), strict=False))

"""A KDF that counts, for tests that compare work instead of time."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

from axis_security.auth.kdf import Argon2Call, KdfCall, SystemKdf

__all__ = ["CountingKdf"]


class CountingKdf:
    """Counts calls and units by algorithm; answers cheap digests, or with *real* those of the real algorithms (Argon2 at a token cost)."""

    def __init__(self, *, real: bool = False) -> None:
        self.calls: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        self._real = SystemKdf() if real else None

    def derive(self, call: KdfCall, secret: bytes) -> bytes:
        """Count *call* and answer a digest that depends on it and on *secret*."""
        self.calls[call.algorithm] += 1
        self.units[call.algorithm] += call.units
        if self._real is not None:
            if isinstance(call, Argon2Call):  # keep the tests quick: the cost is counted above, not spent
                call = replace(call, memory_kib=64, passes=1, lanes=1)
            return self._real.derive(call, secret)
        size = getattr(call, "tag_bytes", 31)
        return hashlib.shake_128(repr(call).encode() + secret).digest(size)

    def take(self) -> dict[str, int]:
        """The units since the last time, by algorithm."""
        seen = dict(self.units)
        self.units.clear()
        self.calls.clear()
        return seen

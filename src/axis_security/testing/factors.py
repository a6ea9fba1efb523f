"""A factor ledger in memory and a sealer that needs no key service: for tests only."""

from __future__ import annotations

import hashlib
import hmac
import threading
from dataclasses import dataclass, field
from typing import Any, assert_never

from axis_security.auth.factors import (
    BeginEnrolment,
    ClaimStep,
    ConfirmEnrolment,
    ConsumeRecovery,
    CountRecovery,
    FactorRequest,
    LoadTotp,
    RemoveFactors,
    ReplaceRecovery,
    ReserveCodeAttempt,
    TotpRecord,
)
from axis_security.core.encoding import MalformedEncoding

__all__ = ["MemoryFactors", "TestSealer"]


@dataclass(slots=True)
class _Account:
    pending: bytes | None = None
    sealed: bytes | None = None
    step: int = -1
    failures: int = 0
    recovery: set[tuple[str, bytes]] = field(default_factory=set)


class MemoryFactors:
    """Answers :data:`~axis_security.auth.factors.FactorRequest` from a dict, one at a time. Gone with the process: never for production."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._lock = threading.Lock()

    def perform(self, request: FactorRequest) -> Any:
        """See :meth:`axis_security.auth.factors.FactorLedger.perform`."""
        with self._lock:
            return self._perform(request, self._accounts.setdefault(f"{request.user.key_type.value}:{request.user.text}", _Account()))

    def _perform(self, request: FactorRequest, account: _Account) -> Any:
        match request:
            case BeginEnrolment():
                account.pending = request.sealed
                return True
            case LoadTotp():
                sealed = account.pending if request.pending else account.sealed
                return None if sealed is None else TotpRecord(sealed)
            case ReserveCodeAttempt():
                if account.failures >= request.limit:
                    return False
                account.failures += 1
                return True
            case ConfirmEnrolment():
                if account.pending is None or account.pending != request.sealed:
                    return False
                account.sealed, account.pending, account.step, account.failures = account.pending, None, request.step, 0
                return True
            case ClaimStep():
                if account.sealed is None or account.step >= request.step:
                    return False
                account.step, account.failures = request.step, 0
                return True
            case RemoveFactors():
                had = account.sealed is not None or account.pending is not None or bool(account.recovery)
                account.pending, account.sealed, account.step, account.failures = None, None, -1, 0
                account.recovery.clear()
                return had
            case ReplaceRecovery():
                account.recovery = set(request.digests)
                return True
            case ConsumeRecovery():
                found = account.recovery.intersection(request.candidates)
                if not found:
                    return False
                account.recovery -= found
                account.failures = 0
                return True
            case CountRecovery():
                return len(account.recovery)
            case other:
                assert_never(other)


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

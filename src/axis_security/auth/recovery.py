"""Recovery codes: for the day the phone is gone. 120 random bits each, kept only as a keyed digest, good once.

120 bits exceed the 112 of ASVS 6.5.2, so a fast keyed digest is enough and the lookup is one indexed statement. A person reads
``7K3M-9QWX-…``: six groups of four in Crockford's alphabet; case, spaces and dashes do not matter when typing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from axis_security.auth.factors import ConsumeRecovery, CountRecovery, FactorRequest, ReauthProof, ReplaceRecovery
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.encoding import MalformedEncoding, crockford_decode, crockford_encode, length_prefixed
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome, Scalar
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret

__all__ = ["DigestRing", "RecoveryCodes", "RecoveryRefused", "RecoveryUsed"]

CODE_BYTES: Final = 15
CODE_COUNT: Final = 10
_MAX_TYPED: Final = 64
_LABEL: Final = b"axis-security/recovery/v1"


@dataclass(frozen=True, slots=True)
class RecoveryUsed:
    """The code was right, and is gone. Tell the person how many are left."""

    remaining: int


@dataclass(frozen=True, slots=True)
class RecoveryRefused:
    """Not accepted; ``why`` is ``malformed`` or ``unknown`` (never issued, spent or replaced)."""

    why: str


class DigestRing:
    """HMAC keys for digests, by id. New digests get *active*; every key in *keys* is still looked up.

    Raises:
        ConfigError: no active key, or a key below 32 bytes.
    """

    __slots__ = ("_keys", "active")

    def __init__(self, *, active: str, keys: Mapping[str, Secret[bytes]]) -> None:
        if active not in keys or any(len(key.reveal()) < 32 for key in keys.values()):
            raise ConfigError(
                what="unusable digest keys",
                why="the active key is missing, or a key is below 32 bytes",
                fix="mint one: axis-security secrets mint digest",
            )
        self.active: Final = active
        self._keys: Final = MappingProxyType(dict(keys))

    def __repr__(self) -> str:
        return f"DigestRing(active={self.active!r}, ids={sorted(self._keys)})"

    def digest(self, *parts: bytes) -> tuple[str, bytes]:
        """Key id and digest of *parts* under the active key."""
        return self.active, self._mac(self.active, parts)

    def candidates(self, *parts: bytes) -> tuple[tuple[str, bytes], ...]:
        """Key id and digest of *parts* under every key."""
        return tuple((key_id, self._mac(key_id, parts)) for key_id in self._keys)

    def _mac(self, key_id: str, parts: tuple[bytes, ...]) -> bytes:
        return hmac.new(self._keys[key_id].reveal(), length_prefixed(*parts), hashlib.sha256).digest()


class RecoveryCodes:
    """The flows of recovery codes. Run them with ``drive`` or ``adrive``.

    Args:
        digests: the digest keys.
        events: takes the audit events.
        clock: tells the time.
        entropy: random bytes.
    """

    def __init__(
        self,
        *,
        digests: DigestRing,
        events: EventSink,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._digests: Final = digests
        self._events: Final = events
        self._clock: Final = clock
        self._entropy: Final = entropy

    def issue(self, *, user: UserId, proof: ReauthProof) -> Generator[FactorRequest, Any, tuple[Secret[str], ...]]:
        """Make ten codes; all earlier ones stop working. Show them once.

        Raises:
            ProofRefused: the proof is of someone else, or old.
        """
        proof.check(user=user, now=self._clock.now())
        raw = [self._entropy(CODE_BYTES) for _ in range(CODE_COUNT)]
        yield ReplaceRecovery(user, tuple(self._digests.digest(*_parts(user, code)) for code in raw))
        self._tell(EventKind.RECOVERY_CODES_ISSUED, user, Outcome.ALLOWED, count=CODE_COUNT)
        return tuple(Secret(_grouped(crockford_encode(code))) for code in raw)

    def use(self, *, user: UserId, code: Secret[str]) -> Generator[FactorRequest, Any, RecoveryUsed | RecoveryRefused]:
        """Spend *code*. Any text is answered; of parallel callers with one code, exactly one is :class:`RecoveryUsed`."""
        answer = yield from self._use(user, code.reveal())
        if isinstance(answer, RecoveryUsed):
            self._tell(EventKind.RECOVERY_CODE_USED, user, Outcome.ALLOWED, remaining=answer.remaining)
        else:
            self._tell(EventKind.SECOND_FACTOR, user, Outcome.DENIED, method="recovery", code=answer.why)
        return answer

    def remaining(self, *, user: UserId) -> Generator[FactorRequest, Any, int]:
        """How many codes are left."""
        return int((yield CountRecovery(user)))

    def _use(self, user: UserId, typed: str) -> Generator[FactorRequest, Any, RecoveryUsed | RecoveryRefused]:
        try:
            raw = crockford_decode(typed) if len(typed) <= _MAX_TYPED else b""
        except MalformedEncoding:
            raw = b""
        if len(raw) != CODE_BYTES:
            return RecoveryRefused("malformed")
        # No cap on attempts: 120 bits are not guessed, and these codes are the way out when the TOTP factor is locked.
        if not (yield ConsumeRecovery(user, self._digests.candidates(*_parts(user, raw)))):
            return RecoveryRefused("unknown")
        return RecoveryUsed(int((yield CountRecovery(user))))

    def _tell(self, kind: EventKind, user: UserId, outcome: Outcome, **detail: Scalar) -> None:
        self._events.emit(AuditEvent(kind=kind, at=self._clock.now(), outcome=outcome, user=user, detail={"account": user.text, **detail}))


def _grouped(text: str) -> str:
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


def _parts(user: UserId, code: bytes) -> tuple[bytes, ...]:
    return _LABEL, user.key_type.value.encode("ascii"), user.text.encode("ascii"), code

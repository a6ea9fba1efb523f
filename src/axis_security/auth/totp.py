"""TOTP (RFC 6238): enrol, confirm, verify. Every code works once.

Flows are sans-I/O: they yield requests to a factor store (:mod:`axis_security.auth.factors` lists them) and are run by ``drive`` or
``adrive`` of :mod:`axis_security.core.flow`. A matching code is worth nothing until its time step has been claimed by one conditional
statement, which succeeds only for a step above the last one claimed (RFC 6238 section 5.2; ASVS 6.5.1). That holds for the code that
confirms the enrolment too, and for parallel requests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

import pyotp

from axis_security.auth.factors import (
    BeginEnrolment,
    ClaimStep,
    ConfirmEnrolment,
    FactorRequest,
    LoadTotp,
    ReauthProof,
    RemoveFactors,
    ReserveCodeAttempt,
    TotpRecord,
)
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.encoding import length_prefixed
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome, Scalar
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret

__all__ = ["CodeAccepted", "CodeRefused", "Enrolment", "Sealer", "Totp", "TotpPolicy", "matching_step", "otpauth_uri"]

SECRET_BYTES: Final = 20
"""160 bits: the output size of HMAC-SHA-1, which RFC 4226 section 4 recommends."""
PERIOD_SECONDS: Final = 30
DIGITS: Final = 6

_CODE: Final = re.compile(r"[0-9]{6}", re.ASCII)
_MIN_PYOTP_BYTES: Final = 14


class Sealer(Protocol):
    """Encrypts a secret for one place; ``crypto`` supplies the envelope. *context* is bound: a seed moved to another user does not open."""

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt *plain*."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt *sealed*; raises an AxisError where it was not sealed under *context*."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TotpPolicy:
    """How codes are accepted.

    Args:
        issuer: the product's name, as the authenticator shows it.
        drift_steps: steps of 30 s before and after the present one whose code is accepted: 1 by default, 0 for the strict reading of
            ASVS 6.5.5. Each code still works once, and never after a later one.
        max_failures: wrong codes in a row before the factor is locked until another proof of identity, whatever addresses they come
            from (NIST SP 800-63B-4 section 3.2.2 allows at most 100; ASVS 6.6.3).

    Raises:
        ConfigError: a value outside those limits.
    """

    issuer: str
    drift_steps: int = 1
    max_failures: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.drift_steps <= 2 or not 1 <= self.max_failures <= 100:
            raise ConfigError(
                what="unusable TOTP policy",
                why=f"drift_steps={self.drift_steps}, max_failures={self.max_failures}",
                fix="0..2 steps and 1..100 failures",
            )
        if not self.issuer or len(self.issuer) > 64 or ":" in self.issuer or not self.issuer.isprintable():
            raise ConfigError(
                what="unusable TOTP issuer", why="it must be 1 to 64 printable characters without a colon", fix="pass the product's name"
            )


@dataclass(frozen=True, slots=True)
class CodeAccepted:
    """The code is right, and now spent."""

    step: int


@dataclass(frozen=True, slots=True)
class CodeRefused:
    """The code is not accepted. ``why`` is for logs and branches: ``malformed``, ``mismatch``, ``replayed``, ``locked``, ``not_enrolled``."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What a person needs to set up an authenticator. Show it once; it is not stored in this form."""

    secret_base32: Secret[str]
    uri: Secret[str]

    def svg(self, *, scale: int = 4) -> Secret[str]:
        """The URI as a QR code in SVG.

        Raises:
            MissingExtra: the extra ``qr`` is not installed.
        """
        from axis_security.auth.qr import qr_svg  # segno is an optional extra

        return qr_svg(self.uri, scale=scale)


def otpauth_uri(*, secret: Secret[bytes], issuer: str, account: str) -> Secret[str]:
    """The key URI that authenticators read: SHA-1, 6 digits, 30 s, which all of them support."""
    label = f"{quote(issuer, safe='')}:{quote(account, safe='@')}"
    return Secret(
        f"otpauth://totp/{label}?secret={_base32(secret)}&issuer={quote(issuer, safe='')}&algorithm=SHA1&digits={DIGITS}&period={PERIOD_SECONDS}"
    )


def _base32(secret: Secret[bytes]) -> str:
    return base64.b32encode(secret.reveal()).decode("ascii").rstrip("=")


def matching_step(*, secret: Secret[bytes], code: str, unix_seconds: float, drift_steps: int) -> int | None:
    """The time step within the window whose code is *code*, or ``None``. Any text is a valid question."""
    # Before pyotp sees it: it compares any text, and raises on lone surrogates.
    if not isinstance(code, str) or _CODE.fullmatch(code) is None:
        return None
    now = int(unix_seconds) // PERIOD_SECONDS
    key, found = secret.reveal(), None
    for step in range(max(0, now - drift_steps), now + drift_steps + 1):
        if hmac.compare_digest(_code_at(key, step), code) and found is None:
            found = step
    return found


def _code_at(key: bytes, step: int) -> str:
    if len(key) >= _MIN_PYOTP_BYTES:
        return pyotp.TOTP(_base32(Secret(key)), digits=DIGITS, interval=PERIOD_SECONDS).generate_otp(step)
    # Imported 80-bit secrets, which pyotp refuses: RFC 4226 section 5.3 by hand.
    digest = hmac.new(key, step.to_bytes(8, "big"), hashlib.sha1).digest()
    offset = digest[-1] & 15
    return f"{(int.from_bytes(digest[offset : offset + 4], 'big') & 0x7FFFFFFF) % 10**DIGITS:0{DIGITS}d}"


class Totp:
    """The flows of a TOTP factor. Run them with ``drive(totp.verify(…), store.perform)`` or ``adrive``.

    Args:
        policy: how codes are accepted.
        sealer: seals seeds at rest (ASVS 13.3.1 names TOTP seeds).
        events: takes the audit events.
        clock: tells the time; always the server's (ASVS 6.5.8).
        entropy: random bytes.
    """

    def __init__(
        self,
        *,
        policy: TotpPolicy,
        sealer: Sealer,
        events: EventSink,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.policy: Final = policy
        self._sealer: Final = sealer
        self._events: Final = events
        self._clock: Final = clock
        self._entropy: Final = entropy

    def enrol(self, *, user: UserId, account: str, proof: ReauthProof) -> Generator[FactorRequest, Any, Enrolment]:
        """Make a seed and keep it, sealed, as pending. It protects nothing until :meth:`confirm`; an earlier pending seed is replaced, and
        wrong codes so far are forgiven: the proof says who it is.

        Args:
            user: whose factor.
            account: the name that the authenticator shows, such as the e-mail address.
            proof: that this person has just signed in again (ASVS 7.5.1).

        Raises:
            ProofRefused: the proof is of someone else, or old.
        """
        proof.check(user=user, now=self._clock.now())
        secret = Secret(self._entropy(SECRET_BYTES))
        yield BeginEnrolment(user, self._sealer.seal(secret.reveal(), _context(user)))
        return Enrolment(secret_base32=Secret(_base32(secret)), uri=otpauth_uri(secret=secret, issuer=self.policy.issuer, account=account))

    def confirm(self, *, user: UserId, code: str) -> Generator[FactorRequest, Any, CodeAccepted | CodeRefused]:
        """Turn the pending seed into the factor, if *code* is right. The code is spent: it does not sign in afterwards."""
        answer = yield from self._check(user=user, code=code, pending=True)
        self._tell(EventKind.TOTP_ENROLLED, user, isinstance(answer, CodeAccepted))
        return answer

    def verify(self, *, user: UserId, code: str) -> Generator[FactorRequest, Any, CodeAccepted | CodeRefused]:
        """Check a second factor at login or step-up, and spend the code."""
        answer = yield from self._check(user=user, code=code, pending=False)
        why = "accepted" if isinstance(answer, CodeAccepted) else answer.why
        self._tell(EventKind.SECOND_FACTOR, user, isinstance(answer, CodeAccepted), method="totp", code=why)
        return answer

    def disable(self, *, user: UserId, proof: ReauthProof, by: str = "self") -> Generator[FactorRequest, Any, bool]:
        """Remove the seed and every recovery code of *user*; returns whether there was a factor.

        Args:
            user: whose factor.
            proof: fresh re-authentication by that person; a recovery code is one way to give it when the authenticator is lost.
            by: who, for the audit log.

        Raises:
            ProofRefused: the proof is of someone else, or old.
        """
        proof.check(user=user, now=self._clock.now())
        removed = bool((yield RemoveFactors(user)))
        self._tell(EventKind.TOTP_DISABLED, user, removed, by=by)
        return removed

    def _check(self, *, user: UserId, code: str, pending: bool) -> Generator[FactorRequest, Any, CodeAccepted | CodeRefused]:
        if not isinstance(code, str) or _CODE.fullmatch(code) is None:
            return CodeRefused("malformed")
        record: TotpRecord | None = yield LoadTotp(user, pending)
        if record is None:
            return CodeRefused("not_enrolled")
        # Opened before it is counted: while the key service is away nobody guesses, and nobody may be locked out by trying.
        secret = Secret(self._sealer.open(record.sealed, _context(user)))
        # Counted before the comparison, so that parallel guesses cannot share one attempt; a success sets the count to zero.
        if not (yield ReserveCodeAttempt(user, self.policy.max_failures)):
            return CodeRefused("locked")
        step = matching_step(secret=secret, code=code, unix_seconds=self._clock.now().timestamp(), drift_steps=self.policy.drift_steps)
        if step is None:
            return CodeRefused("mismatch")
        claimed = yield ConfirmEnrolment(user, record.sealed, step) if pending else ClaimStep(user, step)
        return CodeAccepted(step) if claimed else CodeRefused("replayed")

    def _tell(self, kind: EventKind, user: UserId, ok: bool, **detail: Scalar) -> None:
        outcome = Outcome.ALLOWED if ok else Outcome.DENIED
        self._events.emit(AuditEvent(kind=kind, at=self._clock.now(), outcome=outcome, user=user, detail={"account": user.text, **detail}))


def _context(user: UserId) -> bytes:
    return length_prefixed(b"axis-security/totp/v1", user.key_type.value.encode("ascii"), user.text.encode("ascii"))

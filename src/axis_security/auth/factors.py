"""What the second-factor flows ask of a store: a closed list of requests, each one atomic statement whose answer is the row count.

A store of :mod:`axis_security.auth.ports` answers them too. The flows never check and then write: the claim of a step, the use of a recovery code
and the reservation of an attempt are each one conditional statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from axis_security.auth.ports import Op
from axis_security.core.errors import Denied
from axis_security.core.ids import UserId

__all__ = [
    "BeginEnrolment",
    "ClaimStep",
    "ConfirmEnrolment",
    "ConsumeRecovery",
    "CountRecovery",
    "FactorRequest",
    "LoadTotp",
    "ProofRefused",
    "ReauthProof",
    "RemoveFactors",
    "ReplaceRecovery",
    "ReserveCodeAttempt",
    "TotpRecord",
]


@dataclass(frozen=True, slots=True)
class TotpRecord:
    """A sealed seed. Answer of :class:`LoadTotp`."""

    sealed: bytes


@dataclass(frozen=True, slots=True)
class BeginEnrolment(Op[bool]):
    """Keep *sealed* as the user's pending seed, in place of an earlier pending one; the confirmed one stays. Sets failures to zero.
    Answer: ``True``."""

    user: UserId
    sealed: bytes


@dataclass(frozen=True, slots=True)
class LoadTotp(Op["TotpRecord | None"]):
    """The user's pending or confirmed seed. Answer: :class:`TotpRecord` or ``None``."""

    user: UserId
    pending: bool


@dataclass(frozen=True, slots=True)
class ReserveCodeAttempt(Op[bool]):
    """Add one to the user's failures if they are below *limit*. Answer: whether that was so."""

    user: UserId
    limit: int


@dataclass(frozen=True, slots=True)
class ConfirmEnrolment(Op[bool]):
    """If the pending seed still is *sealed*: make it the confirmed one, with *step* as last step and no failures. Answer: whether it was."""

    user: UserId
    sealed: bytes
    step: int


@dataclass(frozen=True, slots=True)
class ClaimStep(Op[bool]):
    """If the last claimed step is below *step*: make it *step*, and set failures to zero. Answer: whether this caller did."""

    user: UserId
    step: int


@dataclass(frozen=True, slots=True)
class RemoveFactors(Op[bool]):
    """Delete the user's seeds, failures and recovery codes. Answer: whether there was any."""

    user: UserId


@dataclass(frozen=True, slots=True)
class ReplaceRecovery(Op[bool]):
    """Delete the user's recovery digests and keep *digests* in their place, in one transaction. Answer: ``True``."""

    user: UserId
    digests: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class ConsumeRecovery(Op[bool]):
    """Delete the user's digest that is among *candidates* (one for each digest key) and set failures to zero. Answer: whether this caller did."""

    user: UserId
    candidates: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class CountRecovery(Op[int]):
    """How many recovery digests the user has left. Answer: an int."""

    user: UserId


FactorRequest = (
    BeginEnrolment
    | LoadTotp
    | ReserveCodeAttempt
    | ConfirmEnrolment
    | ClaimStep
    | RemoveFactors
    | ReplaceRecovery
    | ConsumeRecovery
    | CountRecovery
)
"""Every operation on a second factor that a store must carry out."""


class ProofRefused(Denied):
    """A proof of re-authentication is of another person, or too old."""

    code = "auth.proof_refused"
    public_text = "Please confirm your password again."

    def __init__(self, why: str) -> None:
        super().__init__(what="re-authentication needed", why=why, fix="ask for the password or another factor again, then retry")


@dataclass(frozen=True, slots=True)
class ReauthProof:
    """Says that *user* has proved who they are at *at*. Made by the login machine on step-up; nothing else should make one.

    Raises:
        ValueError: a naive time.
    """

    user: UserId
    at: datetime

    LASTS: ClassVar[timedelta] = timedelta(minutes=5)

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("a proof's time must have a zone")

    def check(self, *, user: UserId, now: datetime) -> None:
        """Refuse unless this proof is of *user* and at most five minutes old.

        Raises:
            ProofRefused: it is not.
        """
        if self.user != user:
            raise ProofRefused("the proof is of another account")
        if not timedelta(0) <= now - self.at <= self.LASTS:
            raise ProofRefused("the proof is older than five minutes")

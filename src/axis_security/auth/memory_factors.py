"""The second factors of the store in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from axis_security.auth import factors as f
from axis_security.auth.vault import account_key
from axis_security.core.ids import UserId

__all__ = ["FactorRow", "MemoryLedger"]


@dataclass(slots=True)
class FactorRow:
    """Seeds and recovery digests."""

    pending: bytes | None = None
    sealed: bytes | None = None
    step: int = -1
    failures: int = 0
    recovery: set[tuple[str, bytes]] = field(default_factory=set)


class MemoryLedger:
    """What the store in memory keeps of factors, and a method for each of their requests."""

    def __init__(self) -> None:
        self._factors: dict[str, FactorRow] = {}

    def _factor(self, user: UserId) -> FactorRow:
        return self._factors.setdefault(account_key(user), FactorRow())

    def _begin_enrolment(self, r: f.BeginEnrolment) -> bool:
        row = self._factor(r.user)
        row.pending, row.failures = r.sealed, 0
        return True

    def _load_totp(self, r: f.LoadTotp) -> f.TotpRecord | None:
        row = self._factor(r.user)
        sealed = row.pending if r.pending else row.sealed
        return None if sealed is None else f.TotpRecord(sealed)

    def _reserve_code_attempt(self, r: f.ReserveCodeAttempt) -> bool:
        row = self._factor(r.user)
        if (row.sealed is None and row.pending is None) or row.failures >= r.limit:
            return False
        row.failures += 1
        return True

    def _confirm_enrolment(self, r: f.ConfirmEnrolment) -> bool:
        row = self._factor(r.user)
        if row.pending is None or row.pending != r.sealed:
            return False
        row.sealed, row.pending, row.step, row.failures = row.pending, None, r.step, 0
        return True

    def _claim_step(self, r: f.ClaimStep) -> bool:
        row = self._factor(r.user)
        if row.sealed is None or row.step >= r.step:
            return False
        row.step, row.failures = r.step, 0
        return True

    def _remove_factors(self, r: f.RemoveFactors) -> bool:
        row = self._factors.pop(account_key(r.user), FactorRow())
        return row.sealed is not None or row.pending is not None or bool(row.recovery)

    def _replace_recovery(self, r: f.ReplaceRecovery) -> bool:
        self._factor(r.user).recovery = set(r.digests)
        return True

    def _consume_recovery(self, r: f.ConsumeRecovery) -> bool:
        row = self._factor(r.user)
        found = row.recovery.intersection(r.candidates)
        if not found:
            return False
        row.recovery -= found
        row.failures = 0
        return True

    def _count_recovery(self, r: f.CountRecovery) -> int:
        return len(self._factor(r.user).recovery)

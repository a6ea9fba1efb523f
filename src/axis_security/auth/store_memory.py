"""A store in memory, for tests: the same contract as the vault, gone with the process, and refused anywhere but in tests."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from axis_security.auth.factors import (
    BeginEnrolment,
    ClaimStep,
    ConfirmEnrolment,
    ConsumeRecovery,
    CountRecovery,
    LoadTotp,
    RemoveFactors,
    ReplaceRecovery,
    ReserveCodeAttempt,
    TotpRecord,
)
from axis_security.auth.vault import account_key
from axis_security.core.errors import ConfigError
from axis_security.core.settings import Environment

__all__ = ["MemoryVault"]


@dataclass(slots=True)
class _Factors:
    pending: bytes | None = None
    sealed: bytes | None = None
    step: int = -1
    failures: int = 0
    recovery: set[tuple[str, bytes]] = field(default_factory=set)


class MemoryVault:
    """Answers every request from dicts, one at a time.

    Args:
        environment: where this runs; anything but ``Environment.TEST`` is refused.

    Raises:
        ConfigError: not a test: sessions would end with each deployment, and two processes would not know each other's.
    """

    def __init__(self, *, environment: Environment) -> None:
        if environment is not Environment.TEST:
            raise ConfigError(
                what="the store in memory is for tests only",
                why=f"the environment is `{environment.value}`; nothing here survives the process or is shared with another",
                fix="use PostgresVault",
            )
        self._factors: dict[str, _Factors] = {}
        self._lock = threading.Lock()

    def perform(self, request: Any) -> Any:
        """Carry out *request* and return its answer.

        Raises:
            ConfigError: not a request of the vault.
        """
        with self._lock:
            return self._factor(request, self._factors.setdefault(account_key(request.user), _Factors()))

    async def aperform(self, request: Any) -> Any:
        """:meth:`perform` for ``adrive``."""
        return self.perform(request)

    def _factor(self, request: Any, account: _Factors) -> Any:
        match request:
            case BeginEnrolment():
                account.pending = request.sealed
                return True
            case LoadTotp():
                sealed = account.pending if request.pending else account.sealed
                return None if sealed is None else TotpRecord(sealed)
            case ReserveCodeAttempt():
                if (account.sealed is None and account.pending is None) or account.failures >= request.limit:
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
            case _:
                raise ConfigError(
                    what="a request that the vault does not know",
                    why=type(request).__name__,
                    fix="pass it to the store that it was made for",
                )

"""Is this the account's password? One body for login, step-up and password change, so that all of them do the same work.

The store gives out settings and salt; the digest is computed here, once, and compared in the store. For an unknown or locked account, or one without
a password, the same KDF runs and the same comparison is asked for. A password that none can have (empty, too long) is refused before any work,
whatever the account.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from axis_security.auth.passwords import Derived, PasswordRefused, Refusal
from axis_security.auth.ports import Account, CheckPassword, LoadSettings, PasswordChecked, Rehash, StoredHash
from axis_security.auth.work import DerivePassword, RenewPassword
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret

__all__ = ["PasswordRight", "PasswordWrong", "check_password"]

_NO_WORK: Final = frozenset({Refusal.EMPTY, Refusal.TOO_LONG, Refusal.NOT_TEXT})


@dataclass(frozen=True, slots=True)
class PasswordRight:
    """It is. ``stored`` is what the store has now."""

    account: Account
    stored: StoredHash


@dataclass(frozen=True, slots=True)
class PasswordWrong:
    """It is not; ``why`` is ``mismatch`` or ``locked``."""

    why: str


def check_password(
    *, account: UserId | str, password: Secret[str], max_failures: int, rehashed: Callable[[Account, str], None] | None = None
) -> Generator[Any, Any, PasswordRight | PasswordWrong]:
    """Check *password*; where it is right and its hash has aged, keep a better one.

    Args:
        account: a normalised identifier or a decoy, or a user.
        password: as typed.
        max_failures: failures in a row after which nothing is compared.
        rehashed: called with the account and the old scheme after a better hash was kept.
    """
    for _ in range(2):  # once more where the hash was replaced between the two store operations
        settings: str | None = yield LoadSettings(account)
        derived: Derived | PasswordRefused = yield DerivePassword(password, settings)
        if isinstance(derived, PasswordRefused) and derived.refusal in _NO_WORK:
            return PasswordWrong("mismatch")
        digest = None if isinstance(derived, PasswordRefused) else derived.digest.reveal()
        checked: PasswordChecked = yield CheckPassword(account=account, settings=settings, digest=digest, max_failures=max_failures)
        if checked.verdict != "stale":
            break
    if checked.verdict != "match" or checked.account is None or settings is None or digest is None or isinstance(derived, PasswordRefused):
        return PasswordWrong("locked" if checked.verdict == "locked" else "mismatch")
    stored = StoredHash(settings, digest)
    better: StoredHash | None = (yield RenewPassword(password, derived)) if derived.stale else None
    if better is not None:
        kept: PasswordChecked = yield Rehash(user=checked.account.user, old=stored, new=better, max_failures=max_failures)
        if kept.verdict == "match":
            stored = better
            if rehashed is not None:
                rehashed(checked.account, derived.scheme)
    return PasswordRight(checked.account, stored)

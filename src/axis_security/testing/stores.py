"""What every store of authentication must do, as cases that a host can run against its own.

Each case takes ``perform`` (the store's method) and raises :class:`NotConforming` where the store breaks its contract::

    @pytest.mark.parametrize("case", FACTOR_CASES, ids=lambda case: case.__name__)
    def test_my_store_conforms(case):
        case(MyStore().perform)

Cases use accounts of their own, so that one store can serve them all. :func:`race` lets fifty callers try the same thing at one time.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

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
from axis_security.core.errors import AxisError
from axis_security.core.ids import UserId

__all__ = ["CALLERS", "FACTOR_CASES", "FACTOR_RACES", "Case", "NotConforming", "Perform", "race"]

Perform = Callable[[Any], Any]
"""Carries one operation out on the store under test."""
Case = Callable[[Perform], None]
"""One thing that a store must do; raises :class:`NotConforming` where it does not."""
CALLERS: Final = 50
"""How many callers a race has."""


class NotConforming(AxisError):
    """A store broke its contract."""

    code = "testing.not_conforming"

    def __init__(self, why: str) -> None:
        super().__init__(
            what="the store breaks its contract", why=why, fix="make each request one atomic operation whose row count is the answer"
        )


def expect(seen: object, wanted: object, why: str) -> None:
    """Compare, and say what was promised."""
    if seen != wanted:
        raise NotConforming(f"{why}: expected {wanted!r}, got {seen!r}")


def race(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run *calls* at one time, one thread each, released together; returns their answers. An exception of one is raised."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        gate.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(run, call) for call in calls]]


def one_winner(perform: Perform, requests: Sequence[Any], *, why: str) -> None:
    """All of *requests* at once; exactly one gets an answer that is true."""
    answers = race([lambda request=request: perform(request) for request in requests])  # type: ignore[misc]
    expect(sum(bool(answer) for answer in answers), 1, why)


def account() -> UserId:
    """A user that no other case uses."""
    return UserId("u" + secrets.token_hex(8))


def sealed() -> bytes:
    """Stands for a sealed seed."""
    return secrets.token_bytes(70)


def codes(count: int) -> tuple[tuple[str, bytes], ...]:
    """Stand for recovery digests."""
    return tuple(("k1", secrets.token_bytes(32)) for _ in range(count))


def enrolled(perform: Perform, *, step: int = 100) -> UserId:
    """An account with a confirmed factor."""
    user, seed = account(), sealed()
    perform(BeginEnrolment(user, seed))
    expect(perform(ConfirmEnrolment(user, seed, step)), True, "a pending seed can be confirmed")
    return user


def enrolment_replaces_only_the_pending_seed(perform: Perform) -> None:
    """A new enrolment replaces a pending one and leaves the confirmed one; what was confirmed is what was checked."""
    user, first, second = account(), sealed(), sealed()
    expect(perform(LoadTotp(user, pending=True)), None, "an unknown account has no pending seed")
    expect(perform(LoadTotp(user, pending=False)), None, "an unknown account has no seed")
    expect(perform(BeginEnrolment(user, first)), True, "enrolment begins")
    expect(perform(LoadTotp(user, pending=False)), None, "a pending seed protects nothing")
    expect(perform(BeginEnrolment(user, second)), True, "enrolment begins again")
    expect(perform(ConfirmEnrolment(user, first, 5)), False, "a replaced seed is not confirmed")
    expect(perform(ConfirmEnrolment(user, second, 5)), True, "the pending seed is confirmed")
    expect(perform(ConfirmEnrolment(user, second, 6)), False, "and only once")
    expect(perform(LoadTotp(user, pending=False)), TotpRecord(second), "the confirmed seed is what was pending")
    third = sealed()
    perform(BeginEnrolment(user, third))
    expect(perform(LoadTotp(user, pending=False)), TotpRecord(second), "a pending seed leaves the confirmed one")
    expect(perform(LoadTotp(user, pending=True)), TotpRecord(third), "and stands beside it")


def a_step_is_claimed_once_and_only_upwards(perform: Perform) -> None:
    """The enrolment's step is spent; each step wins once; an older one never."""
    user = enrolled(perform, step=100)
    expect(perform(ClaimStep(user, 100)), False, "the enrolment code is spent")
    expect(perform(ClaimStep(user, 102)), True, "a later step is claimed")
    expect(perform(ClaimStep(user, 102)), False, "once")
    expect(perform(ClaimStep(user, 101)), False, "and none before it afterwards")
    expect(perform(ClaimStep(account(), 1)), False, "an account without a factor claims nothing")


def attempts_are_counted_and_forgiven(perform: Perform) -> None:
    """Attempts stop at the limit; a claimed step, a used recovery code and a new enrolment set them to zero."""
    user = enrolled(perform)
    tries = [perform(ReserveCodeAttempt(user, 3)) for _ in range(5)]
    expect(tries, [True, True, True, False, False], "attempts stop at the limit")
    expect(perform(ClaimStep(user, 200)), True, "a right code in an attempt reserved before still counts")
    expect(perform(ReserveCodeAttempt(user, 1)), True, "a claimed step forgives")
    left = codes(2)
    perform(ReplaceRecovery(user, left))
    expect(perform(ReserveCodeAttempt(user, 1)), False, "at the limit again")
    expect(perform(ConsumeRecovery(user, left[:1])), True, "a recovery code is used")
    expect(perform(ReserveCodeAttempt(user, 1)), True, "a used recovery code forgives")
    expect(perform(ReserveCodeAttempt(user, 1)), False, "at the limit once more")
    perform(BeginEnrolment(user, sealed()))
    expect(perform(ReserveCodeAttempt(user, 1)), True, "a new enrolment forgives")
    expect(perform(ReserveCodeAttempt(account(), 3)), False, "an account without a factor has no attempts")


def recovery_codes_work_once_for_their_owner(perform: Perform) -> None:
    """One code, one use, one account; a new set ends the old one."""
    user, other = account(), account()
    old, new = codes(10), codes(10)
    expect(perform(ConsumeRecovery(user, old)), False, "no codes were issued")
    expect(perform(ReplaceRecovery(user, old)), True, "codes are kept")
    expect(perform(ReplaceRecovery(user, new)), True, "and replaced")
    expect(perform(CountRecovery(user)), 10, "only the new ones are left")
    expect(perform(ConsumeRecovery(user, old[:1])), False, "an old code is dead")
    expect(perform(ConsumeRecovery(other, new[:1])), False, "another account cannot use it")
    expect(perform(ConsumeRecovery(user, ((("k2"), new[0][1]),))), False, "nor the digest under another key's name")
    expect(perform(ConsumeRecovery(user, (("k0", old[0][1]), new[0]))), True, "its owner can, whichever key it is under")
    expect(perform(ConsumeRecovery(user, new[:1])), False, "once")
    expect(perform(CountRecovery(user)), 9, "nine are left")


def removal_takes_everything(perform: Perform) -> None:
    """Seeds, failures and recovery codes go together; ids of different types are different accounts."""
    user, twin = UserId(secrets.randbelow(2**62)), None
    twin = UserId(str(user.value))
    seed = sealed()
    perform(BeginEnrolment(user, seed))
    perform(ConfirmEnrolment(user, seed, 7))
    perform(ReplaceRecovery(user, codes(3)))
    perform(ReplaceRecovery(twin, codes(1)))
    expect(perform(RemoveFactors(user)), True, "there was a factor")
    expect(perform(RemoveFactors(user)), False, "there is none now")
    expect(perform(LoadTotp(user, pending=False)), None, "the seed is gone")
    expect(perform(CountRecovery(user)), 0, "the codes are gone")
    expect(perform(CountRecovery(twin)), 1, "the text id of the same spelling kept its own")
    expect(perform(RemoveFactors(twin)), True, "codes alone are something to remove")


def one_caller_claims_a_step(perform: Perform) -> None:
    """Fifty callers with one code."""
    user = enrolled(perform)
    one_winner(perform, [ClaimStep(user, 101)] * CALLERS, why="one step, one winner")


def one_caller_confirms(perform: Perform) -> None:
    """Fifty callers with one enrolment code."""
    user, seed = account(), sealed()
    perform(BeginEnrolment(user, seed))
    one_winner(perform, [ConfirmEnrolment(user, seed, 9)] * CALLERS, why="one enrolment, one winner")


def one_caller_uses_a_recovery_code(perform: Perform) -> None:
    """Fifty callers with one recovery code."""
    user, kept = account(), codes(10)
    perform(ReplaceRecovery(user, kept))
    one_winner(perform, [ConsumeRecovery(user, (("k0", b"\0" * 32), kept[3]))] * CALLERS, why="one recovery code, one winner")
    expect(perform(CountRecovery(user)), 9, "one code is gone")


def attempts_are_exact_under_parallel_guessing(perform: Perform) -> None:
    """Fifty guesses at one time share the limit; none slips past it."""
    user = enrolled(perform)
    answers = race([lambda: perform(ReserveCodeAttempt(user, 5)) for _ in range(CALLERS)])
    expect(sum(answers), 5, "exactly the limit of attempts is given out")


def parallel_replacement_leaves_one_set(perform: Perform) -> None:
    """Codes issued twice at one time: one set of ten is left, never two."""
    user = account()
    race([lambda: perform(ReplaceRecovery(user, codes(10))) for _ in range(8)])
    expect(perform(CountRecovery(user)), 10, "one set is left")


FACTOR_CASES: Final = (
    enrolment_replaces_only_the_pending_seed,
    a_step_is_claimed_once_and_only_upwards,
    attempts_are_counted_and_forgiven,
    recovery_codes_work_once_for_their_owner,
    removal_takes_everything,
)
"""One caller at a time."""

FACTOR_RACES: Final = (
    one_caller_claims_a_step,
    one_caller_confirms,
    one_caller_uses_a_recovery_code,
    attempts_are_exact_under_parallel_guessing,
    parallel_replacement_leaves_one_set,
)
"""Many callers at one time: run each often."""

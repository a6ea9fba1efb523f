"""The contract of sessions, remember tokens and throttles, as cases. See :mod:`axis_security.testing.stores`."""

from __future__ import annotations

import secrets
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

from axis_security.auth import ports as p
from axis_security.auth import session_ports as s
from axis_security.core.principal import Assurance
from axis_security.testing.store_cases import START, at, digest, is_live, key, registered, resolve, start
from axis_security.testing.stores import CALLERS, Perform, account, expect, one_winner, race

__all__ = ["SESSION_CASES", "SESSION_RACES", "THROTTLE_CASES", "THROTTLE_RACES"]


# --- sessions


def a_session_lives_within_its_limits(perform: Perform) -> None:
    """Idle and absolute limits, both on; use moves the idle one only; unknown ids and other routes are nobody (no adoption)."""
    user = registered(perform)
    handle, made = start(perform, user, tenant="t1", client="Firefox\0" + "x" * 300, network="10.0.0.0/24")
    seen = resolve(perform, user, made)
    expect(
        (seen.handle, seen.user, seen.tenant, seen.assurance, seen.methods),
        (handle, user, "t1", Assurance.AAL1, ("password",)),
        "as started",
    )
    expect((seen.started_at, seen.auth_time, seen.ends_at, seen.superseded), (START, START, at(12 * 3600), False), "with its times")
    expect(len(seen.client) <= 200, True, "with its client cut")
    expect(resolve(perform, user, digest()), None, "an unknown id is nobody")
    expect(resolve(perform, registered(perform), made), None, "as is an id with another's route")
    expect(is_live(perform, user, made, 1800), False, "idle for too long")
    for seconds in (*range(1799, 12 * 3600 - 1, 1799), 12 * 3600 - 1):
        expect(is_live(perform, user, made, seconds), True, f"used in time, at {seconds} s")
    expect(is_live(perform, user, made, 12 * 3600), False, "over at its absolute end")


def rotation_has_a_grace_and_then_a_verdict(perform: Perform) -> None:
    """The new id is good; the old one is superseded for the grace, and after it proves theft and ends the session."""
    user = registered(perform)
    handle, old = start(perform, user)
    new = digest()
    rotated = perform(
        s.RotateSession(
            key=key(user, old), digest=new, now=at(10), assurance=Assurance.AAL2, methods=("password", "totp"), auth_time=at(10)
        )
    )
    expect((rotated.handle, rotated.assurance, rotated.auth_time, rotated.superseded), (handle, Assurance.AAL2, at(10), False), "rotated")
    expect(perform(s.RotateSession(key=key(user, old), digest=digest(), now=at(11))), None, "an old id rotates nothing")
    expect(resolve(perform, user, old, 15).superseded, True, "the old id answers within the grace, as superseded")
    expect(resolve(perform, user, new, 15).superseded, False, "the new one as current")
    moved = digest()
    expect(
        perform(s.RotateSession(key=key(user, new), digest=moved, now=at(16), switch_tenant=True, tenant="t9")).tenant, "t9", "a workspace"
    )
    expect(resolve(perform, user, moved, 17).assurance, Assurance.AAL2, "what is not named is kept")
    expect(resolve(perform, user, old, 20), s.ReusedSession(handle, user), "after the grace an old id is reuse")
    expect(is_live(perform, user, moved, 21), False, "which ends the session")


def ending_ends(perform: Perform) -> None:
    """Sign-out kills the server's state for every id of the session (ASVS 7.4.1), and the remember token given with it."""
    user = registered(perform)
    handle, old = start(perform, user)
    new, remember = digest(), digest()
    perform(s.RotateSession(key=key(user, old), digest=new, now=at(1)))
    perform(s.IssueRemember(user=user, handle=handle, digest=remember, epoch=0, now=START, lasting=timedelta(days=14)))
    expect(perform(s.EndSession(key(user, old))), s.EndedSession(handle, user), "the old id signs out as well")
    expect([resolve(perform, user, i, 2) for i in (old, new)], [None, None], "all ids are dead")
    expect(perform(s.EndSession(key(user, new))), None, "once")
    expect(perform(s.UseRemember(candidates=(remember,), digest=digest(), handle=uuid4(), now=at(2))), None, "so is the remember token")


def revocation_reaches_one_others_and_all(perform: Perform) -> None:
    """One by its handle, all but one, all; never another person's."""
    user, other = registered(perform), registered(perform)
    made = [start(perform, user, seconds=n) for n in range(4)]
    theirs, their_id = start(perform, other)
    listed = perform(s.ListSessions(user, at(5)))
    expect([one.handle for one in listed], [handle for handle, _ in reversed(made)], "the list names each, the last used first")
    expect(perform(s.RevokeSessions(user=user, handle=theirs)), 0, "another's handle is nothing")
    expect(perform(s.RevokeSessions(user=user, handle=made[0][0])), 1, "one is revoked")
    expect(perform(s.RevokeSessions(user=user, keep=made[1][0])), 2, "the others are")
    expect([is_live(perform, user, i, 6) for _, i in made], [False, True, False, False], "and the kept one lives")
    expect(perform(s.RevokeSessions(user=user)), 1, "all are")
    expect(perform(s.ListSessions(user, at(6))), (), "none is left")
    expect(is_live(perform, other, their_id), True, "another person's session lives")


def too_many_sessions_end_the_oldest(perform: Perform) -> None:
    """A cap on sessions ends the longest unused; a new login ends the id that the browser presented."""
    user = registered(perform)
    made = [start(perform, user, seconds=n, max_live=3)[1] for n in range(5)]
    expect([is_live(perform, user, i, 6) for i in made], [False, False, True, True, True], "three are left")
    _, fresh = start(perform, user, seconds=7, ends=key(user, made[4]))
    expect([is_live(perform, user, i, 8) for i in (made[4], fresh)], [False, True], "the presented one is ended")


def accounts_end_their_sessions(perform: Perform) -> None:
    """Disabling, signing out everywhere and deleting end every session at once (ASVS 7.4.2)."""
    for act in (lambda user: p.SetActive(user, False), p.BumpEpoch, p.DeleteAccount):
        user = registered(perform)
        _, made = start(perform, user)
        perform(act(user))
        expect(resolve(perform, user, made), None, "the session is over")
    expect(perform(p.BumpEpoch(account())), None, "nobody has no epoch")


def remember_tokens_are_spent_one_by_one(perform: Perform) -> None:
    """A line of single-use tokens: used, raced, reused; dead at the server's deadline and after sign-out everywhere (CVE-2015-8314's class)."""
    user = registered(perform)
    handle, first, second = uuid4(), digest(), digest()
    give: dict[str, Any] = {"user": user, "handle": handle, "now": START, "lasting": timedelta(days=14)}
    expect(perform(s.IssueRemember(digest=first, epoch=0, **give)), True, "a token is issued")
    expect(perform(s.IssueRemember(digest=digest(), epoch=1, **give)), False, "in this epoch only")

    def use(spent: p.Digest, following: p.Digest, seconds: float) -> Any:
        answer = perform(s.UseRemember(candidates=(spent,), digest=following, handle=handle, now=at(seconds)))
        return None if answer is None else (answer.verdict, answer.user)

    expect(use(first, second, 100), ("live", user), "it is used")
    expect(use(first, digest(), 105), ("raced", user), "again at once: a race")
    third = digest()
    expect(use(second, third, 200), ("live", user), "the next is used")
    expect(use(first, digest(), 300), ("reused", user), "again later: theft")
    expect(use(third, digest(), 301), None, "which voids the line")
    late, gone, ended = digest(), digest(), digest()
    perform(s.IssueRemember(digest=late, epoch=0, **give))
    expect(use(late, digest(), 14 * 86400), None, "over at the deadline")
    perform(s.IssueRemember(digest=ended, epoch=0, **give))
    expect([perform(s.EndRemember((ended,))) for _ in "12"], [True, False], "a token can be ended")
    perform(s.IssueRemember(digest=gone, epoch=0, **give))
    perform(s.RevokeSessions(user=user))
    expect(use(gone, digest(), 400), None, "signing out everywhere voids it")


def remember_tokens_outlive_a_session_that_is_over_and_not_one_that_was_ended(perform: Perform) -> None:
    """A token is there for when its session has run out, whatever else the person does meanwhile; ended by another's login in the same
    browser, or by name, the session takes it along."""
    user, other = registered(perform), registered(perform)

    def remembered(handle: Any) -> p.Digest:
        made = digest()
        perform(s.IssueRemember(user=user, handle=handle, digest=made, epoch=0, now=START, lasting=timedelta(days=14)))
        return made

    def is_good(made: p.Digest, seconds: float) -> bool:
        return perform(s.UseRemember(candidates=(made,), digest=digest(), handle=uuid4(), now=at(seconds))) is not None

    over, named, displaced = start(perform, user), start(perform, user), start(perform, user)
    tokens = [remembered(handle) for handle, _ in (over, named, displaced)]
    start(perform, other, seconds=5, ends=key(user, displaced[1]))
    expect(is_good(tokens[2], 6), False, "another's login in the same browser takes the token with the session")
    start(perform, user, seconds=7200)
    perform(s.RevokeSessions(user=user, handle=named[0]))
    expect(is_good(tokens[1], 7201), False, "a revoked handle takes its token along, also where the session is over")
    expect(is_good(tokens[0], 7201), True, "a session that ran out leaves its token")


# --- throttle


def budget(limit: int = 5, seconds: int = 60) -> p.Budget:
    """A budget of its own."""
    return p.Budget(secrets.token_bytes(16), limit, timedelta(seconds=seconds))


def a_budget_is_exact(perform: Perform) -> None:
    """The limit at once, the rest in time; all budgets or none; refunds give back, never more than was taken."""
    for limit in (1, 3, 5, 6, 7, 100):
        one = budget(limit)
        answers = [perform(p.Reserve((one,), START)).allowed for _ in range(limit + 2)]
        expect(answers, [True] * limit + [False] * 2, f"exactly {limit} at once")
        refused = perform(p.Reserve((one,), START))
        expect(abs(refused.retry_after - one.interval) < one.interval / 50 + 0.001, True, "and says when to come again")
        expect(refused.key, one.key, "and which budget ran out")
        expect(perform(p.Reserve((one,), at(one.interval + 0.001))).allowed, True, "then one more")
    wide, narrow = budget(10), budget(1)
    expect(perform(p.Reserve((wide, narrow), START)).allowed, True, "both have room")
    expect([perform(p.Reserve((wide, narrow), START)).key for _ in range(20)], [narrow.key] * 20, "one has none")
    expect([perform(p.Reserve((wide,), START)).allowed for _ in range(10)], [True] * 9 + [False], "the other lost nothing by it")
    perform(p.RefundThrottle((wide,), START))
    expect([perform(p.Reserve((wide,), START)).allowed for _ in "12"], [True, False], "a refund gives one back")
    full = budget(2)
    for _ in range(5):
        perform(p.RefundThrottle((full,), START))
    expect([perform(p.Reserve((full,), START)).allowed for _ in "123"], [True, True, False], "never more than was taken")
    perform(p.ResetThrottle((full.key,)))
    expect(perform(p.Reserve((full,), START)).allowed, True, "a reset forgets")


# --- many at one time


def one_caller_rotates_a_session(perform: Perform) -> None:
    """Fifty callers with one id; the winner's new id is the one that lives."""
    user = registered(perform)
    _, old = start(perform, user)
    ids = [digest() for _ in range(CALLERS)]
    one_winner(perform, [s.RotateSession(key=key(user, old), digest=new, now=at(1)) for new in ids], why="one rotation, one winner")
    expect(sum(is_live(perform, user, new, 2) for new in ids), 1, "one new id lives")


def one_caller_uses_a_remember_token(perform: Perform) -> None:
    """Fifty callers with one token: one is signed in, the others raced."""
    user, token = registered(perform), digest()
    perform(s.IssueRemember(user=user, handle=uuid4(), digest=token, epoch=0, now=START, lasting=timedelta(days=1)))
    requests = [s.UseRemember(candidates=(token,), digest=digest(), handle=uuid4(), now=at(1)) for _ in range(CALLERS)]
    verdicts = [answer.verdict for answer in race([partial(perform, request) for request in requests])]
    expect((verdicts.count("live"), verdicts.count("raced")), (1, CALLERS - 1), "one token, one winner")


def a_revocation_wins_against_logins(perform: Perform) -> None:
    """Sessions that start while everything is signed out: none of the old epoch is good afterwards."""
    user = registered(perform)
    ids = [digest() for _ in range(CALLERS - 1)]

    def begin(made: p.Digest) -> bool:
        return bool(
            perform(
                s.StartSession(
                    user=user, handle=uuid4(), digest=made, epoch=0, now=START, idle=timedelta(1), lifetime=timedelta(1),
                    assurance=Assurance.AAL1, methods=(), max_live=100,
                )
            )
        )  # fmt: skip

    race([lambda: perform(p.BumpEpoch(user)), *(partial(begin, made) for made in ids)])
    expect(sum(is_live(perform, user, made) for made in ids), 0, "no session of the old epoch is good")


def parallel_attempts_share_a_budget(perform: Perform) -> None:
    """Fifty attempts at one time on two budgets, named in either order: exactly what the smaller holds is granted."""
    small, large = budget(7), budget(40)
    answers = race([partial(perform, p.Reserve((small, large) if n % 2 else (large, small), START)) for n in range(CALLERS)])
    expect(sum(answer.allowed for answer in answers), 7, "exactly the budget is granted")


SESSION_CASES: Final = (
    a_session_lives_within_its_limits,
    rotation_has_a_grace_and_then_a_verdict,
    ending_ends,
    revocation_reaches_one_others_and_all,
    too_many_sessions_end_the_oldest,
    accounts_end_their_sessions,
    remember_tokens_are_spent_one_by_one,
    remember_tokens_outlive_a_session_that_is_over_and_not_one_that_was_ended,
)
"""What every store of sessions must do."""
THROTTLE_CASES: Final = (a_budget_is_exact,)
"""What every store of throttles must do."""
SESSION_RACES: Final = (one_caller_rotates_a_session, one_caller_uses_a_remember_token, a_revocation_wins_against_logins)
"""The same with many callers at once."""
THROTTLE_RACES: Final = (parallel_attempts_share_a_budget,)
"""The same with many callers at once."""

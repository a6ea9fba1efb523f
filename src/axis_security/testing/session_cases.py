"""The contract of a store that keeps sessions and throttles and nothing else, as cases like those of :mod:`axis_security.testing.stores`.

For a store of sessions that stands beside a vault (as Valkey does): these cases need no accounts. Where the store does keep accounts, each user is
registered first, so a whole vault can run them as well. Time is an argument of every operation, so nothing here waits.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from axis_security.auth.ports import AccountOf, Budget, Digest, RefundThrottle, Register, Reserve, ResetThrottle, Throttled
from axis_security.auth.session_ports import (
    EndedSession,
    EndSession,
    ListSessions,
    LiveSession,
    ResolveSession,
    ReusedSession,
    RevokeSessions,
    RotateSession,
    SessionKey,
    StartSession,
    session_route,
)
from axis_security.core.errors import ConfigError
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance
from axis_security.testing.stores import CALLERS, NotConforming, Perform, account, expect, one_winner, race

__all__ = ["NOW", "SESSION_ONLY_CASES", "SESSION_ONLY_RACES", "Browser", "signed_up"]

NOW: Final = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
"""The moment at which every case begins, with microseconds, so that rounding shows."""
IDLE, LIFETIME, GRACE = timedelta(minutes=30), timedelta(hours=12), timedelta(seconds=10)
SECOND: Final = timedelta(seconds=1)


def signed_up(perform: Perform) -> UserId:
    """A user with an active account, if the store keeps accounts."""
    user = account()
    with contextlib.suppress(ConfigError):  # a store of sessions only
        perform(Register(user=user, identifier=f"{user.text}@example.com", hash=None))
    return user


def epoch_of(perform: Perform, user: UserId) -> int:
    """The account's epoch; 1 where the store keeps no accounts."""
    try:
        found = perform(AccountOf(user))
    except ConfigError:
        return 1
    return 0 if found is None else int(found.epoch)


def fresh_digest() -> Digest:
    """Stands for the digest of a fresh id."""
    return "k1", secrets.token_bytes(32)


class Browser:
    """One session as its browser sees it: the digest of the id it has now, and those it had."""

    def __init__(self, perform: Perform, user: UserId, *, now: datetime = NOW, epoch: int | None = None, **more: Any) -> None:
        self.perform, self.user = perform, user
        self.handle: UUID = uuid4()
        self.digests: list[Digest] = [fresh_digest()]
        epoch = epoch_of(perform, user) if epoch is None else epoch
        asked = StartSession(
            user=user, handle=self.handle, digest=self.digests[0], epoch=epoch, now=now, idle=IDLE, lifetime=LIFETIME,
            assurance=Assurance.AAL1, methods=("password",), client="Firefox", network="192.0.2.0/24",
        )  # fmt: skip
        self.started = bool(perform(replace(asked, **more)))

    def key(self, nth: int = -1) -> SessionKey:
        """What the browser presents; candidates for a key that was rotated, too."""
        return SessionKey(session_route(self.user), (("k0", secrets.token_bytes(32)), self.digests[nth]))

    def resolve(self, *, now: datetime = NOW, nth: int = -1) -> Any:
        """Ask who this is."""
        return self.perform(ResolveSession(key=self.key(nth), now=now, grace=GRACE))

    def rotate(self, *, now: datetime = NOW, nth: int = -1, **more: Any) -> Any:
        """Change the id."""
        new = fresh_digest()
        answer = self.perform(RotateSession(key=self.key(nth), digest=new, now=now, **more))
        if answer is not None:
            self.digests.append(new)
        return answer

    def is_live(self, *, now: datetime = NOW, nth: int = -1) -> bool:
        """Whether the id is good."""
        return isinstance(self.resolve(now=now, nth=nth), LiveSession)


def a_session_is_what_was_started(perform: Perform) -> None:
    """Every field comes back as it was kept; an unknown id, and one under another route, is nobody."""
    user = signed_up(perform)
    earlier = NOW - timedelta(days=3)
    browser = Browser(perform, user, tenant="acme", assurance=Assurance.AAL2, methods=("password", "totp"), auth_time=earlier)
    expect(browser.started, True, "a session is started")
    wanted = LiveSession(
        handle=browser.handle, user=user, tenant="acme", assurance=Assurance.AAL2, methods=("password", "totp"), auth_time=earlier,
        started_at=NOW, seen_at=NOW, ends_at=NOW + LIFETIME, client="Firefox", network="192.0.2.0/24",
    )  # fmt: skip
    expect(browser.resolve(), wanted, "a session comes back as it was started, to the microsecond")
    stranger = SessionKey(session_route(user), (fresh_digest(),))
    expect(perform(ResolveSession(key=stranger, now=NOW)), None, "an unknown id is nobody, and is not adopted")
    expect(perform(ResolveSession(key=stranger, now=NOW)), None, "not at the second try either")
    elsewhere = SessionKey(session_route(account()), (browser.digests[0],))
    expect(perform(ResolveSession(key=elsewhere, now=NOW)), None, "an id under another route is nobody")
    expect(Browser(perform, signed_up(perform)).resolve().auth_time, NOW, "a login without another time counts as now")


def both_limits_hold(perform: Perform) -> None:
    """Idle and absolute limits end a session; use moves the one and never the other (ASVS 7.3.1, 7.3.2)."""
    user = signed_up(perform)
    idle, used = Browser(perform, user), Browser(perform, user)
    expect(idle.is_live(now=NOW + IDLE - SECOND), True, "just before the idle limit it is live")
    expect(Browser(perform, user).is_live(now=NOW + IDLE), False, "at the idle limit it is dead")
    at = NOW
    while at + IDLE - SECOND < NOW + LIFETIME:
        at += IDLE - SECOND
        expect(used.is_live(now=at), True, "use keeps it alive")
        if at - NOW > timedelta(hours=6) and len(used.digests) == 1:
            expect(used.rotate(now=at) is not None, True, "it is rotated on the way")
    expect(used.is_live(now=NOW + LIFETIME - SECOND), True, "just before its end it is live")
    expect(used.is_live(now=NOW + LIFETIME), False, "use and rotation do not move the absolute limit")
    expect(used.rotate(now=NOW + LIFETIME), None, "a dead session is not rotated")


def use_is_noted_coarsely(perform: Perform) -> None:
    """The last use is written at most once in each touch interval."""
    browser = Browser(perform, signed_up(perform))
    expect(browser.resolve(now=NOW + 59 * SECOND).seen_at, NOW, "use within a minute is not noted")
    later = NOW + 61 * SECOND
    browser.resolve(now=later)
    expect(browser.resolve(now=later + SECOND).seen_at, later, "use after a minute is")
    expect(browser.resolve(now=NOW + 2 * SECOND).seen_at, later, "a clock that runs behind takes nothing back")


def rotation_changes_the_id_only(perform: Perform) -> None:
    """The handle stays; the old id answers for the grace, then betrays itself and ends the session."""
    user = signed_up(perform)
    browser = Browser(perform, user, tenant="acme")
    stepped = browser.rotate(now=NOW + SECOND, assurance=Assurance.AAL2, methods=("password", "totp"), auth_time=NOW + SECOND)
    expect((stepped.handle, stepped.assurance, stepped.tenant), (browser.handle, Assurance.AAL2, "acme"), "what was proved is kept")
    expect(browser.resolve(now=NOW + SECOND).assurance, Assurance.AAL2, "the new id has what was proved")
    old = browser.resolve(now=NOW + 5 * SECOND, nth=0)
    expect((old.handle, old.superseded), (browser.handle, True), "the old id answers for the grace, and says so")
    expect(browser.rotate(now=NOW + 5 * SECOND, nth=0), None, "but cannot be rotated again")
    expect(browser.rotate(now=NOW + 6 * SECOND, switch_tenant=True, tenant="other").tenant, "other", "the workspace is switched")
    expect(browser.rotate(now=NOW + 7 * SECOND).tenant, "other", "and stays so")
    expect(browser.is_live(now=NOW + 8 * SECOND), True, "the newest id is live")
    reused = browser.resolve(now=NOW + SECOND + GRACE, nth=0)
    expect(reused, ReusedSession(browser.handle, user), "after the grace an old id betrays itself")
    expect(browser.is_live(now=NOW + 12 * SECOND), False, "and the session is over")
    expect(perform(ListSessions(user, NOW)), (), "it is in no list")


def a_superseded_id_gains_nothing(perform: Perform) -> None:
    """Within the grace an old id stands for what was proved while it was the session's: who kept a copy of it has no part in a step-up or in
    another workspace (ASVS 7.2.4)."""
    browser = Browser(perform, signed_up(perform), tenant="acme")
    stepped_at = NOW + SECOND
    browser.rotate(
        now=stepped_at, assurance=Assurance.AAL2, methods=("password", "totp"), auth_time=stepped_at, switch_tenant=True, tenant="beta"
    )
    browser.rotate(now=NOW + 2 * SECOND, switch_tenant=True, tenant="gamma")
    seen = [browser.resolve(now=NOW + 3 * SECOND, nth=n) for n in range(3)]
    told = [(s.assurance, s.methods, s.auth_time, s.tenant, s.superseded) for s in seen]
    two = (Assurance.AAL2, ("password", "totp"), stepped_at)
    expect(told[0], (Assurance.AAL1, ("password",), NOW, "acme", True), "the first id has what the first login proved")
    expect(told[1], (*two, "beta", True), "the second what the step-up proved")
    expect(told[2], (*two, "gamma", False), "the newest everything")


def sign_out_ends_one_session(perform: Perform) -> None:
    """Signing out ends that session under each of its ids, and no other (ASVS 7.4.1)."""
    user = signed_up(perform)
    first, second = Browser(perform, user), Browser(perform, user)
    first.rotate()
    expect(perform(EndSession(first.key(0))), EndedSession(first.handle, user), "an id under way still signs out")
    expect(perform(EndSession(first.key())), None, "once")
    expect([first.is_live(), first.is_live(nth=0), second.is_live()], [False, False, True], "that session, whole, and only that")
    expect(perform(EndSession(SessionKey(session_route(user), (fresh_digest(),)))), None, "an unknown id ends nothing")


def sessions_are_listed_and_revoked(perform: Perform) -> None:
    """One, all others, all; by handle; never another person's (ASVS 7.4.5, 7.5.2)."""
    user, other = signed_up(perform), signed_up(perform)
    mine = [Browser(perform, user, now=NOW + n * SECOND) for n in range(4)]
    theirs = Browser(perform, other)
    now = NOW + 5 * SECOND
    seen = perform(ListSessions(user, now))
    expect([s.handle for s in seen], [b.handle for b in reversed(mine)], "the last used comes first")
    expect(perform(RevokeSessions(user=user, handle=theirs.handle)), 0, "another person's handle names nothing")
    expect(perform(RevokeSessions(user=user, handle=mine[0].handle)), 1, "one is ended")
    expect(perform(RevokeSessions(user=user, handle=mine[0].handle)), 0, "once")
    expect(perform(RevokeSessions(user=user, keep=mine[3].handle)), 2, "all others are ended")
    expect([b.is_live(now=now) for b in mine], [False, False, False, True], "but this one")
    expect(perform(RevokeSessions(user=user)), 1, "all are ended")
    expect(perform(ListSessions(user, now)), (), "none is left")
    expect(theirs.is_live(now=now), True, "the other person noticed nothing")


def an_old_epoch_starts_nothing(perform: Perform) -> None:
    """A session of an epoch that is not the account's is not started: a password change during the login wins."""
    user = signed_up(perform)
    epoch = epoch_of(perform, user)
    browser = Browser(perform, user)
    perform(RevokeSessions(user=user, epoch=epoch))
    expect(browser.is_live(), False, "revoked")
    expect(Browser(perform, user, epoch=epoch - 1).started, False, "an epoch below is not started")
    expect(Browser(perform, user, epoch=epoch).is_live(), True, "the present one is")


def the_presented_id_is_ended(perform: Perform) -> None:
    """A login ends what the browser came with, also when that was somebody else's session (fixation; ASVS 7.2.4)."""
    user, other = signed_up(perform), signed_up(perform)
    planted, own = Browser(perform, other), Browser(perform, user)
    expect(Browser(perform, user, ends=planted.key()).is_live(), True, "the new session is live")
    expect(planted.is_live(), False, "a planted id is dead")
    expect(Browser(perform, user, ends=own.key()).is_live(), True, "the next one too")
    expect(own.is_live(), False, "one's own former id is dead")


def the_cap_ends_the_longest_unused(perform: Perform) -> None:
    """Above the cap, the sessions unused for longest go."""
    user = signed_up(perform)
    some = [Browser(perform, user, now=NOW + n * SECOND, max_live=3) for n in range(3)]
    some[0].resolve(now=NOW + 90 * SECOND)
    last = Browser(perform, user, now=NOW + 100 * SECOND, max_live=3)
    now = NOW + 101 * SECOND
    expect([b.is_live(now=now) for b in [*some, last]], [True, False, True, True], "the longest unused went")


def one_caller_rotates(perform: Perform) -> None:
    """Fifty requests rotate one id: one gets the new one, and the session lives on under it."""
    browser = Browser(perform, signed_up(perform))
    new = [fresh_digest() for _ in range(CALLERS)]
    answers = race([lambda d=d: perform(RotateSession(key=browser.key(), digest=d, now=NOW)) for d in new])  # type: ignore[misc]
    winners = [digest for digest, answer in zip(new, answers, strict=True) if answer is not None]
    expect(len(winners), 1, "one rotation, one winner")
    browser.digests.append(winners[0])
    expect(browser.is_live(), True, "the winner's id is live")
    for digest in new:
        if digest != winners[0]:
            key = SessionKey(session_route(browser.user), (digest,))
            expect(perform(ResolveSession(key=key, now=NOW)), None, "a loser's id was never kept")
            break


def one_caller_signs_out(perform: Perform) -> None:
    """Fifty callers end one session: it ended once."""
    browser = Browser(perform, signed_up(perform))
    one_winner(perform, [EndSession(browser.key())] * CALLERS, why="one sign-out, one winner")


def a_rotation_never_outlives_a_revocation(perform: Perform) -> None:
    """Rotations and a revocation of all at one time: afterwards nothing is live, whoever came first."""
    user = signed_up(perform)
    browsers = [Browser(perform, user) for _ in range(8)]
    race([*(b.rotate for b in browsers), lambda: perform(RevokeSessions(user=user))])
    expect([b.is_live() for b in browsers], [False] * 8, "no session outlived the revocation")
    expect(perform(ListSessions(user, NOW)), (), "none is listed")


def the_cap_holds_in_parallel(perform: Perform) -> None:
    """Sixteen logins at one time leave as many sessions as the cap says."""
    user = signed_up(perform)
    race([lambda: Browser(perform, user, max_live=4)] * 16)
    expect(len(perform(ListSessions(user, NOW))), 4, "the cap is exact")


def _budget(limit: int, seconds: float = 60) -> Budget:
    return Budget(secrets.token_bytes(16), limit, timedelta(seconds=seconds))


def budgets_run_out_and_refill(perform: Perform) -> None:
    """The limit at once, then one attempt for each interval; the wait is said exactly."""
    for limit in (1, 3, 7, 10):
        budget = _budget(limit)
        taken = [perform(Reserve((budget,), NOW)) for _ in range(limit + 2)]
        expect([t.allowed for t in taken], [True] * limit + [False] * 2, f"a budget of {limit} grants {limit}")
        refused = taken[-1]
        expect(refused.key, budget.key, "the refusal names the budget")
        expect(abs(refused.retry_after - budget.interval) < 0.02, True, f"the wait is one interval, not {refused.retry_after}")
        early, late = NOW + timedelta(seconds=budget.interval - 0.05 * budget.interval), NOW + timedelta(seconds=budget.interval)
        expect(perform(Reserve((budget,), early)).allowed, False, "before that it is still refused")
        expect(perform(Reserve((budget,), late)), Throttled(allowed=True), "then one is granted")
        expect(perform(Reserve((budget,), late)).allowed, False, "and no more")
        expect(perform(Reserve((budget,), NOW + timedelta(hours=1))).allowed, True, "in the end all is forgotten")


def all_budgets_or_none(perform: Perform) -> None:
    """A refusal takes nothing from the budgets that had enough."""
    wide, narrow = _budget(5), _budget(1)
    expect(perform(Reserve((wide, narrow), NOW)).allowed, True, "both had enough")
    for _ in range(3):
        refused = perform(Reserve((wide, narrow), NOW))
        expect((refused.allowed, refused.key, refused.retry_after > 0), (False, narrow.key, True), "the narrow one has run out")
    left = [perform(Reserve((wide,), NOW)).allowed for _ in range(5)]
    expect(left, [True] * 4 + [False], "the refusals took nothing from the wide one")
    expect(perform(Reserve((), NOW)).allowed, True, "no budgets, no limit")


def refund_gives_back_what_was_taken(perform: Perform) -> None:
    """A refund gives one back, and never more than was taken; a reset forgets."""
    budget = _budget(2)
    perform(Reserve((budget,), NOW))
    for _ in range(5):
        perform(RefundThrottle((budget,), NOW))
    expect([perform(Reserve((budget,), NOW)).allowed for _ in range(3)], [True, True, False], "refunds do not add up to a credit")
    perform(RefundThrottle((budget,), NOW))
    expect([perform(Reserve((budget,), NOW)).allowed for _ in range(2)], [True, False], "one is given back")
    perform(ResetThrottle((budget.key,)))
    expect(perform(Reserve((budget,), NOW)).allowed, True, "a reset forgets")
    perform(RefundThrottle((_budget(2),), NOW))


def budgets_are_exact_under_parallel_guessing(perform: Perform) -> None:
    """Fifty guesses at one time share the limit; none slips past it."""
    account_budget, network = _budget(5), _budget(40)
    answers = race([lambda: perform(Reserve((account_budget, network), NOW)) for _ in range(CALLERS)])
    granted = sum(answer.allowed for answer in answers)
    if not 1 <= granted <= 5:
        raise NotConforming(f"a budget of 5 granted {granted}")
    while perform(Reserve((account_budget,), NOW)).allowed:
        granted += 1
    expect(granted, 5, "what was refused in the crowd is still there")


SESSION_ONLY_CASES: Final = (
    a_session_is_what_was_started,
    both_limits_hold,
    use_is_noted_coarsely,
    rotation_changes_the_id_only,
    a_superseded_id_gains_nothing,
    sign_out_ends_one_session,
    sessions_are_listed_and_revoked,
    an_old_epoch_starts_nothing,
    the_presented_id_is_ended,
    the_cap_ends_the_longest_unused,
    budgets_run_out_and_refill,
    all_budgets_or_none,
    refund_gives_back_what_was_taken,
)
"""One caller at a time."""

SESSION_ONLY_RACES: Final = (
    one_caller_rotates,
    one_caller_signs_out,
    a_rotation_never_outlives_a_revocation,
    the_cap_holds_in_parallel,
    budgets_are_exact_under_parallel_guessing,
)
"""Many callers at one time: run each often."""

"""How often somebody may try: counted before the attempt, given back after a success (ASVS 6.1.1, 6.3.1).

An attempt is taken from every budget that it falls under, or from none, before any password is looked at, so that parallel guesses cannot share
one. A success gives back what it took, and no more: it never clears a counter, so a guesser who owns an account cannot wash an address.

The budgets of a login: the account's (for strangers), or the known browser's own in its place; and the network's (an IPv4 address, an IPv6 /64).
On top, the store counts failures in a row for each account and stops comparing at 100 (NIST SP 800-63B-4 section 3.2.2). Strangers can use up 90 of
them; the last ten are the known browsers', so that strangers cannot lock out the owner's own browser.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from axis_security.auth.ports import Budget, RefundThrottle, Reserve, Throttled
from axis_security.auth.recovery import DigestRing
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome

__all__ = ["Attempt", "Rate", "Scope", "Throttle", "ThrottlePolicy", "TooMany"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Rate:
    """*limit* attempts per *window*.

    Raises:
        ConfigError: a limit outside 1..1,000,000, or a window outside 1 s..31 days.
    """

    limit: int
    window: timedelta

    def __post_init__(self) -> None:
        Budget(b"x", self.limit, self.window)


class Scope:
    """What is being tried; each has budgets of its own."""

    LOGIN: Final = "login"
    STEP_UP: Final = "step_up"
    MAIL: Final = "mail"
    REGISTER: Final = "register"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottlePolicy:
    """The budgets.

    Args:
        account: attempts at one account by browsers that it has not signed in with.
        browser: attempts at one account by a browser that it has signed in with.
        network: failed attempts from one network, at whatever accounts.
        mail: letters to one account (forgot, resend, register, a new address), each kind by itself.
        mail_network: letters and registrations asked for from one network.
        max_failures: failures in a row after which nothing is compared for an account until its password is reset; at most 100.
        stranger_failures: the same for browsers that the account does not know; less than *max_failures*.

    Raises:
        ConfigError: the caps are not in that order.
    """

    account: Rate = Rate(10, timedelta(minutes=15))
    browser: Rate = Rate(10, timedelta(minutes=15))
    network: Rate = Rate(100, timedelta(minutes=15))
    mail: Rate = Rate(3, timedelta(hours=1))
    mail_network: Rate = Rate(30, timedelta(hours=1))
    max_failures: int = 100
    stranger_failures: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.stranger_failures < self.max_failures <= 100:
            raise ConfigError(
                what="unusable caps on failures",
                why=f"stranger_failures={self.stranger_failures}, max_failures={self.max_failures}",
                fix="choose 1 <= stranger_failures < max_failures <= 100 (NIST SP 800-63B-4 section 3.2.2)",
            )


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was counted; :meth:`Throttle.refund` gives it back.

    Args:
        budgets: what it was taken from.
        max_failures: the cap on failures in a row that holds for it.
    """

    budgets: tuple[Budget, ...]
    max_failures: int


@dataclass(frozen=True, slots=True)
class TooMany:
    """Not now. ``retry_after`` is in whole seconds, at least 1."""

    retry_after: int


class Throttle:
    """Counts attempts. Keys are keyed digests: a store of throttles holds no names and no addresses.

    Args:
        policy: the budgets.
        digests: digest keys; a rotation begins new counts.
        events: takes the audit events.
        clock: tells the time.
    """

    def __init__(
        self, *, digests: DigestRing, events: EventSink, policy: ThrottlePolicy | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.policy: Final = policy or ThrottlePolicy()
        self._digests: Final = digests
        self._events: Final = events
        self._clock: Final = clock

    def attempt(
        self, *, scope: str, account: str | None, network: str, browser: str | None = None
    ) -> Generator[Any, Any, Attempt | TooMany]:
        """Count an attempt before it is made.

        Args:
            scope: one of :class:`Scope`.
            account: normalised identifier or user id; ``None`` where none is named.
            network: as :func:`~axis_security.auth.network.network_of` gave it.
            browser: id of a browser that this account knows.
        """
        policy, mail = self.policy, scope in {Scope.MAIL, Scope.REGISTER}
        budgets = [self._budget(policy.mail_network if mail else policy.network, "mail" if mail else "attempt", "network", network)]
        if account is not None and browser is not None:
            budgets.insert(0, self._budget(policy.browser, scope, "browser", account, browser))
        elif account is not None:
            budgets.insert(0, self._budget(policy.mail if mail else policy.account, scope, "account", account))
        answer: Throttled = yield Reserve(tuple(budgets), self._clock.now())
        if answer.allowed:
            return Attempt(tuple(budgets), policy.stranger_failures if browser is None else policy.max_failures)
        wait = max(1, math.ceil(answer.retry_after))
        ran_out = "network" if answer.key == budgets[-1].key else "account" if browser is None else "browser"
        self._events.emit(
            AuditEvent(
                kind=EventKind.THROTTLED,
                at=self._clock.now(),
                outcome=Outcome.DENIED,
                detail={
                    "account": None if account is None else self.reference(account),
                    "network": network,
                    "scope": f"{scope}.{ran_out}",
                    "retry_after_seconds": wait,
                },
            )
        )
        return TooMany(wait)

    def refund(self, attempt: Attempt) -> Generator[Any, Any, None]:
        """Give back what *attempt* took: it succeeded, or could not be made."""
        yield RefundThrottle(attempt.budgets, self._clock.now())

    def carry_out(self, attempt: Attempt, flow: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
        """Run the *flow* that *attempt* was counted for. Where something did not answer, nothing was learned: the attempt is given back.

        Raises:
            Unavailable: as *flow* did.
        """
        try:
            return (yield from flow)
        except Unavailable:
            yield from self.refund(attempt)
            raise

    def reference(self, name: str) -> str:
        """What the log calls a name that may belong to nobody: a keyed digest. People type passwords into the wrong field (ASVS 16.2.5)."""
        return "ref:" + self._digests.digest(b"axis-security/log/v1", name.encode("utf-8"))[1].hex()[:20]

    def _budget(self, rate: Rate, *parts: str) -> Budget:
        digest = self._digests.digest(b"axis-security/throttle/v1", *(part.encode("utf-8") for part in parts))[1]
        return Budget(digest, rate.limit, rate.window)

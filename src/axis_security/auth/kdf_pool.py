"""Bounded concurrency for password hashing: a memory budget, a short queue, and a clear answer when both are full.

Argon2 is meant to be costly, so a login form is a lever for whoever wants to exhaust a server. The pool runs at most as many hashes
at once as there are cores and as fit the memory budget; a bounded number waits; the rest is told :class:`Busy`, at once, before
any work. The event loop never waits for a hash: it runs in a thread, and the GIL is released while it does.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from axis_security.auth.kdf import Argon2Cost
from axis_security.auth.passwords import Derived, PasswordRefused, Passwords, Verified
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.secret import Secret

__all__ = ["Busy", "KdfPool", "PasswordService", "PoolSettings"]

T = TypeVar("T")


class Busy(Unavailable):
    """Too many passwords are being checked at once. Nothing was computed; try again after ``retry_after`` seconds."""

    code = "auth.busy"
    http_status = 503

    def __init__(self, *, retry_after: int, why: str = "the queue for password hashing is full") -> None:
        super().__init__(
            what="too many logins at once",
            why=why,
            fix="retry later; if it lasts, add cores or raise `memory_budget_mib`",
            facts={"retry_after": retry_after},
        )
        self.retry_after: Final = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How much of the machine password hashing may take.

    Args:
        memory_budget_mib: memory that all hashes together may use at one time, in MiB.
        cores: cores to use at most; ``None`` for those this process may run on.
        queue: how many calls may wait. With 46 MiB hashes on 2 cores (about 40 a second) 256 waiters are served within 7 s.
        deadline_seconds: how long a call may wait for its turn.

    Raises:
        ConfigError: a limit below its minimum.
    """

    memory_budget_mib: int = 256
    cores: int | None = None
    queue: int = 256
    deadline_seconds: float = 10.0

    def __post_init__(self) -> None:
        if (
            self.memory_budget_mib < 1
            or self.queue < 0
            or not 0 < self.deadline_seconds <= 300
            or (self.cores is not None and self.cores < 1)
        ):
            raise ConfigError(
                what="unusable pool settings", why=repr(self), fix="use a positive budget, cores and deadline, and a queue of 0 or more"
            )

    def parallel(self, *, memory_bytes: int, lanes: int) -> int:
        """How many hashes of that size run at once.

        Raises:
            ConfigError: not even one fits the budget.
        """
        fits = self.memory_budget_mib * 1024 * 1024 // max(1, memory_bytes)
        if fits < 1:
            raise ConfigError(
                what="one hash does not fit the memory budget",
                why=f"a hash takes {memory_bytes // (1024 * 1024)} MiB, the budget is {self.memory_budget_mib} MiB",
                fix="raise `memory_budget_mib` or choose a cheaper cost preset",
            )
        return max(1, min(fits, (self.cores or _cores()) // lanes))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class KdfPool:
    """Runs costly work in a bounded number of threads.

    Args:
        parallel: how many at once.
        queue: how many may wait.
        deadline_seconds: how long one may wait.
    """

    def __init__(self, *, parallel: int, queue: int, deadline_seconds: float) -> None:
        self.parallel: Final = parallel
        self._limit: Final = parallel + queue
        self._deadline: Final = deadline_seconds
        self._lock = threading.Lock()
        self._pending = 0
        self._executor: ThreadPoolExecutor | None = None
        self._pid = 0

    def run(self, work: Callable[[], T]) -> T:
        """Run *work* in the pool and wait for it.

        Raises:
            Busy: the queue is full, the deadline passed before its turn came, or the pool was closed meanwhile.
        """
        # Waiting is bounded by the deadline; once begun, work runs to its end, which is bounded by the cost ceiling.
        return self._submit(work).result()

    async def arun(self, work: Callable[[], T]) -> T:
        """Run *work* in the pool without blocking the event loop.

        Raises:
            Busy: the queue is full, the deadline passed before its turn came, or the pool was closed meanwhile.
        """
        return await asyncio.wrap_future(self._submit(work))

    def close(self) -> None:
        """End the threads; whoever waits is told :class:`Busy`. The pool starts new ones if it is used again."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            # Not cancelled: to async code that would look as if its own task had been. Each waiter's turn comes, and is refused.
            executor.shutdown(wait=True)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        due = time.monotonic() + self._deadline

        def timed() -> T:
            if self._executor is not executor:
                raise Busy(retry_after=1, why="the pool was closed while it waited")
            if time.monotonic() > due:
                raise Busy(retry_after=self._retry_after(), why="the deadline passed while it waited")
            return work()

        with self._lock:
            if self._pid != os.getpid():
                # Threads do not survive a fork, and neither does the count of what they were doing.
                self._executor, self._pid, self._pending = None, os.getpid(), 0
            if self._pending >= self._limit:
                raise Busy(retry_after=self._retry_after())
            if self._executor is None:
                self._executor = ThreadPoolExecutor(max_workers=self.parallel, thread_name_prefix="axis-kdf")
            executor = self._executor
            future = executor.submit(timed)
            self._pending += 1
        # Outside the lock: a future that is done already calls back at once, in this thread.
        future.add_done_callback(self._done)
        return future

    def _done(self, _: object) -> None:
        with self._lock:
            self._pending -= 1

    def _retry_after(self) -> int:
        return max(1, round(self._deadline / 2))


class PasswordService:
    """:class:`~axis_security.auth.passwords.Passwords` behind a pool, with a sync and an async entry for each act.

    Args:
        passwords: what to run.
        settings: how much of the machine it may take.

    Raises:
        ConfigError: not even one hash fits the memory budget.
    """

    def __init__(self, passwords: Passwords, settings: PoolSettings | None = None) -> None:
        settings = settings or PoolSettings()
        self.passwords: Final = passwords
        cost: Argon2Cost = passwords.cost
        parallel = settings.parallel(memory_bytes=passwords.memory_bytes, lanes=cost.lanes)
        self.pool: Final = KdfPool(parallel=parallel, queue=settings.queue, deadline_seconds=settings.deadline_seconds)

    def verify(self, *, password: Secret[str], stored: Secret[str] | None) -> Verified | PasswordRefused:
        """See :meth:`Passwords.verify`. Raises Busy."""
        return self.pool.run(lambda: self.passwords.verify(password=password, stored=stored))

    async def averify(self, *, password: Secret[str], stored: Secret[str] | None) -> Verified | PasswordRefused:
        """See :meth:`Passwords.verify`. Raises Busy."""
        return await self.pool.arun(lambda: self.passwords.verify(password=password, stored=stored))

    def derive(self, *, password: Secret[str], settings: str | None) -> Derived | PasswordRefused:
        """See :meth:`Passwords.derive`. Raises Busy."""
        return self.pool.run(lambda: self.passwords.derive(password=password, settings=settings))

    async def aderive(self, *, password: Secret[str], settings: str | None) -> Derived | PasswordRefused:
        """See :meth:`Passwords.derive`. Raises Busy."""
        return await self.pool.arun(lambda: self.passwords.derive(password=password, settings=settings))

    def renew(self, *, password: Secret[str], derived: Derived) -> Secret[str] | None:
        """See :meth:`Passwords.renew`. Raises Busy."""
        return self.pool.run(lambda: self.passwords.renew(password=password, derived=derived))

    async def arenew(self, *, password: Secret[str], derived: Derived) -> Secret[str] | None:
        """See :meth:`Passwords.renew`. Raises Busy."""
        return await self.pool.arun(lambda: self.passwords.renew(password=password, derived=derived))

    def hash(self, password: Secret[str]) -> Secret[str]:
        """See :meth:`Passwords.hash`. Raises Busy."""
        return self.pool.run(lambda: self.passwords.hash(password))

    async def ahash(self, password: Secret[str]) -> Secret[str]:
        """See :meth:`Passwords.hash`. Raises Busy."""
        return await self.pool.arun(lambda: self.passwords.hash(password))

    def spend(self) -> None:
        """See :meth:`Passwords.spend`. Raises Busy."""
        self.pool.run(self.passwords.spend)

    async def aspend(self) -> None:
        """See :meth:`Passwords.spend`. Raises Busy."""
        await self.pool.arun(self.passwords.spend)

"""The pool: bounded, never blocking the loop, and honest when it is full."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from axis_security.auth.kdf_pool import Busy, KdfPool, PasswordService, PoolSettings
from axis_security.auth.passwords import Passwords, Verified
from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret


def test_no_more_run_at_once_than_allowed_and_the_rest_is_told_busy() -> None:
    """Two run, three wait, the sixth gets Busy at once; afterwards there is room again."""
    pool = KdfPool(parallel=2, queue=3, deadline_seconds=10)
    gate, lock, now, peak = threading.Event(), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal now, peak
        with lock:
            now += 1
            peak = max(peak, now)
        gate.wait(10)
        with lock:
            now -= 1

    async def scenario() -> None:
        tasks = [asyncio.ensure_future(pool.arun(work)) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(Busy) as refused:
            await pool.arun(work)
        assert refused.value.http_status == 503
        assert refused.value.retry_after >= 1
        with pytest.raises(Busy):
            pool.run(work)
        gate.set()
        await asyncio.gather(*tasks)
        await pool.arun(work)

    asyncio.run(scenario())
    assert peak == 2
    pool.close()


def test_waiting_past_the_deadline_costs_no_work() -> None:
    """Work whose turn comes too late is not begun."""
    pool = KdfPool(parallel=1, queue=5, deadline_seconds=0.05)
    ran: list[int] = []

    async def scenario() -> None:
        slow = asyncio.ensure_future(pool.arun(lambda: time.sleep(0.3)))
        late = asyncio.ensure_future(pool.arun(lambda: ran.append(1)))
        await slow
        with pytest.raises(Busy):
            await late

    asyncio.run(scenario())
    assert ran == []
    pool.close()


def test_a_cancelled_waiter_gives_its_place_back() -> None:
    """Cancelling a request that waits frees its place in the queue."""
    pool = KdfPool(parallel=1, queue=1, deadline_seconds=10)
    gate = threading.Event()

    async def scenario() -> None:
        first = asyncio.ensure_future(pool.arun(lambda: gate.wait(10)))
        second = asyncio.ensure_future(pool.arun(lambda: None))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        third = asyncio.ensure_future(pool.arun(lambda: None))
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(first, third)

    asyncio.run(scenario())
    pool.close()


def test_the_memory_budget_sets_the_parallelism() -> None:
    """min(cores / lanes, budget / memory), at least one, and a budget below one hash is no setting."""
    mib = 1024 * 1024
    assert PoolSettings(memory_budget_mib=100, cores=8).parallel(memory_bytes=46 * mib, lanes=1) == 2
    assert PoolSettings(memory_budget_mib=1000, cores=2).parallel(memory_bytes=46 * mib, lanes=1) == 2
    assert PoolSettings(memory_budget_mib=1000, cores=2).parallel(memory_bytes=64 * mib, lanes=4) == 1
    with pytest.raises(ConfigError):
        PoolSettings(memory_budget_mib=40).parallel(memory_bytes=46 * mib, lanes=1)
    with pytest.raises(ConfigError):
        PoolSettings(deadline_seconds=0)


def test_the_service_answers_sync_and_async() -> None:
    """One body, two entries."""
    service = PasswordService(Passwords())
    stored = service.hash(Secret("a fine password"))
    assert service.verify(password=Secret("a fine password"), stored=stored) == Verified(None)
    assert asyncio.run(service.averify(password=Secret("a fine password"), stored=stored)) == Verified(None)
    service.pool.close()


def test_who_waits_when_the_pool_closes_is_told_busy() -> None:
    """Sync and async callers alike get Busy, and no async one takes it for a cancellation of its own task; what runs is finished."""
    pool = KdfPool(parallel=1, queue=5, deadline_seconds=10)
    gate, ran, seen = threading.Event(), list[str](), list[BaseException]()

    def waiter() -> None:
        try:
            pool.run(lambda: ran.append("sync"))
        except Busy as refused:
            seen.append(refused)

    async def scenario() -> None:
        running = asyncio.ensure_future(pool.arun(lambda: gate.wait(10)))
        await asyncio.sleep(0.05)
        thread = threading.Thread(target=waiter)
        thread.start()
        waiting = asyncio.ensure_future(pool.arun(lambda: ran.append("async")))
        await asyncio.sleep(0.05)
        closing = asyncio.ensure_future(asyncio.to_thread(pool.close))
        await asyncio.sleep(0.05)
        gate.set()
        assert await running is True
        with pytest.raises(Busy, match="closed"):
            await waiting
        await closing
        await asyncio.to_thread(thread.join)
        assert await pool.arun(lambda: 7) == 7, "control: it opens again"

    asyncio.run(scenario())
    assert [type(one) for one in seen] == [Busy]
    assert ran == []
    pool.close()

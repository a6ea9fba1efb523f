"""Two hundred logins at once: throughput against bare argon2-cffi, the event loop's lag, and peak memory."""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import argon2
import psutil

from axis_security.auth.kdf_pool import PasswordService, PoolSettings
from axis_security.auth.passwords import Passwords
from axis_security.core.secret import Secret
from benchmarks.harness import Row, Settings, measured

_LOGINS = 200
_BUDGET_MIB = 256


def run(settings: Settings) -> Iterable[Row]:
    """The two sides take turns; each verifies the same number of hashes of the same cost."""
    cores = len(os.sched_getaffinity(0))
    logins = _LOGINS // 5 if settings.quick else _LOGINS
    service = PasswordService(Passwords(), PoolSettings(memory_budget_mib=_BUDGET_MIB, queue=_LOGINS, deadline_seconds=60))
    password = Secret("an uncommon sentence")
    stored = service.hash(password)
    cost = service.passwords.cost
    hasher = argon2.PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.lanes)
    reference = hasher.hash(password.reveal())
    ours: list[float] = []
    bare: list[float] = []
    lags: list[float] = []
    grown: list[float] = []
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(3):
            began = time.perf_counter()
            list(pool.map(lambda _: hasher.verify(reference, password.reveal()), range(logins)))
            bare.append(logins / (time.perf_counter() - began))
            rate, lag, mib = asyncio.run(_storm(service, password, stored, logins))
            ours.append(rate)
            lags.append(lag)
            grown.append(mib)
    service.pool.close()
    limit = statistics.median(bare)
    yield measured(
        "login_storm",
        f"{logins} logins at once",
        "logins/s",
        ours,
        limit=limit,
        target="at least 90 % of bare argon2-cffi",
        met=statistics.median(ours) >= 0.9 * limit,
    )
    yield measured("login_storm", "event loop lag, p99", "ms", lags, limit=10.0, target="at most 10 ms", met=statistics.median(lags) <= 10)
    allowed = _BUDGET_MIB + 64.0
    yield measured(
        "login_storm", "peak memory growth", "MiB", grown, limit=allowed, target="within the budget + 64 MiB", met=max(grown) <= allowed
    )


async def _storm(service: PasswordService, password: Secret[str], stored: Secret[str], logins: int) -> tuple[float, float, float]:
    process = psutil.Process()
    base = process.memory_info().rss
    peak, done = base, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    lags: list[float] = []

    async def beat() -> None:
        while True:
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            lags.append((time.perf_counter() - due) * 1000)

    watcher = threading.Thread(target=watch)
    watcher.start()
    heart = asyncio.create_task(beat())
    began = time.perf_counter()
    await asyncio.gather(*(service.averify(password=password, stored=stored) for _ in range(logins)))
    rate = logins / (time.perf_counter() - began)
    heart.cancel()
    done.set()
    watcher.join()
    return rate, statistics.quantiles(lags, n=100)[98], (peak - base) / 2**20

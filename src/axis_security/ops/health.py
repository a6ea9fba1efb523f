"""Liveness, readiness and start-up: checks that run once however many ask, answer in bounded time, and tell strangers nothing.

* ``/livez`` touches no dependency: a database that is down must not make an orchestrator kill every app process.
* ``/readyz`` answers 503 while a required check is not ok.
* ``/startupz`` is ``/readyz`` until it has been ok once, then stays ok.

Each check runs at most once per ``ttl`` and never twice at a time (single flight). One that outlives its ``timeout`` counts as
failed with code ``timeout`` while it hangs, and is not started again until it ends: a hung database costs one thread, not one per
probe. Answers to strangers hold one word; names, codes and measurements need :class:`Detail.FULL`, which the gate gives only to a
principal with the right capability.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from axis_security.core.checks import CheckResult
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome

__all__ = ["Detail", "HealthAnswer", "HealthCheck", "HealthMonitor", "Observed"]

HEADERS: Final = (("cache-control", "no-store"), ("content-type", "application/json"))
"""Of every answer: a cached readiness is a wrong one."""


class Detail(enum.Enum):
    """How much an answer tells."""

    PUBLIC = "public"
    """One word."""
    FULL = "full"
    """Every check with its code, what was seen, and how old that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """One thing to look at.

    Args:
        name: stable and short; a metric label.
        run: looks and answers; runs in a thread of its own. Raising counts as not ok, and what it raised is not shown.
        ttl: how long an answer serves.
        timeout: how long an answer is waited for.
        required: whether readiness depends on it. One that is not required only degrades the answer.

    Raises:
        ConfigError: a time is out of range.
    """

    name: str
    run: Callable[[], CheckResult]
    ttl: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=2)
    required: bool = True

    def __post_init__(self) -> None:
        if not timedelta(0) < self.timeout <= timedelta(seconds=30) or not timedelta(0) < self.ttl <= timedelta(days=1):
            raise ConfigError(
                what=f"the health check `{self.name}` is not usable",
                why="its timeout must lie in (0, 30 s] and its ttl in (0, 1 day]",
                fix="keep the defaults: 2 s and 5 s",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The latest answer of one check.

    Args:
        code: ``ok``, ``timeout``, ``error`` or the first finding's code; fixed words, never exception text.
        seconds: how long it took.
        age_seconds: how long ago it was measured.
    """

    name: str
    ok: bool
    required: bool
    code: str
    seen: str
    seconds: float
    age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthAnswer:
    """What an adapter sends: a status and a JSON-ready body."""

    status: int
    body: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...] = HEADERS


class _Slot:
    __slots__ = ("check", "finished", "lock", "measured", "result", "running", "started", "state")

    def __init__(self, check: HealthCheck) -> None:
        self.check = check
        self.lock = threading.Lock()
        self.result: CheckResult | None = None
        self.measured = 0.0
        self.finished = 0.0
        self.running: Future[None] | None = None
        self.started = 0.0
        self.state: str | None = None


class HealthMonitor:
    """Runs checks for any number of askers, sync (:meth:`ready`) and async (:meth:`aready`).

    Args:
        checks: what to look at; names must differ.
        sink: gets a ``HEALTH_CHANGED`` event when a check changes between ok and not ok.
        monotonic: seconds that only go forward.

    Raises:
        ConfigError: two checks have one name.
    """

    def __init__(
        self,
        checks: Sequence[HealthCheck],
        *,
        sink: EventSink,
        clock: Clock = SYSTEM_CLOCK,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if len({check.name for check in checks}) != len(checks):
            raise ConfigError(what="two health checks have one name", why="a name is a metric label and must be unique", fix="rename one")
        self._slots = [_Slot(check) for check in checks]
        self._sink = sink
        self._clock = clock
        self._monotonic = monotonic
        self._started_once = False

    def live(self) -> HealthAnswer:
        """The process runs and can answer; nothing else is asked."""
        return HealthAnswer(status=200, body={"status": "ok"})

    def ready(self, detail: Detail = Detail.PUBLIC) -> HealthAnswer:
        """Whether every required check is ok; waits at most the longest timeout."""
        deadline = self._monotonic() + self._longest()
        for slot, running in self._kick():
            if running is not None:
                try:
                    running.result(max(0.0, min(deadline, slot.started + slot.check.timeout.total_seconds()) - self._monotonic()))
                except FutureTimeout:
                    continue
        return self._answer(detail)

    async def aready(self, detail: Detail = Detail.PUBLIC) -> HealthAnswer:
        """:meth:`ready` for an event loop, which it never blocks."""
        waits = []
        for slot, running in self._kick():
            if running is not None:
                left = max(0.0, slot.started + slot.check.timeout.total_seconds() - self._monotonic())
                waits.append(asyncio.wait([asyncio.wrap_future(running)], timeout=left))
        if waits:
            await asyncio.gather(*waits)
        return self._answer(detail)

    def startup(self, detail: Detail = Detail.PUBLIC) -> HealthAnswer:
        """:meth:`ready` until it was ok once; after that, ok."""
        if self._started_once:
            return self.live()
        answer = self.ready(detail)
        self._started_once = answer.status == 200
        return answer

    async def astartup(self, detail: Detail = Detail.PUBLIC) -> HealthAnswer:
        """:meth:`startup` for an event loop."""
        if self._started_once:
            return self.live()
        answer = await self.aready(detail)
        self._started_once = answer.status == 200
        return answer

    def observed(self) -> list[Observed]:
        """The latest answer of every check, without running any; for metrics."""
        now = self._monotonic()
        return [self._observe(slot, now) for slot in self._slots]

    def _kick(self) -> list[tuple[_Slot, Future[None] | None]]:
        return [(slot, self._start(slot)) for slot in self._slots]

    def _start(self, slot: _Slot) -> Future[None] | None:
        with slot.lock:
            now = self._monotonic()
            if slot.running is not None:
                return slot.running
            if slot.result is not None and now - slot.finished < slot.check.ttl.total_seconds():
                return None
            done: Future[None] = Future()
            slot.running, slot.started = done, now
        # A daemon, so that a hung check can't keep the process from ending.
        try:
            threading.Thread(target=self._run, args=(slot, done), name=f"axis-health-{slot.check.name}", daemon=True).start()
        except RuntimeError:  # no thread to be had: not ok now, and tried again when this answer has lapsed
            self._finish(slot, done, CheckResult(name=slot.check.name, ok=False, seen="there was no thread to run it"))
        return done

    def _run(self, slot: _Slot, done: Future[None]) -> None:
        try:
            result = slot.check.run()
            if not isinstance(result, CheckResult):
                raise TypeError  # an answer that is none
        except Exception:  # noqa: BLE001  # whatever a check raises, the answer is not ok; its text may hold a secret and is dropped
            result = CheckResult(name=slot.check.name, ok=False, seen="the check itself failed")
        self._finish(slot, done, result)

    def _finish(self, slot: _Slot, done: Future[None], result: CheckResult) -> None:
        with slot.lock:
            slot.finished = self._monotonic()
            slot.measured = slot.finished - slot.started
            slot.result, slot.running = result, None
        done.set_result(None)

    def _observe(self, slot: _Slot, now: float) -> Observed:
        with slot.lock:
            result, running = slot.result, slot.running
            overdue = running is not None and now - slot.started >= slot.check.timeout.total_seconds()
            seconds, age = (now - slot.started, 0.0) if overdue else (slot.measured, max(0.0, now - slot.finished))
        ok, seen = False, ""
        if overdue:
            code = "timeout"
        elif result is None:
            code = "not_run"
        elif result.ok:
            ok, code, seen = True, "ok", result.seen
        else:
            code, seen = (result.findings[0].code if result.findings else "error"), result.seen
        return Observed(name=slot.check.name, ok=ok, required=slot.check.required, code=code, seen=seen, seconds=seconds, age_seconds=age)

    def _answer(self, detail: Detail) -> HealthAnswer:
        observed = self.observed()
        for slot, now in zip(self._slots, observed, strict=True):
            self._note(slot, now)
        failed = any(not each.ok and each.required for each in observed)
        status = "unavailable" if failed else "ok" if all(each.ok for each in observed) else "degraded"
        body: dict[str, Any] = {"status": status if detail is Detail.FULL else ("unavailable" if failed else "ok")}
        if detail is Detail.FULL:
            body["checks"] = {
                each.name: {
                    "ok": each.ok,
                    "required": each.required,
                    "code": each.code,
                    "seen": each.seen,
                    "seconds": round(each.seconds, 6),
                    "age_seconds": round(each.age_seconds, 3),
                }
                for each in observed
            }
        return HealthAnswer(status=503 if failed else 200, body=body)

    def _note(self, slot: _Slot, now: Observed) -> None:
        state = "ok" if now.ok else "failed"
        with slot.lock:
            before, slot.state = slot.state, state
        if before is not None and before != state:
            outcome = Outcome.ALLOWED if now.ok else Outcome.FAILED
            detail = {"check": now.name, "from_state": before, "to_state": state, "code": now.code}
            self._sink.emit(AuditEvent(kind=EventKind.HEALTH_CHANGED, at=self._clock.now(), outcome=outcome, detail=detail))

    def _longest(self) -> float:
        return max((slot.check.timeout.total_seconds() for slot in self._slots), default=0.0)

"""Health: once per ttl however many ask, bounded however long it hangs, silent to strangers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import timedelta

import pytest

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent
from axis_security.ops.health import Detail, HealthCheck, HealthMonitor


class Sink:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        self.events.append(event)


class Switch:
    """A check whose answer the test sets."""

    def __init__(self, *, ok: bool = True) -> None:
        self.ok, self.calls, self.gate, self.error = ok, 0, threading.Event(), False
        self.gate.set()

    def __call__(self) -> CheckResult:
        self.calls += 1
        self.gate.wait(10)
        if self.error:
            raise RuntimeError("password=hunter2")
        finding = Finding(code="db.down", severity=Severity.ERROR, object="db", what="w", why="secret-host", fix="f")
        return CheckResult(name="db", ok=self.ok, seen="3 ms", findings=() if self.ok else (finding,))


def monitor(switch: Switch, sink: Sink | None = None, *, required: bool = True, ttl: float = 60.0, timeout: float = 0.2) -> HealthMonitor:
    """A monitor with one check."""
    check = HealthCheck(name="db", run=switch, ttl=timedelta(seconds=ttl), timeout=timedelta(seconds=timeout), required=required)
    return HealthMonitor([check], sink=sink or Sink())


def test_a_thousand_probes_run_a_check_once_per_ttl() -> None:
    """1,000 askers, threads and tasks alike, make one run."""
    switch = Switch()
    health = monitor(switch, timeout=5)
    switch.gate.clear()

    async def storm() -> set[int]:
        tasks = [asyncio.create_task(health.aready()) for _ in range(968)]
        await asyncio.sleep(0.02)
        switch.gate.set()
        return {answer.status for answer in await asyncio.gather(*tasks)}

    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(health.ready().status)) for _ in range(32)]
    for thread in threads:
        thread.start()
    assert asyncio.run(storm()) == {200}
    for thread in threads:
        thread.join()
    assert (statuses, switch.calls) == ([200] * 32, 1)


def test_a_lapsed_answer_is_measured_again() -> None:
    """After its ttl a check runs again: the cache can't hide a change for longer."""
    switch = Switch()
    health = monitor(switch, ttl=0.01)
    assert health.ready().status == 200
    switch.ok = False
    time.sleep(0.02)
    assert health.ready().status == 503
    assert switch.calls == 2


def test_a_hung_check_answers_within_its_timeout_and_costs_one_thread() -> None:
    """While a check hangs, every probe is answered 503 in bounded time and no second run starts."""
    switch = Switch()
    switch.gate.clear()
    health = monitor(switch)
    began = time.monotonic()
    first = health.ready(Detail.FULL)
    assert (first.status, first.body["checks"]["db"]["code"]) == (503, "timeout")
    assert time.monotonic() - began < 2
    for _ in range(20):
        assert health.ready().status == 503
        assert asyncio.run(health.aready()).status == 503
    assert switch.calls == 1
    switch.gate.set()
    deadline = time.monotonic() + 5
    while health.ready().status != 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert health.ready().status == 200


def test_strangers_learn_one_word_and_nobody_an_exceptions_text() -> None:
    """Public answers hold the status only; full ones hold codes and what was seen, never what a check raised."""
    switch = Switch(ok=False)
    health = monitor(switch)
    assert health.ready().body == {"status": "unavailable"}
    full = json.dumps(health.ready(Detail.FULL).body)
    assert "db.down" in full
    assert "secret-host" not in full
    switch.error = True
    broken = monitor(switch)
    assert "hunter2" not in json.dumps(broken.ready(Detail.FULL).body)
    assert broken.ready().status == 503


def test_an_answer_that_is_none_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's check that forgets its answer is not ok, and every probe still gets one; so does a check that no thread could be had for, until there is one."""
    forgetful = HealthMonitor([HealthCheck(name="x", run=lambda: None)], sink=Sink())  # type: ignore[arg-type, return-value]
    assert forgetful.ready().status == 503
    assert forgetful.observed()[0].code == "error"
    health = monitor(Switch(), ttl=0.001)

    def exhausted(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", exhausted)
        assert health.ready().status == 503
    time.sleep(0.005)
    assert health.ready().status == 200, "it is tried again"


def test_an_optional_check_degrades_and_does_not_refuse() -> None:
    """A check that isn't required leaves readiness at 200 and shows in the details."""
    health = monitor(Switch(ok=False), required=False)
    assert (health.ready().status, health.ready().body) == (200, {"status": "ok"})
    assert health.ready(Detail.FULL).body["status"] == "degraded"


def test_liveness_asks_nothing_and_startup_remembers() -> None:
    """/livez runs no check; /startupz is /readyz until ok once, then stays ok."""
    switch = Switch(ok=False)
    health = monitor(switch, ttl=0.001)
    assert (health.live().status, switch.calls) == (200, 0)
    assert health.startup().status == 503
    switch.ok = True
    time.sleep(0.005)
    assert asyncio.run(health.astartup()).status == 200
    switch.ok = False
    time.sleep(0.005)
    assert (health.startup().status, health.ready().status) == (200, 503)


def test_changes_are_events_and_steady_states_are_not() -> None:
    """ok to failed and back gives two events; the first answer gives none."""
    switch, sink = Switch(), Sink()
    health = monitor(switch, sink, ttl=0.001)
    for ok in (True, True, False, False, True):
        switch.ok = ok
        time.sleep(0.005)
        health.ready()
    assert [(event.detail["from_state"], event.detail["to_state"]) for event in sink.events] == [("ok", "failed"), ("failed", "ok")]


def test_unusable_checks_are_refused() -> None:
    """A timeout of minutes, a ttl of zero, or a name used twice can't be built."""
    with pytest.raises(ConfigError):
        HealthCheck(name="x", run=Switch(), timeout=timedelta(minutes=5))
    with pytest.raises(ConfigError):
        HealthCheck(name="x", run=Switch(), ttl=timedelta(0))
    check = HealthCheck(name="x", run=Switch())
    with pytest.raises(ConfigError):
        HealthMonitor([check, check], sink=Sink())

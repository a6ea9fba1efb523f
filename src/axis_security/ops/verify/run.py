"""Measure every promise: one look after the other, each with a limit of its own; what crashes, hangs or is missing is red, with the reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import timedelta
from typing import Final

from axis_security import __version__
from axis_security.core.checks import CheckResult
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import AxisError
from axis_security.ops.promises.answer import Look, answer, finding
from axis_security.ops.promises.table import PROMISES, Promise, Promises
from axis_security.ops.verify.report import Report, Row

__all__ = ["DEFAULT_TIMEOUT", "Progress", "verify"]

DEFAULT_TIMEOUT: Final = timedelta(seconds=60)
"""For one look. A deployment gate that hangs is one that people go around."""

Progress = Callable[[Promise, int, int], None]
"""Told which promise is being measured, and how many of how many are done."""


def verify(
    promises: Promises, *, timeout: timedelta = DEFAULT_TIMEOUT, clock: Clock = SYSTEM_CLOCK, progress: Progress | None = None
) -> Report:
    """Run every look of *promises*, in order. Never raises on account of a look.

    Args:
        timeout: of each look.
        clock: the report's time.
        progress: told before each promise.
    """
    at = clock.now()
    began = time.monotonic()
    rows = []
    for number, promise in enumerate(PROMISES):
        if progress is not None:
            progress(promise, number, len(PROMISES))
        rows.append(_row(promise, promises, timeout))
    return Report(product=promises.product, version=__version__, at=at, seconds=time.monotonic() - began, rows=tuple(rows))


def _row(promise: Promise, promises: Promises, timeout: timedelta) -> Row:
    declined = promises.declined.get(promise.key)
    began = time.monotonic()
    checks: list[CheckResult] = []
    for number, look in enumerate(promises.looks(promise.key), 1):
        checks += _measured(look, f"{promise.key}.{number}", timeout)
    if not checks and declined is None:
        why = f"`{promise.key}` has no look"
        fix = f"give Promises({promise.key}=[…]) one, or decline the promise with a reason"
        checks.append(
            answer(promise.key, "not measured", [finding("verify.not_measured", promise.key, "nothing measures this promise", why, fix)])
        )
    return Row(promise=promise, checks=tuple(checks), seconds=time.monotonic() - began, declined=declined)


def _measured(look: Look, name: str, timeout: timedelta) -> list[CheckResult]:
    done: Future[list[CheckResult]] = Future()

    def run() -> None:
        try:
            result = look()
            results = [result] if isinstance(result, CheckResult) else _all(result)
            if not results:
                raise LookupError  # a look that says nothing has shown nothing
        except Exception as error:  # noqa: BLE001  # whatever it raises, the promise is not shown to hold
            done.set_result([_crashed(name, error)])
        else:
            done.set_result(results)

    # A daemon, so that a hung look cannot keep the process from ending.
    threading.Thread(target=run, name=f"axis-verify-{name}", daemon=True).start()
    try:
        return done.result(timeout.total_seconds())
    except TimeoutError:
        seconds = f"{timeout.total_seconds():g} s"
        why, fix = f"it had {seconds}", "look at what it waits for; raise --timeout only if it is slow by nature"
        return [answer(name, f"no answer within {seconds}", [finding("verify.timeout", name, "the measurement did not end", why, fix)])]


def _all(results: Iterable[object]) -> list[CheckResult]:
    found = []
    for each in results:
        if not isinstance(each, CheckResult):
            raise TypeError
        found.append(each)
    return found


def _crashed(name: str, error: Exception) -> CheckResult:
    if isinstance(error, AxisError):
        return answer(name, "could not be measured", [finding(error.code, name, error.what, error.why, error.fix)])
    # The text of a foreign exception may hold a connection string or a row.
    reason = f"it raised {type(error).__name__}"
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    why = f"{reason} (SQLSTATE {state})" if state else reason
    return answer(
        name, reason, [finding("verify.crashed", name, "the measurement failed", why, "run the look by itself, and mend what it needs")]
    )

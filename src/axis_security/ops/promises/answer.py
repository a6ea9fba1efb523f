"""What a measurement is, and short ways to write its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from axis_security.core.checks import CheckResult, Finding, Severity

__all__ = ["Connect", "Look", "answer", "finding", "findings_of", "rows"]

Look = Callable[[], CheckResult | Iterable[CheckResult]]
"""Measures one thing on the running system. One that raises, or does not answer in time, counts as not held."""

Connect = Callable[[], AbstractContextManager[Any]]
"""Opens a connection for a block: ``pool.connection``, ``engine.connect``, or ``lambda: psycopg.connect(dsn)``."""


def finding(code: str, about: str, what: str, why: str, fix: str, **evidence: Any) -> Finding:
    """An error, with what was seen."""
    return Finding(code=code, severity=Severity.ERROR, object=about, what=what, why=why, fix=fix, evidence=evidence)


def answer(name: str, seen: str, findings: Iterable[Finding | None] = ()) -> CheckResult:
    """The answer of the check *name*: ok unless a finding is an error."""
    real = tuple(each for each in findings if each is not None)
    return CheckResult(name=name, ok=all(each.severity is not Severity.ERROR for each in real), seen=seen, findings=real)


def rows(connection: Any, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement on a psycopg or SQLAlchemy connection."""
    run = getattr(connection, "exec_driver_sql", None) or connection.execute
    # Without parameters a driver leaves `%` alone.
    return [tuple(row) for row in (run(sql, tuple(params)) if params else run(sql)).fetchall()]


def findings_of(name: str, measure: Callable[[], Iterable[Finding]], *, seen: str = "") -> Look:
    """A look around anything that gives findings: a route audit, a catalog audit, a host's own.

    Args:
        name: the check's stable dotted name.
        measure: looks; whatever it gives at severity ``error`` breaks the promise.
        seen: what is said where it finds nothing.
    """

    def look() -> CheckResult:
        found = tuple(measure())
        return answer(name, f"{len(found)} finding{'' if len(found) == 1 else 's'}" if found else seen or "nothing found", found)

    return look

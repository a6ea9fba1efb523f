"""Evidence over time: one record for each check of each run, in a chain (:mod:`axis_security.ops.records`)."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.ops.evidence.controls import controls_of
from axis_security.ops.records import adding, broken_at, read_records

if TYPE_CHECKING:
    from axis_security.ops.verify.report import Report

__all__ = ["FORMAT", "check_records", "record_report"]

FORMAT: Final = "axis-security/evidence/v1"
"""The name and version that each record carries."""


def record_report(path: Path, report: Report) -> int:
    """Add one record for each check of *report* to *path*, on disk when this returns; returns how many. Two at a time wait for one another.

    Raises:
        ConfigError: the records that are there were tampered with: nothing is added to a broken chain.
    """
    with adding(path) as add:
        added = [
            add(
                {
                    "format": FORMAT,
                    "at": report.at.isoformat(),
                    "product": report.product,
                    "version": report.version,
                    "promise": row.promise.id,
                    "check": check.name,
                    "controls": [control.short for control in controls_of(row.promise.id)],
                    "ok": check.ok,
                    "seen": check.seen,
                    "findings": [{"code": each.code, "object": each.object} for each in check.findings],
                }
            )
            for row in report.rows
            for check in row.checks
        ]
    return len(added)


def check_records(path: Path, *, now: datetime, within: timedelta) -> tuple[CheckResult, CheckResult]:
    """Whether the chain holds, and whether the newest record that follows from those before it is young enough.

    Raises:
        ConfigError: a line is no record.
    """
    records = read_records(path)
    broken = broken_at(records)

    def finding(code: str, what: str, why: str, fix: str) -> Finding:
        return Finding(code=f"evidence.{code}", severity=Severity.ERROR, object=path.name, what=what, why=why, fix=fix)

    changed = finding(
        "changed",
        "evidence was changed or removed",
        f"record {broken} does not follow from the one before it",
        "compare with signed bundles",
    )
    chain = CheckResult(
        name="evidence.chain",
        ok=not broken,
        seen=f"{len(records)} records" if not broken else f"broken at {broken}",
        findings=(changed,) if broken else (),
    )
    fix = "run `axis-security verify … --evidence FILE` from a timer"
    if not records:
        none = finding("none", "there is no evidence", "nothing was ever recorded", fix)
        return chain, CheckResult(name="evidence.age", ok=False, seen="none", findings=(none,))
    held = records[: broken - 1] if broken else records
    if not held:
        return chain, CheckResult(name="evidence.age", ok=False, seen="none that holds", findings=(changed,))
    newest = held[-1]["at"]
    age = now - datetime.fromisoformat(newest)
    stale = finding("stale", "the evidence is old", f"the newest record is {age.days} days old, {within.days} days are promised", fix)
    late = age > within
    return chain, CheckResult(name="evidence.age", ok=not late, seen=f"newest {newest[:16]}", findings=(stale,) if late else ())

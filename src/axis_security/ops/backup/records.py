"""Drill records on disk, in a chain (:mod:`axis_security.ops.records`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.ops.records import adding, broken_at, read_records

__all__ = ["append_record", "verify_records"]


def append_record(path: Path, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add one record to *path*, on disk when this returns; returns it as it follows the one before.

    Raises:
        ConfigError: the records that are there were changed.
    """
    with adding(path) as add:
        return add(record)


def verify_records(path: Path) -> CheckResult:
    """Every record's hash fits its contents and is named by the next.

    Raises:
        ConfigError: a line is no record.
    """
    records = read_records(path)
    broken = broken_at(records)
    if not broken:
        return CheckResult(name="backup.records", ok=True, seen=f"{len(records)} records")
    finding = Finding(
        code="backup.record",
        severity=Severity.ERROR,
        object=f"{path.name}#{broken}",
        what="a drill record was changed, or one before it was removed",
        why="its hash, or the one it names, does not fit",
        fix="compare with the copies in evidence bundles",
    )
    return CheckResult(name="backup.records", ok=False, seen=f"broken at {broken}", findings=(finding,))

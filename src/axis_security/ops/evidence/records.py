"""Evidence over time: one record for each check of each run, chained by hashes, so that none can be changed or left out unnoticed.

As with every hash chain, a cut at the end shows only against a copy of the head that is kept elsewhere: signed bundles hold one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import ConfigError
from axis_security.ops.evidence.controls import controls_of

if TYPE_CHECKING:
    from axis_security.ops.verify.report import Report

__all__ = ["FORMAT", "check_records", "head_of", "read_records", "record_report"]

FORMAT: Final = "axis-security/evidence/v1"


def _hashed(record: Mapping[str, Any]) -> str:
    body = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_records(path: Path) -> list[dict[str, Any]]:
    """Every record of *path*; none where it does not exist.

    Raises:
        ConfigError: a line is no JSON object.
    """
    if not path.exists():
        return []
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except ValueError:
        records = [None]
    if not all(isinstance(each, dict) for each in records):
        raise ConfigError(what=f"`{path}` holds no evidence", why="a line is no record", fix="restore it from a bundle")
    return records


def head_of(path: Path) -> str:
    """The newest record's hash, or ``""``."""
    records = read_records(path)
    return str(records[-1]["sha256"]) if records else ""


def record_report(path: Path, report: Report) -> int:
    """Add one record for each check of *report* to *path*, on disk when this returns; returns how many. Two at a time wait for one another.

    Raises:
        ConfigError: the records that are there were tampered with: nothing is added to a broken chain.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        broken = _broken_at(read_records(path))
        if broken:
            raise ConfigError(
                what=f"the evidence in `{path}` is broken at record {broken}",
                why="its hash does not fit",
                fix="keep the file, and begin another",
            )
        previous, count = head_of(path), 0
        for row in report.rows:
            for check in row.checks:
                record = {
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
                    "previous": previous,
                }
                previous = record["sha256"] = _hashed(record)
                file.write(json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n")
                count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def _broken_at(records: list[dict[str, Any]]) -> int:
    """The number of the first record that does not follow from the one before it; 0 if all do."""
    previous = ""
    for number, record in enumerate(records, 1):
        if record.get("previous") != previous or record.get("sha256") != _hashed(record):
            return number
        previous = record["sha256"]
    return 0


def check_records(path: Path, *, now: datetime, within: timedelta) -> tuple[CheckResult, CheckResult]:
    """Whether the chain holds, and whether the newest record is young enough."""
    records = read_records(path)
    broken = _broken_at(records)

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

"""Drill records on disk, chained by their hashes; and invariants found by name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import ConfigError
from axis_security.ops.backup.drill import Invariant

__all__ = ["append_record", "last_hash", "load_invariants", "verify_records"]


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Add one record to *path*, on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, sort_keys=True, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def last_hash(path: Path) -> str:
    """The newest record's hash, or ``""``."""
    records = _records(path)
    return str(records[-1]["sha256"]) if records else ""


def verify_records(path: Path) -> CheckResult:
    """Every record's hash fits its contents and is named by the next."""
    previous = ""
    records = _records(path)
    for number, record in enumerate(records, 1):
        body = {name: value for name, value in record.items() if name != "sha256"}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        if digest != record.get("sha256") or record.get("previous") != previous:
            finding = Finding(
                code="backup.record",
                severity=Severity.ERROR,
                object=f"{path.name}#{number}",
                what="a drill record was changed, or one before it was removed",
                why="its hash, or the one it names, does not fit",
                fix="compare with the copies in evidence bundles",
            )
            return CheckResult(name="backup.records", ok=False, seen=f"broken at {number}", findings=(finding,))
        previous = digest
    return CheckResult(name="backup.records", ok=True, seen=f"{len(records)} records")


def load_invariants(names: Sequence[str]) -> dict[str, Invariant]:
    """Callables by ``module:name``.

    Raises:
        ConfigError: there is no such callable.
    """
    out: dict[str, Invariant] = {}
    for text in names:
        module, _, name = text.partition(":")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError):
            found = None
        if not callable(found):
            raise ConfigError(what=f"`{text}` is no invariant", why="there is no such callable", fix="write MODULE:CALLABLE")
        out[text] = found
    return out

"""What a run saw, and what is worse than in a run before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from axis_security.core.checks import CheckResult
from axis_security.core.errors import ConfigError
from axis_security.ops.promises.table import Promise

__all__ = ["FORMAT", "Regression", "Report", "Row", "read_baseline"]

FORMAT: Final = "axis-security/verify/v1"
"""The name and version that a report carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One promise, measured. Args: declined: the reason why this product does not make it."""

    promise: Promise
    checks: tuple[CheckResult, ...]
    seconds: float
    declined: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it was measured and every check holds."""
        return self.declined is None and bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def seen(self) -> str:
        """What was measured, in one line."""
        return f"not promised: {self.declined}" if self.declined is not None else "; ".join(check.seen for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form with stable key order."""
        return {
            "id": self.promise.id,
            "key": self.promise.key,
            "promise": self.promise.text,
            "ok": self.ok,
            "declined": self.declined,
            "seen": self.seen,
            "seconds": round(self.seconds, 3),
            "checks": [check.as_dict() for check in self.checks],
        }


@dataclass(frozen=True, slots=True)
class Regression:
    """Something that held, or was not there, in the baseline, and is now broken. Args: why: in one line."""

    promise: int
    check: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every promise, measured at one time."""

    product: str
    version: str
    at: datetime
    seconds: float
    rows: tuple[Row, ...] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether every promise that is made holds."""
        return all(row.ok or row.declined is not None for row in self.rows)

    @property
    def held(self) -> int:
        """How many promises hold."""
        return sum(row.ok for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form; also what ``--baseline`` reads."""
        return {
            "format": FORMAT,
            "product": self.product,
            "version": self.version,
            "time": self.at.isoformat(),
            "seconds": round(self.seconds, 3),
            "ok": self.ok,
            "promises": [row.as_dict() for row in self.rows],
        }

    def regressions(self, baseline: Mapping[str, Any]) -> list[Regression]:
        """What is broken now and was not in *baseline*: new findings, promises no longer made, and checks that are gone.

        A finding is known by promise, check, code and object; its words and figures may change.
        """
        before = {each["id"]: each for each in baseline["promises"]}
        found = []
        for row in self.rows:
            then = before.get(row.promise.id, {"ok": False, "declined": None, "checks": []})
            known = {key for check in then["checks"] if not check["ok"] for key in _keys(check)}
            if row.declined is not None and then["declined"] is None:
                found.append(Regression(row.promise.id, row.promise.key, "no longer promised"))
                continue
            worse = [
                Regression(row.promise.id, check.name, f"{why}: {about}" if about else why)
                for check in row.checks
                if not check.ok
                for key in _keys(check.as_dict())
                if key not in known
                for _, why, about in [key]
            ]
            gone = {check["name"] for check in then["checks"] if check["ok"]} - {check.name for check in row.checks}
            # A look that crashes is known by its place and not by its checks' names: it has been counted.
            found += worse or [Regression(row.promise.id, name, "no longer measured") for name in sorted(gone)]
        return found


def _keys(check: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    keys = [(check["name"], each["code"], each["object"]) for each in check["findings"] if each["severity"] == "error"]
    return keys or [(check["name"], "not ok", "")]


def read_baseline(path: Path) -> Mapping[str, Any]:
    """What ``axis-security verify --json`` printed before.

    Raises:
        ConfigError: it is no report of ours.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT or not isinstance(found["promises"], list):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            what=f"the baseline `{path}` cannot be used",
            why="it is missing, or no report",
            fix="write it with `axis-security verify … --save FILE`",
        ) from None
    return found

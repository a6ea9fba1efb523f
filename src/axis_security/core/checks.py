"""Findings and checks: the one shape in which every part of the library reports on a live system.

A :class:`Finding` is something wrong, with what, why and fix. A :class:`CheckResult` is the answer of one check that looked at one
thing: what was seen, and the findings. Whatever cannot be measured counts as not ok.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Check", "CheckResult", "Finding", "Severity"]


class Severity(enum.StrEnum):
    """How bad: ``error`` breaks a promise, ``warning`` may, ``info`` is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as promised.

    Args:
        code: stable and dotted, listed in the reference.
        severity: how bad.
        object: the thing it is about, as the system names it.
        what, why, fix: in plain words; ``fix`` is SQL or a command where one exists.
        evidence: what was seen, JSON-ready, without secrets.
    """

    code: str
    severity: Severity
    object: str
    what: str
    why: str
    fix: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form with stable key order."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "object": self.object,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check saw.

    Args:
        name: the check's stable dotted name.
        ok: whether the promise holds. A check that could not run is not ok.
        seen: what was measured, in one line.
        findings: what is wrong.
    """

    name: str
    ok: bool
    seen: str
    findings: Sequence[Finding] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form with stable key order."""
        return {"name": self.name, "ok": self.ok, "seen": self.seen, "findings": [finding.as_dict() for finding in self.findings]}


class Check(Protocol):
    """Looks at one thing on the live system."""

    @property
    def name(self) -> str:
        """The check's stable dotted name."""
        ...

    def run(self) -> CheckResult:
        """Look, and say what was seen. Raising counts as not ok."""
        ...

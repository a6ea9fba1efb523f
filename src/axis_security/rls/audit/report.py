"""What an audit found, and what it could not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from axis_security.core.checks import Finding, Severity
from axis_security.rls.audit.ground import Scope

__all__ = ["AuditReport"]

ORDER: Final = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
"""The worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """The answer of an audit.

    Args:
        findings: the worst first, then by object.
        accepted: findings that the host has accepted, each with the reason.
        unknown: what the audit could not know, in plain words.
        scope: what was declared or assumed.
        tables: how many tables were looked at.
        database: its name.
        version: the server's ``server_version_num``.
    """

    findings: tuple[Finding, ...]
    accepted: tuple[tuple[Finding, str], ...] = ()
    unknown: tuple[str, ...] = ()
    scope: Scope = field(repr=False)
    tables: int = 0
    database: str = ""
    version: int = 0

    @property
    def ok(self) -> bool:
        """No error was found."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def counts(self) -> Mapping[Severity, int]:
        """How many findings of each severity."""
        return Counter(finding.severity for finding in self.findings)

    @property
    def codes(self) -> frozenset[str]:
        """The codes that were found."""
        return frozenset(finding.code for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form with stable key order."""
        return {
            "ok": self.ok,
            "database": self.database,
            "server_version": self.version,
            "tables": self.tables,
            "key": self.scope.key,
            "app_roles": sorted(self.scope.app),
            "declared": self.scope.model is not None,
            "assumed": list(self.scope.assumed),
            "unknown": list(self.unknown),
            "findings": [finding.as_dict() for finding in self.findings],
            "accepted": [{**finding.as_dict(), "reason": reason} for finding, reason in self.accepted],
        }

    def __str__(self) -> str:
        from axis_security.rls.audit.formats import as_table

        return as_table(self)

"""What a rule is: a code, how bad, words for people, and a pure function from the ground to hits. Declaring one registers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from axis_security.core.checks import Finding, Severity
from axis_security.core.errors import ConfigError
from axis_security.rls.audit.ground import Ground

__all__ = ["RULES", "Hit", "Rule", "rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One place where a rule found its fault.

    Args:
        object: what it is about, as people name it.
        fix: the SQL that mends it; a line starting with ``--`` where SQL alone cannot.
        evidence: what was seen, JSON-ready.
        what: instead of the rule's own sentence.
        severity: instead of the rule's own.
    """

    object: str
    fix: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    what: str | None = None
    severity: Severity | None = None


Check = Callable[[Ground], Iterator[Hit]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A fault that the catalog can show.

    Args:
        code: stable, dotted.
        severity: unless a hit says otherwise.
        what, why: one sentence each.
        modes: the kinds of failure it closes; see the reference of findings.
    """

    code: str
    severity: Severity
    what: str
    why: str
    modes: tuple[int, ...]
    check: Check = field(repr=False)

    def findings(self, ground: Ground) -> Iterator[Finding]:
        """Every place where the fault is."""
        for hit in self.check(ground):
            yield Finding(
                code=self.code,
                severity=hit.severity or self.severity,
                object=hit.object,
                what=hit.what or self.what,
                why=self.why,
                fix=hit.fix,
                evidence=hit.evidence,
            )


RULES: Final[dict[str, Rule]] = {}
"""Every rule by its code; filled by importing the modules of rules."""


def rule(code: str, severity: Severity, *, what: str, why: str, modes: tuple[int, ...]) -> Callable[[Check], Check]:
    """Register the decorated function as the check of a rule.

    Raises:
        ConfigError: the code is taken.
    """

    def register(check: Check) -> Check:
        if code in RULES:
            raise ConfigError(what=f"two rules are called `{code}`", why="a code names one fault", fix="choose another code")
        RULES[code] = Rule(code=code, severity=severity, what=what, why=why, modes=modes, check=check)
        return check

    return register

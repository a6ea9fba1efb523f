"""What a policy grants, in the neutral form that both the guard and the row-level compiler read.

The guard (rbac) owns policies; the compiler (rls) turns them into SQL; neither imports the other. This is the value between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["CapabilityLike", "Condition", "Grant", "GrantTable", "OwnedByUser", "PythonOnly"]


class CapabilityLike(Protocol):
    """A capability object, such as ``caps.users.manage``."""

    @property
    def name(self) -> str:
        """The wire name, such as ``users.manage``."""
        ...


@dataclass(frozen=True, slots=True)
class OwnedByUser:
    """The row's *column* holds the acting user's id. Compiles to SQL."""

    column: str


@dataclass(frozen=True, slots=True)
class PythonOnly:
    """A named predicate that only Python can evaluate; the row-level compiler refuses a table that would depend on it."""

    name: str


Condition = OwnedByUser | PythonOnly
"""What limits a grant: something that the rows' policies hold too, or something that Python alone can."""


@dataclass(frozen=True, slots=True)
class Grant:
    """*role* holds *capability*; where *when* is set, only for objects that satisfy it."""

    role: str
    capability: str
    when: Condition | None = None


class GrantTable(Protocol):
    """A policy, seen from the row-level compiler."""

    def grants(self) -> Sequence[Grant]:
        """Every grant of every role, inheritance resolved, in a stable order."""
        ...

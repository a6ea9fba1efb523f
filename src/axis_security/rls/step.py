"""A plan's smallest piece: one change, its undoing, and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from axis_security.core.secret import Secret

__all__ = ["Step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One reviewable change.

    Args:
        sql: what runs (several statements only where they belong together).
        reverse: what undoes it; ``None`` where the state before cannot be brought back, or should not be.
        why: the reason, for the reviewer.
        params: values that must not be printed, one for each ``%s`` of the text.
        flagged: somebody changed the database by hand, or the step takes rights away: look twice.
    """

    sql: str
    reverse: str | None
    why: str
    params: Sequence[Secret[bytes]] = ()
    flagged: bool = False

    @property
    def shown(self) -> str:
        """What runs, for people: ``***`` stands for each value."""
        text = self.sql
        for _ in self.params:
            text = text.replace("%s", "'***'", 1)
        return text

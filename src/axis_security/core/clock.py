"""Time is an argument: nothing below the adapters calls ``datetime.now()``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """Tells the time. Hosts use :data:`SYSTEM_CLOCK`; tests use :class:`axis_security.testing.ManualClock`."""

    def now(self) -> datetime:
        """The present moment, always timezone-aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now(self) -> datetime:
        """The present moment in UTC."""
        return datetime.now(UTC)


SYSTEM_CLOCK: Clock = SystemClock()
"""The machine's clock, for whoever was given no other."""

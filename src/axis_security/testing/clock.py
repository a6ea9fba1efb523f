"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["ManualClock"]

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """Tells the time it was set to. Fits :class:`axis_security.core.clock.Clock`.

    Args:
        start: the first moment, timezone-aware.

    Raises:
        ValueError: *start* has no zone.
    """

    def __init__(self, start: datetime = _START) -> None:
        self._now = _aware(start)

    def now(self) -> datetime:
        """The moment it stands at, in UTC."""
        return self._now

    def advance(self, by: timedelta | float) -> datetime:
        """Move by *by* (seconds, or a timedelta; negative for a clock that was set back) and return the new moment."""
        self._now += by if isinstance(by, timedelta) else timedelta(seconds=by)
        return self._now

    def set(self, moment: datetime) -> None:
        """Stand at *moment*.

        Raises:
            ValueError: *moment* has no zone.
        """
        self._now = _aware(moment)


def _aware(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise ValueError("a ManualClock takes timezone-aware datetimes")
    return moment.astimezone(UTC)

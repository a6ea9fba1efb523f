"""A sink that keeps audit events in memory, for tests that ask what was recorded."""

from __future__ import annotations

from axis_security.core.events import AuditEvent, EventKind

__all__ = ["MemorySink"]


class MemorySink:
    """Keeps every event, in order. Fits :class:`axis_security.core.events.EventSink`.

    Args:
        failing: raised by every :meth:`emit`, for code that must refuse when its event cannot be kept.
    """

    def __init__(self, *, failing: Exception | None = None) -> None:
        self.events: list[AuditEvent] = []
        self.failing = failing

    def emit(self, event: AuditEvent) -> None:
        """Keep *event*, or raise what it was told to."""
        if self.failing is not None:
            raise self.failing
        # list.append is atomic, so threads may share one sink.
        self.events.append(event)

    def of(self, kind: EventKind) -> list[AuditEvent]:
        """The events of one kind."""
        return [event for event in self.events if event.kind is kind]

    @property
    def kinds(self) -> list[EventKind]:
        """The kinds, in order."""
        return [event.kind for event in self.events]

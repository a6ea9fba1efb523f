"""The bookkeeping of a system scope, without a server."""

from __future__ import annotations

import contextvars
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from axis_security.core.events import AuditEvent, EventKind, Outcome
from axis_security.rls.system import SystemAccess, SystemBinder, SystemScopeRequired
from axis_security.testing import ManualClock, MemorySink

CLOCK = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


class Connection:
    """Notes how it ended."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def commit(self) -> None:
        self.did.append("commit")

    def close(self) -> None:
        self.did.append("close")


def access(sink: Any, connection: Connection) -> SystemAccess:
    """System access to an engine that gives *connection*."""
    return SystemAccess(engine=SimpleNamespace(url=SimpleNamespace(username="sys"), connect=lambda: connection), sink=sink, clock=CLOCK)


def test_a_scope_left_in_another_context_is_on_record() -> None:
    """Frameworks may run the two halves of a generator in different contexts: the end is told there too, the work kept, and no scope is left open."""
    sink, connection = MemorySink(), Connection()
    scope = access(sink, connection).open(reason="nightly figures", lasting=timedelta(minutes=1))
    contextvars.copy_context().run(scope.__enter__)
    scope.__exit__(None, None, None)
    assert connection.did == ["commit", "close"]
    assert [(event.kind, event.outcome) for event in sink.events] == [
        (EventKind.SYSTEM_SCOPE_OPENED, Outcome.ALLOWED),
        (EventKind.SYSTEM_SCOPE_CLOSED, Outcome.ALLOWED),
    ]
    with pytest.raises(SystemScopeRequired):
        SystemBinder(CLOCK).begin()


def test_a_scope_whose_end_cannot_be_kept_is_over_all_the_same() -> None:
    """A sink that fails at the end is heard, and does not leave the login open for the code that comes after."""

    class Failing:
        def emit(self, event: AuditEvent) -> None:
            if event.kind is EventKind.SYSTEM_SCOPE_CLOSED:
                raise OSError

    with pytest.raises(OSError), access(Failing(), Connection()).open(reason="nightly figures", lasting=timedelta(minutes=1)):
        pass
    with pytest.raises(SystemScopeRequired):
        SystemBinder(CLOCK).begin()

"""What an export refuses before it reads a row."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import Any

import pytest

from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.events import EventKind
from axis_security.core.principal import Principal
from axis_security.ops.export import export_workspace
from axis_security.rbac import Capabilities, standard_policy
from axis_security.rbac.decision import PermissionDenied
from axis_security.testing.sink import MemorySink


class Reached(Exception):  # no error: it says that a door was opened
    """A connection was asked for."""


class Door:
    """In a pool's place."""

    def connection(self) -> AbstractContextManager[Any]:
        raise Reached


@pytest.mark.parametrize(
    ("role", "formats", "outcome"),
    [
        ("owner", ("jsonl", "csv"), Reached),
        ("owner", ("csv", "csv"), Reached),
        ("owner", ("xml",), ConfigError),
        ("owner", (), ConfigError),
        ("member", ("jsonl",), PermissionDenied),
        ("member", ("xml",), PermissionDenied),
    ],
)
def test_who_may_not_and_what_there_is_not_is_refused_at_the_door(role: str, formats: tuple[str, ...], outcome: type[Exception]) -> None:
    """A right that is missing or a format that is unknown is told before a connection is taken, an event written or a byte sent; the right comes first."""
    sink, out = MemorySink(), io.BytesIO()
    caps = Capabilities(contacts=("read",), users=("manage",))
    policy = standard_policy(caps, viewer=[caps.contacts.read], events=sink)
    with acting_as(Principal(tenant="acme", user="u", role=role)), pytest.raises(outcome):
        export_workspace(out, source=Door(), tables=(), policy=policy, export="e", formats=formats)
    assert out.getvalue() == b""
    assert not [event for event in sink.events if event.kind is EventKind.DATA_EXPORTED]

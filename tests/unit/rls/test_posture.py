"""What the posture check makes of a server's answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from axis_security.core.errors import CheckFailed
from axis_security.core.events import AuditEvent
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.posture import Posture, ServerTooOld, UnsafeRole

FINE = {"version": 180001, "role": "axis_app", "is_super": False, "bypasses": False, "owns": False, "memberships": ["axis_app"]}


def answer(**changes: Any) -> str:
    """A server's answer."""
    return json.dumps({**FINE, **changes})


def test_a_plain_login_on_a_current_server_passes() -> None:
    """The app role, on each supported major at its floor."""
    for version in (140019, 150014, 160010, 170006, 180000, 190000):
        Posture(roles=DatabaseRoles()).check(answer(version=version))


@pytest.mark.parametrize("version", [130022, 140018, 150013, 160009, 170005])
def test_old_servers_are_refused(version: int) -> None:
    """Below the floor of its major, or of a major without fixes."""
    with pytest.raises(ServerTooOld):
        Posture(roles=DatabaseRoles()).check(answer(version=version))


@pytest.mark.parametrize(
    "changes",
    [
        {"is_super": True},
        {"bypasses": True},
        {"owns": True},
        {"memberships": ["axis_app", "axis_system"]},
        {"memberships": ["axis_guard"]},
        {"role": "axis_owner"},
    ],
)
def test_unsafe_logins_are_refused_and_recorded(changes: dict[str, Any]) -> None:
    """Each way around row security, with an event before the refusal."""
    kept: list[AuditEvent] = []

    class Sink:
        def emit(self, event: AuditEvent) -> None:
            kept.append(event)

    with pytest.raises(UnsafeRole):
        Posture(roles=DatabaseRoles(), sink=Sink()).check(answer(**changes))
    assert [event.detail["code"] for event in kept] == ["rls.unsafe_role"]


def test_the_system_login_may_be_the_system_role_only() -> None:
    """A member of `system` passes as the system login; a member of `guard` or `owner` does not."""
    posture = Posture(roles=DatabaseRoles(), system=True)
    posture.check(answer(role="axis_system", memberships=["axis_system"]))
    with pytest.raises(UnsafeRole):
        posture.check(answer(role="axis_system", memberships=["axis_owner"]))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"version": 1}'])
def test_no_answer_is_no(text: str) -> None:
    """An answer that makes no sense refuses."""
    with pytest.raises(CheckFailed):
        Posture(roles=DatabaseRoles()).check(text)

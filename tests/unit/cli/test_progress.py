"""What a person sees while a command works, and a machine does not."""

from __future__ import annotations

import io
import sys

import pytest

from axis_security.cli import backup, verify
from axis_security.ops.promises import PROMISES


class Screen(io.StringIO):
    """In standard error's place. Args: terminal: whether a person looks at it."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_the_stages_of_a_backup_are_shown_to_a_person_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal each stage by its name, also where its size is not known; in a pipe, or with --json, nothing."""
    for terminal, show in ((True, True), (False, True), (True, False)):
        screen = Screen(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", screen)
        with backup._progress(show=show) as tell:
            tell("backup", 5, 10)
            tell("backup", 10, 10)
            tell("recover", 0, 0)
        shown = screen.getvalue()
        assert ("backup" in shown, "recover" in shown) == (terminal and show, terminal and show)


def test_the_promise_that_is_measured_is_shown_to_a_person_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for verify."""
    for terminal in (True, False):
        screen = Screen(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", screen)
        with verify._progress(show=True) as tell:
            assert (tell is not None) is terminal
            if tell is not None:
                tell(PROMISES[0], 0, 14)
        assert (f"1/14 {PROMISES[0].text}" in screen.getvalue()) is terminal

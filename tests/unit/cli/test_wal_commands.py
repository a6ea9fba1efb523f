"""What PostgreSQL calls: the exit status is all that it hears, and a wrong one loses what was committed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from axis_security.cli import backup
from axis_security.core.errors import ConfigError


def refused(*_: object) -> bool:
    raise ConfigError(what="w", why="y", fix="f")


def full(*_: object) -> bool:
    raise OSError(28, "No space left on device")


def buggy(*_: object) -> bool:
    raise KeyError("a row of Ms Doe")


@pytest.mark.parametrize(
    ("fetch", "status", "said"),
    [
        (lambda *_: True, 0, ""),
        (lambda *_: False, 1, "is not in the archive"),
        (refused, 200, "w: y"),
        (full, 200, "No space left on device"),
        (buggy, 200, "KeyError"),
    ],
)
def test_only_a_segment_that_the_archive_lacks_is_the_archives_end(
    monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Result], tmp_path: Path, fetch: Callable[..., bool], status: int, said: str
) -> None:
    """With status 1 PostgreSQL takes the archive for read to its end, and opens. Whatever else stops `wal-get`, a full disk or a fault of ours, ends the recovery
    instead: above 125."""
    made: Any = SimpleNamespace(driver=SimpleNamespace(fetch_wal=fetch))
    monkeypatch.setattr(backup, "_backups", lambda _: made)
    done = command_line("backup", "wal-get", "000000010000000000000001", tmp_path / "into")
    assert done.exit_code == status
    assert said in done.stderr
    assert "Doe" not in done.stderr


def test_settings_that_cannot_be_read_are_not_the_archives_end(command_line: Callable[..., Result], tmp_path: Path) -> None:
    """The same where it fails before the archive is asked."""
    done = command_line("backup", "--config", tmp_path / "none.toml", "wal-get", "000000010000000000000001", tmp_path / "into")
    assert done.exit_code == 200

"""What backups say when the machine under them fails: an error of ours with what, why and fix, an event, and a check that is red."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axis_security.core.errors import AxisError, ConfigError
from axis_security.core.events import EventKind, Outcome
from axis_security.ops.backup import BackupError, BackupKeys, Backups, BackupSettings
from axis_security.ops.backup.process import Account
from axis_security.ops.secrets import MountedFiles
from axis_security.testing.sink import MemorySink

OWNER = "nobody" if os.geteuid() == 0 else None


class FullDisk:
    """In a driver's place: every act of it ends on a full disk."""

    name = "native"
    magic = b"\xa2\x01"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def fails(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", "/srv/backup/g1")

        return fails


@pytest.fixture
def sink() -> MemorySink:
    """Keeps the events."""
    return MemorySink()


@pytest.fixture
def backups(tmp_path: Path, sink: MemorySink) -> Backups:
    """Without a server, on a full disk."""
    settings = BackupSettings(
        stanza="main", repository=tmp_path / "repo", data_dir=tmp_path / "data", bin_dir=tmp_path, driver="native", run_as=OWNER,
        scratch=tmp_path / "scratch", state=tmp_path, socket_dir=tmp_path,
    )  # fmt: skip
    made = Backups(settings, BackupKeys(MountedFiles(tmp_path), settings), sink=sink)
    made.driver = FullDisk()  # what is asked of it fails
    return made


def test_a_full_disk_is_an_event_and_an_error_with_a_fix(backups: Backups, sink: MemorySink, tmp_path: Path) -> None:
    """The plainest way for a backup to fail is told as the others are: whoever watches events for failed backups learns of it."""
    with pytest.raises(BackupError, match="No space left") as caught:
        backups.run()
    assert caught.value.fix
    assert [(event.kind, event.outcome, event.detail["kind"]) for event in sink.events] == [
        (EventKind.BACKUP_RUN, Outcome.FAILED, "backup.failed")
    ]
    with pytest.raises(BackupError, match="No space left"):
        backups.restore(tmp_path / "into")


def test_what_cannot_be_read_is_red_and_hides_no_other_check(backups: Backups) -> None:
    """Every check has its line, says that it could not be measured, and why; nothing is raised."""
    results = {result.name: result for result in backups.check(verify=True)}
    assert set(results) == {
        f"backup.{name}" for name in ("archiver", "catalogue", "age", "wal_gap", "loss", "window", "encryption", "verify")
    }
    assert not any(result.ok for result in results.values())
    assert "No space left" in results["backup.encryption"].findings[0].why
    assert results["backup.archiver"].findings[0].code == "backup.server"


def test_a_drill_that_cannot_begin_is_an_event(backups: Backups, sink: MemorySink) -> None:
    """No server: the drill is refused, and the log knows that none was held."""
    with pytest.raises(AxisError):
        backups.drill()
    assert [(event.kind, event.outcome) for event in sink.events] == [(EventKind.BACKUP_DRILLED, Outcome.FAILED)]


def test_a_program_that_is_not_there_or_may_not_be_run_is_told_apart(tmp_path: Path) -> None:
    """Each has its own fix; neither is a crash."""
    account = Account(OWNER)
    with pytest.raises(ConfigError, match="not installed"):
        account.run(["/usr/bin/no-such-program"])
    (tmp_path / "postgres").write_text("#!/bin/sh\n")
    (tmp_path / "postgres").chmod(0o644)
    with pytest.raises(ConfigError, match="may not run it"):
        account.run([str(tmp_path / "postgres")])


def test_programs_inherit_what_finds_the_secrets_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drill's server calls `wal-get`, which asks the same secrets manager as we do: what says where that is goes along. PGHOST and its kind, which would steer
    our programs, and access keys do not."""
    for name in (
        "AWS_REGION",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "CREDENTIALS_DIRECTORY",
        "PGHOST",
        "PGBACKREST_REPO1_PATH",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, "x")
    environment = Account(OWNER).environment()
    assert {"AWS_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE", "CREDENTIALS_DIRECTORY"} <= environment.keys()
    assert not {"PGHOST", "PGBACKREST_REPO1_PATH", "AWS_SECRET_ACCESS_KEY"} & environment.keys()

"""The pgBackRest driver over a program that answers as the test says: what no real repository shows on demand."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from axis_security.core.minted import minted_text
from axis_security.core.secret import Secret
from axis_security.ops.backup import BackupError, BackupKeys, BackupKind, BackupSettings
from axis_security.ops.backup.checks import check_encryption
from axis_security.ops.backup.errors import BackupDamaged, ProgramFailed, WrongBackupKey
from axis_security.ops.backup.pgbackrest import PgBackRestDriver
from axis_security.ops.backup.restoring import plan_restore
from axis_security.ops.backup.server import Canary
from axis_security.ops.secrets import SecretVersion, Stage

OWNER = "nobody" if os.geteuid() == 0 else None
CANARY = Canary(number=1, token="ab" * 32, begun_at=datetime(2026, 5, 1, tzinfo=UTC))
SCRIPT = """#!/bin/sh
case "$1" in *-g2.conf) g=2 ;; *) g=1 ;; esac
shift 2
echo "$g $*" >> "{folder}/called"
if [ "$1" = repo-ls ]; then name="ls-$(echo "$2" | cut -d/ -f1)"; else name="$1"; fi
if [ -e "{folder}/$g/$name.status" ]; then cat "{folder}/$g/$name" 2>/dev/null; exit "$(cat "{folder}/$g/$name.status")"; fi
exec cat "{folder}/$g/$name"
"""
FULL, INCR = "20260501-020000F", "20260501-020000F_20260502-020000I"


class Keys:
    """One key for everything."""

    label = "keys"

    def fetch(self, name: str, stage: Stage = Stage.CURRENT) -> SecretVersion:
        return SecretVersion(value=Secret(minted_text("backup", b"k" * 32).reveal()), version="1")


def listed(label: str, *, error: bool = False, reference: list[str] | None = None) -> dict[str, Any]:
    """A backup as `info` lists it."""
    return {
        "label": label, "type": "incr" if "_" in label else "full", "error": error, "reference": reference, "timestamp": {"start": 1, "stop": 2},
        "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000002"}, "info": {"size": 100},
    }  # fmt: skip


class Repository:
    """What the program answers, by generation and verb."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        program = folder / "pgbackrest"
        program.write_text(SCRIPT.format(folder=folder))
        program.chmod(0o755)
        (folder / "called").touch(0o666)
        (folder / "called").chmod(0o666)
        settings = BackupSettings(
            stanza="main", repository=folder / "repo", data_dir=folder / "data", bin_dir=folder, run_as=OWNER, scratch=folder,
            state=folder / "state", generations=(1, 2), **options,
        )  # fmt: skip
        self.driver = PgBackRestDriver(settings, BackupKeys(Keys(), settings), program=str(program))
        for generation in (1, 2):
            (folder / str(generation)).mkdir()
            self.says(generation, "info", [{"name": "main", "status": {"code": 0}, "backup": []}])
            self.says(generation, "ls-backup", {})
            self.says(generation, "ls-archive", {})
            self.says(generation, "check", "")
            self.says(generation, "backup", "")

    def says(self, generation: int, name: str, answer: object, *, status: int = 0) -> None:
        path = self.folder / str(generation) / name
        path.write_text(answer if isinstance(answer, str) else json.dumps(answer))
        if status:
            path.with_name(f"{name}.status").write_text(str(status))

    def holds(self, generation: int, *backups: dict[str, Any], manifests: tuple[str, ...] = (), code: int = 0, message: str = "") -> None:
        """The backups that *generation* lists, and those of which a manifest is there."""
        stanza = {"name": "main", "status": {"code": code}, "backup": list(backups), "repo": [{"status": {"message": message}}]}
        self.says(generation, "info", [stanza])
        self.says(generation, "ls-backup", {f"{label}/backup.manifest": {"type": "file"} for label in manifests})

    def seen(self) -> tuple[list[str], list[str]]:
        inventory = self.driver.inventory()
        return [each.label for each in inventory.backups], [str(each.facts["name"]) for each in inventory.damaged]

    @property
    def called(self) -> str:
        return (self.folder / "called").read_text()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the account which runs the program can enter; pytest's own cannot be."""
    path = Path(tempfile.mkdtemp(prefix="axis-pgbr-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def repository(folder: Path) -> Repository:
    """Two generations, empty."""
    return Repository(folder)


def test_a_backup_that_cannot_be_read_is_named_and_hides_no_other(repository: Repository) -> None:
    """One without a manifest, one that builds on it, one that copied a page with a wrong checksum; and all of a generation whose lists cannot be read."""
    repository.holds(1, listed(FULL), listed(INCR, reference=[FULL]), manifests=(FULL, INCR))
    repository.holds(2, listed("20260601-020000F"), manifests=("20260601-020000F",))
    assert repository.seen() == ([FULL, INCR, "20260601-020000F"], []), "control"
    repository.holds(1, listed(FULL), listed(INCR, reference=[FULL]), manifests=(INCR,))
    assert repository.seen() == (["20260601-020000F"], [f"g1/backup/main/{FULL}", f"g1/backup/main/{INCR}"])
    repository.holds(1, listed(FULL, error=True), manifests=(FULL,))
    assert repository.seen() == (["20260601-020000F"], [f"g1/backup/main/{FULL}"])
    repository.holds(1, code=99, message="unable to load info file")
    assert repository.seen() == (["20260601-020000F"], ["g1"])


def test_where_nothing_can_be_read_the_reason_is_told(repository: Repository) -> None:
    """Not that there is no backup: that it is damaged; or, where something does not open, that the key is wrong, without the bytes that came out of it."""
    repository.holds(1, listed(FULL))
    with pytest.raises(BackupDamaged, match="is gone"):
        plan_restore(repository.driver.inventory(), None)
    repository.holds(2, code=99, message="[FormatError] invalid key \x07secret bytes")
    with pytest.raises(WrongBackupKey) as caught:
        repository.driver.inventory()
    assert "secret bytes" not in str(caught.value)
    repository.says(2, "info", "", status=95)
    with pytest.raises(WrongBackupKey):
        repository.driver.inventory()


def test_nothing_expires_while_one_is_damaged(repository: Repository) -> None:
    """Whether the one that cannot be read is the one to keep is not known. Control: with nothing damaged pgBackRest lets go as ever."""
    repository.holds(2, listed("b", error=True), manifests=("b",))
    with pytest.raises(BackupError, match="lists no new backup"):
        repository.driver.run(BackupKind.FULL)
    assert "--no-expire-auto" in repository.called
    repository.holds(2, listed("b"), manifests=("b",))
    (repository.folder / "called").write_text("")
    with pytest.raises(BackupError, match="lists no new backup"):
        repository.driver.run(BackupKind.FULL)
    assert "backup --type=full" in repository.called
    assert "--no-expire-auto" not in repository.called


def test_a_bucket_is_read_as_it_comes_and_no_further_than_asked(folder: Path) -> None:
    """Stored files of any size are looked at in bounded memory; that the program is left early is no failure, and that it fails by itself is one."""
    bucket = Repository(folder, options={"repo1-type": "s3"})
    for generation in (1, 2):
        bucket.says(generation, "ls-", {f"f{generation}": {"type": "file", "size": 5_000_000, "time": generation}})
        bucket.says(generation, "repo-get", "Salted__" + "x" * 5_000_000)
    result = check_encryption(bucket.driver.artefacts(), magic=bucket.driver.magic, canaries=[CANARY], sample_bytes=1 << 20)
    assert result.ok, result
    assert "1 MiB searched" in result.seen
    bucket.says(1, "repo-get", "Salt", status=0)
    result = check_encryption(bucket.driver.artefacts(), magic=bucket.driver.magic, canaries=[CANARY])
    assert [finding.object for finding in result.findings] == ["g1/f1"]
    bucket.says(1, "repo-get", "", status=42)
    with pytest.raises(ProgramFailed):
        check_encryption(bucket.driver.artefacts(), magic=bucket.driver.magic, canaries=[CANARY])


@pytest.mark.parametrize(("status", "answer"), [(0, True), (1, False)])
def test_a_segment_comes_from_the_newest_generation_that_has_it(repository: Repository, tmp_path: Path, status: int, answer: bool) -> None:
    """Asked from the newest on; only pgBackRest's own "not found" is that, and any other failure is one."""
    name = "000000010000000000000002"
    repository.says(2, "archive-get", "", status=1)
    repository.says(1, "archive-get", "", status=status)
    assert repository.driver.fetch_wal(name, tmp_path / "into") is answer
    assert [line[0] for line in repository.called.splitlines()] == ["2", "1"]
    repository.says(2, "archive-get", "", status=103)
    with pytest.raises(ProgramFailed):
        repository.driver.fetch_wal(name, tmp_path / "into")


VERIFIED = """stanza: main
status: error
  archiveId: 15-1, total WAL checked: 4, total valid WAL: 3
    missing: 0, checksum invalid: 1, size invalid: 0, other: 0
  backup: {full}, status: invalid, total files checked: 10, total valid files: 9
    missing: 1, checksum invalid: 0, size invalid: 0, other: 0
"""


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("", {"g2/15-1", f"g2/{FULL}"}),
        (f"INFO: invalid checksum 'backup/main/{FULL}/pg_data/1.zst'\n", {"g2/15-1", f"g2/backup/main/{FULL}/pg_data/1.zst"}),
        ("INFO: file missing 'archive/main/15-1/0.zst'\n", {f"g2/{FULL}", "g2/archive/main/15-1/0.zst"}),
    ],
)
def test_what_verification_found_is_named_by_file_or_by_set(repository: Repository, more: str, named: set[str]) -> None:
    """By the file where pgBackRest names one, else by the backup or the archive that is not whole; a list that differs from its copy is damage, too."""
    for generation in (1, 2):
        repository.says(generation, "verify", "  archiveId: 15-1, total WAL checked: 4, total valid WAL: 4\n")
        repository.says(generation, "ls-", {})
    assert repository.driver.verify().ok, "control"
    repository.says(2, "verify", more + VERIFIED.format(full=FULL))
    result = repository.driver.verify()
    assert not result.ok
    assert {finding.object for finding in result.findings} == named
    repository.says(1, "ls-", {"archive/main/archive.info.copy": {"type": "file"}})
    repository.says(1, "repo-get", "", status=95)
    assert "g1/archive/main/archive.info" in {finding.object for finding in repository.driver.verify().findings}

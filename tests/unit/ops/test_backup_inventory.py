"""The native repository's catalogues: what cannot be read is named, hides nothing, and stops retention from deleting."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from axis_security.core.secret import Secret
from axis_security.ops.backup.checks import check_catalogue
from axis_security.ops.backup.driver import ArchivedWal
from axis_security.ops.backup.errors import BackupDamaged, BackupError, WrongBackupKey
from axis_security.ops.backup.native import NativeDriver
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.repository import SealedRepository
from axis_security.ops.backup.restoring import plan_restore
from axis_security.ops.backup.settings import BackupSettings

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OWNER = "nobody" if os.geteuid() == 0 else None


class Keys:
    """Gives the key that the test chose."""

    def __init__(self, key: bytes) -> None:
        self.held = key

    def key(self, generation: int) -> Secret[bytes]:
        return Secret(self.held)


class Fixed:
    """A clock that stands still."""

    def now(self) -> datetime:
        return NOW


class Shelf:
    """A repository of three backups, a day apart and all far beyond retention but the newest."""

    def __init__(self, root: Path) -> None:
        settings = BackupSettings(
            stanza="main", repository=root / "repo", data_dir=root / "data", bin_dir=root, driver="native", run_as=OWNER, scratch=root, state=root
        )  # fmt: skip
        self.keys = Keys(b"k" * 32)
        self.driver = NativeDriver(settings, self.keys, clock=Fixed())  # type: ignore[arg-type]  # the port's one method that is asked
        self.repository = SealedRepository(
            settings.root(1), stanza="main", generation=1, key=lambda: Secret(b"k" * 32), account=Account(OWNER)
        )
        self.labels = [self.add(f"b{n}", age=timedelta(days=days)) for n, days in enumerate((400, 390, 1), 1)]

    def add(self, label: str, *, age: timedelta, **changes: object) -> str:
        with self.repository.adding(label) as folder:
            self.write(label, folder, age, changes)
        return label

    def write(self, label: str, folder: Path, age: timedelta, changes: dict[str, object]) -> None:
        with self.repository.writing(f"backups/{label}/base", at=folder / "base") as writer:
            writer.write(b"data" * 1000)
        document = {
            "label": label,
            "started": (NOW - age).isoformat(),
            "finished": (NOW - age).isoformat(),
            "first_wal": "000000010000000000000002",
            "last_wal": "000000010000000000000003",
            "database_bytes": 4000,
            "segment_bytes": 16 << 20,
            "stored_bytes": (folder / "base").stat().st_size,
        } | changes
        written = {name: value for name, value in document.items() if value is not None}
        self.repository.write_document(f"backups/{label}/catalogue", written, at=folder / "catalogue")

    def path(self, name: str) -> Path:
        return self.repository.path(name)

    def seen(self) -> tuple[list[str], list[str]]:
        """Labels of whole backups, and names of damaged things."""
        inventory = self.driver.inventory()
        return [backup.label for backup in inventory.backups], [str(error.facts["name"]) for error in inventory.damaged]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A fresh one."""
    tmp_path.chmod(0o755)
    return Shelf(tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def swap(shelf: Shelf) -> None:
    shelf.path("backups/b2/catalogue").write_bytes(shelf.path("backups/b1/catalogue").read_bytes())


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def bar(path: Path) -> None:
    path.unlink()
    path.mkdir()  # reading it is an OSError, for root too


DAMAGE: dict[str, Callable[[Shelf], object]] = {
    "catalogue cut": lambda shelf: cut(shelf.path("backups/b2/catalogue")),
    "catalogue changed": lambda shelf: flip(shelf.path("backups/b2/catalogue")),
    "catalogue empty": lambda shelf: shelf.path("backups/b2/catalogue").write_bytes(b""),
    "catalogue of another": swap,
    "catalogue unreadable": lambda shelf: bar(shelf.path("backups/b2/catalogue")),
    "catalogue gone": lambda shelf: shelf.path("backups/b2/catalogue").unlink(),
    "both gone": lambda shelf: empty(shelf.path("backups/b2")),
    "base cut": lambda shelf: cut(shelf.path("backups/b2/base")),
    "base gone": lambda shelf: shelf.path("backups/b2/base").unlink(),
}
WRITTEN: dict[str, dict[str, object]] = {
    "a date that is none": {"finished": "yesterday"},
    "a date of another type": {"started": 5},
    "a date of no time zone": {"finished": "2026-02-28T00:00:00"},
    "a field is missing": {"first_wal": None},
    "a segment that is none": {"first_wal": "zzz"},
    "a size of none": {"segment_bytes": "many"},
    "a size of nothing": {"segment_bytes": 0},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_hides_no_other_backup(shelf: Shelf, name: str) -> None:
    """One backup cannot be read; the others are there, the check is red and says which, and retention deletes nothing."""
    assert check_catalogue(shelf.driver.inventory()).ok
    DAMAGE[name](shelf)
    labels, damaged = shelf.seen()
    assert labels == ["b1", "b3"]
    (where,) = damaged
    assert where.startswith("g1/backups/b2")
    result = check_catalogue(shelf.driver.inventory())
    assert not result.ok
    assert result.findings[0].object == where
    # What `run` does before and at its end, without a server.
    assert shelf.repository.clean() == []
    shelf.driver._expire(16 << 20)
    assert shelf.path("backups/b1/base").exists()
    assert shelf.path("backups/b2").exists()
    assert (shelf.path("backups/b2/base").exists()) is ("base gone" not in name and "both" not in name), "what is left of it stays, too"


@pytest.mark.parametrize("name", WRITTEN)
def test_a_catalogue_that_opens_and_makes_no_sense_is_damage(shelf: Shelf, name: str) -> None:
    """Written by another version, or by a fault of ours: a typed error, never a KeyError."""
    shelf.add("b4", age=timedelta(hours=1), **WRITTEN[name])
    labels, damaged = shelf.seen()
    assert labels == shelf.labels
    assert damaged == ["g1/backups/b4/catalogue"]


def test_retention_deletes_nothing_while_anything_is_damaged(shelf: Shelf) -> None:
    """With the newest unreadable the oldest would go, as one that a later backup makes superfluous; it stays, and goes once all can be read."""
    kept = shelf.path("backups/b3/catalogue").read_bytes()
    cut(shelf.path("backups/b3/catalogue"))
    shelf.driver._expire(16 << 20)  # as above
    assert shelf.path("backups/b1/base").exists()
    shelf.path("backups/b3/catalogue").write_bytes(kept)
    shelf.driver._expire(16 << 20)  # as above
    assert not shelf.path("backups/b1/base").exists()


def test_undamaged_retention_deletes(shelf: Shelf) -> None:
    """The control: with nothing damaged the oldest goes, and what anchors the window stays."""
    shelf.driver._expire(16 << 20)  # as above
    assert shelf.seen() == (["b2", "b3"], [])


def test_another_backup_is_restored_beside_a_damaged_one(shelf: Shelf) -> None:
    """The newest that can be read is chosen, and moments before the damaged one as ever; where every one is damaged, the error says so and not that there is none."""
    shelf.path("backups/b3/catalogue").unlink()
    inventory = dataclasses.replace(
        shelf.driver.inventory(), wal=[ArchivedWal(name=f"00000001000000000000000{n}", at=NOW) for n in range(2, 9)]
    )
    assert plan_restore(inventory, None).label == "b2"
    assert plan_restore(inventory, NOW).label == "b2"
    assert plan_restore(inventory, NOW - timedelta(days=395)).label == "b1"
    for label in ("b1", "b2"):
        shelf.path(f"backups/{label}/base").unlink()
    with pytest.raises(BackupDamaged):
        plan_restore(shelf.driver.inventory(), None)


def test_a_repository_that_is_not_there_is_not_the_end_of_the_archive(shelf: Shelf, tmp_path: Path) -> None:
    """A segment that the archive lacks is said not to be there; with the repository's disk not mounted nobody knows, and PostgreSQL must not go on without it."""
    shelf.repository.write_document("identity", {"system_id": 1})
    assert not shelf.driver.fetch_wal("0000000100000FFF00000001", tmp_path / "into")
    (tmp_path / "repo").rename(tmp_path / "unmounted")
    with pytest.raises(BackupError, match="is not there"):
        shelf.driver.fetch_wal("0000000100000FFF00000001", tmp_path / "into")


def test_a_wrong_key_is_a_wrong_key(shelf: Shelf) -> None:
    """Where nothing opens, the key is at fault and not three backups."""
    shelf.keys.held = b"o" * 32
    with pytest.raises(WrongBackupKey):
        shelf.driver.inventory()


def test_an_empty_repository_holds_nothing(shelf: Shelf) -> None:
    """No backup, no damage, no error."""
    shutil.rmtree(shelf.path("backups"))
    assert shelf.seen() == ([], [])

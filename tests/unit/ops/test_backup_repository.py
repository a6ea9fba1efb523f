"""The sealed repository: whole or absent, bound to its name, and clean after a kill."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.secret import Secret
from axis_security.ops.backup import repository as repository_module
from axis_security.ops.backup.errors import BackupDamaged, RepositoryBusy, WrongBackupKey
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.repository import MAGIC, SealedRepository

ACCOUNT = Account("nobody") if os.geteuid() == 0 else Account()


def repository(root: Path, *, key: bytes = b"k" * 32, stanza: str = "main", generation: int = 1) -> SealedRepository:
    return SealedRepository(root, stanza=stanza, generation=generation, key=lambda: Secret(key), account=ACCOUNT)


def put(at: SealedRepository, name: str, data: bytes) -> None:
    with at.writing(name) as writer:
        writer.write(data)


def get(at: SealedRepository, name: str) -> bytes:
    sink = io.BytesIO()
    at.read_into(name, sink)
    return sink.getvalue()


@given(st.binary(max_size=40_000))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any bytes come back, and lie sealed."""
    at = repository(tmp_path_factory.mktemp("r"))
    put(at, "wal/a/b", data)
    assert get(at, "wal/a/b") == data
    assert at.path("wal/a/b").read_bytes().startswith(MAGIC)


def test_a_file_does_not_open_elsewhere(tmp_path: Path) -> None:
    """Another name, stanza, key or generation: refused; the same file under its own opens."""
    at = repository(tmp_path)
    put(at, "wal/a/1", b"x" * 50_000)
    at.path("wal/a/2").write_bytes(at.path("wal/a/1").read_bytes())
    with pytest.raises(WrongBackupKey):
        get(at, "wal/a/2")
    for other in (repository(tmp_path, key=b"o" * 32), repository(tmp_path, stanza="other"), repository(tmp_path, generation=2)):
        with pytest.raises(WrongBackupKey):
            get(other, "wal/a/1")
    assert get(at, "wal/a/1") == b"x" * 50_000


def test_a_cut_or_a_changed_byte_is_damage(tmp_path: Path) -> None:
    """At every place that is tried."""
    at = repository(tmp_path)
    put(at, "b", b"y" * 40_000)
    whole = at.path("b").read_bytes()
    for place in (0, 1, 4, 7, 10, 40, 70, 20_000, len(whole) - 1):
        at.path("b").write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(BackupDamaged):
            get(at, "b")
    for size in (0, 7, 63, 64, 16_464, len(whole) - 1):
        at.path("b").write_bytes(whole[:size])
        with pytest.raises(BackupDamaged):
            get(at, "b")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The name does not appear, nor a temporary file; and what is there is never overwritten."""
    at = repository(tmp_path)
    with pytest.raises(RuntimeError), at.writing("c/d") as writer:
        writer.write(b"half")
        raise RuntimeError
    assert list((tmp_path / "c").iterdir()) == []
    put(at, "c/d", b"first")
    with pytest.raises(FileExistsError):
        put(at, "c/d", b"second")
    assert get(at, "c/d") == b"first"
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["d"]


def add(at: SealedRepository, label: str) -> None:
    with at.adding(label) as folder:
        with at.writing(f"backups/{label}/base", at=folder / "base") as writer:
            writer.write(b"1")
        at.write_document(f"backups/{label}/catalogue", {"label": label}, at=folder / "catalogue")


class Killed(BaseException):
    """What ends a run where it stands."""


def test_a_backup_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """While it is written it has another name; given up, nothing is left; whole, its files open under its own."""
    at = repository(tmp_path)
    with pytest.raises(Killed), at.adding("half") as folder:
        with at.writing("backups/half/base", at=folder / "base") as writer:
            writer.write(b"1")
        assert folder.exists()
        assert at.labels() == [], "control: it was there, and counted for nothing"
        assert list(at.files()) == []
        raise Killed
    assert list((tmp_path / "backups").iterdir()) == []
    add(at, "whole")
    assert at.labels() == ["whole"]
    assert get(at, "backups/whole/base") == b"1"
    assert at.read_document("backups/whole/catalogue") == {"label": "whole"}


def test_only_what_is_provably_unfinished_is_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run's beginning goes, and so does the rest of a removal; a backup that lost its catalogue, or all of its files, stays and counts."""
    at = repository(tmp_path)
    for label in ("whole", "robbed", "emptied", "removed"):
        add(at, label)
    (tmp_path / "backups" / "whole").rename(tmp_path / "backups" / ".writing-killed")
    add(at, "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", lambda *_: (_ for _ in ()).throw(Killed()))
        at.remove_backup("removed")
    (tmp_path / "backups" / "robbed" / "catalogue").unlink()
    for path in (tmp_path / "backups" / "emptied").iterdir():
        path.unlink()
    assert at.labels() == ["emptied", "robbed", "whole"], "removal cut short: it is no backup any more"
    assert at.clean() == [".removing-removed", ".writing-killed"]
    assert at.clean() == []
    assert at.labels() == ["emptied", "robbed", "whole"]
    assert (tmp_path / "backups" / "robbed" / "base").exists()


def test_what_goes_meanwhile_is_left_out_and_what_cannot_be_read_is_not(tmp_path: Path) -> None:
    """Retention works beside a check: a file or a directory that goes is no error. A directory that may not be read is one: what lies there is not passed over."""
    at = repository(tmp_path)
    put(at, "wal/a/1", b"x")
    (tmp_path / "wal" / "a" / "gone").symlink_to(tmp_path / "nowhere")  # listed, and not there when it is asked for
    assert [path.name for path, _ in at.files()] == ["1"]
    with pytest.raises(PermissionError):
        repository_module._unless_gone(PermissionError())
    repository_module._unless_gone(FileNotFoundError())
    assert list(repository(tmp_path / "never").files()) == []


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """The second is refused while the first holds the lock, and not after."""
    at = repository(tmp_path)
    with at.locked(), pytest.raises(RepositoryBusy), repository(tmp_path).locked():
        pytest.fail("two at once")
    with at.locked():
        pass

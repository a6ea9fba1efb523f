"""The sealed repository: whole or absent, bound to its name, and clean after a kill."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.secret import Secret
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


def test_half_written_backups_go_and_whole_ones_stay(tmp_path: Path) -> None:
    """A backup without a catalogue counts for nothing and is cleaned; removal cut short ends as such a one."""
    at = repository(tmp_path)
    put(at, "backups/whole/base", b"1")
    at.write_document("backups/whole/catalogue", {"label": "whole"})
    put(at, "backups/half/base", b"2")
    (tmp_path / "backups" / "whole" / ".writing-x").write_bytes(b"")
    assert at.labels() == ["whole"]
    assert at.clean() == ["half", ".writing-x"]
    assert at.labels() == ["whole"]
    (tmp_path / "backups" / "whole" / "catalogue").unlink()
    assert at.clean() == ["whole"]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """The second is refused while the first holds the lock, and not after."""
    at = repository(tmp_path)
    with at.locked(), pytest.raises(RepositoryBusy), repository(tmp_path).locked():
        pytest.fail("two at once")
    with at.locked():
        pass

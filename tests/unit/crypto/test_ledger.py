"""The shred ledger's file: kept or not kept, never half; nothing in it is read as something else."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Self

import pytest

from axis_security.crypto.errors import LedgerUnavailable
from axis_security.crypto.keys import LedgerEntry
from axis_security.crypto.ledger import FileShredLedger


def entry(tenant: str) -> LedgerEntry:
    """A shredding of one key."""
    return LedgerEntry(tenant=tenant, key_ids=(1,), at=datetime(2026, 1, 1, tzinfo=UTC), reason="DSR-17")


@pytest.fixture
def ledger(tmp_path: Path) -> FileShredLedger:
    """A ledger with one entry."""
    made = FileShredLedger(tmp_path / "ledger", create=True)
    made.append(entry("acme"))
    return made


@pytest.mark.parametrize(
    "line",
    [
        b'{"hash": "x", "key_ids": [1], "at": "2026-01-01T00:00:00+00:00"}',
        b'{"hash": "x", "key_ids": [1], "at": "2026-01-01T00:00:00+00:00", "tenant": "acme"}',
        b"[]",
        b"1",
        b"[" * 100_000,
        b"\xff",
        b"",
    ],
)
def test_a_line_that_is_no_entry_is_told_as_such(ledger: FileShredLedger, tmp_path: Path, line: bytes) -> None:
    """Whatever stands there, the answer is the ledger's own error, with the line's number."""
    with (tmp_path / "ledger").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(LedgerUnavailable, match="line 2 is not an entry"):
        ledger.shredded()


@pytest.mark.parametrize("fault", ["fsync", "write", "partial"])
def test_an_entry_that_could_not_be_kept_is_not_there(
    ledger: FileShredLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A full disk in the middle of a line: the caller is told that nothing was destroyed, so no ring may read the opposite, or half of it."""
    before = (tmp_path / "ledger").read_bytes()

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full:
        """A file on a disk that is full after ten bytes."""

        def __init__(self, file: FileIO) -> None:
            self._file = file

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            done = self._file.write(data[:10])
            if fault == "write":
                fails()
            return done

    if fault == "fsync":
        monkeypatch.setattr(os, "fsync", fails)
    else:
        monkeypatch.setattr(Path, "open", lambda path, mode, **_: Full(FileIO(path, mode)))
    with pytest.raises(LedgerUnavailable):
        ledger.append(entry("globex"))
    monkeypatch.undo()
    assert (tmp_path / "ledger").read_bytes() == before
    assert set(ledger.shredded()) == {"acme"}
    ledger.append(entry("globex"))
    assert set(FileShredLedger(tmp_path / "ledger").shredded()) == {"acme", "globex"}


def test_who_reads_waits_for_who_appends(ledger: FileShredLedger, tmp_path: Path) -> None:
    """Another process that has written half a line holds the file's lock: the ring waits for the rest instead of refusing."""
    path, other = tmp_path / "ledger", FileShredLedger(tmp_path / "ledger")
    whole = path.read_bytes()
    other.append(entry("globex"))
    line = path.read_bytes()[len(whole) :]
    os.truncate(path, len(whole))
    read: list[set[str]] = []
    reader = threading.Thread(target=lambda: read.append(set(ledger.shredded())))
    with path.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line[:20])
        reader.start()
        reader.join(0.3)
        file.write(line[20:])
    reader.join()
    assert read == [{"acme", "globex"}]


def test_a_ledger_that_cannot_be_made_or_found_is_an_error(tmp_path: Path) -> None:
    """Missing is not empty; a folder that is not there is named by the system's word."""
    with pytest.raises(LedgerUnavailable, match="No such file"):
        FileShredLedger(tmp_path / "ledger")
    with pytest.raises(LedgerUnavailable, match="No such file"):
        FileShredLedger(tmp_path / "absent" / "ledger", create=True)

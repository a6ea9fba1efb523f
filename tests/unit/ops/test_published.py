"""What is published appears whole, for its own account alone, whatever the directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from axis_security.ops.published import published


def test_it_appears_whole_and_for_one_account(tmp_path: Path) -> None:
    """Other accounts of the machine cannot read a customer's data, neither while it is written nor after, whatever the umask says."""
    out = tmp_path / "export.zip"
    before = os.umask(0)
    try:
        with published(out) as file:
            file.write(b"data")
            assert not out.exists()
            assert [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o600]
    finally:
        os.umask(before)
    assert out.read_bytes() == b"data"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_what_broke_off_leaves_what_was_there(tmp_path: Path) -> None:
    """An older export stays as it was, and no part of the new one lies about."""
    out = tmp_path / "export.zip"
    out.write_bytes(b"older")
    with pytest.raises(KeyError), published(out) as file:
        file.write(b"half")
        raise KeyError
    assert out.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_waits_under_the_usual_name_gets_nothing(tmp_path: Path) -> None:
    """In a directory that others can write to, somebody may have made a link to a file of theirs under the name that a part would have; it is not followed, nor is
    one under the final name."""
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"")
    out = tmp_path / "export.zip"
    for name in ("export.zip", "export.zip.part"):
        (tmp_path / name).symlink_to(theirs)
    with published(out) as file:
        file.write(b"data")
    assert theirs.read_bytes() == b""
    assert not out.is_symlink()
    assert out.read_bytes() == b"data"

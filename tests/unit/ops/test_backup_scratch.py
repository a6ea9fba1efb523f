"""The scratch directories of drills: what a killed one leaves is a database in the clear, and goes; what another is at work in stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import pytest

from axis_security.ops.backup import BackupSettings
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.scratch import clean_scratch, scratch_directory

OWNER = "nobody" if os.geteuid() == 0 else None


@pytest.fixture
def settings(tmp_path: Path) -> BackupSettings:
    """With a scratch of its own."""
    return BackupSettings(
        stanza="main", repository=tmp_path / "repo", data_dir=tmp_path / "data", bin_dir=tmp_path, run_as=OWNER,
        scratch=tmp_path / "scratch", state=tmp_path,
    )  # fmt: skip


def leftover(settings: BackupSettings, name: str) -> Path:
    """What a killed drill leaves."""
    path = settings.scratch / name
    (path / "data").mkdir(parents=True)
    (path / "data" / "PG_VERSION").write_text("18")
    return path


def test_a_killed_drills_copy_goes_whatever_its_process_id_was(settings: BackupSettings) -> None:
    """In a container every process has the same id, this one's too: that a process of that id lives says nothing."""
    mine, other = leftover(settings, f"drill-{os.getpid()}-abc"), leftover(settings, "drill-1-abc")
    (settings.scratch / "somebody's").mkdir()
    assert sorted(clean_scratch(settings)) == sorted([mine.name, other.name])
    assert [path.name for path in settings.scratch.iterdir()] == ["somebody's"]


def test_a_drill_at_work_is_left_alone(settings: BackupSettings) -> None:
    """Its directory is there as long as it works, whoever cleans meanwhile, and gone at its end, also where it fails."""
    account = Account(OWNER)
    with scratch_directory(settings, account) as path:
        assert clean_scratch(settings) == []
        assert path.exists()
    assert list(settings.scratch.iterdir()) == []
    with pytest.raises(KeyError), scratch_directory(settings, account):
        raise KeyError
    assert list(settings.scratch.iterdir()) == []


def test_a_cleaner_that_comes_before_the_lock_takes_nobodys_work(settings: BackupSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for a leftover in the moment between the making and the lock, the directory is made again."""
    real, made = tempfile.mkdtemp, list[str]()

    def raced(**options: str) -> str:
        made.append(real(**options))
        if len(made) == 1:
            shutil.rmtree(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", raced)
    with scratch_directory(settings, Account(OWNER)) as path:
        assert str(path) == made[1]


@contextmanager
def process(*words: str, hears: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """Something that lives until it is ended; like a server it decides itself what it hears, for a shell's background job ignores SIGQUIT."""
    code = f"import signal, sys; signal.signal(signal.SIGQUIT, signal.SIG_{'DFL' if hears else 'IGN'}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.read(1)
            yield child
        finally:
            child.kill()


def test_a_killed_drills_server_is_ended_and_no_other_process(settings: BackupSettings) -> None:
    """The server that was left running on the copy is ended before the copy goes; a process that got its id since is not."""
    path = leftover(settings, "drill-abc")
    with process("-D", str(path / "data")) as server, process("something", "else") as other:
        (path / "data" / "postmaster.pid").write_text(f"{other.pid}\n{path / 'data'}\n")
        clean_scratch(settings)
        assert other.poll() is None
        assert server.poll() is None, "control"
        path = leftover(settings, "drill-abc")
        (path / "data" / "postmaster.pid").write_text(f"{server.pid}\n{path / 'data'}\n")
        clean_scratch(settings)
        assert server.wait(10) == -signal.SIGQUIT
    assert list(settings.scratch.iterdir()) == []


def test_a_server_that_hears_nothing_is_killed(settings: BackupSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs does not keep a database in the clear, nor lose its directory while it runs."""
    now = iter(range(0, 10_000, 6))
    monkeypatch.setattr(
        "axis_security.ops.backup.scratch.time", SimpleNamespace(monotonic=lambda: float(next(now)), sleep=lambda _: sleep(0.05))
    )
    path = leftover(settings, "drill-abc")
    with process("-D", str(path / "data"), hears=False) as server:
        (path / "data" / "postmaster.pid").write_text(f"{server.pid}\n{path / 'data'}\n")
        assert clean_scratch(settings) == ["drill-abc"]
        assert server.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("text", ["", "x", "1\n/elsewhere\n", "no number\n/x\n", "²\n{data}\n"])
def test_a_torn_pid_file_stops_no_cleaning(settings: BackupSettings, text: str) -> None:
    """Whatever is in it, the copy goes."""
    path = leftover(settings, "drill-abc")
    (path / "data" / "postmaster.pid").write_text(text.format(data=path / "data"))
    assert clean_scratch(settings) == ["drill-abc"]
    assert not path.exists()

"""The scratch server of a drill: a restored directory, started alone and unable to reach out, and gone afterwards whatever happened.

A directory is held by a lock for as long as its drill lives. A process id would not do: in a container it is 1 each time, and what a killed drill leaves is a
whole database in the clear.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from axis_security.core.errors import AxisError
from axis_security.ops.backup.errors import BackupError, WalMissing
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.settings import BackupSettings

__all__ = ["RestoredSite", "clean_scratch", "scratch_directory", "scratch_server"]

_PREFIX: Final = "drill-"
_START_SECONDS: Final = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredSite:
    """The restored server, for invariants. Args: target: the moment it was recovered to."""

    data_dir: Path
    conninfo: str
    target: datetime

    def dsn(self, dbname: str) -> str:
        """A connection string for another database of it."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo(self.conninfo, dbname=dbname)


@contextmanager
def scratch_directory(settings: BackupSettings, account: Account) -> Iterator[Path]:
    """A fresh directory below ``scratch``, held until the block ends and removed then."""
    account.directory(settings.scratch)
    with _fresh(settings.scratch) as path:
        account.own(path)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _fresh(parent: Path) -> Iterator[Path]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with _held(path) as held:
            # A cleaner may have come between the making and the lock: then it took it for a leftover, and it is gone.
            if held and path.exists():
                yield path
                return


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Whether the lock on *path* could be had; it is held for the block, and by nobody whose process is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # gone meanwhile, or another account's
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def clean_scratch(settings: BackupSettings) -> list[str]:
    """Remove what drills left whose process is gone, their servers first; returns the names."""
    gone = []
    for path in settings.scratch.glob(f"{_PREFIX}*"):
        with _held(path) as held:
            if not held:
                continue
            _end_server(path / "data")
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
    return gone


@contextmanager
def scratch_server(settings: BackupSettings, scratch: Path, account: Account, *, target: datetime) -> Iterator[RestoredSite]:
    """Start the restored data directory *scratch*/``data``, alone and unable to reach out, and wait until it has recovered.

    It listens on a socket in a directory that only its account can enter, archives nothing, starts no subscription, and runs no preloaded library.

    Raises:
        WalMissing: recovery ended before the target because a segment is not there; it is named.
        BackupError: it did not recover for another reason.
    """
    from psycopg.conninfo import make_conninfo

    data = scratch / "data"
    hba = scratch / "hba.conf"
    hba.write_text("local all all trust\n", encoding="utf-8")  # behind a directory of mode 0700
    account.own(hba)
    options = {
        "listen_addresses": "",
        "port": "5432",
        "unix_socket_directories": str(scratch),
        "unix_socket_permissions": "0700",
        "hba_file": str(hba),
        "archive_mode": "off",
        "hot_standby": "off",
        "max_logical_replication_workers": "0",
        "shared_preload_libraries": "",
        "ssl": "off",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_min_messages": "log",
        "log_connections": "off",
        "cluster_name": "axis-security drill",
    }
    command = [
        settings.program("postgres"),
        "-D",
        str(data),
        *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
    ]
    log = scratch / "log"
    with log.open("wb") as out:
        process = account.popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    conninfo = make_conninfo(host=str(scratch), port=5432, user=settings.user, dbname=settings.database)
    try:
        _await(process, conninfo, log)
        yield RestoredSite(data_dir=data, conninfo=conninfo, target=target)
    finally:
        _stop(process)


def _await(process: subprocess.Popen[bytes], conninfo: str, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with psycopg.connect(conninfo, connect_timeout=2, autocommit=True) as connection:
                row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
                if row is not None and row[0] is False:
                    return
        except psycopg.Error:
            pass  # not yet, or never: its log will say
        if process.poll() is not None or time.monotonic() > deadline:
            raise _why_not(log.read_text(errors="replace"))
        time.sleep(0.02)


def _why_not(text: str) -> AxisError:
    if "recovery ended before configured recovery target was reached" in text:
        # Each restore_command that finds nothing leaves its name in the log: `wal-get` prints it.
        asked = re.findall(r"WAL ([0-9A-F]{24}) is not in the archive", text)
        if asked:
            return WalMissing(segment=min(asked))
    fatal = [line for line in text.splitlines() if re.search(r"\b(FATAL|PANIC)\b", line)]
    return BackupError(
        what="the restored server did not recover",
        why=" / ".join(fatal[-3:])[:600] or text[-600:] or "it said nothing",
        fix="take a new backup now, and find out why",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGQUIT)  # at once and without a checkpoint: its data is about to go
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _end_server(data: Path) -> None:
    with contextlib.suppress(OSError):
        said = (data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 2)
        # The process id may have been given to another since: only a server that runs on this very directory is ended.
        if len(said) > 1 and said[0].isdecimal() and said[1] == str(data) and _runs_on(int(said[0]), data):
            pid = int(said[0])
            for number in (signal.SIGQUIT, signal.SIGKILL):
                os.kill(pid, number)
                if _ended(pid, data):
                    return


def _ended(pid: int, data: Path) -> bool:
    deadline = time.monotonic() + 10
    while _runs_on(pid, data):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _runs_on(pid: int, data: Path) -> bool:
    try:
        return str(data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False

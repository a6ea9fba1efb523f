"""The drill: restore to a random moment of the window beside the live server, look whether what must hold holds, measure, and leave no trace."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import AxisError
from axis_security.ops.backup.driver import BackupDriver, Progress, silent
from axis_security.ops.backup.errors import BackupError, NoUsableBackup, WalMissing
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.server import Canary, connected, newest_canaries, plant_canary, server_time, switch_and_wait
from axis_security.ops.backup.settings import BackupSettings

__all__ = ["UNIFORM", "DrillReport", "Invariant", "RestoredSite", "canaries_exact", "clean_scratch", "drill", "scratch_server"]

_PREFIX: Final = "drill-"
_START_SECONDS: Final = 3_600.0
UNIFORM: Final = random.SystemRandom().random


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


Invariant = Callable[[RestoredSite], CheckResult]
"""Something that must hold on the restored server: rows, an audit chain, a key ring that opens, a shred ledger that still refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """What a drill saw.

    Args:
        rpo_seconds: the time between the newest archived WAL and the drill's beginning: what would have been lost.
        rto_seconds: from the first act of the restore until the restored server took connections.
        evidence: the record, JSON-ready; its ``sha256`` is over all else in it, canonical.
    """

    ok: bool
    label: str
    target: datetime
    rpo_seconds: float
    rto_seconds: float
    checks: Sequence[CheckResult]
    evidence: Mapping[str, Any]


def drill(
    settings: BackupSettings,
    driver: BackupDriver,
    *,
    invariants: Mapping[str, Invariant],
    target: datetime | None = None,
    uniform: Callable[[], float] = UNIFORM,
    progress: Progress = silent,
    previous: str = "",
) -> DrillReport:
    """Restore into a scratch server and look.

    Args:
        invariants: by name; run in order, each on the restored server. One that raises counts as not held.
        target: the moment; a random one between the oldest usable backup and now unless told.
        uniform: gives the random one, in [0, 1).
        previous: the hash of the record before, to chain records.

    Raises:
        AxisError: there is nothing to restore from, or the restore itself failed. A restored server on which an invariant fails is a report.
    """
    account = Account(settings.run_as)
    clean_scratch(settings, account)
    with connected(settings.conninfo) as connection:
        now = server_time(connection)
        inventory = driver.inventory()
        newest_wal = inventory.newest_wal_at
        if not inventory.backups or newest_wal is None:
            raise NoUsableBackup(why="the repository holds no whole backup with WAL after it")
        rpo = max(timedelta(0), now - newest_wal)
        # Two more canaries: the first is after every target that can be drawn, so the recovery has a commit to stop at.
        plant_canary(connection)
        plant_canary(connection)
        switch_and_wait(connection)
        known = newest_canaries(connection)
    start = next((backup.finished for backup in inventory.backups if backup.finished >= settings.policy.wanted_since(now)), None)
    start = min(start or inventory.backups[-1].finished, now)
    target = target or start + (now - start) * uniform()
    with _scratch(settings, account) as scratch:
        began = time.monotonic()
        backup = driver.restore(scratch / "data", target=target, progress=progress)
        restored = time.monotonic()
        progress("recover", 0, 0)
        with scratch_server(settings, scratch, account, target=target) as site:
            rto = time.monotonic() - began
            checks = [canaries_exact(known)(site)]
            for name, invariant in invariants.items():
                progress(name, 0, 0)
                checks.append(_held(name, invariant, site))
    ok = all(check.ok for check in checks)
    record: dict[str, Any] = {
        "format": "axis-security/backup-drill/v1",
        "driver": driver.name,
        "stanza": settings.stanza,
        "backup": backup.label,
        "generation": backup.generation,
        "at": now.isoformat(),
        "target": target.isoformat(),
        "drawn_from": [start.isoformat(), now.isoformat()],
        "rpo_seconds": round(rpo.total_seconds(), 3),
        "rto_seconds": round(rto, 3),
        "restore_seconds": round(restored - began, 3),
        "database_bytes": backup.database_bytes,
        "ok": ok,
        "checks": [check.as_dict() for check in checks],
        "previous": previous,
    }
    record["sha256"] = hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return DrillReport(
        ok=ok, label=backup.label, target=target, rpo_seconds=rpo.total_seconds(), rto_seconds=rto, checks=checks, evidence=record
    )


def canaries_exact(known: Sequence[Canary]) -> Invariant:
    """The restored server holds exactly the canaries that were committed by the target.

    A canary that began after the target must be absent. One whose successor had begun by the target had been committed, and must be there, token and
    all. Only the one that was being written at the target may be either.
    """

    def look(site: RestoredSite) -> CheckResult:
        with connected(site.conninfo) as connection:
            found = {canary.number: canary for canary in newest_canaries(connection)}
        findings = []
        due, later = 0, 0
        for canary, successor in zip(known, [*known[1:], None], strict=True):
            there = found.get(canary.number)
            must = successor is not None and successor.begun_at <= site.target
            due += must
            later += canary.begun_at > site.target
            why = ""
            if canary.begun_at > site.target and there is not None:
                why = "it was written after the target, and is there"
            elif must and there is None:
                why = "it was committed before the target, and is gone"
            elif there is not None and there != canary:
                why = "it is there with another content"
            if why:
                findings.append(
                    Finding(
                        code="backup.canary",
                        severity=Severity.ERROR,
                        object=f"canary#{canary.number}",
                        what="the restored rows are not those of the target time",
                        why=why,
                        fix="do not rely on these backups; take a new one and drill again",
                    )
                )
        seen = f"{due} canaries from before the target are there, {later} from after it are not"
        if not due:
            findings.append(
                Finding(
                    code="backup.canary_none",
                    severity=Severity.ERROR,
                    object="canaries",
                    what="no canary was due at the target",
                    why="none was planted before it, so its absence or presence shows nothing",
                    fix="take backups with `axis-security backup run`, which plants them",
                )
            )
        return CheckResult(
            name="drill.canaries", ok=not findings, seen=seen if not findings else "wrong rows", findings=tuple(findings[:10])
        )

    return look


def _held(name: str, invariant: Invariant, site: RestoredSite) -> CheckResult:
    try:
        result = invariant(site)
    except Exception as error:  # noqa: BLE001  # whatever it raises, it did not hold; its text may hold a row and is dropped
        code = error.code if isinstance(error, AxisError) else type(error).__name__
        finding = Finding(
            code="backup.invariant",
            severity=Severity.ERROR,
            object=name,
            what=f"the invariant `{name}` could not be checked",
            why=code,
            fix="run it against the live server; if it holds there, the backup lacks something",
        )
        return CheckResult(name=f"drill.{name}", ok=False, seen=f"raised {code}", findings=(finding,))
    return CheckResult(name=f"drill.{name}", ok=result.ok is True, seen=result.seen, findings=result.findings)


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
            if process.poll() is not None or time.monotonic() > deadline:
                raise _why_not(log.read_text(errors="replace")) from None
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


@contextmanager
def _scratch(settings: BackupSettings, account: Account) -> Iterator[Path]:
    account.directory(settings.scratch)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=settings.scratch))
    account.own(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def clean_scratch(settings: BackupSettings, account: Account) -> list[str]:
    """Remove what drills left whose process is gone, their servers first; returns the names."""
    gone = []
    for path in settings.scratch.glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and _alive(int(owner)):
            continue
        pid = path / "data" / "postmaster.pid"
        if pid.exists():
            account_of_server = pid.read_text(encoding="utf-8").split("\n", 2)
            if len(account_of_server) > 1 and account_of_server[1] == str(path / "data") and account_of_server[0].isdecimal():
                _end(int(account_of_server[0]), path)
        shutil.rmtree(path, ignore_errors=True)
        gone.append(path.name)
    return gone


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _end(pid: int, path: Path) -> None:
    # The process id may have been given to another since: only a server that runs on this very directory is ended.
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return
    if str(path / "data").encode() not in command:
        return
    os.kill(pid, signal.SIGQUIT)
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)

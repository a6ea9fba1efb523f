"""Backups as one object: what the command line and a host's own scheduler call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import AxisError
from axis_security.core.events import AuditEvent, EventKind, EventSink, LoggingSink, Outcome, Scalar
from axis_security.ops.backup.checks import (
    check_age,
    check_archiver,
    check_catalogue,
    check_encryption,
    check_gap,
    check_loss,
    check_window,
)
from axis_security.ops.backup.drill import UNIFORM, DrillReport, Invariant, drill
from axis_security.ops.backup.driver import Backup, BackupDriver, BackupKind, Progress, silent
from axis_security.ops.backup.errors import BackupError
from axis_security.ops.backup.native import NativeDriver
from axis_security.ops.backup.pgbackrest import PgBackRestDriver
from axis_security.ops.backup.scratch import clean_scratch
from axis_security.ops.backup.server import connected, facts, newest_canaries, plant_canary, switch_and_wait
from axis_security.ops.backup.settings import BackupKeys, BackupSettings, load_settings

__all__ = ["Backups"]


class Backups:
    """Takes, checks, drills and restores backups of one cluster, and keeps a record of each.

    Args:
        settings: where things are.
        keys: the keys of its generations.
        sink: takes ``BACKUP_RUN`` and ``BACKUP_DRILLED`` events.
    """

    def __init__(self, settings: BackupSettings, keys: BackupKeys, *, sink: EventSink | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.settings = settings
        self.driver: BackupDriver = (
            NativeDriver(settings, keys, clock=clock) if settings.driver == "native" else PgBackRestDriver(settings, keys)
        )
        self._sink = sink or LoggingSink()
        self._clock = clock

    @classmethod
    def from_file(cls, path: Path, *, sink: EventSink | None = None) -> Backups:
        """From the TOML file at *path*.

        Raises:
            ConfigError: it is not usable.
        """
        settings, keys = load_settings(path)
        return cls(settings, keys, sink=sink)

    def run(self, kind: BackupKind | None = None, progress: Progress = silent) -> Backup:
        """Take a backup, with a canary row before and after it; full when one is due or another is damaged, else incremental, unless told.

        Raises:
            AxisError: it was not taken. An event says so too.
        """
        began = time.monotonic()
        try:
            with _as_backup_errors():
                backup = self._run(kind, progress)
        except AxisError as error:
            self._emit(
                EventKind.BACKUP_RUN, Outcome.FAILED, driver=self.driver.name, kind=error.code, seconds=round(time.monotonic() - began, 3)
            )
            raise
        seconds = round(time.monotonic() - began, 3)
        self._emit(
            EventKind.BACKUP_RUN, Outcome.ALLOWED,
            driver=self.driver.name, label=backup.label, kind=str(backup.kind), bytes=backup.database_bytes, seconds=seconds,
        )  # fmt: skip
        return backup

    def _run(self, kind: BackupKind | None, progress: Progress) -> Backup:
        clean_scratch(self.settings)
        self.driver.prepare()
        with connected(self.settings.conninfo) as connection:
            known = facts(connection)
            if known.archive_mode not in {"on", "always"}:
                raise BackupError(
                    what="the server does not archive WAL",
                    why=f"archive_mode is {known.archive_mode}: a backup could not be carried to a point in time",
                    fix="set what `axis-security backup plan` prints, and restart the server",
                )
            # Two: when the second begins, the first is known to be committed, so every moment after the backup has a canary that is due.
            plant_canary(connection)
            plant_canary(connection)
            # An archiver that is behind, or fails, is known before anything is copied; what waits for WAL later has a limit of its own.
            switch_and_wait(connection)
        if kind is None:
            held = self.driver.inventory()
            full = [each.finished for each in held.backups if each.kind is BackupKind.FULL and each.generation == self.settings.active]
            due = self.settings.policy.full_is_due(max(full, default=None), self._clock.now())
            # A full one stands by itself: what the next incremental one would build on may be what is damaged.
            kind = BackupKind.FULL if due or held.damaged or self.driver.name == "native" else BackupKind.INCR
        backup = self.driver.run(kind, progress)
        with connected(self.settings.conninfo) as connection:
            plant_canary(connection)
            switch_and_wait(connection)
        return backup

    def check(self, *, verify: bool = False, progress: Progress = silent) -> Sequence[CheckResult]:
        """Every check, in a fixed order; with *verify*, each stored byte is read too. Plants a canary, so that an idle server has something to archive."""
        policy, now = self.settings.policy, self._clock.now()
        results: list[CheckResult] = []
        canaries = None
        try:
            with connected(self.settings.conninfo) as connection:
                known = facts(connection)
                plant_canary(connection)
                canaries = newest_canaries(connection)
            results.append(check_archiver(known.archiver, archive_mode=known.archive_mode))
        except AxisError as error:
            results.append(_unseen("backup.archiver", error))
        try:
            with _as_backup_errors():
                inventory = self.driver.inventory()
        except AxisError as error:
            results += [_unseen(f"backup.{name}", error) for name in ("catalogue", "age", "wal_gap", "loss", "window")]
        else:
            results += [check_catalogue(inventory), check_age(inventory, policy, now=now), check_gap(inventory)]
            results += [check_loss(inventory, policy, now=now), check_window(inventory, policy, now=now)]
        try:
            with _as_backup_errors():
                results.append(check_encryption(self.driver.artefacts(), magic=self.driver.magic, canaries=canaries or ()))
        except AxisError as error:
            results.append(_unseen("backup.encryption", error))
        if verify:
            try:
                with _as_backup_errors():
                    results.append(self.driver.verify(progress))
            except AxisError as error:
                results.append(_unseen("backup.verify", error))
        return results

    def drill(
        self,
        *,
        invariants: Mapping[str, Invariant] | None = None,
        target: datetime | None = None,
        uniform: Callable[[], float] = UNIFORM,
        progress: Progress = silent,
        previous: str = "",
    ) -> DrillReport:
        """See :func:`~axis_security.ops.backup.drill.drill`. An event says how it ended."""
        try:
            with _as_backup_errors():
                report = drill(
                    self.settings,
                    self.driver,
                    invariants=invariants or {},
                    target=target,
                    uniform=uniform,
                    progress=progress,
                    previous=previous,
                )
        except AxisError as error:
            self._emit(EventKind.BACKUP_DRILLED, Outcome.FAILED, driver=self.driver.name, label=error.code)
            raise
        self._emit(
            EventKind.BACKUP_DRILLED, Outcome.ALLOWED if report.ok else Outcome.FAILED,
            driver=self.driver.name, label=report.label, rpo_seconds=round(report.rpo_seconds, 3), rto_seconds=round(report.rto_seconds, 3),
        )  # fmt: skip
        return report

    def restore(self, into: Path, *, target: datetime | None = None, progress: Progress = silent) -> Backup:
        """Make *into* a data directory that recovers to *target* when PostgreSQL is started on it. Nothing that exists is overwritten."""
        with _as_backup_errors():
            return self.driver.restore(into, target=target, progress=progress)

    def _emit(self, event: EventKind, outcome: Outcome, **detail: Scalar) -> None:
        self._sink.emit(AuditEvent(kind=event, at=self._clock.now(), outcome=outcome, detail=detail))


@contextmanager
def _as_backup_errors() -> Iterator[None]:
    """A disk that is full, not mounted or not readable is the plainest way for a backup to fail: it is an error of ours, and an event, like the others.

    Raises:
        BackupError: in an OSError's place.
    """
    try:
        yield
    except OSError as error:
        raise BackupError(
            what="a file of the backup could not be read or written",
            why=f"`{error.filename}`: {error.strerror}" if error.filename else error.strerror or type(error).__name__,
            fix="check that its file system is mounted, has room, and is open to the account that runs backups",
        ) from None


def _unseen(name: str, error: AxisError) -> CheckResult:
    finding = Finding(code=error.code, severity=Severity.ERROR, object=name, what=error.what, why=error.why, fix=error.fix)
    return CheckResult(name=name, ok=False, seen="could not be measured", findings=(finding,))

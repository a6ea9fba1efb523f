"""Whether the promise holds now: age, gaps, window, archiver, and that what is stored is sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import BinaryIO, Final

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import AxisError
from axis_security.ops.backup.driver import Artefact, BackupDriver, Inventory
from axis_security.ops.backup.policy import BackupPolicy
from axis_security.ops.backup.server import ArchiverState, Canary
from axis_security.ops.backup.wal import first_missing, is_segment, segment_position

__all__ = ["backup_age", "check_age", "check_archiver", "check_catalogue", "check_encryption", "check_gap", "check_loss", "check_window"]

_BLOCK: Final = 1 << 20
_RUN: Final = "axis-security backup run"


def _result(name: str, seen: str, *findings: Finding | None) -> CheckResult:
    real = tuple(finding for finding in findings if finding is not None)
    return CheckResult(name=name, ok=not real, seen=seen, findings=real)


def _finding(code: str, what: str, why: str, fix: str, *, about: str = "backups") -> Finding:
    return Finding(code=f"backup.{code}", severity=Severity.ERROR, object=about, what=what, why=why, fix=fix)


def _span(span: timedelta) -> str:
    minutes = max(0, int(span.total_seconds())) // 60
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"


def check_age(inventory: Inventory, policy: BackupPolicy, *, now: datetime) -> CheckResult:
    """The newest whole backup is no older than ``every`` + ``grace``."""
    newest = inventory.newest
    if newest is None:
        return _result("backup.age", "no backup", _finding("none", "there is no backup", "the repository holds no whole one", _RUN))
    age = now - newest.finished
    seen = f"newest {newest.kind} {newest.label}, {_span(age)} old"
    if age > policy.every + policy.grace:
        why = f"it is {_span(age)} old, at most {_span(policy.every + policy.grace)} is promised"
        return _result("backup.age", seen, _finding("stale", "the newest backup is too old", why, f"{_RUN}; look at why the timer did not"))
    return _result("backup.age", seen)


def check_gap(inventory: Inventory) -> CheckResult:
    """No WAL segment is missing between the oldest backup and the newest segment."""
    if not inventory.backups:
        return _result("backup.wal_gap", "no backup", _finding("none", "there is no backup", "so no WAL is of use", _RUN))
    names = [wal.name for wal in inventory.wal]
    # A gap is of no matter to moments after the next backup, so each stretch between two backups is looked at, and all are named.
    findings: list[Finding] = []
    firsts = [backup.first_wal for backup in inventory.backups]
    reached = max((segment_position(name, inventory.segment_bytes) for name in names if is_segment(name)), default=0)
    for first, following in zip(firsts, [*firsts[1:], None], strict=True):
        # What the next backup begins with may be on its way: how far the archive lags is for check_loss to say.
        there = following is not None and segment_position(following, inventory.segment_bytes) <= reached
        missing = first_missing(names, first=first, last=following if there else None, size=inventory.segment_bytes)
        if missing is not None and missing not in {finding.object for finding in findings}:
            why = "no moment after it can be restored until the next backup"
            findings.append(
                _finding("wal_missing", f"WAL segment {missing} is missing", why, f"find out who removed it, then {_RUN}", about=missing)
            )
    return _result("backup.wal_gap", f"{len(names)} segments since {firsts[0]}", *findings)


def check_catalogue(inventory: Inventory) -> CheckResult:
    """Every backup that the repository lists can be read as a backup. Retention deletes nothing while one cannot."""
    findings = [
        _finding(error.code.removeprefix("backup."), error.what, error.why, error.fix, about=str(error.facts["name"]))
        for error in inventory.damaged
    ]
    return _result("backup.catalogue", f"{len(inventory.backups)} backups, {len(findings)} damaged", *findings)


def check_loss(inventory: Inventory, policy: BackupPolicy, *, now: datetime) -> CheckResult:
    """What would be lost if the server were lost now (RPO): the time since the newest segment was archived."""
    newest = inventory.newest_wal_at
    if newest is None:
        finding = _finding(
            "no_wal", "no WAL is archived", "only the moment of each backup could be restored", "set archive_command as `plan` prints it"
        )
        return _result("backup.loss", "no WAL", finding)
    loss = max(timedelta(0), now - newest)
    seen = f"newest WAL {int(loss.total_seconds())} s old"
    if loss > policy.max_loss:
        why = f"{_span(loss)} of changes would be lost, at most {_span(policy.max_loss)} is promised"
        return _result("backup.loss", seen, _finding("loss", "WAL archiving lags", why, "look at pg_stat_archiver and the server's log"))
    return _result("backup.loss", seen)


def check_window(inventory: Inventory, policy: BackupPolicy, *, now: datetime) -> CheckResult:
    """Any moment of the window can be restored: a backup from before its start, and WAL from there on (see :func:`check_gap`)."""
    wanted = policy.wanted_since(now)
    if not inventory.backups:
        return _result("backup.window", "nothing", _finding("none", "there is no backup", "no moment can be restored", _RUN))
    oldest = inventory.backups[0].finished
    seen = f"restorable since {oldest:%Y-%m-%d %H:%M} UTC ({_span(now - oldest)})"
    if oldest > wanted:
        why = f"the policy promises any moment since {wanted:%Y-%m-%d %H:%M} UTC"
        fix = "keep what there is; in a new repository set `began` in [policy], and the window fills by itself"
        return _result("backup.window", seen, _finding("window", "the window is not covered", why, fix))
    return _result("backup.window", seen)


def check_archiver(state: ArchiverState, *, archive_mode: str) -> CheckResult:
    """The server archives, and its last attempt did not fail."""
    if archive_mode not in {"on", "always"}:
        finding = _finding(
            "archive_off", "the server does not archive WAL", f"archive_mode is {archive_mode}", "set what `plan` prints, and restart it"
        )
        return _result("backup.archiver", f"archive_mode {archive_mode}", finding)
    if state.failed_at is not None and (state.archived_at is None or state.failed_at > state.archived_at):
        why = f"its last attempt, for {state.failed_wal}, failed at {state.failed_at:%Y-%m-%d %H:%M:%S} UTC"
        finding = _finding("archiver_fails", "archive_command fails", why, "look at the server's log", about=str(state.failed_wal))
        return _result("backup.archiver", "failing", finding)
    return _result("backup.archiver", "never ran" if state.archived_at is None else f"last at {state.archived_at:%H:%M:%S} UTC")


def check_encryption(
    artefacts: Iterable[Artefact], *, magic: bytes, canaries: Sequence[Canary], sample_bytes: int = 256 << 20
) -> CheckResult:
    """Every stored file begins with the sealed format's magic, and the newest ones hold no byte of a canary that the database holds.

    The magic alone could be written before anything; the canary alone would be hidden by compression. Together they show that what is
    stored came out of a cipher.

    Args:
        canaries: planted before the newest backup.
        sample_bytes: how much is read for canaries, newest files first; a check runs every few minutes, and a base backup is as large as the database.
    """
    name = "backup.encryption"
    if not canaries:
        return _result(name, "no canary", _finding("no_canary", "there is no canary to look for", "none was planted", _RUN))
    needles = [form for canary in islice(reversed(canaries), 64) for form in (canary.token.encode(), bytes.fromhex(canary.token))]
    stored = list(artefacts)
    if not stored:
        return _result(name, "nothing stored", _finding("none", "there is no backup", "the repository is empty", _RUN))
    findings, left, read = [], sample_bytes, 0
    for artefact in reversed(stored):
        try:
            with artefact.open() as file:
                head = file.read(len(magic))
                plain = head != magic
                if not plain and left > 0:
                    plain, taken = _holds(head, file, needles, left)
                    left -= taken
                    read += taken
        except FileNotFoundError:
            continue  # retention took it meanwhile
        if plain:
            why = "it does not begin as sealed files do" if head != magic else "it holds a canary row of the database in the clear"
            fix = "treat what lies there as disclosed: find out who wrote it, remove it, and rotate what it held"
            findings.append(_finding("plaintext", f"`{artefact.name}` is not encrypted", why, fix, about=artefact.name))
    return _result(name, f"{len(stored)} files sealed, {read >> 20} MiB searched for {len(needles) // 2} canaries", *findings[:20])


def _holds(before: bytes, file: BinaryIO, needles: Sequence[bytes], limit: int) -> tuple[bool, int]:
    """Whether one of *needles* is in the first *limit* bytes; and how many were read."""
    overlap = max(len(needle) for needle in needles)
    taken = 0
    while taken < limit and (block := file.read(min(_BLOCK, limit - taken))):
        taken += len(block)
        window = before + block
        if any(needle in window for needle in needles):
            return True, taken
        before = window[-overlap:]
    return False, taken


def backup_age(
    driver: BackupDriver, policy: BackupPolicy, *, clock: Clock = SYSTEM_CLOCK, name: str = "backup_age"
) -> Callable[[], CheckResult]:
    """A look for :class:`~axis_security.ops.health.HealthCheck`: the newest backup is young enough, no WAL is missing, and the newest is young too.

    Not ``required``: an app must go on serving while its backups are late. Give it a ttl of minutes; it lists the repository.
    """

    def look() -> CheckResult:
        now = clock.now()
        try:
            inventory = driver.inventory()
        except AxisError as error:
            finding = _finding("unreadable", "the backup repository cannot be read", error.code, "run `axis-security backup check`")
            return CheckResult(name=name, ok=False, seen="unreadable", findings=(finding,))
        results = (
            check_age(inventory, policy, now=now),
            check_catalogue(inventory),
            check_gap(inventory),
            check_loss(inventory, policy, now=now),
        )
        findings = tuple(finding for result in results for finding in result.findings)
        return CheckResult(name=name, ok=not findings, seen="; ".join(result.seen for result in results), findings=findings)

    return look

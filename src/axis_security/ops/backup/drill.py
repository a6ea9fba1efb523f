"""The drill: restore to a random moment of the window beside the live server, look whether what must hold holds, measure, and leave no trace."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import AxisError
from axis_security.ops.backup.driver import BackupDriver, Progress, silent
from axis_security.ops.backup.errors import NoUsableBackup
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.scratch import RestoredSite, clean_scratch, scratch_directory, scratch_server
from axis_security.ops.backup.server import Canary, connected, newest_canaries, plant_canary, server_time, switch_and_wait
from axis_security.ops.backup.settings import BackupSettings
from axis_security.ops.records import chained

__all__ = ["UNIFORM", "DrillReport", "Invariant", "canaries_exact", "drill"]

UNIFORM: Final = random.SystemRandom().random
"""A number from 0 to 1 from the system's random source: where in the window a drill looks."""


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
        previous: the hash of the record before, for whoever keeps records elsewhere; ``append_record`` finds its own.

    Raises:
        AxisError: there is nothing to restore from, or the restore itself failed. A restored server on which an invariant fails is a report.
    """
    account = Account(settings.run_as)
    clean_scratch(settings)
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
    with scratch_directory(settings, account) as scratch:
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
    }
    return DrillReport(
        ok=ok,
        label=backup.label,
        target=target,
        rpo_seconds=rpo.total_seconds(),
        rto_seconds=rto,
        checks=checks,
        evidence=chained(record, previous),
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

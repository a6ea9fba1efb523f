"""What both drivers do around a restore: which backup, whether all WAL is there, and a directory that is whole or gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from axis_security.core.errors import ConfigError
from axis_security.ops.backup.driver import Backup, Inventory
from axis_security.ops.backup.errors import NoUsableBackup, TargetOutsideWindow, WalMissing
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.wal import first_missing, segment_position

__all__ = ["empty_directory", "plan_restore", "recovery_settings", "recovery_target"]


def plan_restore(inventory: Inventory, target: datetime | None) -> Backup:
    """The backup to start from, after a look at whether the archive can carry it to *target* (its own end, if ``None``).

    Raises:
        NoUsableBackup: there is none at all.
        BackupDamaged: there is one, and it cannot be read.
        TargetOutsideWindow: *target* is before the oldest backup or after the newest archived WAL.
        WalMissing: a segment on the way is not there; it is named.
    """
    if inventory.newest is None:
        if inventory.damaged:
            raise inventory.damaged[0]
        raise NoUsableBackup(why="the repository holds none")
    newest_wal = inventory.newest_wal_at
    backup = inventory.newest if target is None else inventory.before(target)
    if backup is None or (target is not None and (newest_wal is None or target > newest_wal)):
        last = newest_wal or inventory.newest.finished
        raise TargetOutsideWindow(
            target=recovery_target(target or last), first=recovery_target(inventory.backups[0].finished), last=recovery_target(last)
        )
    names = [wal.name for wal in inventory.wal]
    start = segment_position(backup.first_wal, inventory.segment_bytes)
    # The commit that ends the recovery lies in a segment that was archived after the target.
    reaching = [
        wal
        for wal in inventory.wal
        if segment_position(wal.name, inventory.segment_bytes) >= start and (target is None or wal.at >= target)
    ]
    places = sorted(reaching, key=lambda wal: segment_position(wal.name, inventory.segment_bytes))
    end = backup.last_wal if not places else places[-1 if target is None else 0].name
    missing = first_missing(names, first=backup.first_wal, last=end, size=inventory.segment_bytes)
    if missing is not None:
        raise WalMissing(segment=missing)
    return backup


def recovery_target(moment: datetime) -> str:
    """*moment* as PostgreSQL reads it: UTC, to the microsecond."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"


def recovery_settings(*, restore_command: str, target: datetime | None) -> str:
    """Lines for ``postgresql.auto.conf``."""
    lines = ["", "# Written by axis-security: this directory was restored from a backup.", f"restore_command = {_quoted(restore_command)}"]
    lines += ["recovery_target_action = 'promote'", "recovery_target_timeline = 'latest'"]
    if target is not None:
        lines += [f"recovery_target_time = {_quoted(recovery_target(target))}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@contextmanager
def empty_directory(path: Path, account: Account) -> Iterator[None]:
    """Make *path* an empty directory; if the block raises, it is empty again, and after a kill the next restore to it starts over.

    Raises:
        ConfigError: it is a file, or holds something that no restore of ours began.
    """
    mark = path.with_name(f".{path.name}.restoring")
    if mark.exists():
        _empty(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(
            what=f"`{path}` is no empty directory",
            why="a restore overwrites nothing",
            fix="restore beside it, look at the result, and then swap the directories",
        )
    account.directory(path)
    mark.touch(mode=0o600)
    account.own(mark)
    try:
        yield
    except BaseException:
        _empty(path)
        raise
    finally:
        mark.unlink(missing_ok=True)


def _empty(path: Path) -> None:
    for each in path.iterdir() if path.exists() else ():
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()

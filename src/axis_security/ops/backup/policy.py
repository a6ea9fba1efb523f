"""What is promised about backups: how often, how far back, for how long, and how much may be lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from axis_security.core.errors import ConfigError

__all__ = ["BackupPolicy"]

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupPolicy:
    """The promise, checked as a whole. Encryption is no setting: there is no other way to write a backup here.

    Retention is a time, never a count: a count lets ten backups made in an hour push out the one that the window needs.

    Args:
        every: the time between two backups; at most a day.
        full_every: the time between two full ones; those between are incremental, where the driver can.
        window: how far back any moment can be restored.
        retention: how long a backup is kept; at least ``window + full_every``, since the window's first moment needs a backup from before it.
        grace: how late a backup may be before that is a finding.
        max_loss: the recovery point objective: the newest archived WAL is never older than this.
        archive_timeout: the server closes and archives a WAL segment at least this often while anything is written; below ``max_loss``.
        drill_every: how often a restore is drilled.
        began: when backups began here, for a repository that is younger than its window; timezone-aware.

    Raises:
        ConfigError: the times contradict one another.
    """

    every: timedelta = _DAY
    full_every: timedelta = timedelta(days=7)
    window: timedelta = timedelta(days=7)
    retention: timedelta = timedelta(days=15)
    grace: timedelta = timedelta(hours=2)
    max_loss: timedelta = timedelta(minutes=15)
    archive_timeout: timedelta = timedelta(minutes=1)
    drill_every: timedelta = timedelta(days=7)
    began: datetime | None = None

    def __post_init__(self) -> None:
        zero = timedelta(0)
        rules = (
            (zero < self.every <= _DAY, "`every` must lie in (0, 1 day]: backups are daily at least"),
            (self.every <= self.full_every <= timedelta(days=31), "`full_every` must lie between `every` and 31 days"),
            (self.window >= _DAY, "`window` must be at least a day"),
            (
                self.retention >= self.window + self.full_every,
                "`retention` must be at least `window` + `full_every`, or the window has no backup to start from",
            ),
            (zero <= self.grace <= _DAY, "`grace` must lie in [0, 1 day]"),
            (zero < self.archive_timeout < self.max_loss <= _DAY, "`archive_timeout` < `max_loss` <= 1 day must hold"),
            (zero < self.drill_every <= timedelta(days=92), "`drill_every` must lie in (0, 92 days]"),
            (self.began is None or self.began.tzinfo is not None, "`began` must carry a time zone"),
        )
        for holds, why in rules:
            if not holds:
                raise ConfigError(what="the backup policy is not usable", why=why, fix="keep the defaults, or change the times together")

    def wanted_since(self, now: datetime) -> datetime:
        """The first moment that must be restorable at *now*: the window's start, or the first backup's due time in a young repository."""
        start = now - self.window
        return start if self.began is None else max(start, self.began + self.every + self.grace)

    def full_is_due(self, newest_full: datetime | None, now: datetime) -> bool:
        """Whether the next backup must be a full one."""
        # Half an interval of slack: the timer that fires a minute early must not put a full backup off by a day.
        return newest_full is None or now - newest_full >= self.full_every - self.every / 2

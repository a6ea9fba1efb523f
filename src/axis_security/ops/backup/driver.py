"""What a backup driver does, and what it says about its repository."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from axis_security.core.checks import CheckResult
from axis_security.ops.backup.errors import BackupDamaged, WrongBackupKey

__all__ = ["ArchivedWal", "Artefact", "Backup", "BackupDriver", "BackupKind", "Inventory", "Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Told the stage's name, how much is done and how much there is; in bytes, or in parts of 10,000 where only those are known. 0 of 0: unknown."""


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class BackupKind(enum.StrEnum):
    """How much a backup copies: everything, what changed since the last full, what changed since the last one."""

    FULL = "full"
    DIFF = "diff"
    INCR = "incr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One whole backup in the repository.

    Args:
        label: its name there.
        generation: of the key it is sealed with.
        started, finished: when.
        first_wal, last_wal: the segments that make it consistent.
        database_bytes: how much it restores to.
    """

    label: str
    kind: BackupKind
    generation: int
    started: datetime
    finished: datetime
    first_wal: str
    last_wal: str
    database_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedWal:
    """One segment in the archive, and when it got there."""

    name: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What the repository holds: whole backups by age, segments by name, and what of it cannot be read."""

    backups: Sequence[Backup]
    wal: Sequence[ArchivedWal]
    segment_bytes: int
    damaged: Sequence[BackupDamaged] = ()

    @classmethod
    def of(
        cls, backups: Sequence[Backup], wal: Sequence[ArchivedWal], *, segment_bytes: int, damaged: Sequence[BackupDamaged] = ()
    ) -> Inventory:
        """From what was found, in any order.

        Raises:
            WrongBackupKey: no backup can be read, and one thing was sealed with another key: it is the key that is wrong.
        """
        if not backups:
            for each in damaged:
                if isinstance(each, WrongBackupKey):
                    raise each
        return cls(
            backups=sorted(backups, key=lambda backup: backup.finished),
            wal=sorted(wal, key=lambda each: each.name),
            segment_bytes=segment_bytes,
            damaged=damaged,
        )

    @property
    def newest(self) -> Backup | None:
        """The newest whole backup."""
        return self.backups[-1] if self.backups else None

    def before(self, target: datetime) -> Backup | None:
        """The newest backup that was finished by *target*."""
        return next((backup for backup in reversed(self.backups) if backup.finished <= target), None)

    @property
    def newest_wal_at(self) -> datetime | None:
        """When the newest segment was archived."""
        return max((wal.at for wal in self.wal), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """One file of the repository as it is stored, for the proof that it is sealed. Args: open: gives its stored bytes, as they come."""

    name: str
    bytes: int
    open: Callable[[], AbstractContextManager[BinaryIO]]


class BackupDriver(Protocol):
    """Takes, keeps and restores backups of one PostgreSQL cluster. Every method may raise :class:`BackupError` and its kin."""

    @property
    def name(self) -> str:
        """``pgbackrest`` or ``native``."""
        ...

    @property
    def magic(self) -> bytes:
        """What every stored file begins with."""
        ...

    def files(self) -> Mapping[str, str]:
        """Configuration to be put in place, by path; holds no secret."""
        ...

    def prepare(self) -> None:
        """Make the repository ready; does nothing the second time."""
        ...

    def run(self, kind: BackupKind, progress: Progress = silent) -> Backup:
        """Take one backup, then let go of what retention no longer keeps. What a killed run left behind is cleaned first."""
        ...

    def inventory(self) -> Inventory:
        """Read what the repository holds. A backup that cannot be read is named, and hides none of the others.

        Raises:
            WrongBackupKey: see :meth:`Inventory.of`.
        """
        ...

    def verify(self, progress: Progress = silent) -> CheckResult:
        """Read every file and authenticate it, or hold it against its checksum; findings name what is damaged."""
        ...

    def restore(self, into: Path, *, target: datetime | None, progress: Progress = silent) -> Backup:
        """Make *into* (absent or empty) a data directory that recovers to *target*, or to the end of the archive, when it is started."""
        ...

    def push_wal(self, path: Path) -> None:
        """Archive one WAL file; returns when it is safe. Safe to repeat."""
        ...

    def fetch_wal(self, name: str, into: Path) -> bool:
        """Bring one WAL file back to *into*; ``False`` if the archive has none of that name."""
        ...

    def artefacts(self) -> Iterator[Artefact]:
        """Every file of the repository, as stored; newest last."""
        ...

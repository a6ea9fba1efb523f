"""A backup's catalogue: the sealed document in the native repository that says what the backup is."""

from __future__ import annotations

from datetime import datetime

from axis_security.ops.backup.driver import Backup, BackupKind
from axis_security.ops.backup.errors import BackupDamaged
from axis_security.ops.backup.repository import SealedRepository
from axis_security.ops.backup.wal import segment_position

__all__ = ["catalogued", "to_document"]


def to_document(backup: Backup, *, stored_bytes: int, segment_bytes: int) -> dict[str, object]:
    """What is written down of *backup*."""
    return {
        "format": 1,
        "label": backup.label,
        "started": backup.started.isoformat(),
        "finished": backup.finished.isoformat(),
        "first_wal": backup.first_wal,
        "last_wal": backup.last_wal,
        "database_bytes": backup.database_bytes,
        "stored_bytes": stored_bytes,
        "segment_bytes": segment_bytes,
    }


def catalogued(repository: SealedRepository, label: str) -> tuple[Backup, int]:
    """The backup *label*, and the size of its segments.

    Raises:
        FileNotFoundError: there is no backup of that label, or not any more.
        BackupDamaged: there was one, and it cannot be read as one. What is left of it stays where it is.
    """
    where = f"g{repository.generation}/backups/{label}"
    try:
        document = repository.read_document(f"backups/{label}/catalogue")
        stored = repository.path(f"backups/{label}/base").stat().st_size
        if stored != document["stored_bytes"] or document["label"] != label:
            raise BackupDamaged(name=f"{where}/base", why="its size is not what the catalogue says")
        backup = Backup(
            label=label,
            kind=BackupKind.FULL,
            generation=repository.generation,
            started=datetime.fromisoformat(document["started"]),
            finished=datetime.fromisoformat(document["finished"]),
            first_wal=document["first_wal"],
            last_wal=document["last_wal"],
            database_bytes=int(document["database_bytes"]),
        )
        segment_position(backup.first_wal, int(document["segment_bytes"]))
        if backup.started.tzinfo is None or backup.finished.tzinfo is None:
            raise ValueError("a moment without a time zone")  # named below, as every other value that makes no sense
        return backup, int(document["segment_bytes"])
    except FileNotFoundError:
        if not repository.path(f"backups/{label}").exists():
            raise
        gone = "base" if repository.path(f"backups/{label}/catalogue").exists() else "catalogue"
        raise BackupDamaged(name=f"{where}/{gone}", why="it is gone, and the backup was whole once") from None
    except OSError as error:
        raise BackupDamaged(name=where, why=error.strerror or type(error).__name__) from None
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        # It opened, so we sealed it: another version of this library, or a fault of ours.
        raise BackupDamaged(name=f"{where}/catalogue", why="it is no catalogue that this version reads") from None

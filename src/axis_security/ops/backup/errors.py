"""How backups refuse. A message names files, segments and times; never a key, a passphrase or a row."""

from __future__ import annotations

from axis_security.core.errors import AxisError, Unavailable

__all__ = [
    "BackupDamaged",
    "BackupError",
    "NoUsableBackup",
    "ProgramFailed",
    "RepositoryBusy",
    "ServerUnreachable",
    "TargetOutsideWindow",
    "WalConflict",
    "WalMissing",
    "WrongBackupKey",
    "WrongCluster",
]


class BackupError(AxisError):
    """A backup, a restore or a drill did not happen as promised."""

    code = "backup.failed"


class ProgramFailed(BackupError):
    """A program (pgBackRest, pg_basebackup, postgres, …) ended with an error; the message holds its last lines."""

    code = "backup.program"

    def __init__(self, *, program: str, status: int, tail: str) -> None:
        super().__init__(
            what=f"`{program}` failed with status {status}",
            why=tail.strip()[-1500:] or "it said nothing",
            fix="read its message above",
            facts={"program": program, "status": status},
        )


class ServerUnreachable(Unavailable):
    """The PostgreSQL server did not answer on its socket."""

    code = "backup.server"

    def __init__(self, *, why: str) -> None:
        super().__init__(
            what="the PostgreSQL server does not answer",
            why=why,
            fix="check that it runs, and that `socket_dir`, `port` and `user` in the backup configuration are its own",
        )


class NoUsableBackup(BackupError):
    """The repository holds no whole backup that fits."""

    code = "backup.none"

    def __init__(self, *, why: str) -> None:
        super().__init__(what="there is no usable backup", why=why, fix="run `axis-security backup run`")


class TargetOutsideWindow(BackupError):
    """The time asked for is before the oldest backup, or after the newest archived WAL."""

    code = "backup.target"

    def __init__(self, *, target: str, first: str, last: str) -> None:
        super().__init__(
            what=f"{target} cannot be restored",
            why=f"backups and archived WAL reach from {first} to {last}",
            fix="choose a time in between",
        )


class WalMissing(BackupError):
    """A WAL segment that a restore needs is not in the archive."""

    code = "backup.wal_missing"

    def __init__(self, *, segment: str) -> None:
        super().__init__(
            what=f"WAL segment {segment} is missing from the archive",
            why="recovery cannot pass it: no time after it can be restored from the backups before it",
            fix="find out who removed it (a lifecycle rule, a disk that was full), put it back if a copy exists, and take a new backup now",
            facts={"segment": segment},
        )


class WalConflict(BackupError):
    """Another file of the same name, with other contents, is already archived."""

    code = "backup.wal_conflict"

    def __init__(self, *, segment: str) -> None:
        super().__init__(
            what=f"WAL segment {segment} is already archived with other contents",
            why="two servers write into one archive, or a server was restored and did not change its timeline",
            fix="give each server its own stanza; nothing was overwritten",
            facts={"segment": segment},
        )


class WrongCluster(BackupError):
    """The file, or the server, is not of the cluster that the repository belongs to."""

    code = "backup.wrong_cluster"

    def __init__(self, *, stanza: str) -> None:
        super().__init__(
            what=f"this is not the cluster of stanza `{stanza}`",
            why="its system identifier differs from the one that the repository was made for",
            fix="give each PostgreSQL cluster a stanza of its own",
        )


class BackupDamaged(BackupError):
    """Something in the repository was changed, cut or lost."""

    code = "backup.damaged"

    def __init__(self, *, name: str, why: str) -> None:
        super().__init__(
            what=f"`{name}` in the backup repository is damaged",
            why=why,
            fix="take a new backup now, then find out who or what wrote there",
            facts={"name": name},
        )


class WrongBackupKey(BackupDamaged):
    """The key that the secrets manager gives is not the one that the file was sealed with, or the file lies under another name."""

    code = "backup.wrong_key"

    def __init__(self, *, name: str, generation: int) -> None:
        BackupError.__init__(
            self,
            what=f"`{name}` in the backup repository does not open with the key of generation {generation}",
            why="it was sealed with another key, or for another stanza or name",
            fix="check the secret of that generation and the stanza; a key is never replaced under its number, a new one gets the next",
            facts={"name": name, "generation": generation},
        )


class RepositoryBusy(BackupError):
    """Another run is at work in the repository."""

    code = "backup.busy"

    def __init__(self, *, path: str) -> None:
        super().__init__(
            what="another backup run is at work", why=f"it holds the lock `{path}`", fix="wait for it to end; a dead process holds no lock"
        )

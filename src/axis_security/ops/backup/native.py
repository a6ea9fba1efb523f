"""Backups with PostgreSQL's own programs: ``pg_basebackup`` and archived WAL, each sealed (AXO1) on its way to the repository.

For where pgBackRest is not installed. Full backups only, one stream, no tablespaces (``pg_basebackup`` refuses to send them in one stream, by its own words).
What it has over that: authenticated encryption, so that a changed byte is noticed when it is read, and not only by a checksum that lies beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, cast

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.ops.backup.driver import ArchivedWal, Artefact, Backup, BackupKind, Inventory, Progress, silent
from axis_security.ops.backup.errors import BackupDamaged, BackupError, WalConflict, WrongBackupKey, WrongCluster
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.repository import MAGIC, SealedRepository
from axis_security.ops.backup.restoring import empty_directory, plan_restore, recovery_settings
from axis_security.ops.backup.server import connected, facts
from axis_security.ops.backup.settings import BackupKeys, BackupSettings
from axis_security.ops.backup.wal import SegmentHeader, check_archived_name, is_segment, lsn_segment, segment_position

__all__ = ["NativeDriver"]

_BLOCK: Final = 1 << 20
_PIPE_BYTES: Final = 1 << 20
_START: Final = re.compile(r"write-ahead log start point: ([0-9A-F]+/[0-9A-F]+) on timeline (\d+)")
_END: Final = re.compile(r"write-ahead log end point: ([0-9A-F]+/[0-9A-F]+)")


class NativeDriver:
    """See the module.

    Args:
        settings: where things are.
        keys: one key per generation.
        clock: labels and retention.
    """

    name: Final = "native"
    magic: Final = MAGIC

    def __init__(self, settings: BackupSettings, keys: BackupKeys, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._account = Account(settings.run_as)
        self._repositories: Mapping[int, SealedRepository] = {
            number: SealedRepository(
                settings.root(number), stanza=settings.stanza, generation=number, key=partial(keys.key, number), account=self._account
            )
            for number in settings.generations
        }
        self._active = self._repositories[settings.active]

    def files(self) -> Mapping[str, str]:
        """None: the native driver has no configuration of its own."""
        return {}

    def prepare(self) -> None:
        """Make the repository, and write down whose it is.

        Raises:
            WrongCluster: it is another cluster's.
        """
        with connected(self._settings.conninfo) as connection:
            known = facts(connection)
        with contextlib.suppress(FileExistsError):
            self._active.write_document("identity", {"system_id": known.system_id, "segment_bytes": known.segment_bytes})
        if self._identity()["system_id"] != known.system_id:
            raise WrongCluster(stanza=self._settings.stanza)

    def _identity(self) -> Mapping[str, int]:
        try:
            return self._active.read_document("identity")
        except FileNotFoundError:
            raise BackupError(
                what=f"the repository of stanza `{self._settings.stanza}` is not prepared",
                why="it has no identity file for the active generation",
                fix="run `axis-security backup run`, which prepares it",
            ) from None

    def run(self, kind: BackupKind = BackupKind.FULL, progress: Progress = silent) -> Backup:
        """Take one full backup (there are no others here), then let go of what retention no longer keeps."""
        self.prepare()
        with self._active.locked():
            self._active.clean()
            with connected(self._settings.conninfo) as connection:
                known = facts(connection)
            backup = self._take(known.segment_bytes, known.database_bytes, progress)
            self._expire(known.segment_bytes)
        return backup

    def _take(self, segment_bytes: int, estimate: int, progress: Progress) -> Backup:
        started = self._clock.now()
        label = f"{started:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        said: list[str] = []
        command = [
            self._settings.program("pg_basebackup"), "-d", self._settings.conninfo, "-D", "-", "-F", "t", "-X", "fetch",
            "-c", "fast", "-v", "--no-password", "--manifest-checksums", "CRC32C", "-l", f"axis-security {label}",
        ]  # fmt: skip
        with (
            self._active.writing(f"backups/{label}/base") as writer,
            self._account.streaming(command, stdin=subprocess.DEVNULL, on_error_line=said.append) as process,
        ):
            total = _pump(cast("BinaryIO", process.stdout), cast("BinaryIO", writer), estimate, progress)
        text = "".join(said)
        start, end = _START.search(text), _END.search(text)
        if start is None or end is None:
            raise BackupError(
                what="pg_basebackup did not say which WAL the backup needs",
                why="its messages were not understood",
                fix="report its version",
            )
        timeline = int(start[2])
        backup = Backup(
            label=label,
            kind=BackupKind.FULL,
            generation=self._active.generation,
            started=started,
            finished=self._clock.now(),
            first_wal=lsn_segment(start[1], timeline, segment_bytes),
            last_wal=lsn_segment(end[1], timeline, segment_bytes),
            database_bytes=total,
        )
        document = {
            "format": 1,
            "label": label,
            "started": backup.started.isoformat(),
            "finished": backup.finished.isoformat(),
            "first_wal": backup.first_wal,
            "last_wal": backup.last_wal,
            "database_bytes": total,
            "stored_bytes": self._active.path(f"backups/{label}/base").stat().st_size,
            "segment_bytes": segment_bytes,
        }
        self._active.write_document(f"backups/{label}/catalogue", document)
        return backup

    def _expire(self, segment_bytes: int) -> None:
        now, policy, inventory = self._clock.now(), self._settings.policy, self.inventory()
        if inventory.damaged:
            return  # which of two copies is the one to keep is not known while one cannot be read
        held = inventory.backups
        # The newest backup from before the window stays whatever its age: the window's first moment is restored from it.
        anchor = next((backup for backup in reversed(held) if backup.finished <= now - policy.window), None)
        kept = [backup for backup in held if backup.finished >= now - policy.retention or backup is anchor]
        for backup in held:
            if backup not in kept:
                self._repositories[backup.generation].remove_backup(backup.label)
        if not kept:
            return
        oldest = min(segment_position(backup.first_wal, segment_bytes) for backup in kept)
        for repository in self._repositories.values():
            for path in repository.root.glob("wal/*/*"):
                if is_segment(path.name[:24]) and segment_position(path.name[:24], segment_bytes) < oldest:
                    path.unlink()

    def inventory(self) -> Inventory:
        """Read the catalogues, and list the WAL. A backup that cannot be read is named, and hides none of the others.

        Raises:
            WrongBackupKey: no backup opens, and one was sealed with another key: it is the key that is wrong.
        """
        backups: list[Backup] = []
        wal: list[ArchivedWal] = []
        damaged: list[BackupDamaged] = []
        size = 16 << 20
        for repository in self._repositories.values():
            for label in repository.labels():
                try:
                    backup, size = _catalogued(repository, label)
                    backups.append(backup)
                except FileNotFoundError:
                    continue  # retention took it meanwhile
                except BackupDamaged as error:
                    damaged.append(error)
            for path in repository.root.glob("wal/*/*"):
                if is_segment(path.name):
                    with contextlib.suppress(FileNotFoundError):
                        wal.append(ArchivedWal(name=path.name, at=datetime.fromtimestamp(path.stat().st_mtime_ns / 1e9, UTC)))
        if not backups:
            for each in damaged:
                if isinstance(each, WrongBackupKey):
                    raise each
        backups.sort(key=lambda backup: backup.finished)
        return Inventory(backups=backups, wal=sorted(wal, key=lambda each: each.name), segment_bytes=size, damaged=damaged)

    def verify(self, progress: Progress = silent) -> CheckResult:
        """Open every file of every generation."""
        findings, count, done = [], 0, 0
        paths = [(repository, path) for repository in self._repositories.values() for path in repository.files()]
        total = sum(path.stat().st_size for _, path in paths)
        with Path(os.devnull).open("wb") as nowhere:
            for repository, path in paths:
                name = str(path.relative_to(repository.root))
                try:
                    repository.read_into(name, nowhere)
                except FileNotFoundError:
                    continue  # retention took it meanwhile
                except BackupDamaged as error:
                    findings.append(
                        Finding(
                            code=error.code,
                            severity=Severity.ERROR,
                            object=f"g{repository.generation}/{name}",
                            what=error.what,
                            why=error.why,
                            fix=error.fix,
                        )
                    )
                count += 1
                done += path.stat().st_size
                progress("verify", done, total)
        return CheckResult(
            name="backup.verify",
            ok=not findings and count > 0,
            seen=f"{count} files opened, {len(findings)} damaged",
            findings=tuple(findings),
        )

    def restore(self, into: Path, *, target: datetime | None, progress: Progress = silent) -> Backup:
        """Unpack the newest backup from before *target*, hold it against its manifest, and set it to recover to *target*.

        Raises:
            NoUsableBackup, TargetOutsideWindow, WalMissing, BackupDamaged: nothing was left behind.
        """
        backup = plan_restore(self.inventory(), target)
        repository = self._repositories[backup.generation]
        with empty_directory(into, self._account):
            command = ["tar", "-x", "-f", "-", "-C", str(into)]
            with self._account.streaming(command, stdin=subprocess.PIPE) as process:
                sink = _Counting(cast("BinaryIO", process.stdin), backup.database_bytes, progress)
                try:
                    repository.read_into(f"backups/{backup.label}/base", cast("BinaryIO", sink))
                finally:
                    with contextlib.suppress(BrokenPipeError):
                        cast("BinaryIO", process.stdin).close()
            if not (into / "backup_manifest").exists():
                raise BackupDamaged(name=backup.label, why="it holds no manifest")
            progress("verify manifest", 0, 0)
            self._account.run([self._settings.program("pg_verifybackup"), "--quiet", str(into)])
            lines = recovery_settings(restore_command=self._settings.restore_command, target=target)
            with (into / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
                file.write(lines)
            signal = into / "recovery.signal"
            signal.touch(mode=0o600)
            self._account.own(signal)
        return backup

    def push_wal(self, path: Path) -> None:
        """Seal one WAL file into the archive. What is there already with the same contents is fine; with others, nothing is changed.

        Raises:
            WalConflict: other contents are archived under that name.
            WrongCluster: the segment is of another cluster.
        """
        name = check_archived_name(path.name)
        stored = _wal_name(name)
        data = path.read_bytes()
        header = SegmentHeader.read(data) if is_segment(name) else None
        if header is not None and header.system_id != self._identity()["system_id"]:
            raise WrongCluster(stanza=self._settings.stanza)
        # PostgreSQL fills what it did not use of a segment with zeros; they are put back by the size that the first page names.
        kept = data.rstrip(b"\0") if header is not None and header.size == len(data) else data
        try:
            with self._active.writing(stored) as writer:
                writer.write(kept)
        except FileExistsError:
            archived = _Hashing()
            self._active.read_into(stored, cast("BinaryIO", archived))
            if archived.digest() != hashlib.sha256(kept).digest():
                raise WalConflict(segment=name) from None

    def fetch_wal(self, name: str, into: Path) -> bool:
        """Open one WAL file into *into*, which appears whole or not at all."""
        stored = _wal_name(check_archived_name(name))
        for repository in reversed(list(self._repositories.values())):
            temporary = into.with_name(f"{into.name}.axis-{secrets.token_hex(4)}")
            try:
                with temporary.open("xb") as file:
                    repository.read_into(stored, file)
                    _pad(temporary, file, name)
                temporary.replace(into)
                return True
            except FileNotFoundError:
                continue
            finally:
                temporary.unlink(missing_ok=True)
        return False

    def artefacts(self) -> Iterator[Artefact]:
        """Every file of every generation."""
        for repository in self._repositories.values():
            for path in repository.files():
                name = f"g{repository.generation}/{path.relative_to(repository.root)}"
                yield Artefact(name=name, bytes=path.stat().st_size, open=partial(_open, path))


def _catalogued(repository: SealedRepository, label: str) -> tuple[Backup, int]:
    """The backup *label*, and the size of its segments."""
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
        if repository.path(f"backups/{label}/catalogue").exists():
            raise BackupDamaged(name=f"{where}/base", why="it is gone, and its catalogue is there") from None
        raise
    except OSError as error:
        raise BackupDamaged(name=where, why=error.strerror or type(error).__name__) from None
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ):  # it opened, so we sealed it: another version of this library, or a fault of ours
        raise BackupDamaged(name=f"{where}/catalogue", why="it is no catalogue that this version reads") from None


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _wal_name(name: str) -> str:
    return f"wal/{name[:8]}/{name}"


def _pad(path: Path, file: BinaryIO, name: str) -> None:
    file.flush()
    if not is_segment(name):
        return
    with path.open("rb") as written:
        header = SegmentHeader.read(written.read(64))
    if header is not None:
        file.truncate(header.size)


def _pump(source: BinaryIO, sink: BinaryIO, estimate: int, progress: Progress) -> int:
    with contextlib.suppress(OSError):  # a larger pipe is faster, and a smaller one right
        fcntl.fcntl(source.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    buffer = memoryview(bytearray(_BLOCK))
    total = filled = 0
    # A pipe gives a little at a time; sealing and writing cost least in large pieces.
    while count := source.readinto(buffer[filled:]):  # type: ignore[attr-defined]  # an unbuffered pipe has it
        filled += count
        if filled == _BLOCK:
            sink.write(buffer)
            total, filled = total + filled, 0
            progress("backup", total, max(estimate, total))
    sink.write(buffer[:filled])
    total += filled
    progress("backup", total, total)
    return total


class _Counting:
    def __init__(self, sink: BinaryIO, total: int, progress: Progress) -> None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(sink.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._sink, self._total, self._progress, self._done = sink, total, progress, 0

    def write(self, data: memoryview) -> int:
        view = memoryview(data)
        while len(view) > 0:  # a pipe may take less than it is given
            view = view[self._sink.write(view) :]
        self._done += len(data)
        self._progress("restore", self._done, self._total)
        return len(data)


class _Hashing:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return len(data)

    def digest(self) -> bytes:
        return self._hash.digest()

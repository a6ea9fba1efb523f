"""Backups with PostgreSQL's own programs: ``pg_basebackup`` and archived WAL, each sealed (AXO1) on its way to the repository.

For where pgBackRest is not installed. Full backups only, one stream, no tablespaces (``pg_basebackup`` refuses to send them in one stream, by its own words).
What it has over that: authenticated encryption, so that a changed byte is noticed when it is read, and not only by a checksum that lies beside it.
"""

from __future__ import annotations

import contextlib
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
from axis_security.ops.backup.catalogue import catalogued, to_document
from axis_security.ops.backup.driver import ArchivedWal, Artefact, Backup, BackupKind, Inventory, Progress, silent
from axis_security.ops.backup.errors import BackupDamaged, BackupError, WalConflict, WrongCluster
from axis_security.ops.backup.pipes import Counting, Hashing, pump
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.repository import MAGIC, SealedRepository
from axis_security.ops.backup.restoring import empty_directory, plan_restore, recovery_settings
from axis_security.ops.backup.server import connected, facts
from axis_security.ops.backup.settings import BackupKeys, BackupSettings
from axis_security.ops.backup.wal import SegmentHeader, check_archived_name, is_segment, lsn_segment, segment_position

__all__ = ["NativeDriver"]

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
        base, catalogue = f"backups/{label}/base", f"backups/{label}/catalogue"
        with self._active.adding(label) as folder:
            with (
                self._active.writing(base, at=folder / "base") as writer,
                self._account.streaming(command, stdin=subprocess.DEVNULL, on_error_line=said.append) as process,
            ):
                total = pump(cast("BinaryIO", process.stdout), cast("BinaryIO", writer), estimate, progress)
            first, last = _wal_of("".join(said), segment_bytes)
            backup = Backup(
                label=label,
                kind=BackupKind.FULL,
                generation=self._active.generation,
                started=started,
                finished=self._clock.now(),
                first_wal=first,
                last_wal=last,
                database_bytes=total,
            )
            document = to_document(backup, stored_bytes=(folder / "base").stat().st_size, segment_bytes=segment_bytes)
            self._active.write_document(catalogue, document, at=folder / "catalogue")
        return backup

    def _expire(self, segment_bytes: int) -> None:
        now, policy, inventory = self._clock.now(), self._settings.policy, self.inventory()
        if inventory.damaged:
            return  # whether one that cannot be read is the one to keep is not known: nothing goes until it is mended, or removed by hand
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
        """Read the catalogues, and list the WAL. See :meth:`BackupDriver.inventory`."""
        backups: list[Backup] = []
        wal: list[ArchivedWal] = []
        damaged: list[BackupDamaged] = []
        size = 16 << 20
        for repository in self._repositories.values():
            for label in repository.labels():
                try:
                    backup, size = catalogued(repository, label)
                    backups.append(backup)
                except FileNotFoundError:
                    continue  # retention took it meanwhile
                except BackupDamaged as error:
                    damaged.append(error)
            for path in repository.root.glob("wal/*/*"):
                if is_segment(path.name):
                    with contextlib.suppress(FileNotFoundError):
                        wal.append(ArchivedWal(name=path.name, at=datetime.fromtimestamp(path.stat().st_mtime_ns / 1e9, UTC)))
        return Inventory.of(backups, wal, segment_bytes=size, damaged=damaged)

    def verify(self, progress: Progress = silent) -> CheckResult:
        """Open every file of every generation."""
        findings, count, done = [], 0, 0
        files = [(repository, *each) for repository in self._repositories.values() for each in repository.files()]
        total = sum(size for _, _, size in files)
        with Path(os.devnull).open("wb") as nowhere:
            for repository, path, size in files:
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
                done += size
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
                sink = Counting(cast("BinaryIO", process.stdin), backup.database_bytes, progress)
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
            archived = Hashing()
            self._active.read_into(stored, cast("BinaryIO", archived))
            if archived.digest() != hashlib.sha256(kept).digest():
                raise WalConflict(segment=name) from None

    def fetch_wal(self, name: str, into: Path) -> bool:
        """Open one WAL file into *into*, which appears whole or not at all.

        Raises:
            BackupDamaged: it is there and does not open.
            BackupError: there is no repository at all, such as a disk that is not mounted: that is not the end of the archive.
        """
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
        if not any(repository.path("identity").exists() for repository in self._repositories.values()):
            raise BackupError(
                what=f"the repository of stanza `{self._settings.stanza}` is not there",
                why="no generation of it has an identity file: whether it holds the segment is not known",
                fix="mount it, or correct `repository` and `generations` in the backup configuration",
            )
        return False

    def artefacts(self) -> Iterator[Artefact]:
        """Every file of every generation."""
        for repository in self._repositories.values():
            for path, size in repository.files():
                name = f"g{repository.generation}/{path.relative_to(repository.root)}"
                yield Artefact(name=name, bytes=size, open=partial(_open, path))


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _wal_of(said: str, segment_bytes: int) -> tuple[str, str]:
    """The first and the last segment that a backup needs, as ``pg_basebackup -v`` says."""
    start, end = _START.search(said), _END.search(said)
    if start is None or end is None:
        raise BackupError(
            what="pg_basebackup did not say which WAL the backup needs", why="its messages were not understood", fix="report its version"
        )
    timeline = int(start[2])
    return lsn_segment(start[1], timeline, segment_bytes), lsn_segment(end[1], timeline, segment_bytes)


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

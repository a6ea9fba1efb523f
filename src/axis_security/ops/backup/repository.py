"""The native driver's repository: files that appear whole or not at all, each sealed (AXO1) and bound to its own name.

``g<generation>/identity`` names the cluster; ``wal/<timeline>/<segment>``, ``backups/<label>/base`` and ``backups/<label>/catalogue`` hold the data. A backup is
written below another name and gets its own when it is whole, and loses it before it is removed: what a killed run leaves is known by its name, and whatever
stands under a label was whole once. Names are bound into each file's seal: one that is put in another's place does not open.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from axis_security.core.secret import Secret
from axis_security.crypto.errors import SealError, WrongContext
from axis_security.crypto.stream import HEADER_BYTES, ObjectName, ObjectSeal, SealedWriter, object_key_id, open_all
from axis_security.ops.backup.errors import BackupDamaged, RepositoryBusy, WrongBackupKey
from axis_security.ops.backup.process import Account

__all__ = ["MAGIC", "SealedRepository"]

MAGIC: Final = b"\xa2\x01"
"""What every stored file begins with: AXO1, suite 1."""

_WRITING: Final = ".writing-"
_REMOVING: Final = ".removing-"
_PASSING: Final = (_WRITING, _REMOVING)
"""What names of files and directories begin with that are not whole, yet or any more."""


class SealedRepository:
    """One generation of one stanza.

    Args:
        root: its directory.
        stanza: bound into every seal.
        generation: the key's number, written into every header.
        key: gives the key when one is needed.
        account: who owns what is written.
    """

    def __init__(self, root: Path, *, stanza: str, generation: int, key: Callable[[], Secret[bytes]], account: Account) -> None:
        self.root: Final = root
        self.generation: Final = generation
        self._stanza = stanza
        self._key = key
        self._account = account
        self._held: Secret[bytes] | None = None

    def seal(self, name: str) -> ObjectSeal:
        """Key and context of the file *name*."""
        if self._held is None:
            self._held = self._key()
        where = ObjectName(tenant=self._stanza, bucket="axis-backup", key=name)
        return ObjectSeal(self._held.reveal(), key_id=self.generation, name=where)

    def path(self, name: str) -> Path:
        """Where *name* is stored."""
        return self.root / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only run at work here; a process that dies lets go.

        Raises:
            RepositoryBusy: another is.
        """
        path = self._account.directory(self.root) / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._account.own(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RepositoryBusy(path=str(path)) from None
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def adding(self, label: str) -> Iterator[Path]:
        """Make the backup *label* of the files that the block writes into the directory it gets (``at`` of :meth:`writing`). It appears when the block ends
        without an exception, and not otherwise. Call it under the lock."""
        folder = self._account.directory(self.root / "backups" / f"{_WRITING}{label}")
        try:
            yield folder
            folder.rename(self.root / "backups" / label)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _sync_directory(folder.parent)

    @contextmanager
    def writing(self, name: str, *, at: Path | None = None) -> Iterator[SealedWriter]:
        """Write *name*: it appears, whole and on disk, when the block ends without an exception, and not otherwise.

        Args:
            at: where it lies for now, if not under its name; it will open under its name only.

        Raises:
            FileExistsError: it is there already; nothing was changed.
        """
        path = self.path(name) if at is None else at
        directory = self._account.directory(path.parent)
        temporary = directory / f"{_WRITING}{path.name}-{secrets.token_hex(6)}"
        try:
            with temporary.open("xb") as file:
                temporary.chmod(0o600)
                self._account.own(temporary)
                with SealedWriter(file, self.seal(name)) as writer:
                    yield writer
                file.flush()
                os.fsync(file.fileno())
            # A link, not a rename: it never takes the place of a file that is there.
            os.link(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        _sync_directory(directory)

    def read_into(self, name: str, sink: BinaryIO) -> int:
        """Open *name* into *sink*; returns the number of plaintext bytes. Until it returns, *sink* may hold a beginning without its end.

        Raises:
            FileNotFoundError: there is none.
            BackupDamaged: it is changed, cut, another file, or (WrongBackupKey) sealed with another key.
        """
        with self.path(name).open("rb") as source:
            try:
                return open_all(source, sink, self.seal(name))
            except WrongContext:
                raise WrongBackupKey(name=f"g{self.generation}/{name}", generation=self.generation) from None
            except SealError as error:
                raise BackupDamaged(name=f"g{self.generation}/{name}", why=error.why) from None

    def write_document(self, name: str, document: Mapping[str, Any], *, at: Path | None = None) -> None:
        """Write a small JSON document as :meth:`writing` does."""
        with self.writing(name, at=at) as writer:
            writer.write(json.dumps(document, sort_keys=True).encode())

    def read_document(self, name: str) -> Mapping[str, Any]:
        """Read one back. Raises as :meth:`read_into` does."""
        sink = io.BytesIO()
        self.read_into(name, sink)
        document: dict[str, Any] = json.loads(sink.getvalue())
        return document

    def generation_of(self, name: str) -> int:
        """The key's number in the file's header."""
        with self.path(name).open("rb") as file:
            return object_key_id(file.read(HEADER_BYTES), name=name)

    def clean(self) -> list[str]:
        """Remove what killed runs left: backups that were not whole yet, or not any more. Call it under the lock; returns what went."""
        # Not the WAL's temporary files: archive_command works beside us, without the lock.
        gone = [path for path in sorted((self.root / "backups").glob(".*")) if path.name.startswith(_PASSING)]
        for path in gone:
            shutil.rmtree(path)
        return [path.name for path in gone]

    def remove_backup(self, label: str) -> None:
        """Remove a backup. It is none from the first moment on: cut short, the rest goes with the next run."""
        folder = self.root / "backups" / label
        passing = folder.with_name(f"{_REMOVING}{label}")
        folder.rename(passing)
        shutil.rmtree(passing)

    def labels(self) -> list[str]:
        """Every backup that was whole once, oldest first."""
        return sorted(path.name for path in self.root.glob("backups/*") if path.is_dir() and not path.name.startswith(_PASSING))

    def files(self) -> Iterator[tuple[Path, int]]:
        """Every stored file with its size, oldest first. What goes meanwhile is left out.

        Raises:
            OSError: a directory cannot be read: what may lie there is not passed over.
        """
        found = []
        for folder, inner, names in os.walk(self.root, onerror=_unless_gone):
            inner[:] = [name for name in inner if not name.startswith(_PASSING)]
            for name in names:
                path = Path(folder, name)
                if path.name != "lock" and not path.name.startswith(_PASSING):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((path.stat().st_mtime_ns, path, path.stat().st_size))
        yield from ((path, size) for _, path, size in sorted(found))


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

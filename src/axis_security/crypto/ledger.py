"""The shred ledger as a file: append-only lines, each with the hash of the one before it. Keep it outside whatever restores the database."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from axis_security.crypto.errors import LedgerUnavailable
from axis_security.crypto.keys import LedgerEntry

__all__ = ["FileShredLedger"]

_START: Final = hashlib.sha256(b"axis-security/shred-ledger/v1").hexdigest()


class FileShredLedger:
    """A ledger in one file, on storage that the database's backup does not cover.

    A cut-off tail is not visible in the file itself; :attr:`head` is for keeping its newest hash elsewhere (evidence bundles do).

    Args:
        path: the file; made, empty, if *create*. A missing file is otherwise an error: a ring must not open as if nothing had ever been shredded.

    Raises:
        LedgerUnavailable: the file is missing or unreadable, or a line does not follow from the one before it.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int] = (-1, -1)
        self._known: dict[str, frozenset[int]] = {}
        self._head = _START
        if create:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                pass
            except OSError as error:
                raise LedgerUnavailable(why=error.strerror or "it cannot be made") from None
        self.shredded()

    @property
    def head(self) -> str:
        """The hash of the newest entry, hex."""
        self.shredded()
        return self._head

    def append(self, entry: LedgerEntry) -> None:
        """See :meth:`ShredLedger.append <axis_security.crypto.keys.ShredLedger.append>`."""
        with self._lock:
            try:
                with self._path.open("r+b", buffering=0) as file:
                    fcntl.flock(file, fcntl.LOCK_EX)  # other processes append as well
                    data = file.read()
                    head = self._read(data)
                    body = {
                        "tenant": entry.tenant,
                        "key_ids": sorted(entry.key_ids),
                        "at": entry.at.isoformat(),
                        "reason": entry.reason,
                        "before": head,
                    }
                    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
                    line = json.dumps({**body, "hash": _hash(text)}, sort_keys=True, separators=(",", ":")) + "\n"
                    try:
                        if file.write(line.encode("ascii")) != len(line):
                            raise OSError(errno.ENOSPC, "it was written in part")
                        os.fsync(file.fileno())
                    except OSError:
                        # Not kept, so it must not be there: half a line would stop every ring, a whole one would shred what the caller was told is not.
                        file.truncate(len(data))
                        raise
            except OSError as error:
                raise LedgerUnavailable(why=error.strerror or "it cannot be written") from None
        self.shredded()

    def shredded(self) -> Mapping[str, frozenset[int]]:
        """See :meth:`ShredLedger.shredded <axis_security.crypto.keys.ShredLedger.shredded>`. The file is read again only where it has changed."""
        with self._lock:
            try:
                status = self._path.stat()
                if (status.st_size, status.st_mtime_ns) != self._seen:
                    with self._path.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_SH)  # whoever is just appending has not written half a line
                        status = os.fstat(file.fileno())
                        self._read(file.read())
                    self._seen = (status.st_size, status.st_mtime_ns)
            except OSError as error:
                raise LedgerUnavailable(why=error.strerror or "it cannot be read") from None
            return dict(self._known)

    def _read(self, data: bytes) -> str:
        known: dict[str, frozenset[int]] = {}
        head = _START
        for number, line in enumerate(data.splitlines(), start=1):
            try:
                body = json.loads(line)
                tenant, before, claimed = body["tenant"], body["before"], body.pop("hash")
                ids = frozenset(int(each) for each in body["key_ids"])
                datetime.fromisoformat(body["at"])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise LedgerUnavailable(why=f"line {number} is not an entry") from None
            if before != head or claimed != _hash(json.dumps(body, sort_keys=True, separators=(",", ":"))):
                raise LedgerUnavailable(why=f"line {number} does not follow from the one before it: the file was changed")
            known[tenant] = known.get(tenant, frozenset()) | ids
            head = claimed
        if data and not data.endswith(b"\n"):
            raise LedgerUnavailable(why="its last line is cut off")
        if not self._known.items() <= known.items() and any(
            not ids <= known.get(tenant, frozenset()) for tenant, ids in self._known.items()
        ):
            raise LedgerUnavailable(why="entries that were there are gone")
        self._known, self._head = known, head
        return head


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()

"""Bytes on their way between a program and the repository, counted and told."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from typing import BinaryIO, Final

from axis_security.ops.backup.driver import Progress

__all__ = ["Counting", "Hashing", "pump"]

_BLOCK: Final = 1 << 20
_PIPE_BYTES: Final = 1 << 20


def pump(source: BinaryIO, sink: BinaryIO, estimate: int, progress: Progress) -> int:
    """Copy *source* to *sink* to its end; returns the number of bytes. Args: estimate: how many are expected."""
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


class Counting:
    """Passes on what is written to it, and tells how much of *total* that was."""

    def __init__(self, sink: BinaryIO, total: int, progress: Progress) -> None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(sink.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._sink, self._total, self._progress, self._done = sink, total, progress, 0

    def write(self, data: memoryview) -> int:
        """Write all of *data*."""
        view = memoryview(data)
        while len(view) > 0:  # a pipe may take less than it is given
            view = view[self._sink.write(view) :]
        self._done += len(data)
        self._progress("restore", self._done, self._total)
        return len(data)


class Hashing:
    """Keeps nothing of what is written to it but the SHA-256."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Take *data* in."""
        self._hash.update(data)
        return len(data)

    def digest(self) -> bytes:
        """Of all that was written."""
        return self._hash.digest()

"""Files that hold other people's data: they appear whole or not at all, and for this account alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["published"]


@contextmanager
def published(out: Path) -> Iterator[BinaryIO]:
    """Write *out*, mode 0600: it appears, on disk, in place of what was there, when the block ends without an exception, and not otherwise.

    Until then it has a name that nobody can guess: in a directory that others can write to as well, a known one could be theirs already.

    Raises:
        OSError: its directory is not there, or cannot be written to.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(out)
    finally:
        Path(name).unlink(missing_ok=True)

"""Records on disk that cannot be changed or left out unnoticed: JSON Lines, each with its own hash and the hash of the one before.

As with every hash chain, a cut at the end shows only against a copy of the head that is kept elsewhere: signed bundles hold one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axis_security.core.errors import ConfigError

__all__ = ["adding", "broken_at", "chained", "read_records", "refuse_broken"]


def chained(record: Mapping[str, Any], previous: str) -> dict[str, Any]:
    """*record* as it follows the one whose hash is *previous*: its ``sha256`` is over all else in it, canonical."""
    body = {name: value for name, value in record.items() if name != "sha256"} | {"previous": previous}
    return body | {"sha256": hashlib.sha256(_canonical(body).encode()).hexdigest()}


def _canonical(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Every record of *path*; none where it does not exist.

    Raises:
        ConfigError: a line is no JSON object.
    """
    if not path.exists():
        return []
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (ValueError, RecursionError):
        records = [None]
    if not all(isinstance(each, dict) for each in records):
        raise ConfigError(
            what=f"`{path}` holds no records", why="a line of it is none", fix="restore it from a bundle, or begin another file"
        )
    return records


def broken_at(records: Sequence[Mapping[str, Any]]) -> int:
    """The number of the first record that does not follow from the one before it; 0 if all do."""
    previous = ""
    for number, record in enumerate(records, 1):
        if record != chained(record, previous):
            return number
        previous = record["sha256"]
    return 0


def refuse_broken(path: Path) -> str:
    """The hash of the newest record of *path*, ``""`` if there is none.

    Raises:
        ConfigError: the records that are there were changed.
    """
    records = read_records(path)
    broken = broken_at(records)
    if broken:
        raise ConfigError(
            what=f"the records in `{path}` are broken at number {broken}",
            why="its hash does not fit, or one before it was removed",
            fix="keep the file, and begin another",
        )
    return str(records[-1]["sha256"]) if records else ""


@contextmanager
def adding(path: Path) -> Iterator[Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """Add records to *path*: the block gets what adds one and returns it as it was written. They are on disk when the block ends; two at a time wait for one another.

    Raises:
        ConfigError: the records that are there were changed: nothing is added to a broken chain.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        previous = refuse_broken(path)

        def add(record: Mapping[str, Any]) -> dict[str, Any]:
            nonlocal previous
            written = chained(record, previous)
            previous = written["sha256"]
            file.write(_canonical(written) + "\n")
            return written

        yield add
        file.flush()
        os.fsync(file.fileno())

"""Passwords known from breaches: a local file built once from the public download, or the k-anonymity range service.

The file holds a few bytes of each SHA-1, sorted, behind an index by the first two bytes. It is mapped, not read: a look-up touches
one bucket. A listed password is always found. One that is not listed is reported with a probability of
``count / 2**(16 + 8*fingerprint_bytes)``: with 4 bytes and 10**9 entries, 4 in a million, at 4 GB.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import mmap
import os
import re
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from axis_security.core.errors import AxisError, ConfigError, Unavailable

__all__ = [
    "BreachFilter",
    "BreachSource",
    "MalformedBreachData",
    "RangeClient",
    "build_filter",
    "range_contains",
    "read_ordered",
    "sha1_of",
]

_MAGIC: Final = b"AXBF1\0\0"
_HEADER: Final = struct.Struct("<7sBQ")
_BUCKETS: Final = 65_536
_INDEX: Final = struct.Struct(f"<{_BUCKETS + 1}Q")
_LINE: Final = re.compile(r"([0-9A-Fa-f]{40})(?::([0-9]{1,12}))?", re.ASCII)
_SUFFIX: Final = re.compile(r"([0-9A-Fa-f]{35}):([0-9]{1,12})", re.ASCII)
_RANGE_NAME: Final = re.compile(r"([0-9A-Fa-f]{5})(?:\.txt)?", re.ASCII)


class MalformedBreachData(AxisError):
    """A breach file or range answer that does not have its format. No answer is derived from it."""

    code = "auth.malformed_breach_data"

    def __init__(self, why: str) -> None:
        super().__init__(what="breach data not usable", why=why, fix="download it again, ordered by hash, and rebuild the filter")


class BreachSource(Protocol):
    """Says whether a password is known from a breach."""

    def contains(self, sha1: bytes) -> bool:
        """Whether the password with this SHA-1 is listed."""
        ...


def sha1_of(password: bytes) -> bytes:
    """The SHA-1 under which breach lists keep a password. A list format, not a protection."""
    return hashlib.sha1(password, usedforsecurity=False).digest()


def read_ordered(source: Path, *, minimum_count: int = 1) -> Iterator[bytes]:
    """The hashes of a download, in order: one ``SHA1:count`` file, or a folder of range files (``00000`` or ``00000.txt`` …).

    Args:
        source: file or folder.
        minimum_count: leave out hashes seen less often: a smaller file for a weaker promise.

    Raises:
        MalformedBreachData: a line or file name of another form.
    """
    if source.is_dir():
        for file in sorted(source.iterdir(), key=lambda f: f.name.upper()):
            name = _RANGE_NAME.fullmatch(file.name)
            if name is None:
                raise MalformedBreachData(f"`{file.name}` is no range file")
            yield from _read(file, _SUFFIX, name[1], minimum_count)
    else:
        yield from _read(source, _LINE, "", minimum_count)


def _read(file: Path, pattern: re.Pattern[str], prefix: str, minimum_count: int) -> Iterator[bytes]:
    with file.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip().lstrip("\ufeff")
            match = pattern.fullmatch(text)
            if match is None:
                if not text:
                    continue
                raise MalformedBreachData(f"line {number} of `{file.name}` is not a hash and a count")
            # A count of 0 is padding in range answers.
            if int(match[2] or 1) >= max(1, minimum_count):
                yield bytes.fromhex(prefix + match[1])


def build_filter(hashes: Iterable[bytes], target: Path, *, fingerprint_bytes: int = 4) -> int:
    """Write the filter of *hashes* (20 bytes each, ascending) to *target*, in constant memory; returns how many entries it holds.

    The file appears under its name only when it is whole.

    Raises:
        ConfigError: ``fingerprint_bytes`` outside 2..8.
        MalformedBreachData: the hashes are not in order.
    """
    if not 2 <= fingerprint_bytes <= 8:
        raise ConfigError(what="unusable fingerprint size", why=f"{fingerprint_bytes} bytes", fix="use 2 to 8; 4 is a good choice")
    partial = target.with_name(target.name + ".partial")
    counts, total, last, end = [0] * _BUCKETS, 0, b"", 2 + fingerprint_bytes
    try:
        with partial.open("wb") as out:
            out.write(bytes(_HEADER.size + _INDEX.size))
            for digest in hashes:
                if digest < last:
                    raise MalformedBreachData("the hashes are not in ascending order")
                if digest[:end] != last[:end]:
                    out.write(digest[2:end])
                    counts[digest[0] << 8 | digest[1]] += 1
                    total += 1
                last = digest
            starts = [0]
            for count in counts:
                starts.append(starts[-1] + count)
            out.seek(0)
            out.write(_HEADER.pack(_MAGIC, fingerprint_bytes, total) + _INDEX.pack(*starts))
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    return total


class BreachFilter:
    """A filter file, mapped read-only. Safe to share between threads and, before a fork, between processes.

    Args:
        path: a file written by :func:`build_filter`.

    Raises:
        MalformedBreachData: it is not one, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _HEADER.size + _INDEX.size:
                raise MalformedBreachData("the file is cut short")
            self._map: Final = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.count: int
        magic, self._width, self.count = _HEADER.unpack_from(self._map, 0)
        self._starts: Final = _INDEX.unpack_from(self._map, _HEADER.size)
        self._base: Final = _HEADER.size + _INDEX.size
        whole = size == self._base + self.count * self._width and self._starts[0] == 0 and self._starts[-1] == self.count
        if (
            magic != _MAGIC
            or not 2 <= self._width <= 8
            or not whole
            or any(a > b for a, b in zip(self._starts, self._starts[1:], strict=False))
        ):
            raise MalformedBreachData("it is no filter file, or damaged")

    @property
    def false_positive_rate(self) -> float:
        """How often a password that is not listed is reported."""
        return float(self.count) / float(2 ** (16 + 8 * self._width))

    def contains(self, sha1: bytes) -> bool:
        """Whether the password with this SHA-1 is listed; see the module for the rate of false alarms."""
        bucket = sha1[0] << 8 | sha1[1]
        low, high = self._starts[bucket], self._starts[bucket + 1]
        wanted = sha1[2 : 2 + self._width]
        found = bisect.bisect_left(range(high), wanted, lo=low, key=self._at)
        return bool(found < high and self._at(found) == wanted)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def _at(self, position: int) -> bytes:
        start = self._base + position * self._width
        return self._map[start : start + self._width]


class RangeClient:
    """Asks a k-anonymity range service: only the first five hex digits of the SHA-1 leave this process.

    It waits for the answer where it is called, which in async code is the event loop: use a :class:`BreachFilter` there, or ask
    :func:`range_contains` before the flow.

    Args:
        fetch: takes the prefix, returns the answer's text (``GET /range/<prefix>`` with ``Add-Padding: true``).
    """

    def __init__(self, fetch: Callable[[str], str]) -> None:
        self._fetch: Final = fetch

    def contains(self, sha1: bytes) -> bool:
        """Whether the password with this SHA-1 is listed.

        Raises:
            Unavailable: the service did not answer.
            MalformedBreachData: it answered something else.
        """
        text = sha1.hex().upper()
        try:
            answer = self._fetch(text[:5])
        except Exception:  # noqa: BLE001  # whatever the host's HTTP client raises
            raise _unavailable() from None
        return _listed(answer, text[5:])


async def range_contains(fetch: Callable[[str], Awaitable[str]], sha1: bytes) -> bool:
    """The async form of :meth:`RangeClient.contains`.

    Raises:
        Unavailable: the service did not answer.
        MalformedBreachData: it answered something else.
    """
    text = sha1.hex().upper()
    try:
        answer = await fetch(text[:5])
    except Exception:  # noqa: BLE001  # whatever the host's HTTP client raises
        raise _unavailable() from None
    return _listed(answer, text[5:])


def _unavailable() -> Unavailable:
    return Unavailable(what="the breach range service did not answer", why="the request failed", fix="retry, or use an offline filter")


def _listed(answer: str, suffix: str) -> bool:
    found = False
    for line in answer.splitlines():
        match = _SUFFIX.fullmatch(line.strip())
        if match is None:
            raise MalformedBreachData("a line of the range answer is not a suffix and a count")
        found |= match[1].upper() == suffix and int(match[2]) > 0
    return found

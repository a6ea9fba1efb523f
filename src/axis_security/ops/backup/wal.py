"""WAL segments: their names, their order, and what their first page says."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from axis_security.core.errors import ConfigError

__all__ = ["SegmentHeader", "check_archived_name", "first_missing", "is_segment", "lsn_segment", "segment_position"]

_ARCHIVED: Final = re.compile(r"[0-9A-F]{24}(?:\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history", re.ASCII)
"""Every name that PostgreSQL hands to ``archive_command``."""

_SEGMENT: Final = re.compile(r"[0-9A-F]{24}", re.ASCII)
# XLogLongPageHeaderData, the same since PostgreSQL 9.3: magic, info, timeline, page address, remaining length, padding; system id, sizes.
_LONG_HEADER: Final = struct.Struct("=HHIQI4xQII")
_LONG_FLAG: Final = 0x0002
_MIN, _MAX = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """What the first page of a segment says. Args: system_id: of the cluster; size: of the segment, in bytes."""

    system_id: int
    size: int

    @classmethod
    def read(cls, data: bytes) -> SegmentHeader | None:
        """Read the first 40 bytes; ``None`` where they are no long page header."""
        if len(data) < _LONG_HEADER.size:
            return None
        _, info, _, _, _, system_id, size, _ = _LONG_HEADER.unpack_from(data)
        if not info & _LONG_FLAG or not _MIN <= size <= _MAX or size & (size - 1):
            return None
        return cls(system_id=system_id, size=size)


def check_archived_name(name: str) -> str:
    """*name*, if PostgreSQL archives files of that name.

    Raises:
        ConfigError: it does not; most of all, it is not a path.
    """
    if _ARCHIVED.fullmatch(name) is None:
        raise ConfigError(
            what="not a WAL file name",
            why="PostgreSQL archives no file of that name",
            fix="call this from archive_command or restore_command",
        )
    return name


def is_segment(name: str) -> bool:
    """Whether *name* is a whole segment, not a history, label or partial file."""
    return _SEGMENT.fullmatch(name) is not None


def segment_position(name: str, size: int) -> int:
    """The segment's place in the log, counted from its beginning; the timeline is left out, since a place is covered by any."""
    return int(name[8:16], 16) * (0x1_0000_0000 // size) + int(name[16:24], 16)


def _name_at(timeline: str, position: int, size: int) -> str:
    per = 0x1_0000_0000 // size
    return f"{timeline}{position // per:08X}{position % per:08X}"


def lsn_segment(lsn: str, timeline: int, size: int) -> str:
    """The segment that holds *lsn* (``16/B374D848``)."""
    high, _, low = lsn.partition("/")
    return f"{timeline:08X}{int(high, 16):08X}{int(low, 16) // size:08X}"


def first_missing(names: Iterable[str], *, first: str, last: str | None = None, size: int) -> str | None:
    """The first segment from *first* to *last* (the newest of *names* unless told) that is not in *names*; ``None`` if all are there."""
    have = {segment_position(name, size) for name in names if is_segment(name)}
    start = segment_position(first, size)
    end = segment_position(last, size) if last is not None else max(have, default=start)
    for position in range(start, end + 1):
        if position not in have:
            return _name_at(first[:8], position, size)
    return None

"""HTTP ranges over sealed objects (RFC 9110 section 14): a request's header in, status, headers and pieces out. Knows no framework."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["Part", "RangeAnswer", "Sliceable", "Unsatisfiable", "Whole", "answer_range", "parse_range"]

_ONE_RANGE: Final = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})", re.ASCII | re.IGNORECASE)
_PIECE: Final = 16_384 * 8


@dataclass(frozen=True, slots=True)
class Whole:
    """All of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes *start* to *stop*, exclusive."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """Nothing of the object lies in the range asked for."""


def parse_range(header: str | None, size: int) -> Whole | Part | Unsatisfiable:
    """What a ``Range`` header asks of an object of *size* bytes.

    What is malformed, in another unit, or several ranges at once is answered with the whole, as RFC 9110 section 14.2 allows: several ranges of one
    object are how a small request makes a large answer.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header is not None and len(header) < 100 else None
    if match is None or not (match["first"] or match["last"]):
        return Whole()
    if not match["first"]:
        count = min(int(match["last"]), size)
        return Part(size - count, size) if count else Unsatisfiable()
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else size - 1
    if match["last"] and last < first:
        return Whole()
    return Part(first, min(last + 1, size)) if first < size else Unsatisfiable()


class Sliceable(Protocol):
    """What an object's reader offers."""

    @property
    def size(self) -> int:
        """Plaintext bytes."""
        ...

    @property
    def etag(self) -> str:
        """Names this writing of the object."""
        ...

    def read_range(self, start: int, stop: int) -> bytes:
        """Plaintext bytes *start* to *stop*."""
        ...


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """Args: status: 200, 206 or 416; headers: to send; body: pieces, each authenticated before it is given out."""

    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes]


def answer_range(reader: Sliceable, *, header: str | None, if_range: str | None = None) -> RangeAnswer:
    """The answer to a GET with this ``Range`` header, and this ``If-Range`` header where there is one.

    The body is read while it is sent: keep *reader* open until then. A chunk that was changed raises ``Tampered`` in the middle of the body, which
    must end the connection.
    """
    tag = f'"{reader.etag}"'
    asked = Whole() if if_range is not None and if_range != tag else parse_range(header, reader.size)
    headers = {"Accept-Ranges": "bytes", "ETag": tag}
    match asked:
        case Unsatisfiable():
            return RangeAnswer(416, {**headers, "Content-Range": f"bytes */{reader.size}", "Content-Length": "0"}, iter(()))
        case Part(start, stop):
            headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{reader.size}", "Content-Length": str(stop - start)}
            return RangeAnswer(206, headers, _pieces(reader, start, stop))
        case Whole():
            return RangeAnswer(200, {**headers, "Content-Length": str(reader.size)}, _pieces(reader, 0, reader.size))


def _pieces(reader: Sliceable, start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        # Up to a border of chunks, so that no chunk is opened twice.
        end = min(start + _PIECE - start % _PIECE, stop)
        yield reader.read_range(start, end)
        start = end

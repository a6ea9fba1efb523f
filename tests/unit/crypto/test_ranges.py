"""HTTP ranges: what a header asks, and what the answer holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.crypto.ranges import Part, Unsatisfiable, Whole, answer_range, parse_range


class Held:
    """Something sliceable in memory."""

    etag = "abc"

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def read_range(self, start: int, stop: int) -> bytes:
        return self.data[start:stop]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Whole()),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=10-", Part(10, 100)),
        ("Bytes=10-19", Part(10, 20)),
        ("bytes=90-1000", Part(90, 100)),
        ("bytes=-10", Part(90, 100)),
        ("bytes=-1000", Part(0, 100)),
        ("bytes=100-", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=20-10", Whole()),
        ("bytes=-", Whole()),
        ("bytes=0-1,5-6", Whole()),
        ("items=0-1", Whole()),
        ("bytes=+1-5", Whole()),
        ("bytes=٣-5", Whole()),
        ("bytes=" + "9" * 500 + "-", Whole()),
        ("bytes=0-1" + "," * 10_000, Whole()),
    ],
)
def test_headers_of_rfc_9110(header: str | None, expected: object) -> None:
    """One range of bytes is honoured; anything else is the whole or, where nothing lies in it, 416."""
    assert parse_range(header, 100) == expected


def test_nothing_of_an_empty_object_can_be_asked_for() -> None:
    """Every range of nothing is unsatisfiable; the whole of it is empty."""
    assert parse_range("bytes=0-", 0) == parse_range("bytes=-5", 0) == Unsatisfiable()
    assert list(answer_range(Held(b""), header=None).body) == []


@given(st.integers(0, 400_000), st.integers(0, 400_000), st.integers(0, 400_000))
def test_the_body_is_the_slice_that_the_headers_name(size: int, first: int, last: int) -> None:
    """Status, Content-Range, Content-Length and bytes agree with one another, for any range of any object."""
    data = bytes(range(256)) * (size // 256 + 1)
    held = Held(data[:size])
    answer = answer_range(held, header=f"bytes={first}-{last}")
    body = b"".join(answer.body)
    assert answer.headers["Content-Length"] == str(len(body))
    if answer.status == 206:
        assert body == held.data[first : last + 1]
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{size}"
    elif answer.status == 416:
        assert first >= size
        assert answer.headers["Content-Range"] == f"bytes */{size}"
    else:
        assert (last < first, body) == (True, held.data)


def test_if_range_of_another_writing_gets_the_whole() -> None:
    """A client that continues a download of an older writing does not get two halves of two objects."""
    held = Held(b"0123456789")
    assert answer_range(held, header="bytes=5-", if_range='"abc"').status == 206
    for stale in ('"old"', 'W/"abc"', "Tue, 24 Nov 2026 00:00:00 GMT"):
        assert answer_range(held, header="bytes=5-", if_range=stale).status == 200

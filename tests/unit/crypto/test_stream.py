"""AXO1: published vectors, any cut noticed, any place readable."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from axis_security.crypto.errors import SealError, Tampered, Truncated, UnknownFormat, WrongContext
from axis_security.crypto.stream import CHUNK, ObjectName, ObjectSeal, SealedReader, SealedWriter, object_key_id, open_all

ROOT = bytes(range(32))
NAME = ObjectName(tenant="acme", bucket="files", key="inv/1.pdf", version="v1")
SEAL = ObjectSeal(ROOT, key_id=3, name=NAME)
VECTORS = Path(__file__).parents[2] / "vectors" / "crypto" / "chunked_aes_256_gcm.json"


def sealed(data: bytes, seal: ObjectSeal = SEAL) -> bytes:
    """A whole object."""
    sink = io.BytesIO()
    with SealedWriter(sink, seal) as writer:
        writer.write(data)
    return sink.getvalue()


def opened(data: bytes, seal: ObjectSeal = SEAL) -> bytes:
    """Read in order."""
    sink = io.BytesIO()
    open_all(io.BytesIO(data), sink, seal)
    return sink.getvalue()


def wycheproof() -> list[dict[str, Any]]:
    """All published cases."""
    groups = json.loads(VECTORS.read_text(encoding="utf-8"))["testGroups"]
    return [case for group in groups for case in group["tests"]]


@pytest.mark.parametrize("case", wycheproof(), ids=lambda case: f"{case['tcId']}: {case['comment']}")
def test_published_cases_through_both_readers(case: dict[str, Any]) -> None:
    """The range reader and the library's own decryptor give the published answer in all 35 cases."""
    data, key, context = zlib.decompress(bytes.fromhex(case["ct"])), bytes.fromhex(case["key"]), bytes.fromhex(case["ctx"])
    answers: list[tuple[int, str] | None] = []
    for read in (_by_range, _in_order):
        try:
            plain = read(data, key, context)
            answers.append((len(plain), hashlib.sha512(plain).hexdigest()))
        except (SealError, InvalidTag, ValueError):
            answers.append(None)
    expected = (case["msgLength"], case["msgSha512"]) if case["result"] == "valid" else None
    assert answers == [expected, expected]


def _by_range(data: bytes, key: bytes, context: bytes) -> bytes:
    reader = SealedReader.bare(io.BytesIO(data), key, context)
    return reader.read_range(0, reader.size)


def _in_order(data: bytes, key: bytes, context: bytes) -> bytes:
    decryptor = Cobblestone256Decryptor(key, context)
    return decryptor.update(data) + decryptor.finalize()


def test_the_published_valid_cases_through_the_writer() -> None:
    """What our writer makes, the library's own decryptor opens; the format is exactly Cobblestone-256 behind eight bytes."""
    for case in wycheproof():
        if case["result"] == "valid":
            data = zlib.decompress(bytes.fromhex(case["ct"]))
            plain = _by_range(data, bytes.fromhex(case["key"]), bytes.fromhex(case["ctx"]))
            whole = sealed(plain)
            assert object_key_id(whole[:8], name="x") == 3
            assert _in_order(whole[8:], SEAL.key, SEAL.context) == plain
            assert len(whole) - 8 == len(data)


SIZES = st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 17]) | st.integers(0, 70_000)


@settings(max_examples=60)
@given(SIZES, st.data())
def test_ranges_equal_slices(size: int, data: Any) -> None:
    """Any range, seek and read of the sealed object gives what a slice of the plaintext gives."""
    plain = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    reader = SealedReader(io.BytesIO(sealed(plain)), SEAL)
    assert (reader.size, opened(sealed(plain))) == (size, plain)
    for _ in range(4):
        start, stop = data.draw(st.integers(-size - 2, size + 2)), data.draw(st.integers(-size - 2, size + 2))
        assert reader.read_range(start, stop) == plain[start:stop]
    at = data.draw(st.integers(0, size + 5))
    reader.seek(at)
    assert io.BufferedReader(reader).read(1000) == plain[at : at + 1000]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_a_cut_at_any_chunk_border_and_beside_it_is_refused(size: int) -> None:
    """Cut at every border of the format, one byte before and one after: refused by both ways of reading."""
    whole = sealed(bytes(size))
    borders = {
        0,
        1,
        7,
        8,
        31,
        32,
        63,
        64,
        65,
        79,
        80,
        *(64 + k * (CHUNK + 16) + d for k in range(1, 4) for d in (-17, -16, -1, 0, 1, 15, 16)),
        len(whole) - 1,
    }
    for end in sorted(border for border in borders if border < len(whole)):
        for read in (opened, lambda data: SealedReader(io.BytesIO(data), SEAL).read_range(0, 10**9)):
            with pytest.raises(SealError) as caught:
                read(whole[:end])
            assert type(caught.value) in {Truncated, Tampered, WrongContext}


def test_bits_flipped_anywhere_are_refused() -> None:
    """Header, salt, commitment, any chunk, any tag."""
    whole = sealed(b"x" * (CHUNK + 100))
    for at in [*range(64), 64, 5000, 64 + CHUNK, 64 + CHUNK + 16, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[at] ^= 4
        for read in (opened, lambda data: SealedReader(io.BytesIO(data), SEAL).read_range(0, 10**9)):
            with pytest.raises(SealError) as caught:
                read(bytes(damaged))
            expected = {UnknownFormat} if at in {0, 1, 6, 7} else {WrongContext} if at < 64 else {Tampered}
            assert type(caught.value) in expected, at


@pytest.mark.parametrize("change", [{"tenant": "globex"}, {"bucket": "other"}, {"key": "inv/2.pdf"}, {"version": "v2"}])
def test_an_object_moved_elsewhere_is_refused(change: dict[str, str]) -> None:
    """Another tenant, bucket, key or version: refused before anything is read."""
    fields = {"tenant": "acme", "bucket": "files", "key": "inv/1.pdf", "version": "v1", **change}
    other = ObjectSeal(ROOT, key_id=3, name=ObjectName(**fields))
    for read in (opened, lambda data, seal: SealedReader(io.BytesIO(data), seal)):
        with pytest.raises(WrongContext):
            read(sealed(b"x"), other)


def test_a_sink_that_fails_is_no_word_about_the_object() -> None:
    """A closed file where the plaintext should go is told as such: nobody is sent to look for who tampered with a sound object."""
    for size in (10, 40 * CHUNK):
        closed = io.BytesIO()
        closed.close()
        with pytest.raises(ValueError, match="closed file"):
            open_all(io.BytesIO(sealed(bytes(size))), closed, SEAL)


def test_an_unfinished_object_is_never_whole() -> None:
    """An exception inside the block, or a forgotten finalize, leaves something that no reader takes for complete."""
    sink = io.BytesIO()
    with pytest.raises(ZeroDivisionError), SealedWriter(sink, SEAL) as writer:
        writer.write(bytes(CHUNK))
        raise ZeroDivisionError
    assert not writer.whole
    for read in (opened, lambda data: SealedReader(io.BytesIO(data), SEAL)):
        with pytest.raises(SealError):
            read(sink.getvalue())
    with pytest.raises(ValueError, match="finished"):
        writer.write(b"more")

"""Sealing objects: throughput against the bare cipher and peers, a read in the middle, and memory that does not grow."""

from __future__ import annotations

import io
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import psutil
import pyrage
import tink
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import streaming_aead

from axis_security.crypto.stream import CHUNK, ObjectName, ObjectSeal, SealedReader, SealedWriter, open_all
from benchmarks.harness import Row, Settings, interleaved, measured

_SIZE = 64 * 2**20
_PIECE = 2**20
_BARE = 8 * 16_400
_RANGES = 1_000
_GROWTH_MIB = 8.0
_SEAL = ObjectSeal(os.urandom(32), key_id=1, name=ObjectName(tenant="t_42", bucket="files", key="movie"))


class _Nowhere(io.BytesIO):
    """Counts what is written and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        self.count += size
        return size


class _Repeated(io.RawIOBase):
    """*size* bytes, the same piece over and over, without holding them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left, self._piece = size, os.urandom(_PIECE)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        view = memoryview(target).cast("B")
        count = min(len(view), self._left, _PIECE)
        view[:count] = self._piece[:count]
        self._left -= count
        return count


def run(settings: Settings) -> Iterable[Row]:
    """Every side reads the same bytes from memory and writes to nowhere."""
    yield from _throughput(settings)
    yield from _range(settings)
    yield from _memory(256 * 2**20 if settings.quick else 2**30)


def _throughput(settings: Settings) -> Iterable[Row]:
    plain = os.urandom(_SIZE)
    context = _SEAL.context
    streaming_aead.register()
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    tink_stream = tink.new_keyset_handle(template).primitive(streaming_aead.StreamingAead)
    person = pyrage.x25519.Identity.generate()
    ours, by_tink, by_age = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with SealedWriter(ours, _SEAL) as writer:
        writer.write(plain)
    with tink_stream.new_encrypting_stream(_kept(by_tink), context) as stream:
        stream.write(plain)
    pyrage.encrypt_io(io.BytesIO(plain), by_age, [person.to_public()])
    sealed = ours.getvalue()
    # The copies are made here: 64 MiB of fresh pages cost more than the cipher.
    sealed_bare, sealed_tink, sealed_age = sealed[8:], by_tink.getvalue(), by_age.getvalue()

    def ours_seal() -> None:
        with SealedWriter(_Nowhere(), _SEAL) as to:
            _feed(plain, to.write)

    def ours_open() -> None:
        open_all(io.BytesIO(sealed), _Nowhere(), _SEAL)

    def tink_seal() -> None:
        with tink_stream.new_encrypting_stream(_Nowhere(), context) as to:
            _feed(plain, to.write)

    def tink_open() -> None:
        with tink_stream.new_decrypting_stream(io.BytesIO(sealed_tink), context) as source:
            while source.read(_PIECE):
                pass

    yield from _against(
        settings,
        "seal 64 MiB",
        {
            "ours": ours_seal,
            "bare": lambda: _bare(Cobblestone256Encryptor(_SEAL.key, context), plain),
            "tink": tink_seal,
            "pyrage": lambda: pyrage.encrypt_io(io.BytesIO(plain), _Nowhere(), [person.to_public()]),
        },
    )
    yield from _against(
        settings,
        "open 64 MiB",
        {
            "ours": ours_open,
            "bare": lambda: _bare(Cobblestone256Decryptor(_SEAL.key, context), sealed_bare),
            "tink": tink_open,
            "pyrage": lambda: pyrage.decrypt_io(io.BytesIO(sealed_age), _Nowhere(), [person]),
        },
    )


def _against(settings: Settings, case: str, sides: Mapping[str, Callable[[], object]]) -> Iterable[Row]:
    seconds = interleaved(sides, rounds=settings.rounds(9))
    rates = {name: [_SIZE / 2**20 / value for value in values] for name, values in seconds.items()}
    middle = {name: statistics.median(values) for name, values in rates.items()}
    yield measured(
        "streams",
        case,
        "MiB/s",
        rates["ours"],
        limit=middle["bare"],
        peers={"tink": rates["tink"], "pyrage": rates["pyrage"]},
        target="at least 0.8 x bare update_into, at least 2 x tink and pyrage",
        met=middle["ours"] >= 0.8 * middle["bare"] and middle["ours"] >= 2 * max(middle["tink"], middle["pyrage"]),
    )


def _bare(cipher: Any, data: bytes) -> None:
    """``update_into`` over reused buffers, reading the way a stream is read."""
    source, sink = io.BytesIO(data), _Nowhere()
    taken, made = bytearray(_BARE), bytearray(_BARE + 16_456)
    view, out = memoryview(taken), memoryview(made)
    while count := source.readinto(taken):
        sink.write(out[: cipher.update_into(view[:count], made)])
    sink.write(cipher.finalize())


def _feed(data: bytes, write: Callable[[Any], object]) -> None:
    view = memoryview(data)
    for start in range(0, len(data), _PIECE):
        write(view[start : start + _PIECE])


def _kept(sink: io.BytesIO) -> BinaryIO:
    sink.close = lambda: None  # type: ignore[method-assign]  # tink closes what it is given; a closed BytesIO forgets what it held
    return sink


def _range(settings: Settings) -> Iterable[Row]:
    sink = io.BytesIO()
    with SealedWriter(sink, _SEAL) as writer:
        writer.write(os.urandom(_SIZE // 4))
    reader = SealedReader(sink, _SEAL)
    # Never two in one chunk, which the reader would still hold, and never over a border.
    chunks = random.Random(1).sample(range(_SIZE // 4 // CHUNK), _RANGES)  # places, not keys
    places = [chunk * CHUNK + 5_000 for chunk in chunks]
    bare = AESGCM(os.urandom(32))
    nonce = os.urandom(12)
    chunk = bare.encrypt(nonce, os.urandom(CHUNK), None)

    def ranges() -> None:
        for place in places:
            reader.read_range(place, place + 1024)

    def opens() -> None:
        for _ in places:
            bare.decrypt(nonce, chunk, None)

    times = interleaved({"ours": ranges, "bare": opens}, rounds=settings.rounds(21), scale=1e6 / _RANGES)
    limit = statistics.median(times["bare"])
    yield measured(
        "streams",
        "1 KiB from the middle",
        "us",
        times["ours"],
        limit=limit,
        target="at most 3 x opening one 16 KiB chunk",
        met=statistics.median(times["ours"]) <= 3 * limit,
    )


def _memory(size: int) -> Iterable[Row]:
    process, grown = psutil.Process(), []
    with tempfile.TemporaryFile() as file:
        # Once small first: what the libraries allocate for themselves is not growth.
        for amount in (16 * 2**20, size):
            file.seek(0)
            file.truncate()
            before = peak = process.memory_info().rss
            source, piece = _Repeated(amount), bytearray(_PIECE)
            with SealedWriter(file, _SEAL) as writer:
                while count := source.readinto(piece):
                    writer.write(memoryview(piece)[:count])
                    peak = max(peak, process.memory_info().rss)
            file.seek(0)
            sink = _Watching(process)
            open_all(file, sink, _SEAL)
            grown.append((max(peak, sink.peak) - before) / 2**20)
    yield measured(
        "streams",
        f"memory growth over {size // 2**20} MiB, written and read",
        "MiB",
        [grown[-1]],
        limit=_GROWTH_MIB,
        target=f"at most {_GROWTH_MIB:g} MiB",
        met=grown[-1] <= _GROWTH_MIB,
    )


class _Watching(_Nowhere):
    """Looks at the process's memory at each write."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__()
        self._process, self.peak = process, 0

    def write(self, data: Any, /) -> int:
        self.peak = max(self.peak, self._process.memory_info().rss)
        return super().write(data)

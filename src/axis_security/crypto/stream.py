"""AXO1: objects and backups, sealed as a stream that can be read from any place.

Eight bytes ``0xA2 | suite 0x01 | key id u32 | 0 0``, then Cobblestone-256 exactly (C2SP chunked encryption over AES-256-GCM): salt 24, commitment 32, and
chunks of 16,384 bytes of plaintext with 16 of tag, the last always shorter, so that a cut at any place is noticed. Writing and reading in order go through
``cryptography.cobblestone``; reading at any place is ours, since that library has no seek: chunk *k* lies at ``64 + k * 16400``, its nonce is the base nonce
XOR *k*, and the size is trusted only after the last chunk has been authenticated.

``key = HKDF-Expand-SHA512(root, LP("axo1") LP(tenant) u32(key id), 32)``; ``context = header LP(tenant) LP(bucket) LP(object) LP(version)``.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn, Protocol, Self

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from axis_security.core.encoding import length_prefixed
from axis_security.crypto.errors import Tampered, Truncated, UnknownFormat, WrongContext

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["HEADER_BYTES", "ObjectName", "ObjectSeal", "SealedReader", "SealedWriter", "Sink", "object_key_id", "open_all"]

MAGIC: Final = 0xA2
SUITE: Final = 0x01
HEADER_BYTES: Final = 8
"""Bytes before the first chunk of a sealed stream (AXO1)."""
CHUNK: Final = 16_384
"""Plaintext bytes of a full chunk."""

_SEALED_CHUNK: Final = CHUNK + 16
_COBBLESTONE_HEADER: Final = 56
_LABEL: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0"
_BLOCK: Final = 16 * CHUNK
"""Worked on at once: small enough to stay in a core's own cache, which is where the speed comes from."""


class Sink(Protocol):
    """Takes bytes: any binary file. It must take all it is given, and not keep the buffer, which is used again."""

    def write(self, data: Buffer, /) -> object:
        """Take all of *data*."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectName:
    """What an object's bytes are bound to. Args: tenant, bucket, key: as stored; version: where the store keeps several, else empty."""

    tenant: str
    bucket: str
    key: str
    version: str = ""

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.bucket}/{self.key}"


class ObjectSeal:
    """The key and the context of one object: what a writer and a reader need. Made by the ring."""

    __slots__ = ("context", "header", "key", "name")

    def __init__(self, root: bytes, *, key_id: int, name: ObjectName) -> None:
        info = length_prefixed(b"axo1", name.tenant.encode()) + key_id.to_bytes(4, "big")
        self.name: Final = name.label
        self.header: Final = bytes((MAGIC, SUITE)) + key_id.to_bytes(4, "big") + b"\0\0"
        self.key: Final = HKDFExpand(hashes.SHA512(), 32, info).derive(root)
        parts = (name.tenant.encode(), name.bucket.encode(), name.key.encode(), name.version.encode())
        self.context: Final = self.header + length_prefixed(*parts)

    def __repr__(self) -> str:
        return f"ObjectSeal({self.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an ObjectSeal holds a key and cannot be pickled or copied; ask the ring for another")


def object_key_id(header: bytes, *, name: str) -> int:
    """The key id in an object's first eight bytes.

    Raises:
        UnknownFormat: not AXO1.
        Truncated: fewer than eight bytes.
    """
    if header[:1] and header[0] != MAGIC:
        raise UnknownFormat(name=name)
    if len(header) < HEADER_BYTES:
        raise Truncated(name=name)
    if header[1] != SUITE or header[6:8] != b"\0\0":
        raise UnknownFormat(name=name)
    return int.from_bytes(header[2:6], "big")


class SealedWriter(io.RawIOBase):
    """Seals what is written into *sink*. Only :meth:`finalize` makes it whole: closed without, what lies in *sink* cannot be read back as complete.

    As a context manager it finalizes on a clean exit and not after an exception. It does not close *sink*.
    """

    def __init__(self, sink: Sink, seal: ObjectSeal) -> None:
        super().__init__()
        self._sink = sink
        self._encryptor = Cobblestone256Encryptor(seal.key, seal.context)
        self._buffer = bytearray(_BLOCK + _BLOCK // CHUNK * 16 + _COBBLESTONE_HEADER + _SEALED_CHUNK)
        self._view = memoryview(self._buffer)
        self._whole = False
        sink.write(seal.header)

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Seal *data* and pass it on; returns its length."""
        if self._whole or self.closed:
            raise ValueError("write to a finished sealed stream")
        source = memoryview(data).cast("B")
        for start in range(0, len(source), _BLOCK):
            written = self._encryptor.update_into(source[start : start + _BLOCK], self._buffer)
            self._sink.write(self._view[:written])
        return len(source)

    def finalize(self) -> None:
        """Write the last chunk; after this, and only after this, the object is whole."""
        if not self._whole:
            self._sink.write(self._encryptor.finalize())
            self._whole = True

    @property
    def whole(self) -> bool:
        """Whether :meth:`finalize` was called."""
        return self._whole

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self.finalize()
        self.close()


def open_all(source: BinaryIO, sink: Sink, seal: ObjectSeal) -> int:
    """Open a whole object from *source* into *sink*, in order and at full speed; returns the number of plaintext bytes.

    Chunks reach *sink* as they are authenticated: until this returns, *sink* may hold the beginning of an object whose end is missing, so write to a
    temporary place and publish afterwards.

    Raises:
        UnknownFormat, Truncated, WrongContext, Tampered: as the class says.
    """
    header = source.read(HEADER_BYTES)
    object_key_id(header, name=seal.name)
    if header != seal.header:
        raise WrongContext(name=seal.name)
    preface = source.read(_COBBLESTONE_HEADER)
    if len(preface) < _COBBLESTONE_HEADER:
        raise Truncated(name=seal.name)
    _subkeys(seal.key, seal.context, preface, seal.name)
    decryptor = Cobblestone256Decryptor(seal.key, seal.context)
    sealed, opened = bytearray(_BLOCK // CHUNK * _SEALED_CHUNK), bytearray(_BLOCK + 2 * _SEALED_CHUNK)
    view, out, total = memoryview(sealed), memoryview(opened), 0
    decryptor.update_into(preface, opened)
    while count := _read_into(source, view):
        try:
            written = decryptor.update_into(view[:count], opened)
        except (InvalidTag, ValueError):
            raise _broken(source, seal.name) from None
        sink.write(out[:written])  # what the sink raises is the sink's, and no word about the object
        total += written
    try:
        last = decryptor.finalize()
    except (InvalidTag, ValueError):
        raise _broken(source, seal.name) from None
    sink.write(last)
    return total + len(last)


class SealedReader(io.RawIOBase):
    """Reads an object at any place, without reading what lies before. It does not close *source*.

    Args:
        source: seekable; the object's bytes from its first header byte to its end.

    Raises:
        UnknownFormat, Truncated, WrongContext, Tampered: on opening (header, commitment, size and last chunk) or on reading a changed chunk.
    """

    def __init__(self, source: BinaryIO, seal: ObjectSeal) -> None:
        super().__init__()
        self._source, self._name = source, seal.name
        total = source.seek(0, io.SEEK_END)
        source.seek(0)
        header = source.read(HEADER_BYTES)
        object_key_id(header, name=seal.name)
        if header != seal.header:
            raise WrongContext(name=seal.name)
        self._open(seal.key, seal.context, HEADER_BYTES, total)

    @classmethod
    def bare(cls, source: BinaryIO, key: bytes, context: bytes) -> Self:
        """A reader of bare Cobblestone-256, without our header; for test vectors."""
        reader = cls.__new__(cls)
        io.RawIOBase.__init__(reader)
        reader._source, reader._name = source, "bare"  # noqa: SLF001  # an alternative constructor
        reader._open(key, context, 0, source.seek(0, io.SEEK_END))  # noqa: SLF001  # an alternative constructor
        return reader

    def _open(self, key: bytes, context: bytes, start: int, total: int) -> None:
        body = total - start - _COBBLESTONE_HEADER
        # The last chunk is always short, its tag included: any other remainder means that the end is missing.
        if body < 16 or body % _SEALED_CHUNK < 16:
            raise Truncated(name=self._name)
        self._source.seek(start)
        preface = self._source.read(_COBBLESTONE_HEADER)
        secret, self._base_nonce = _subkeys(key, context, preface, self._name)
        self._etag = hashlib.sha256(preface).hexdigest()[:32]
        self._decrypt = AESGCM(secret).decrypt
        self._start = start + _COBBLESTONE_HEADER
        self._last = body // _SEALED_CHUNK
        self._size = self._last * CHUNK + body % _SEALED_CHUNK - 16
        self._place = 0
        self._held: tuple[int, bytes] = (-1, b"")
        self._chunk(self._last)  # INVARIANT: the size is believed from here on

    @property
    def size(self) -> int:
        """Plaintext bytes, authenticated."""
        return self._size

    @property
    def etag(self) -> str:
        """Names this writing of the object, for HTTP: another writing has another salt, so another tag. Tells nothing of the content."""
        return self._etag

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The place in the plaintext."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place in the plaintext; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._place = base + offset
        return self._place

    def readinto(self, target: Buffer, /) -> int:
        """Read into *target*, at most to the end of a chunk; 0 at the end."""
        view = memoryview(target).cast("B")
        if self._place >= self._size or not len(view):
            return 0
        index, offset = divmod(self._place, CHUNK)
        piece = self._chunk(index)[offset : offset + len(view)]
        view[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)

    def read_range(self, start: int, stop: int) -> bytes:
        """Plaintext bytes *start* to *stop* (exclusive), as a slice would give them."""
        start, stop, _ = slice(start, stop).indices(self._size)
        if start >= stop:
            return b""
        first, last = start // CHUNK, (stop - 1) // CHUNK
        data = b"".join(self._chunk(index) for index in range(first, last + 1))
        return data[start - first * CHUNK : stop - first * CHUNK]

    def _chunk(self, index: int) -> bytes:
        if self._held[0] == index:
            return self._held[1]
        self._source.seek(self._start + index * _SEALED_CHUNK)
        sealed = self._source.read(_SEALED_CHUNK)
        nonce = (int.from_bytes(self._base_nonce, "big") ^ index).to_bytes(12, "big")
        try:
            plain = self._decrypt(nonce, sealed, None)
        except InvalidTag:
            raise Tampered(name=self._name) from None
        if len(plain) != (CHUNK if index < self._last else self._size - self._last * CHUNK):
            raise Tampered(name=self._name)
        self._held = (index, plain)
        return plain


def _subkeys(key: bytes, context: bytes, preface: bytes, name: str) -> tuple[bytes, bytes]:
    if len(key) != 32 or len(preface) < _COBBLESTONE_HEADER:
        raise WrongContext(name=name)
    okm = HKDFExpand(hashes.SHA512(), 76, _LABEL + preface[:24] + context).derive(key)
    if okm[44:] != preface[24:]:
        raise WrongContext(name=name)
    return okm[:32], okm[32:44]


def _read_into(source: BinaryIO, view: memoryview) -> int:
    if hasattr(source, "readinto"):
        return int(source.readinto(view) or 0)
    data = source.read(len(view))
    view[: len(data)] = data
    return len(data)


def _broken(source: BinaryIO, name: str) -> Tampered | Truncated:
    # The decryptor says only that something is wrong. A length that no whole object has means that the end is missing.
    try:
        body = source.seek(0, io.SEEK_END) - HEADER_BYTES - _COBBLESTONE_HEADER
    except (OSError, ValueError):
        return Tampered(name=name)
    return Truncated(name=name) if body < 16 or body % _SEALED_CHUNK < 16 else Tampered(name=name)

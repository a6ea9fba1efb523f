"""AXF1: one database field, sealed with AES-256-GCM and bound to tenant, field and row.

```
0      1      0xA1   a UTF-8 continuation byte: no text starts with it
1      1      suite  0x01 = AES-256-GCM, HKDF-Expand-SHA512, static commitment
2..5   4      key id, u32, big-endian
6..21  16     commitment
22..33 12     nonce, random
34..   n      ciphertext
last   16     tag
```

``info = LP("axf1") LP(tenant) LP(field) u32(key id)`` with LP a u16 length and the bytes; ``OKM = HKDF-Expand-SHA512(root, info, 64)`` (RFC 5869),
of which one block is needed; key = OKM[0:32], commitment = OKM[32:48]; AAD = header[0:22] || info || LP(row or ""). NIST SP 800-38D allows 2^32
random nonces a key; a ring makes a new key long before (:mod:`~axis_security.crypto.keyring`).

The commitment makes a ciphertext open under one key only (plain GCM does not), and tells a value of another tenant or field from a changed one. The suite
is the key record's: a changed suite byte is refused, never obeyed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from axis_security.core.encoding import length_prefixed
from axis_security.crypto.errors import Tampered, Truncated, UnknownFormat, WrongContext

__all__ = ["MAGIC", "OVERHEAD", "SUITE_AES256_GCM", "FieldCipher", "FieldHeader", "explain", "read_header"]

MAGIC: Final = 0xA1
"""The first byte of every sealed field (AXF1)."""
SUITE_AES256_GCM: Final = 0x01
"""The second byte: AES-256-GCM with a commitment, the one suite there is."""
OVERHEAD: Final = 50
"""Bytes that sealing adds."""
MAX_FIELD_BYTES: Final = 16 * 2**20
"""Longest plaintext of a field, in bytes; larger values are objects."""

_LABEL: Final = b"axf1"
_HEADER: Final = 22
_NONCE_END: Final = 34
_urandom: Final = os.urandom


@dataclass(frozen=True, slots=True)
class FieldHeader:
    """What a sealed field says of itself, without any key."""

    suite: int
    key_id: int
    plaintext_bytes: int


def read_header(sealed: bytes, *, name: str) -> FieldHeader:
    """Read the header of *sealed*, the value of field *name*.

    Raises:
        UnknownFormat: not a sealed field of a known suite.
        Truncated: too short to be one.
    """
    if not sealed:
        raise Truncated(name=name)
    if sealed[0] != MAGIC or (len(sealed) > 1 and sealed[1] != SUITE_AES256_GCM):
        raise UnknownFormat(name=name)
    if len(sealed) < OVERHEAD:
        raise Truncated(name=name)
    return FieldHeader(suite=sealed[1], key_id=int.from_bytes(sealed[2:6], "big"), plaintext_bytes=len(sealed) - OVERHEAD)


def explain(sealed: bytes) -> str:
    """The header in words, for a person who looks at a row; needs no key and shows none.

    Raises:
        UnknownFormat, Truncated: as :func:`read_header`.
    """
    header = read_header(sealed, name="value")
    return f"AXF1, AES-256-GCM, key {header.key_id}, {header.plaintext_bytes} bytes of plaintext"


class FieldCipher:
    """Seals and opens one field of one tenant under one key. Immutable and thread-safe; built once and kept by the ring.

    Args:
        root: the tenant's root key of this id, 32 bytes.
        tenant: the tenant's text form.
        field: the field's declared name, which never changes, whatever the table is called.
        key_id: 1 to 2**32-1.
    """

    __slots__ = ("_aad", "_decrypt", "_encrypt", "_header", "_info", "_row_aad", "field")

    def __init__(self, root: bytes, *, tenant: str, field: str, key_id: int) -> None:
        info = length_prefixed(_LABEL, tenant.encode(), field.encode()) + key_id.to_bytes(4, "big")
        okm = hmac.new(root, info + b"\x01", hashlib.sha512).digest()
        cipher = AESGCM(okm[:32])
        header = bytes((MAGIC, SUITE_AES256_GCM)) + key_id.to_bytes(4, "big") + okm[32:48]
        self.field: Final = field
        self._encrypt: Final = cipher.encrypt
        self._decrypt: Final = cipher.decrypt
        self._header: Final = header
        self._info: Final = info
        self._row_aad: Final = header + info
        self._aad: Final = header + info + b"\0\0"  # no row: LP("")

    def seal(self, plaintext: bytes, row: bytes | None = None) -> bytes:
        """Seal *plaintext*, bound to *row* (the row's id, or ``None`` where the field is bound to its column only).

        Raises:
            ValueError: longer than 16 MiB, or *row* longer than 65,535 bytes.
        """
        if len(plaintext) > MAX_FIELD_BYTES:
            raise ValueError("a field holds at most 16 MiB; larger values are objects")
        nonce = _urandom(12)
        return self._header + nonce + self._encrypt(nonce, plaintext, self._aad if row is None else self._row_aad + length_prefixed(row))

    def open(self, sealed: bytes, row: bytes | None = None) -> bytes:
        """Open *sealed*.

        Raises:
            UnknownFormat, Truncated: not a sealed field.
            WrongContext: sealed for another tenant, field or key.
            Tampered: changed, or of another row.
        """
        if sealed[:_HEADER] != self._header or len(sealed) < OVERHEAD:
            read_header(sealed, name=self.field)
            raise WrongContext(name=self.field)
        try:
            return self._decrypt(
                sealed[_HEADER:_NONCE_END], sealed[_NONCE_END:], self._aad if row is None else self._row_aad + length_prefixed(row)
            )
        except InvalidTag:
            raise Tampered(name=self.field) from None

    def __repr__(self) -> str:
        return f"FieldCipher({self.field!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a FieldCipher holds a key and cannot be pickled or copied; ask the ring for another")

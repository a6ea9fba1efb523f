"""The text form of every key this library mints: a prefix that says what it is, and a checksum that says it is whole.

``axis_<kind>_<43 base64url characters>_<8 hex digits>``: 32 random bytes and a CRC-32 over all that stands before it. A scanner
finds a leaked key by this shape alone, with no guessing at entropy, and a key cut short by a copy is refused before it is used.
The checksum is no protection against an attacker; nothing here needs one.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from axis_security.core.encoding import MalformedEncoding, b64url_decode, b64url_encode
from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret

__all__ = ["MINTED_BYTES", "MINTED_PATTERN", "is_minted", "minted_text", "parse_minted"]

MINTED_BYTES: Final = 32
"""Random bytes in a minted key: 256 bits."""

MINTED_PATTERN: Final = re.compile(r"axis_([a-z]{2,16})_([A-Za-z0-9_-]{43})_([0-9a-f]{8})(?![0-9a-f])", re.ASCII)
"""Finds minted keys in any text; the last group is the checksum that tells a key from a look-alike."""


def minted_text(kind: str, key: bytes) -> Secret[str]:
    """The text form of *key*, 32 random bytes that serve as *kind* (``seal``, ``pepper``, ``cookie``, …)."""
    if len(key) != MINTED_BYTES or re.fullmatch(r"[a-z]{2,16}", kind) is None:
        raise ValueError("a minted key is 32 bytes and its kind 2 to 16 lower-case letters")
    body = f"axis_{kind}_{b64url_encode(key)}"
    return Secret(f"{body}_{_checksum(body)}")


def parse_minted(kind: str, text: Secret[str]) -> Secret[bytes]:
    """Read a minted key of *kind* back.

    Raises:
        ConfigError: it is of another kind, cut short, or changed. The message never shows the text.
    """
    match = MINTED_PATTERN.fullmatch(text.reveal().strip())
    if match is None or match[1] != kind:
        raise _unusable(kind, "the text does not have that shape")
    body = match[0].rpartition("_")[0]
    if match[3] != _checksum(body):
        raise _unusable(kind, "its checksum does not fit: a character was lost or changed")
    try:
        return Secret(b64url_decode(match[2]))
    except MalformedEncoding:
        raise _unusable(kind, "its body is not canonical base64url") from None


def is_minted(candidate: re.Match[str]) -> bool:
    """Whether a match of :data:`MINTED_PATTERN` is really a key of ours, by its checksum."""
    return candidate[3] == _checksum(candidate[0].rpartition("_")[0])


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode('ascii')):08x}"


def _unusable(kind: str, why: str) -> ConfigError:
    return ConfigError(
        what=f"not a usable `{kind}` key",
        why=why,
        fix=f"pass the whole text `axis_{kind}_…` as it was minted (axis-security secrets mint {kind})",
    )

"""Strict encodings: one spelling per value, in both directions."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from axis_security.core.errors import AxisError

__all__ = ["MalformedEncoding", "b64url_decode", "b64url_encode", "crockford_decode", "crockford_encode", "length_prefixed"]

_B64URL: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CROCKFORD_TEXT: Final = re.compile(rf"[{_CROCKFORD}]*", re.ASCII)
# To the digits of int(…, 32), which reads in linear time; a loop of shifts is quadratic in what a stranger typed.
_CROCKFORD_DIGITS: Final = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")
# What people type for what they read (Crockford's own rule).
_CROCKFORD_FOLD: Final = str.maketrans({"O": "0", "I": "1", "L": "1"})


class MalformedEncoding(AxisError):
    """Text that is not the one accepted spelling of any value."""

    code = "axis.malformed_encoding"
    http_status = 400

    def __init__(self, *, expected: str) -> None:
        super().__init__(
            what=f"malformed {expected}",
            why="the text is not the canonical spelling of any value",
            fix="pass the text exactly as it was issued",
        )


def b64url_encode(data: bytes) -> str:
    """Base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """Read base64url without padding; refuse padding, white space, other alphabets and stray low bits.

    Raises:
        MalformedEncoding: *text* is not canonical.
    """
    if _B64URL.fullmatch(text) is None:
        raise MalformedEncoding(expected="base64url")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise MalformedEncoding(expected="base64url") from None
    if b64url_encode(data) != text:
        raise MalformedEncoding(expected="base64url")
    return data


def length_prefixed(*parts: bytes) -> bytes:
    """Join *parts* so that distinct tuples never give equal bytes: each part behind its length as u16, big-endian.

    Raises:
        ValueError: a part is longer than 65,535 bytes.
    """
    out = bytearray()
    for part in parts:
        if len(part) > 0xFFFF:
            raise ValueError("a length-prefixed part holds at most 65,535 bytes")
        out += len(part).to_bytes(2, "big") + part
    return bytes(out)


def crockford_encode(data: bytes) -> str:
    """Crockford base 32, upper case, no check symbol; for codes that people read and type. Length must be a multiple of 5 bytes."""
    if len(data) % 5:
        raise ValueError("crockford_encode takes a multiple of 5 bytes")
    number = int.from_bytes(data, "big")
    chars = [_CROCKFORD[(number >> shift) & 31] for shift in range(len(data) * 8 - 5, -1, -5)]
    return "".join(chars)


def crockford_decode(text: str) -> bytes:
    """Read what a person typed: case, spaces and dashes do not matter, and O, I, L are read as 0, 1, 1.

    Raises:
        MalformedEncoding: a character outside the alphabet, or a length that no value has.
    """
    if not text.isascii():
        raise MalformedEncoding(expected="code")
    folded = text.upper().replace("-", "").replace(" ", "").translate(_CROCKFORD_FOLD)
    if len(folded) % 8 or _CROCKFORD_TEXT.fullmatch(folded) is None:
        raise MalformedEncoding(expected="code")
    return int(folded.translate(_CROCKFORD_DIGITS) or "0", 32).to_bytes(len(folded) * 5 // 8, "big")

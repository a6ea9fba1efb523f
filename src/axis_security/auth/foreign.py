"""Hash strings that other systems made: Django, Werkzeug, passlib, bcrypt, argon2-cffi.

Parsing is strict: one regular expression per format, canonical base64, bounded lengths, and a cost ceiling before any work.
What does not parse is refused, not guessed at. Nothing here imports the systems whose strings it reads.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from axis_security.auth.kdf import Argon2Call, BcryptCall, KdfCall, Pbkdf2Call, ScryptCall
from axis_security.core.errors import AxisError

__all__ = [
    "ForeignHash",
    "UnsupportedHash",
    "argon2_ceiling",
    "bcrypt_ceiling",
    "parse_foreign",
    "pbkdf2_ceiling",
    "scrypt_ceiling",
]

MAX_HASH_CHARS: Final = 512
"""Longest hash string that is looked at."""


class UnsupportedHash(AxisError):
    """A stored hash of a format that is not known, not declared by the host, or damaged."""

    code = "auth.unsupported_hash"

    def __init__(self, *, why: str) -> None:
        super().__init__(
            what="a stored password hash cannot be used",
            why=why,
            fix="declare its scheme in `Passwords(legacy=...)`, or let the account reset its password",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignHash:
    """A parsed hash string.

    Args:
        scheme: its format's name, such as ``django:pbkdf2-sha256``; safe to log.
        call: the KDF call that recomputes it.
        tag: the digest to compare with.
        prehash: whether the password is replaced by the hex SHA-256 of itself first (Django's ``bcrypt_sha256``).
        redacted: the same string with an all-zero digest: parameters and salt, nothing to attack.
    """

    scheme: str
    call: KdfCall
    tag: bytes
    prehash: bool
    redacted: str

    def __repr__(self) -> str:
        return f"ForeignHash(scheme={self.scheme!r})"

    def secret_bytes(self, password: bytes) -> bytes:
        """What is fed to the KDF for *password*."""
        return hashlib.sha256(password).hexdigest().encode("ascii") if self.prehash else password


def argon2_ceiling(*, memory_kib: int, passes: int, lanes: int = 1) -> Argon2Call:
    """The costliest Argon2 among the hashes still stored, for ``Passwords(legacy=...)``."""
    return _ceiling(Argon2Call(salt=b"\0" * 16, memory_kib=memory_kib, passes=passes, lanes=lanes))


def bcrypt_ceiling(*, cost: int) -> BcryptCall:
    """The costliest bcrypt among the hashes still stored, for ``Passwords(legacy=...)``."""
    return _ceiling(BcryptCall(setting=f"$2b${cost:02d}${'.' * 22}"))


def pbkdf2_ceiling(*, iterations: int, digest: str = "sha256") -> Pbkdf2Call:
    """The costliest PBKDF2 of *digest* among the hashes still stored, for ``Passwords(legacy=...)``."""
    return _ceiling(Pbkdf2Call(salt=b"\0" * 16, iterations=iterations, digest=digest, tag_bytes=20))


def scrypt_ceiling(*, n: int, r: int = 8, p: int = 1) -> ScryptCall:
    """The costliest scrypt among the hashes still stored, for ``Passwords(legacy=...)``."""
    return _ceiling(ScryptCall(salt=b"\0" * 16, n=n, r=r, p=p))


Call = TypeVar("Call", Argon2Call, BcryptCall, Pbkdf2Call, ScryptCall)


def _ceiling(call: Call) -> Call:
    call.check()
    return call


_DIGITS: Final = r"([1-9][0-9]{0,9})"
_B64: Final = r"([A-Za-z0-9+/]{2,172}={0,2})"
_AB64: Final = r"([A-Za-z0-9./]{0,172})"
_DJANGO_SALT: Final = r"([A-Za-z0-9]{1,64})"
_WERKZEUG_SALT: Final = r"([A-Za-z0-9]{1,64})"
_PHC_ARGON2: Final = (
    r"\$argon2(id|i|d)(?:\$v=(16|19))?\$m="
    + _DIGITS
    + ",t="
    + _DIGITS
    + ",p="
    + _DIGITS
    + r"\$([A-Za-z0-9+/]{2,172})\$([A-Za-z0-9+/]{2,172})"
)
_BCRYPT: Final = r"(\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{22})([./A-Za-z0-9]{31})"


def _b64(text: str, *, alphabet: bytes | None = None) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=alphabet, validate=True)
    except (binascii.Error, ValueError):
        raise UnsupportedHash(why="damaged base64") from None
    if base64.b64encode(data, alphabet).rstrip(b"=") != text.rstrip("=").encode("ascii"):
        raise UnsupportedHash(why="base64 is not canonical")
    return data


Parsed = tuple[str, KdfCall, bytes, bool]


def _argon2(m: re.Match[str], family: str) -> Parsed:
    salt, tag = _b64(m[6]), _b64(m[7])
    call = Argon2Call(
        salt=salt, memory_kib=int(m[3]), passes=int(m[4]), lanes=int(m[5]), tag_bytes=len(tag), variant=m[1], version=int(m[2] or "16")
    )
    return f"{family}argon2{m[1]}", call, tag, False


def _bcrypt(m: re.Match[str], family: str, *, prehash: bool = False) -> Parsed:
    return f"{family}bcrypt{'-sha256' if prehash else ''}", BcryptCall(setting=m[1]), m[2].encode("ascii"), prehash


def _django_pbkdf2(m: re.Match[str]) -> Parsed:
    tag = _b64(m[4])
    return f"django:pbkdf2-{m[1]}", Pbkdf2Call(salt=m[3].encode(), iterations=int(m[2]), digest=m[1], tag_bytes=len(tag)), tag, False


def _django_scrypt(m: re.Match[str]) -> Parsed:
    tag = _b64(m[5])
    return "django:scrypt", ScryptCall(salt=m[2].encode(), n=int(m[1]), r=int(m[3]), p=int(m[4]), tag_bytes=len(tag)), tag, False


def _werkzeug_pbkdf2(m: re.Match[str]) -> Parsed:
    tag = bytes.fromhex(m[4])
    return f"werkzeug:pbkdf2-{m[1]}", Pbkdf2Call(salt=m[3].encode(), iterations=int(m[2]), digest=m[1], tag_bytes=len(tag)), tag, False


def _werkzeug_scrypt(m: re.Match[str]) -> Parsed:
    tag = bytes.fromhex(m[5])
    return "werkzeug:scrypt", ScryptCall(salt=m[4].encode(), n=int(m[1]), r=int(m[2]), p=int(m[3]), tag_bytes=len(tag)), tag, False


def _passlib_pbkdf2(m: re.Match[str]) -> Parsed:
    # passlib's base64 writes "." for "+".
    salt, tag, digest = _b64(m[3], alphabet=b"./"), _b64(m[4], alphabet=b"./"), m[1] or "sha1"
    return f"passlib:pbkdf2-{digest}", Pbkdf2Call(salt=salt, iterations=int(m[2]), digest=digest, tag_bytes=len(tag)), tag, False


def _passlib_scrypt(m: re.Match[str]) -> Parsed:
    salt, tag = _b64(m[4]), _b64(m[5])
    return "passlib:scrypt", ScryptCall(salt=salt, n=1 << min(int(m[1]), 40), r=int(m[2]), p=int(m[3]), tag_bytes=len(tag)), tag, False


_FORMATS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Parsed]], ...]] = (
    (re.compile(_BCRYPT, re.ASCII), lambda m: _bcrypt(m, "")),
    (re.compile(r"bcrypt\$" + _BCRYPT, re.ASCII), lambda m: _bcrypt(m, "django:")),
    (re.compile(r"bcrypt_sha256\$" + _BCRYPT, re.ASCII), lambda m: _bcrypt(m, "django:", prehash=True)),
    (re.compile(_PHC_ARGON2, re.ASCII), lambda m: _argon2(m, "")),
    (re.compile("argon2" + _PHC_ARGON2, re.ASCII), lambda m: _argon2(m, "django:")),
    (re.compile(r"pbkdf2_(sha256|sha1)\$" + _DIGITS + r"\$" + _DJANGO_SALT + r"\$" + _B64, re.ASCII), _django_pbkdf2),
    (re.compile(r"scrypt\$" + _DIGITS + r"\$" + _DJANGO_SALT + r"\$" + _DIGITS + r"\$" + _DIGITS + r"\$" + _B64, re.ASCII), _django_scrypt),
    (
        re.compile(r"pbkdf2:(sha256|sha512|sha1):" + _DIGITS + r"\$" + _WERKZEUG_SALT + r"\$((?:[0-9a-f]{2}){16,64})", re.ASCII),
        _werkzeug_pbkdf2,
    ),
    (
        re.compile("scrypt:" + _DIGITS + ":" + _DIGITS + ":" + _DIGITS + r"\$" + _WERKZEUG_SALT + r"\$((?:[0-9a-f]{2}){16,64})", re.ASCII),
        _werkzeug_scrypt,
    ),
    (re.compile(r"\$pbkdf2(?:-(sha256|sha512))?\$" + _DIGITS + r"\$" + _AB64 + r"\$" + _AB64, re.ASCII), _passlib_pbkdf2),
    (
        re.compile(
            r"\$scrypt\$ln=" + _DIGITS + ",r=" + _DIGITS + ",p=" + _DIGITS + r"\$([A-Za-z0-9+/]{0,172})\$([A-Za-z0-9+/]{2,172})", re.ASCII
        ),
        _passlib_scrypt,
    ),
)


def parse_foreign(text: str) -> ForeignHash:
    """Read a hash string made by another system.

    Raises:
        UnsupportedHash: no known format, or damaged.
        CostRefused: a known format that asks for more work than the ceiling (ASVS 11.4.2); nothing was computed.
    """
    if len(text) > MAX_HASH_CHARS:
        raise UnsupportedHash(why=f"longer than {MAX_HASH_CHARS} characters")
    for pattern, read in _FORMATS:
        match = pattern.fullmatch(text)
        if match is not None:
            scheme, call, tag, prehash = read(match)
            call.check()
            start, end = match.span(match.re.groups)
            zero = "." if isinstance(call, BcryptCall) else "0" if scheme.startswith("werkzeug:") else "A"
            redacted = text[:start] + re.sub("[^=]", zero, text[start:end]) + text[end:]
            return ForeignHash(scheme=scheme, call=call, tag=tag, prehash=prehash, redacted=redacted)
    raise UnsupportedHash(why="no known format")

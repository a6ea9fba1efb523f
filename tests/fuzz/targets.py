"""What strangers' bytes reach first. Each target takes any bytes; what it promises is asserted in it, and any other exception is a finding.

Keys are fixed, so that a file of the corpus means the same on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from axis_security.auth.cookies import CookieProfile
from axis_security.auth.foreign import UnsupportedHash, parse_foreign
from axis_security.auth.kdf import CostRefused
from axis_security.auth.network import client_address
from axis_security.auth.redirects import return_to
from axis_security.auth.signing import SigningKeys
from axis_security.core.errors import AxisError
from axis_security.core.ids import KeyType, parse_id
from axis_security.core.minted import parse_minted
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.crypto.envelope import FieldCipher
from axis_security.crypto.errors import SealError
from axis_security.crypto.stream import ObjectName, ObjectSeal, SealedReader, SealedWriter, open_all
from axis_security.ops.disclosure import SecurityTxt, check_security_txt
from axis_security.rls.sealed import SealKey

__all__ = ["SEEDS", "TARGETS"]

_NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
_PROFILES: Final = (CookieProfile.production(), CookieProfile.development(environment=Environment.DEVELOPMENT))
_SIGNER: Final = SigningKeys([Secret(b"k" * 32)]).signer("fuzz")
_CIPHER: Final = FieldCipher(b"r" * 32, tenant="acme", field="users.ssn", key_id=1)
_SEAL: Final = ObjectSeal(b"o" * 32, key_id=1, name=ObjectName(tenant="acme", bucket="b", key="k"))


def cookies(data: bytes) -> None:
    """The Cookie header: never raises; a value that is given is one plain token."""
    for profile in _PROFILES:
        read = profile.read(data, host="localhost")
        for value in read.values.values():
            text = value.reveal()
            if not text.isascii() or any(char in text for char in ' ",;\\\t\r\n'):
                raise AssertionError("a cookie that is no token was taken")
    profile.read(data.decode("latin-1"), host=data[:40].decode("latin-1"))


def signed(data: bytes) -> None:
    """A signed value: nothing verifies that was not signed."""
    text = data.decode("latin-1")
    payload = _SIGNER.unsign(text)
    if payload is not None and _SIGNER.sign(payload).reveal() != text:
        raise AssertionError("a text verifies that nobody signed")


def field(data: bytes) -> None:
    """AXF1: opens to what was sealed, or is a SealError."""
    row, sealed = data[:1], data[1:]
    try:
        plain = _CIPHER.open(sealed, row)
    except SealError:
        return
    if plain not in _FIELDS:  # by what it holds: nonces differ from run to run, and a kept file is of another run
        raise AssertionError(f"{len(plain)} bytes opened that nobody sealed")


def stream(data: bytes) -> None:
    """AXO1: whole, and by ranges: both open it to the same bytes or refuse it with a SealError."""
    sink = io.BytesIO()
    whole: bytes | None = None
    try:
        open_all(io.BytesIO(data), sink, _SEAL)
        whole = sink.getvalue()
    except SealError:
        pass
    try:
        ranged: bytes | None = SealedReader(io.BytesIO(data), _SEAL).read()
    except SealError:
        ranged = None
    if whole != ranged:
        raise AssertionError("the reader and the range reader disagree")
    if whole is not None and whole not in _CONTENTS:
        raise AssertionError("an object opened that nobody sealed")


def security_txt(data: bytes) -> None:
    """Somebody's security.txt: judged, never raises."""
    result = check_security_txt(data, now=_NOW)
    if result.ok and result.findings:
        raise AssertionError("fine, with findings")


def foreign_hash(data: bytes) -> None:
    """A hash string of another system: parsed within bounds, or refused."""
    for encoding in ("latin-1", "utf-8"):
        try:
            parsed = parse_foreign(data.decode(encoding, "surrogateescape"))
        except (UnsupportedHash, CostRefused):
            continue
        if not 16 <= len(parsed.tag) <= 128:
            raise AssertionError("a tag of no usual length")


def texts(data: bytes) -> None:
    """Keys, ids, addresses and return paths: each is taken, or refused with its own error; a return path stays on this host."""
    text = data.decode("utf-8", "surrogateescape")
    for work in (
        lambda: parse_minted("seal", Secret(text)),
        lambda: SealKey.parse(Secret(text)),
        *(lambda kind=kind: parse_id(text, kind) for kind in KeyType),
    ):
        try:
            work()
        except AxisError:
            continue
    path = return_to(text)
    if not path.startswith("/") or path.startswith(("//", "/\\")):
        raise AssertionError("a return path leads elsewhere")
    client_address("192.0.2.1", forwarded_for=text.split("\n"), hops=1 + len(data) % 3)


def _object(plain: bytes) -> bytes:
    out = io.BytesIO()
    with SealedWriter(out, _SEAL) as writer:
        writer.write(plain)
    return out.getvalue()


_FIELDS: Final = (b"", b"x", b"y" * 40)
_CONTENTS: Final = (b"", b"x", b"z" * 16384, b"w" * 40000)

TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    each.__name__: each for each in (cookies, signed, field, stream, security_txt, foreign_hash, texts)
}
"""By name."""

SEEDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "cookies": (b"__Host-axis_session=abc.def; __Host-axis_csrf=x", b"axis_session=a;axis_session=b", b'__Host-axis_session="q"; a=b; =;;'),
    "signed": (_SIGNER.sign("payload").reveal().encode(), b"payload.AAAA", b"."),
    "field": tuple(row + _CIPHER.seal(plain, row) for plain in _FIELDS for row in (b"0", b"1")),
    "stream": tuple(map(_object, _CONTENTS)),
    "security_txt": (
        SecurityTxt(contact=("mailto:security@example.com",), reviewed_on=_NOW.date()).render(_NOW),
        b"Contact: https://example.com/%41\r\nExpires: 2026-12-31T00:00:00Z\r\n# x\n",
        b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nContact: tel:+1\nExpires: 2999-13-01T00:00:00z\n",
    ),
    "foreign_hash": (
        b"pbkdf2_sha256$1000000$c2FsdA$4Fvk5X3nF4Tk7o9bAkUX0Zp1lHJ2gS1Zl5oXn3b0xyE=",
        b"$2b$12$KIXQ4n1Qx6qQ1J8v5h3yVe0m3b0y0b8m3b0y0b8m3b0y0b8m3b0yO",
        b"scrypt:32768:8:1$abcdefgh$" + b"0" * 128,
        b"$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
        b"$pbkdf2-sha512$25000$c2FsdHNhbHQ$" + b"A" * 86,
    ),
    "texts": (
        b"axis_seal_" + b"A" * 60,
        b"00000000-0000-4000-8000-000000000000",
        b"-9223372036854775808",
        b"/a/b?c=d",
        b"//evil",
        b"10.0.0.1, [::1]:80",
    ),
}
"""Where each target begins."""

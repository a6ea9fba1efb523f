"""Cookies, read strictly and written whole: the ``Cookie`` header as it arrived, and ``Set-Cookie`` lines that only tighten.

Frameworks read cookie headers leniently: they strip Unicode white space from names, take off quotes, keep the first or the last of duplicates,
give nameless cookies a name. Each of these lets a sibling domain plant a cookie that the browser would never have accepted under a ``__Host-``
name (RFC 6265bis section 4.1.3). Here a cookie of ours is read only in the one spelling in which we write it; any other form is absent, and
two of one name are none.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment

__all__ = [
    "MAX_COOKIE_BYTES",
    "MAX_HEADER_CHARS",
    "TOUCHED_HEADERS",
    "CookieKind",
    "CookieProblem",
    "CookieProfile",
    "CookiesRead",
    "Header",
    "is_loopback",
]

Header = tuple[str, str]
"""Name and value of a response header."""

MAX_COOKIE_BYTES: Final = 4096
"""Name and value together (ASVS 3.3.5); browsers drop larger ones without a word."""
MAX_HEADER_CHARS: Final = 16_384
"""Longest Cookie header that is read; a longer one counts as holding no cookie of ours."""

TOUCHED_HEADERS: Final[tuple[Header, ...]] = (("Vary", "Cookie"), ("Cache-Control", "no-store"))
"""For every answer in whose making a session was looked at, found or not (ASVS 14.3.2): no cache may hand it to somebody else."""

_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_VALUE: Final = re.compile(r"[A-Za-z0-9_~.-]+", re.ASCII)
_APP: Final = re.compile(r"[a-z][a-z0-9]{0,23}", re.ASCII)
_LOOPBACK: Final = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?", re.ASCII)


class CookieKind(enum.StrEnum):
    """The cookies of this library; each has a name, a signature purpose and a type of its own."""

    # Enum's own hash is a Python call; every request looks cookies up by kind.
    __hash__ = str.__hash__

    SESSION = "session"
    PENDING = "pending"
    REMEMBER = "remember"
    DEVICE = "device"
    LANDING = "landing"


class CookieProblem(enum.StrEnum):
    """Why a cookie of ours was not read. For logs; the answer is the same as for no cookie."""

    DUPLICATE = "duplicate"
    MALFORMED = "malformed"
    HEADER = "header"
    HOST = "host"


# Lax where a link from elsewhere must find the person signed in; Strict where only our own pages ask (ASVS 3.3.2).
_SAME_SITE: Final[Mapping[CookieKind, str]] = MappingProxyType(
    {
        CookieKind.SESSION: "Lax",
        CookieKind.REMEMBER: "Lax",
        CookieKind.LANDING: "Lax",
        CookieKind.PENDING: "Strict",
        CookieKind.DEVICE: "Strict",
    }
)


@dataclass(slots=True)  # not frozen: that would double the time of making one, and every request makes one
class CookiesRead:
    """What a request's cookies say.

    Args:
        values: the cookies of ours, as signed texts nobody has checked yet.
        problems: those that were there but not in the one accepted form.
    """

    values: Mapping[CookieKind, Secret[str]] = field(default_factory=dict)
    problems: Mapping[CookieKind, CookieProblem] = field(default_factory=dict)


def is_loopback(host: str) -> bool:
    """Whether a ``Host`` value names this machine: ``localhost``, ``127.0.0.0/8`` or ``[::1]``, with or without a port."""
    return _LOOPBACK.fullmatch(host) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieProfile:
    """How cookies are named and marked. There are two profiles and no way to weaken the first.

    Args:
        app: the middle of the names, for several apps on one host.
        environment: :meth:`production` and :meth:`development` set it.

    Raises:
        ConfigError: *app* is no lower-case name.
    """

    app: str = "axis"
    environment: Environment = Environment.PRODUCTION

    def __post_init__(self) -> None:
        if _APP.fullmatch(self.app) is None:
            raise ConfigError(
                what="unusable cookie name", why="`app` is a lower-case name of at most 24 characters", fix="use your product's name"
            )
        put = object.__setattr__
        plain = self.environment is Environment.DEVELOPMENT
        prefix = f"{self.app}_dev" if plain else f"__Host-{self.app}"
        put(self, "_prefix", prefix)
        put(self, "_plain", plain)
        put(self, "_names", MappingProxyType({kind: f"{prefix}_{kind.value}" for kind in CookieKind}))
        put(self, "_kinds", MappingProxyType({f"{prefix}_{kind.value}": kind for kind in CookieKind}))

    _plain: bool = field(init=False, repr=False, compare=False)
    _prefix: str = field(init=False, repr=False, compare=False)
    _names: Mapping[CookieKind, str] = field(init=False, repr=False, compare=False)
    _kinds: Mapping[str, CookieKind] = field(init=False, repr=False, compare=False)

    @classmethod
    def production(cls, *, app: str = "axis") -> CookieProfile:
        """``__Host-`` names, Secure, HttpOnly, SameSite, Path=/, no Domain. The default."""
        return cls(app=app)

    @classmethod
    def development(cls, *, environment: Environment, app: str = "axis") -> CookieProfile:
        """Cookies that work over http on this machine: another name, no Secure, and nothing at all for a host that is not loopback.

        Raises:
            ConfigError: *environment* is not ``Environment.DEVELOPMENT``.
        """
        if environment is not Environment.DEVELOPMENT:
            raise ConfigError(
                what="the development cookies are refused here",
                why=f"the environment is `{environment.value}`; they travel over plain http",
                fix="use CookieProfile.production(), and serve over https",
            )
        return cls(app=app, environment=environment)

    def name(self, kind: CookieKind) -> str:
        """The cookie's name."""
        return self._names[kind]

    def read(self, header: str | bytes | Sequence[str | bytes] | None, *, host: str = "") -> CookiesRead:
        """The cookies of ours in *header*. Never raises, whatever was sent.

        Args:
            header: the Cookie header as received, bytes or latin-1 text; a sequence where HTTP/2 split it.
            host: the Host header; only the development profile looks at it.
        """
        if header is None:
            return CookiesRead()
        if self._plain and not is_loopback(host):
            return self._none(CookieProblem.HOST)
        text = header if isinstance(header, str) else _text(header)
        # Printable ASCII, the usual case, holds nothing forbidden and is known by one quick look.
        if len(text) > MAX_HEADER_CHARS or (not (text.isascii() and text.isprintable()) and _FORBIDDEN.search(text) is not None):
            return self._none(CookieProblem.HEADER)
        values: dict[CookieKind, Secret[str]] = {}
        problems: dict[CookieKind, CookieProblem] = {}
        kinds, prefix = self._kinds, self._prefix
        for pair in text.split(";"):
            if prefix not in pair:
                continue
            name, equals, value = pair.partition("=")
            # SP and HTAB are all the white space there is; a plain strip() would also take U+2000 off a look-alike's front.
            kind = kinds.get(name.strip(" \t"))
            if kind is None:
                continue
            value = value.strip(" \t")
            if kind in values or kind in problems:
                values.pop(kind, None)
                problems[kind] = CookieProblem.DUPLICATE
            elif not equals or _VALUE.fullmatch(value) is None or len(name) + len(value) > MAX_COOKIE_BYTES:
                problems[kind] = CookieProblem.MALFORMED
            else:
                values[kind] = Secret(value)
        return CookiesRead(values, problems)

    def set(self, kind: CookieKind, value: Secret[str], *, lasting: timedelta | None = None, host: str = "") -> Header:
        """A ``Set-Cookie`` header.

        Args:
            kind: which cookie.
            value: the signed text.
            lasting: how long the browser keeps it; ``None`` until it closes. The server's own limit is what counts.
            host: the Host header; only the development profile looks at it.

        Raises:
            ConfigError: a value with other characters or beyond 4096 bytes, or the development profile on a host that is not loopback.
        """
        name, text = self._names[kind], value.reveal()
        if _VALUE.fullmatch(text) is None or len(name) + len(text) > MAX_COOKIE_BYTES:
            raise ConfigError(
                what=f"the {kind.value} cookie cannot be written",
                why="its value is too long or has a forbidden character",
                fix="sign it with CookieSigner",
            )
        age = "" if lasting is None else f"; Max-Age={max(0, int(lasting.total_seconds()))}"
        return "Set-Cookie", f"{name}={text}{age}{self._attributes(kind, host)}"

    def clear(self, kind: CookieKind, *, host: str = "") -> Header:
        """A ``Set-Cookie`` header that takes the cookie away.

        Raises:
            ConfigError: the development profile on a host that is not loopback.
        """
        return "Set-Cookie", f"{self._names[kind]}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT{self._attributes(kind, host)}"

    def _attributes(self, kind: CookieKind, host: str) -> str:
        if self._plain and not is_loopback(host):
            raise ConfigError(
                what="the development cookies are for this machine only",
                why="the request's host is not a loopback name",
                fix="open the app as http://localhost, or use CookieProfile.production() over https",
            )
        secure = "" if self._plain else "; Secure"
        return f"; Path=/{secure}; HttpOnly; SameSite={_SAME_SITE[kind]}"

    def _none(self, problem: CookieProblem) -> CookiesRead:
        return CookiesRead({}, dict.fromkeys(CookieKind, problem))


def _text(header: bytes | Sequence[str | bytes]) -> str:
    parts = [header] if isinstance(header, bytes) else header
    return "; ".join(part.decode("latin-1") if isinstance(part, bytes) else part for part in parts)

"""Where to go after a login: a path of this app, or the default.

A browser and a server read an odd address differently, and the difference is an open redirect. So this accepts the plain form only: visible
ASCII, one leading slash, no empty, ``.`` or ``..`` segment, no backslash, nothing of that behind a percent sign (ASVS 3.7.2).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["MAX_RETURN_CHARS", "return_to"]

MAX_RETURN_CHARS: Final = 2048
"""The longest address to return to, in characters; a longer one is dropped before it is looked at."""

_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@%-]+(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?)?", re.ASCII)
_REST: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*", re.ASCII)
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)


def return_to(target: object, *, default: str = "/") -> str:
    """*target* if it is a plain path of this app (with an optional query), else *default*. Never raises on account of *target*.

    Args:
        target: what the request asks for; anything at all.
        default: where to go otherwise.
    """
    return target if isinstance(target, str) and _is_plain(target) else default


def _is_plain(text: str) -> bool:
    if len(text) > MAX_RETURN_CHARS or _PERCENT.search(text) is not None:
        return False
    path, _, query = text.partition("?")
    if _PATH.fullmatch(path) is None or _REST.fullmatch(query) is None:
        return False
    decoded = unquote_to_bytes(path)
    if decoded != unquote_to_bytes(decoded):
        return False  # encoded twice: whoever decodes twice sees another path
    if any(byte < 0x21 or byte in {0x7F, 0x5C} for byte in decoded) or decoded.count(b"/") != path.count("/"):
        return False
    return not any(segment in {b".", b".."} for segment in decoded.split(b"/"))

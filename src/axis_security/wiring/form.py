"""The CSRF token in a form, found in the first bytes of the body without a framework's parser.

Only the field ``csrf_token`` is looked for, and only at the front: an adapter reads at most :data:`FORM_PREFIX_BYTES` of the body, hands them to
the gate, and replays them to the app. So write the hidden field first in each form, before files.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["FIELD", "FORM_PREFIX_BYTES", "carries_form", "form_token"]

FIELD: Final = "csrf_token"
"""The form field that carries the token against cross-site requests."""
FORM_PREFIX_BYTES: Final = 64 * 1024
"""How far into a form's body its token is looked for."""

# At most a few more header lines, and none taken back (`++`): a body made of such lines alone would take time with the square of its length.
_MULTIPART: Final = re.compile(
    rb'Content-Disposition:[ \t]*form-data;[ \t]*name="csrf_token"[ \t]*\r\n(?:[^\r\n]++\r\n){0,8}+\r\n', re.IGNORECASE
)


def carries_form(content_type: str | None) -> bool:
    """Whether a body of that type is a form that a browser sends."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind in {"application/x-www-form-urlencoded", "multipart/form-data"}


def form_token(content_type: str, prefix: bytes) -> str | None:
    """The token in the first bytes of a form; ``None`` if it is not there, or there twice. Never raises."""
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        return _text(_in_multipart(prefix))
    values = [pair.partition(b"=")[2] for pair in prefix.split(b"&") if pair.partition(b"=")[0] == FIELD.encode()]
    return _text(unquote_to_bytes(values[0].replace(b"+", b" "))) if len(values) == 1 else None


def _in_multipart(prefix: bytes) -> bytes | None:
    found = list(_MULTIPART.finditer(prefix))
    if len(found) != 1:
        return None
    value, ends, _ = prefix[found[0].end() :].partition(b"\r\n")
    return value if ends else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("ascii", "replace")

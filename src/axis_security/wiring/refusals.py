"""Refusals as answers: rendered here once, so that every adapter sends the same bytes.

The form is ``application/problem+json`` (RFC 9457) with our stable code; a stranger learns the code and one fixed sentence (ASVS 16.5.1).
Where a person opens a page, the host may send them to sign in, to step up, or show a page of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from axis_security.auth.redirects import return_to
from axis_security.core.errors import AxisError, ConfigError
from axis_security.wiring.facts import RequestFacts
from axis_security.wiring.headers import SecurityHeaders

__all__ = ["Answer", "Pages", "refusal"]

Header = tuple[str, str]
_RESERVED: Final = frozenset({"code", "message", "allowed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer, for an adapter to send as it is.

    Args:
        status: the HTTP status.
        headers: names in lower case, in order, ``content-length`` included.
        body: the bytes; empty for HEAD.
    """

    status: int
    headers: Sequence[Header]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Where people go who open a page and may not. Scripts and API clients always get the problem document.

    Args:
        sign_in: path of the login page; whoever is signed out is sent there, with ``?next=`` and the way back.
        step_up: path of the page that asks to confirm; likewise.
        render: makes a page from the status and the public answer; ``{nonce}`` sources are not available to it.

    Raises:
        ConfigError: a path is not a plain path of this app.
    """

    sign_in: str | None = None
    step_up: str | None = None
    render: Callable[[int, Mapping[str, Any]], str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for path in (self.sign_in, self.step_up):
            if path is not None and (return_to(path, default="") != path or "?" in path):
                raise ConfigError(what="unusable page", why="it is not a plain path of this app", fix='use a path such as "/login"')


def refusal(
    error: AxisError, facts: RequestFacts, *, security: SecurityHeaders, secure: bool, pages: Pages, more: Sequence[Header] = ()
) -> Answer:
    """The answer for *error*.

    Args:
        more: headers that the session asks for, such as one that takes a dead cookie away.
    """
    status, public = error.http_status, error.public()
    if "step_up" not in public and public.get("code") == "axis.principal_required":
        status = 401
    headers: list[Header] = [*security.render(secure=secure), *_touched(more)]
    target = _elsewhere(status, public, facts, pages)
    if target is not None:
        return Answer(status=303, headers=[*headers, ("content-length", "0"), ("location", target)])
    if pages.render is not None and facts.is_navigation:
        kind, body = "text/html; charset=utf-8", pages.render(status, public).encode()
    else:
        kind, body = "application/problem+json", _problem(status, public)
    headers += [("content-length", str(len(body))), ("content-type", kind)]
    if status == 401:
        headers.append(("www-authenticate", 'Cookie realm="app"'))  # RFC 9110 section 11.6.1 asks for the header; browsers show no dialog
    wait = getattr(error, "retry_after", None)
    if isinstance(wait, (int, float)):
        headers.append(("retry-after", str(max(1, int(wait + 0.999)))))
    return Answer(status=status, headers=headers, body=b"" if facts.method == "HEAD" else body)


def _problem(status: int, public: Mapping[str, Any]) -> bytes:
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": public["code"],
        "detail": public["message"],
        **{name: value for name, value in public.items() if name not in _RESERVED},
    }
    return json.dumps(problem, separators=(",", ":"), ensure_ascii=True).encode()


def _elsewhere(status: int, public: Mapping[str, Any], facts: RequestFacts, pages: Pages) -> str | None:
    page = pages.step_up if "step_up" in public else pages.sign_in if status == 401 else None
    if page is None or not facts.is_navigation or facts.path == page:
        return None
    back = return_to(quote(facts.path, safe="/~!$&'()*+,;=:@-._") + (f"?{facts.query}" if facts.query else ""))
    return f"{page}?next={quote(back, safe='/')}"


def _touched(more: Sequence[Header]) -> list[Header]:
    """A refusal depends on who asks, so no cache may keep it."""
    given = [(name.lower(), value) for name, value in more]
    return [("cache-control", "no-store"), *(pair for pair in given if pair[0] not in {"cache-control", "vary"}), ("vary", "Cookie")]

"""CSRF: the origin rule and the session's token."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from axis_security.auth.csrf import Csrf, CsrfAllowed, CsrfRefused, RequestOrigin
from axis_security.auth.signing import SigningKeys
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind
from axis_security.core.secret import Secret

APP = "https://app.example.com"
OLD, NEW = Secret(b"o" * 32), Secret(b"n" * 32)


class Log:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        self.events.append(event)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def csrf(log: Log | None = None, keys: list[Secret[bytes]] | None = None) -> Csrf:
    log = log or Log()
    return Csrf(keys=SigningKeys(keys or [OLD]), origins=(APP,), events=log, clock=log)


def test_a_token_passes_for_its_session_only_and_differs_each_time() -> None:
    """Bound to one session, masked per answer, good under an older key, refused when changed."""
    guard, ann, bob = csrf(), uuid4(), uuid4()
    one, two = guard.issue(ann).reveal(), guard.issue(ann).reveal()
    assert one != two
    for token in (one, two):
        request = RequestOrigin(method="POST", origin=APP, sec_fetch_site="same-origin", token=token)
        assert guard.judge(request, session=ann) == CsrfAllowed("token")
        assert guard.judge(request, session=bob) == CsrfRefused("bad_token")
        assert csrf(keys=[OLD, NEW]).judge(request, session=ann) == CsrfAllowed("token")
        assert csrf(keys=[NEW]).judge(request, session=ann) == CsrfRefused("bad_token")
    for odd in ("x", one[:-1], one + "A", "é" * 86, "\ud800" * 86, "=" * 86):
        assert guard.judge(RequestOrigin(method="POST", token=odd), session=ann) == CsrfRefused("bad_token")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "post", "get", "BREW", ""])
def test_an_unsafe_method_needs_a_token(method: str) -> None:
    """Whatever is not exactly a safe method needs the token; no header replaces it."""
    request = RequestOrigin(method=method, origin=APP, sec_fetch_site="same-origin")
    assert csrf().judge(request, session=uuid4()) == CsrfRefused("no_token")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "Same-Origin", "nonsense"])
def test_a_request_from_elsewhere_is_refused_even_with_a_token(site: str) -> None:
    """Sec-Fetch-Site says so: refused on a session and on the login form alike."""
    guard, ann = csrf(), uuid4()
    token = guard.issue(ann).reveal()
    for session in (ann, None):
        assert guard.judge(RequestOrigin(method="POST", sec_fetch_site=site, token=token), session=session) == CsrfRefused("cross_site")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "",
        APP + "/",
    ],
)
def test_the_origin_is_compared_whole(origin: str) -> None:
    """An origin that is not exactly one of ours is refused; `null` is nobody's."""
    guard, ann = csrf(), uuid4()
    token = guard.issue(ann).reveal()
    for session in (ann, None):
        assert guard.judge(RequestOrigin(method="POST", origin=origin, token=token), session=session) == CsrfRefused("bad_origin")


def test_safe_methods_and_requests_without_a_session_pass() -> None:
    """GET needs nothing; a client without cookies, which nothing can be forged with, needs no token."""
    assert csrf().judge(RequestOrigin(method="GET", sec_fetch_site="cross-site"), session=uuid4()) == CsrfAllowed("safe_method")
    assert csrf().judge(RequestOrigin(method="POST"), session=None) == CsrfAllowed("no_session")


def test_a_refusal_is_an_event_without_the_token() -> None:
    """The log says what was refused and where it came from, and never holds a token, in any spelling of the header."""
    log, ann = Log(), uuid4()
    guard = csrf(log)
    token = guard.issue(uuid4()).reveal()
    guard.judge(RequestOrigin(method="POST", origin="é\ud800" * 400, path="/x\n" * 400, token=token), session=ann)
    guard.judge(RequestOrigin(method="POST", origin=APP, token=token), session=ann)
    assert [event.detail["code"] for event in log.events] == ["bad_origin", "bad_token"]
    assert all(event.kind is EventKind.CSRF_REFUSED and token not in str(event.as_dict()) for event in log.events)


def test_origins_that_would_match_too_much_are_refused() -> None:
    """An empty list, a wildcard, a path or an upper-case host is no origin."""
    for origins in ((), ("*",), ("https://*.example.com",), (APP + "/",), ("https://APP.example.com",), ("app.example.com",)):
        with pytest.raises(ConfigError):
            Csrf(keys=SigningKeys([OLD]), origins=origins, events=Log())

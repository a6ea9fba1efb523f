"""Looks at what is served and at what a file says, over this machine's own loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from axis_security.core.checks import CheckResult
from axis_security.core.events import NullSink
from axis_security.ops.health import HealthCheck, HealthMonitor
from axis_security.ops.promises import Promises, gate, health, served_text
from axis_security.ops.verify import verify


class Pages(BaseHTTPRequestHandler):
    """/here is a page, /there leads to it, /away leads to plain http on another address."""

    away = ""

    def do_GET(self) -> None:
        target = {"/there": "/here", "/away": self.away}.get(self.path)
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        self.end_headers()
        self.wfile.write(b"x" * 100_000 if self.path == "/long" else b"page")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving(host: str) -> Iterator[str]:
    """Pages on *host*; gives the address."""
    server = ThreadingHTTPServer((host, 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site() -> Iterator[str]:
    """Its address; another is served beside it, which is not this machine by any name that is trusted."""
    with serving("127.0.0.1") as here, serving("127.0.0.2") as elsewhere:
        Pages.away = f"{elsewhere}/here"
        yield here


def judged(data: bytes) -> CheckResult:
    """Ok for a page."""
    return CheckResult(name="page", ok=data == b"page", seen=str(len(data)))


def holds(url: str) -> bool:
    """Whether the promise holds that *url* serves a page."""
    report = verify(Promises(product="x", disclosure=[served_text(url, judged)]), timeout=timedelta(seconds=20))
    return next(row.ok for row in report.rows if row.promise.key == "disclosure")


def test_what_is_served_is_judged_and_no_other_hosts_answer(site: str) -> None:
    """A redirect is followed, but not out of https: what anybody on the way may write is not what the product serves. And no more is read than a page may have."""
    assert holds(f"{site}/here")
    assert holds(f"{site}/there")
    assert not holds(f"{site}/away")
    assert not holds(f"{site}/long")


@pytest.mark.parametrize("url", ["http://example.test/x", "file:///etc/passwd", "http://localhost.example.test/", "ftp://127.0.0.1/"])
def test_an_address_that_is_not_secure_is_refused(url: str) -> None:
    """Where the look is made, not when it runs."""
    with pytest.raises(ValueError, match="https://"):
        served_text(url, judged)


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("- run: axis-security verify app:promises\n", True),
        ("# axis-security verify\n", False),
        ("  # - run: axis-security verify\n", False),
        ("", False),
    ],
)
def test_a_gate_is_a_line_that_runs(tmp_path: Path, text: str, ok: bool) -> None:
    """A comment stops no deployment."""
    path = tmp_path / "ci.yml"
    path.write_text(text)
    (result,) = [gate(path)()]
    assert isinstance(result, CheckResult)
    assert result.ok is ok


def test_readiness_that_depends_on_nothing_is_no_health() -> None:
    """A monitor without a required check is always ready, and shows nothing; one whose check fails names it."""

    def monitor(*checks: HealthCheck) -> CheckResult:
        result = health(HealthMonitor(checks, sink=NullSink()))()
        assert isinstance(result, CheckResult)
        return result

    good = HealthCheck(name="database", run=lambda: CheckResult(name="database", ok=True, seen="well"))
    bad = HealthCheck(name="cache", run=lambda: CheckResult(name="cache", ok=False, seen="ill"), required=False)
    assert monitor(good).ok
    assert [finding.code for finding in monitor().findings] == ["health.empty"]
    assert [(finding.object, finding.code) for finding in monitor(good, bad).findings] == [("cache", "health.error")]

"""The Django example as a person runs it: its own server process, its own PostgreSQL, and a browser in front."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples.people import PASSWORD

from axis_security.testing.cluster import free_port

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The address of a running example. SIGTERM ends it: a test run in the background inherits that Ctrl-C is ignored."""
    port = free_port()
    command = [sys.executable, "-u", "-m", "examples.django_notes", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ}) as server:
        assert server.stdout is not None
        seen = []
        try:
            for line in server.stdout:
                seen.append(line)
                if "Quit the server" in line:
                    break
            else:
                pytest.fail("".join(seen)[-4000:])
            origin = f"http://localhost:{port}"
            # Django prints the line just before it listens.
            with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
                client.get(f"{origin}/sign-in")
            yield origin
        finally:
            server.terminate()
            server.stdout.read()
            server.wait(timeout=60)


@pytest.fixture
def browsers(origin: str) -> Iterator[Any]:
    """Makes browsers, signed in if a name is given."""
    made: list[httpx.Client] = []

    def browser(name: str | None = None) -> httpx.Client:
        client = httpx.Client(base_url=origin, headers={"Origin": origin, "Accept": "text/html"})
        made.append(client)
        if name is not None:
            got = client.post("/sign-in", data={"email": f"{name}@example.com", "password": PASSWORD})
            assert (got.status_code, got.headers["location"]) == (303, "/"), got.text
        return client

    yield browser
    for client in made:
        client.close()


def token(page: str) -> str:
    """The token of a page's form."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def add(client: httpx.Client, text: str) -> int:
    """Fill in the form."""
    return client.post("/", data={"csrf_token": token(client.get("/").text), "text": text}).status_code


def test_each_workspace_sees_its_own_notes(browsers: Any) -> None:
    """Two owners write; each sees one; a viewer of the first sees it too and may not write."""
    ann, bob, vic = browsers("ann"), browsers("bob"), browsers("vic")
    assert add(ann, "from acme") == 303
    assert add(bob, "from globex") == 303
    pages = [who.get("/").text for who in (ann, bob, vic)]
    assert ["from acme" in page for page in pages] == [True, False, True]
    assert ["from globex" in page for page in pages] == [False, True, False]
    assert add(vic, "not mine to write") == 403


def test_strangers_are_sent_to_sign_in(browsers: Any) -> None:
    """A person is sent to the page; a wrong password gets one sentence; another site's form, and one without a token, are refused."""
    client = browsers()
    got = client.get("/")
    assert (got.status_code, got.headers["location"]) == (303, "/sign-in?next=/")
    wrong = client.post("/sign-in", data={"email": "ann@example.com", "password": "x"})
    assert (wrong.status_code, 'role="alert"' in wrong.text) == (403, True)
    form = {"email": "ann@example.com", "password": PASSWORD}
    assert client.post("/sign-in", data=form, headers={"Origin": "http://evil.example"}).status_code == 403
    assert browsers("ann").post("/", data={"text": "no token"}).status_code == 403


def test_signing_out_ends_it(browsers: Any, origin: str) -> None:
    """A copy of the cookies is worth nothing afterwards; a link cannot sign anybody out."""
    ann = browsers("ann")
    with httpx.Client(base_url=origin, cookies=ann.cookies, headers={"Accept": "text/html"}) as thief:
        assert thief.get("/").status_code == 200
        page = ann.get("/").text
        ann.get("/sign-out")
        assert thief.get("/").status_code == 200
        assert ann.post("/sign-out", data={"csrf_token": token(page)}).status_code == 303
        assert thief.get("/").status_code == 303


def test_no_route_is_open_by_accident(tmp_path: Path) -> None:
    """`axis-security routes` lists the project without a database, and finds nothing unmarked."""
    env = {"NOTES_DSN": "host=nowhere dbname=notes user=axis_app port=1", "NOTES_HOME": str(tmp_path), "NOTES_SECRET_KEY": "k" * 50}
    command = [sys.executable, "-m", "axis_security.cli", "routes", "examples.django_notes.wsgi:application", "--json"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert {(route["path"], *route["methods"], route["reason"] or "".join(route["guards"])) for route in listed["routes"]} == {
        ("/", "GET", "notes.read"),
        ("/", "POST", "notes.write"),
        ("/sign-in", "GET", "the page to sign in on"),
        ("/sign-in", "POST", "whoever signs in is not signed in yet"),
        ("/sign-out", "*", "signed-in"),
    }


def test_the_page_quotes_the_example() -> None:
    """What `docs/how-to/django.md` shows is the code that runs here, to the letter."""
    page = (ROOT / "docs/how-to/django.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python no-run  # part of (\S+), which tests run\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == page.count("```python")
    assert [path for path, block in blocks if block.strip() not in (ROOT / path).read_text(encoding="utf-8")] == []

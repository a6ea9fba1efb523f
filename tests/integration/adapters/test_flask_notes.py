"""The Flask example on a real PostgreSQL: what a person sees, what another may not, and that none of its routes is open by accident."""

from __future__ import annotations

import re
from typing import Any

import pytest
from examples.flask_notes.app import create_app
from examples.people import PASSWORD
from tests.integration.adapters.conftest import Notes
from werkzeug.test import Client

from axis_security.adapters.flask import routes
from axis_security.wiring.routes import Audit

ORIGIN = "http://localhost"


@pytest.fixture(scope="module")
def app(notes: Notes) -> Any:
    """The example, with its people moved in."""
    return create_app(notes.axis)


def browser(app: Any, name: str | None = None) -> Client:
    """A browser, signed in if *name* is given."""
    client = Client(app)
    if name is not None:
        form = {"email": f"{name}@example.com", "password": PASSWORD}
        got = client.post("/sign-in", data=form, base_url=ORIGIN, headers={"Origin": ORIGIN})
        assert (got.status_code, got.location) == (303, "/")
    return client


def token(page: str) -> str:
    """The token of a page's form."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def add(client: Client, text: str) -> int:
    """Fill in the form."""
    page = client.get("/", base_url=ORIGIN).text
    return client.post("/", data={"csrf_token": token(page), "text": text}, base_url=ORIGIN, headers={"Origin": ORIGIN}).status_code


def test_each_workspace_sees_its_own_notes(app: Any) -> None:
    """Two owners write; each sees one; a viewer of the first sees it too and may not write."""
    ann, bob, vic = browser(app, "ann"), browser(app, "bob"), browser(app, "vic")
    assert add(ann, "ann's secret") == 303
    assert add(bob, "bob's secret") == 303
    assert ["ann's secret" in who.get("/", base_url=ORIGIN).text.replace("&#39;", "'") for who in (ann, bob, vic)] == [True, False, True]
    assert add(vic, "not mine to write") == 403


def test_strangers_are_sent_to_sign_in(app: Any) -> None:
    """A person is sent to the page, a script gets 401, a wrong password gets one sentence, and another site's form is refused."""
    client = browser(app)
    got = client.get("/", base_url=ORIGIN, headers={"Accept": "text/html"})
    assert (got.status_code, got.location) == (303, "/sign-in?next=/")
    assert client.get("/", base_url=ORIGIN).status_code == 401
    assert client.get("/sign-in", base_url=ORIGIN).status_code == 200
    wrong = client.post("/sign-in", data={"email": "ann@example.com", "password": "x"}, base_url=ORIGIN, headers={"Origin": ORIGIN})
    assert (wrong.status_code, 'role="alert"' in wrong.text) == (403, True)
    form = {"email": "ann@example.com", "password": PASSWORD}
    assert client.post("/sign-in", data=form, base_url=ORIGIN, headers={"Origin": "http://evil.example"}).status_code == 403


def test_signing_out_ends_it(app: Any) -> None:
    """A copy of the cookies is worth nothing afterwards."""
    ann = browser(app, "ann")
    page = ann.get("/", base_url=ORIGIN)
    thief = Client(app)
    cookie = ann.get_cookie("axis_dev_session", domain="localhost")
    assert cookie is not None
    thief.set_cookie("axis_dev_session", cookie.value, domain="localhost")
    assert thief.get("/", base_url=ORIGIN).status_code == 200
    got = ann.post("/sign-out", data={"csrf_token": token(page.text)}, base_url=ORIGIN, headers={"Origin": ORIGIN})
    assert got.status_code == 303
    assert thief.get("/", base_url=ORIGIN).status_code == 401


def test_no_route_is_open_by_accident(app: Any) -> None:
    """The audit finds nothing in the example."""
    audit = Audit.of(routes(app))
    audit.require_marked()
    assert {(route.path, route.may) for route in audit.routes if "GET" in route.methods} == {
        ("/", "notes.read"),
        ("/sign-in", "public: the page to sign in on"),
    }

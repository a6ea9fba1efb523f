"""The CRM as people meet it: in a browser, over TLS, with its cookies, its back button and its tabs."""

from __future__ import annotations

import os
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Literal

import pytest
from examples.crm.seed import PASSWORD
from playwright.sync_api import Page, expect
from tests.browser.conftest import MAIN, Site, pictures


def test_from_sign_up_to_export(site: Site, tmp_path: Path) -> None:
    """A stranger signs up, follows the letter, opens a workspace, adds a contact and a file by keyboard and mouse, and takes everything home."""
    page = site.context().new_page()
    page.goto("/")
    page.get_by_role("link", name="Open a workspace").click()
    page.get_by_label("E-mail").fill("nadia@browser.example")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="See your letters")).to_be_visible()
    page.goto(site.crm.site.outbox[0].link)
    assert "token" not in page.url, "the token left the address at once"
    page.get_by_role("button", name="Confirm").click()
    page.get_by_label("E-mail").fill("nadia@browser.example")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Title").fill("Nadia & Co")
    page.get_by_label("Your name").fill("Nadia")
    page.get_by_label("The e-mail you sign in with").fill("nadia@browser.example")
    page.get_by_role("button", name="Open it").click()
    page.get_by_text("New contact").click()
    page.get_by_label("Name", exact=True).fill("Rui <b>Bold</b>")
    page.get_by_label("E-mail", exact=True).fill("rui@example.com")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="Rui <b>Bold</b>")).to_be_visible()
    (tmp_path / "offer.txt").write_text("the offer")
    page.get_by_label("File, up to 10 MB").set_input_files(tmp_path / "offer.txt")
    page.get_by_role("button", name="Attach").click()
    with page.expect_download() as taken:
        page.get_by_role("link", name="offer.txt").click()
    assert taken.value.path().read_text() == "the offer"
    page.get_by_role("link", name="Contacts").first.click()
    with page.expect_download() as exported:
        page.get_by_role("button", name="Export the workspace").click()
    with zipfile.ZipFile(exported.value.path()) as archive:
        assert b"Rui <b>Bold</b>" in archive.read("public.contact.csv")
    page.context.close()


@pytest.mark.parametrize("workspace", ["acme", "globex"])
@pytest.mark.parametrize("role", ["owner", "admin", "member", "viewer"])
def test_each_role_sees_its_own_workspace_and_what_it_may(site: Site, role: str, workspace: str) -> None:
    """Rows of one workspace, the buttons of one role; what has no button is refused when asked for by hand."""
    page = site.signed_in(role, workspace)
    manages = role in {"owner", "admin"}
    text = page.inner_text("main")
    assert ("Ines Duarte" in text) == (workspace == "acme")
    assert ("Paul Okafor" in text) == (workspace == "globex")
    assert page.get_by_role("button", name="Export the workspace").count() == int(manages)
    assert page.get_by_text("New contact").count() == int(role != "viewer")
    page.goto("/members")
    assert page.get_by_role("heading", name="Invite").count() == int(manages)
    answer = page.goto("/audit")
    assert answer is not None
    assert answer.status == (200 if manages else 403)
    page.context.close()


def test_cookies_as_the_browser_sees_them(site: Site) -> None:
    """The session is `__Host-`, Secure, HttpOnly and Lax, the browser's own mark Strict, for this host and the whole of it; scripts see none."""
    page = site.signed_in("viewer")
    cookies = page.context.cookies()
    assert cookies
    for cookie in cookies:
        assert cookie["name"].startswith("__Host-")
        assert cookie["secure"]
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == ("Lax" if "session" in cookie["name"] else "Strict")
        assert (cookie["path"], cookie["domain"]) == ("/", "localhost")
    assert page.evaluate("document.cookie") == ""
    page.context.close()


@contextmanager
def another_origin(target: str) -> Iterator[str]:
    """A page on another port of the same host (the same site, so Lax cookies travel), whose form posts to the CRM."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(
                f'<form method="post" action="{target}"><input name="name" value="planted"><button>Win</button></form>'.encode()
            )

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_form_of_another_origin_changes_nothing(site: Site) -> None:
    """The browser is signed in and sends its cookies; the gate sees where the form came from."""
    page = site.signed_in("member")
    with another_origin(site.crm.origin + "/contacts") as elsewhere:
        page.goto(elsewhere)
        with page.expect_response("**/contacts") as answer:
            page.get_by_role("button", name="Win").click()
    assert answer.value.status == 403
    page.goto("/contacts")
    assert "planted" not in page.inner_text("main")
    page.context.close()


def test_the_back_button_after_signing_out_shows_nothing(site: Site) -> None:
    """Pages with rows are not kept: going back asks the server, who asks to sign in."""
    page = site.signed_in("member")
    page.get_by_role("link", name="Ines Duarte").click()
    expect(page.get_by_role("heading", name="Ines Duarte")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.go_back()
    page.wait_for_load_state()
    assert "ines@harbour" not in page.content()
    assert re.search(r"/sign-in(\?|$)", page.url)
    page.context.close()


def test_two_tabs_through_a_rotation(site: Site) -> None:
    """One tab confirms the password, which gives the session a new id; the other tab works on, with the form it had open."""
    first = site.signed_in("member", "globex")
    second = first.context.new_page()
    second.goto("/contacts")
    before = first.context.cookies()
    first.goto("/confirm")
    first.get_by_label("Password").fill(PASSWORD)
    first.get_by_role("button", name="Confirm").click()
    first.wait_for_url("**/account")
    assert {c["value"] for c in before if "session" in c["name"]} != {c["value"] for c in first.context.cookies() if "session" in c["name"]}
    second.get_by_text("New contact").click()
    second.get_by_label("Name", exact=True).fill("From the other tab")
    second.get_by_role("button", name="Add").click()
    expect(second.get_by_role("heading", name="From the other tab")).to_be_visible()
    first.goto("/contacts")
    expect(first.get_by_role("link", name="From the other tab")).to_be_visible()
    first.context.close()


def _complaints(page: Page) -> list[str]:
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def test_no_page_breaks_its_own_policy(site: Site) -> None:
    """The browser reports no blocked style or script, and every main page has one heading, a language, and a label for each field."""
    page = site.signed_in("owner")
    found = _complaints(page)
    for path in MAIN:
        page.goto(path)
        assert page.locator("h1").count() == 1, path
        assert page.locator("html").get_attribute("lang") == "en"
        unnamed = page.locator("input:not([type=hidden]), select, textarea").evaluate_all(
            "all => all.filter(e => e.labels.length === 0).map(e => e.name)"
        )
        assert unnamed == [], path
    assert found == []
    page.context.close()


def test_the_menu_works_by_keyboard(site: Site) -> None:
    """Tab reaches the skip link first, then the menu; Enter follows."""
    page = site.signed_in("viewer")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/deals")
    page.context.close()


@pytest.mark.nightly
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_for_the_documentation(site: Site, scheme: Literal["light", "dark"]) -> None:
    """Every main page fits its window, in both colour schemes; with AXIS_PICTURES set, the pictures of the documentation are taken anew."""
    page = site.signed_in("owner")
    page.emulate_media(color_scheme=scheme)
    for path in MAIN:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
        if os.environ.get("AXIS_PICTURES") and (scheme == "light" or path == "/security"):
            page.screenshot(
                path=pictures() / f"crm-{path.strip('/')}{'-dark' if scheme == 'dark' else ''}.png", full_page=path != "/security"
            )
    page.goto("/contacts")
    page.get_by_role("link", name="Ines Duarte").click()
    if os.environ.get("AXIS_PICTURES") and scheme == "light":
        page.screenshot(path=pictures() / "crm-contact.png", full_page=True)
    page.context.close()

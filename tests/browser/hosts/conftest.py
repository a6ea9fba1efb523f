"""The CRM behind TLS, a real Chromium that trusts nothing but its certificate, and two more sites on the same port: a stranger's and a sister's."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from examples.crm.seed import PASSWORD
from playwright.sync_api import Browser, BrowserContext, Page, Response
from tests.browser.conftest import launched
from tests.browser.serve import PATIENCE_MS, serving
from tests.integration.crm.conftest import Crm, running

from axis_security.testing.cluster import Cluster

CRM: Final = "crm.tidepool.test"
SISTER: Final = "blog.tidepool.test"
STRANGER: Final = "evil.test"


@dataclass
class Site:
    """Three hosts behind one certificate. Only the first is ours."""

    crm: Crm
    port: int
    pin: str
    pages: dict[str, str] = field(default_factory=dict)
    """What the other two hosts serve: host to a page."""
    cookies: dict[str, list[str]] = field(default_factory=dict)
    """The ``Cookie`` headers that the other two hosts were sent."""
    answers: list[tuple[str, str, int]] = field(default_factory=list)
    """What the CRM was asked, and the status of what it said."""
    spoil: Callable[[list[tuple[bytes, bytes]]], list[tuple[bytes, bytes]]] | None = None
    """Changes the headers of the CRM's answers, for controls."""

    @property
    def origin(self) -> str:
        return self.crm.origin

    def other(self, host: str) -> str:
        """The address of another host here."""
        return f"https://{host}:{self.port}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope.get("headers", ())).get(b"host", b"").decode().partition(":")[0]
        if scope["type"] != "http" or host not in {SISTER, STRANGER}:

            async def spoiled(message: Any) -> None:
                if message["type"] == "http.response.start":
                    self.answers.append((scope["method"], scope["path"], message["status"]))
                    if self.spoil is not None:
                        message = {**message, "headers": self.spoil(list(message["headers"]))}
                await send(message)

            await self.crm.app(scope, receive, spoiled)
            return
        self.cookies.setdefault(host, []).append(dict(scope["headers"]).get(b"cookie", b"").decode())
        body = self.pages.get(host, "<!doctype html><title>elsewhere</title>").encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html; charset=utf-8")]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="session")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The CRM as in production: https, `__Host-` cookies; on a name of its own, beside which there is room for a sister."""
    home = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with running(cluster, home, origin=f"https://{CRM}:{port}") as crm:
            made = Site(crm, port, "")
            with serving(made, home, listener, (CRM, SISTER, STRANGER)) as made.pin:
                yield made


@pytest.fixture(scope="module")
def chromium(site: Site) -> Iterator[Browser]:
    """Debian's Chromium, headless. It reaches the three hosts and nothing else, and trusts their key and no other.

    Of the module's, not the session's: Playwright's event loop counts as running in this thread, and other tests need that thread.
    """
    yield from launched(site.pin)


@dataclass
class Person:
    """Somebody in front of a browser of their own."""

    site: Site
    context: BrowserContext
    page: Page
    complaints: list[str]
    """What browsers write into their console: blocked content, errors, failed loads."""

    def go(self, path: str) -> Response:
        """Type an address."""
        answer = self.page.goto(self.site.origin + path)
        assert answer is not None
        return answer

    def path(self) -> str:
        return self.page.url.removeprefix(self.site.origin)

    def press(self, name: str, *, within: str = "main") -> None:
        """A button of the page, by what it says; waits for the page it leads to."""
        with self.page.expect_navigation():
            self.page.locator(within).get_by_role("button", name=name, exact=True).first.click()

    def follow(self, name: str) -> None:
        """A link, by what it says."""
        with self.page.expect_navigation():
            self.page.get_by_role("link", name=name, exact=True).first.click()

    def fill(self, **values: str) -> None:
        """Fields by their labels; underscores stand for spaces."""
        for label, value in values.items():
            self.page.locator("main").get_by_label(label.replace("_", " "), exact=False).first.fill(value)

    def sign_in(self, email: str, password: str = PASSWORD) -> None:
        """Through the form."""
        self.go("/sign-in")
        self.fill(**{"E-mail": email, "Password": password})
        self.press("Sign in")

    def letter(self, number: int = 0) -> str:
        """The link in one of the latest letters."""
        return self.site.crm.site.outbox[number].link

    def main(self) -> str:
        """What the page says."""
        return self.page.locator("main").inner_text()


@dataclass
class People:
    """Makes browsers that know nothing of each other."""

    site: Site
    browser: Browser
    made: list[Person] = field(default_factory=list)

    def stranger(self, **options: Any) -> Person:
        """A fresh browser."""
        context = self.browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 800}, **options)
        context.set_default_timeout(PATIENCE_MS)
        person = Person(self.site, context, context.new_page(), [])
        context.on("console", lambda message: person.complaints.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: person.complaints.append(str(error.error)))
        self.made.append(person)
        return person

    def signed_in(self, role: str, workspace: str = "acme", **options: Any) -> Person:
        """One of the people of the sample data."""
        person = self.stranger(**options)
        person.sign_in(self.site.crm.person(role, workspace).email)
        assert person.path() == "/contacts", person.main()
        return person

    def tab(self, person: Person) -> Person:
        """Another tab of the same browser."""
        return Person(person.site, person.context, person.context.new_page(), person.complaints)


@pytest.fixture
def people(site: Site, chromium: Browser) -> Iterator[People]:
    """Browsers for one test."""
    made = People(site, chromium)
    site.pages.clear()
    site.cookies.clear()
    site.answers.clear()
    yield made
    site.spoil = None
    for person in made.made:
        person.context.close()

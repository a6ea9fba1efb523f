"""The CRM over TLS as in production, and a headless Chromium in front of it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from examples.crm.seed import PASSWORD
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from tests.browser.serve import PATIENCE_MS, serving
from tests.conftest import service_missing
from tests.integration.crm.conftest import Crm, running

from axis_security.testing.cluster import Cluster
from axis_security.testing.servers import ServiceMissing

MAIN: Final = ("/contacts", "/deals", "/members", "/audit", "/account", "/workspaces", "/security", "/confirm")
"""The pages that somebody who is signed in walks through."""


def pictures() -> Path:
    """Where the documentation keeps its pictures."""
    found = Path(__file__).parents[2] / "docs" / "images"
    found.mkdir(exist_ok=True)
    return found


@dataclass
class Served:
    """The CRM on a port, and the pin of its key."""

    crm: Crm
    pin: str


@dataclass
class Site:
    """The CRM, and a browser for whoever visits it."""

    crm: Crm
    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)

    def context(self, **options: Any) -> BrowserContext:
        """A fresh browser, which knows nothing of the others."""
        made = self.browser.new_context(base_url=self.crm.origin, locale="en-GB", **options)
        made.set_default_timeout(PATIENCE_MS)
        self.contexts.append(made)
        return made

    def signed_in(self, role: str, workspace: str = "acme", **options: Any) -> Page:
        """A page of somebody of the sample data, who has just signed in."""
        page = self.context(**options).new_page()
        page.goto("/sign-in")
        page.get_by_label("E-mail").fill(self.crm.person(role, workspace).email)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/contacts")
        return page


@pytest.fixture(scope="session")
def served(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One CRM for this test process."""
    home = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"https://localhost:{listener.getsockname()[1]}"
        with running(cluster, home, origin=origin) as crm, serving(crm.app, home, listener, ("localhost",)) as pin:
            yield Served(crm, pin)


def launched(pin: str) -> Iterator[Browser]:
    """Debian's Chromium, which trusts the key with that *pin* beyond the public authorities, and reaches this machine alone."""
    program = shutil.which("chromium")
    if program is None:
        service_missing(ServiceMissing(program="chromium", install="apt-get install chromium"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            timeout=PATIENCE_MS * 2,
            args=[
                f"--ignore-certificate-errors-spki-list={pin}",
                "--host-resolver-rules=MAP *.test 127.0.0.1, MAP localhost 127.0.0.1, MAP * ~NOTFOUND",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ],
        )
        yield browser
        browser.close()


# Of the module's, not the session's: Playwright's event loop counts as running in this thread, and other tests start loops in it.
@pytest.fixture(scope="module")
def site(served: Served) -> Iterator[Site]:
    """The CRM and a browser."""
    for browser in launched(served.pin):
        made = Site(served.crm, browser)
        yield made
        for context in made.contexts:
            context.close()

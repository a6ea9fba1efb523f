"""The CRM on a real database, and people who are signed in to it."""

from __future__ import annotations

import re
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples.crm.app import create_app
from examples.crm.models import Base
from examples.crm.promises import disclosure, monitor, promises
from examples.crm.security import Site, caps, secure
from examples.crm.seed import PASSWORD, Person, move_in
from fastapi import FastAPI
from sqlalchemy import create_engine, text
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from axis_security.auth import PasswordService
from axis_security.auth.kdf import Argon2Cost
from axis_security.auth.passwords import Passwords
from axis_security.core.minted import minted_text
from axis_security.core.schema import DatabaseRoles
from axis_security.core.settings import Environment
from axis_security.crypto.blindindex import IndexKeys
from axis_security.crypto.columns import use_keys
from axis_security.rbac.capability import in_force
from axis_security.testing.cluster import Cluster
from axis_security.wiring.endpoints import health, security_txt
from axis_security.wiring.keys import AppKeys

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Using `httpx` with")
    from starlette.testclient import TestClient

CHEAP = Argon2Cost(memory_kib=19_456, passes=2, lanes=1)
"""The lowest cost that the library takes: these tests are about something else."""


@dataclass
class Crm:
    """The app, its people, and where everything is."""

    app: FastAPI
    site: Site
    people: list[Person]
    dsn: str
    origin: str
    home: Path
    clients: list[TestClient] = field(default_factory=list)

    def client(self, **headers: str) -> TestClient:
        """A browser that is signed out; it sends what browsers send."""
        browser = {
            "origin": self.origin,
            "sec-fetch-site": "same-origin",
            "sec-fetch-mode": "navigate",
            "sec-fetch-dest": "document",
            "accept": "text/html",
        }
        made = TestClient(
            self.app, base_url=self.origin, headers={**browser, **headers}, follow_redirects=True, raise_server_exceptions=False
        )
        self.clients.append(made)
        return made

    def person(self, role: str, workspace: str = "acme") -> Person:
        return next(each for each in self.people if (each.role, each.workspace) == (role, workspace))

    def signed_in(self, role: str, workspace: str = "acme", **headers: str) -> Browser:
        client = self.client(**headers)
        answer = client.post("/sign-in", data={"email": self.person(role, workspace).email, "password": PASSWORD})
        assert (answer.status_code, answer.url.path) == (200, "/contacts"), answer.text
        return Browser(client)


@dataclass
class Browser:
    """A signed-in browser that sends the form's token, as a page of the app would."""

    client: TestClient

    def get(self, path: str, **params: Any) -> httpx.Response:
        answer: httpx.Response = self.client.get(path, params=params or None)
        return answer

    def token(self) -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.client.get("/workspaces").text)
        assert found is not None
        return found[1]

    def post(self, path: str, data: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        answer: httpx.Response = self.client.post(path, data={"csrf_token": self.token(), **(data or {})}, **more)
        return answer

    def ids(self, kind: str, page: str = "/contacts") -> list[str]:
        return re.findall(rf"/{kind}/([0-9a-f-]{{36}})", self.client.get(page).text)


class _InFocus:
    """Calls *focus* before each request."""

    def __init__(self, app: ASGIApp, focus: Callable[[], None]) -> None:
        self._app, self._focus = app, focus

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._focus()
        await self._app(scope, receive, send)


@contextmanager
def running(
    cluster: Cluster, home: Path, *, origin: str = "https://crm.example.com", environment: Environment = Environment.PRODUCTION
) -> Iterator[Crm]:
    """The CRM over a database of its own."""
    roles = DatabaseRoles.prefixed(f"crm_{secrets.token_hex(4)}")
    with cluster.database("crm") as name:
        admin = create_engine(cluster.url(name))
        Base.metadata.create_all(admin)
        keys = AppKeys.generate(environment=Environment.TEST)
        app_dsn = cluster.dsn(name, user=roles.app)
        # Guards ask the policy in force, the first over its registry: here this site's, and afterwards the one's before.
        before, in_force(caps).policy = in_force(caps).policy, None
        site = secure(
            cluster.url(name, user=roles.app),
            keys=keys,
            home=home,
            origin=origin,
            environment=environment,
            system_url=cluster.url(name, user=roles.system),
            roles=roles,
            passwords=PasswordService(Passwords(cost=CHEAP, peppers=keys.peppers)),
            endpoints=(*health(monitor(app_dsn), capability=caps.audit.read), *security_txt(disclosure())),
        )
        site.axis.plan(admin).apply(admin)
        with admin.begin() as connection:
            connection.execute(text(f"ALTER ROLE {roles.app} LOGIN; ALTER ROLE {roles.system} LOGIN"))
        people = move_in(site)
        system = cluster.dsn(name, user=roles.system)
        app = create_app(
            site,
            lambda app: promises(
                site, app=app, tenant=people[0].tenant, app_dsn=app_dsn, admin=cluster.dsn(name), system=system, home=home
            ),
        )
        # The keys of sealed columns and the policy in force are the process's: with two sites in one test process, each request sees to its own.
        index = IndexKeys({1: minted_text("index", b"\1" * 32)}, current=1)

        def focus() -> None:
            use_keys(site.ring, index)
            site.axis.policy.activate()

        app.user_middleware.insert(0, Middleware(_InFocus, focus=focus))
        crm = Crm(app, site, people, cluster.dsn(name), origin, home)
        try:
            yield crm
        finally:
            if before is not None:
                before.activate()
            for client in crm.clients:
                client.close()
            site.axis.close()
            site.engine.dispose()
            admin.dispose()


@pytest.fixture(scope="module")
def crm(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crm]:
    with running(cluster, tmp_path_factory.mktemp("crm")) as made:
        yield made

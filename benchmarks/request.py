"""What the gate costs a request: CPU over the bare app and round trips to the store, beside a signed cookie with a check by hand, and Django's own stack.

Everybody answers the same request: signed in, allowed, a small JSON answer. CPU is this process's own (``process_time``), so the database's work does not count
for anybody, but the driver's does. Each stack is held against its own bare app in the same round.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import secrets
import statistics
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from itsdangerous import TimestampSigner
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool
from starlette.middleware.sessions import SessionMiddleware

from axis_security import current_principal, requires
from axis_security.adapters.asgi import GateMiddleware
from axis_security.auth.store_postgres import AsyncPostgresVault
from axis_security.testing.cluster import Cluster
from axis_security.testing.gate_database import GateDatabase, gate_database
from axis_security.testing.gate_world import Person
from axis_security.testing.latency_proxy import LatencyProxy
from axis_security.wiring.identity import AsyncVaultIdentity, Identify, joined
from axis_security.wiring.marks import mark_of
from axis_security.wiring.visit import current_visit
from benchmarks.harness import Row, Settings, measured

REQUESTS: Final = 200
BUDGET_US: Final = 150.0
_AUTOCOMMIT: Final = {"autocommit": True}
BODY: Final = json.dumps({"ok": True}).encode()
Case = Callable[[], Awaitable[None]]


def run(settings: Settings) -> Iterable[Row]:
    """The rows of ``python -m benchmarks request``."""
    with Cluster() as cluster, gate_database(cluster) as database:
        person = database.world.person("ann", tenant="t1", role="member")
        with cluster.database("django") as name, LatencyProxy("127.0.0.1", cluster.port, delay_seconds=0) as proxy:
            django = _Django(cluster.dsn(name))
            try:
                return asyncio.run(_measure(settings, database, person, proxy, django))
            finally:
                django.close()


async def _measure(settings: Settings, database: GateDatabase, person: Person, proxy: LatencyProxy, django: _Django) -> list[Row]:
    through = make_conninfo(database.dsn, port=proxy.port)
    async with (
        AsyncConnectionPool(database.dsn, min_size=1, max_size=1, open=False, kwargs=_AUTOCOMMIT) as pool,
        AsyncConnectionPool(through, min_size=1, max_size=1, open=False, kwargs=_AUTOCOMMIT) as counted,
    ):
        cookie = [(b"cookie", person.cookie.encode()), (b"host", b"app.example.com")]
        signed = _signed_cookie()
        cases: dict[str, Case] = {
            "bare": _requests(_bare, cookie),
            "gate, no store": _requests(_gated(database, _Remembered(database, pool)), cookie),
            "gate": _requests(_gated(database, AsyncVaultIdentity(AsyncPostgresVault(pool))), cookie),
            "driver alone": _driver_alone(database, pool, person),
            "cookie": _requests(SessionMiddleware(_checked_by_hand, secret_key=_SECRET), signed),
            "django bare": django.bare,
            "django": django.guarded,
        }
        times = await _interleaved(cases, rounds=settings.rounds(40))
        trips = await _trips(_requests(_gated(database, AsyncVaultIdentity(AsyncPostgresVault(counted))), cookie), proxy)
    return list(_rows(times, trips, django.statements()))


def _rows(times: dict[str, list[float]], trips: float, django_trips: float) -> Iterator[Row]:
    def over(case: str, bare: str) -> list[float]:
        return [ours - theirs for ours, theirs in zip(times[case], times[bare], strict=True)]

    whole, pure = over("gate", "bare"), over("gate, no store", "bare")
    yield measured(
        "request",
        "authenticated, guarded, bound request over the bare app: the gate's own CPU (cookie, session, guard, binding, headers)",
        "us",
        pure,
        limit=BUDGET_US,
        peers={"Starlette SessionMiddleware and a check by hand, no store": over("cookie", "bare")},
        target=f"at most {BUDGET_US:.0f} us",
        met=statistics.median(pure) <= BUDGET_US,
    )
    stack = over("django", "django bare")
    yield measured(
        "request",
        "the same with the store asked: CPU with the driver's; the limit is the one statement through bare psycopg",
        "us",
        whole,
        limit=statistics.median(times["driver alone"]),
        peers={"Django sessions and permissions": stack},
        target="less than Django's own stack",
        met=statistics.median(whole) < statistics.median(stack),
    )
    yield measured(
        "request",
        "round trips to the store for a request",
        "round trips",
        [trips],
        limit=1.0,
        peers={"Django sessions and permissions": [django_trips]},
        target="one",
        met=trips <= 1.0,
    )


async def _interleaved(cases: dict[str, Case], *, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            gc.collect()
            gc.disable()
            try:
                began = time.process_time()
                await case()
                if number:
                    times[name].append((time.process_time() - began) / REQUESTS * 1e6)
            finally:
                gc.enable()
    return times


async def _trips(case: Case, proxy: LatencyProxy) -> float:
    await case()
    before = proxy.round_trips
    await case()
    return (proxy.round_trips - before) / REQUESTS


# --- apps


async def _answer(send: Any) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", b"12")]}
    )
    await send({"type": "http.response.body", "body": BODY})


async def _bare(scope: Any, receive: Any, send: Any) -> None:
    await _answer(send)


def _gated(database: GateDatabase, identity: Any) -> Any:
    gate = database.world.gate(identity=identity)

    @requires(database.world.caps.contacts.read)
    async def contacts(send: Any) -> None:
        current_principal()
        await _answer(send)

    mark = mark_of(contacts)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        gate.reached(current_visit(), mark, "GET /contacts")
        await contacts(send)

    return GateMiddleware(app, gate=gate)


class _Remembered:
    """Asks the store once."""

    def __init__(self, database: GateDatabase, pool: AsyncConnectionPool[Any]) -> None:
        self._identity: Final = AsyncVaultIdentity(AsyncPostgresVault(pool))
        self._answer: Any = None

    async def perform(self, request: Any, /) -> Any:
        if self._answer is None:
            self._answer = await self._identity.perform(request)
        return self._answer


_SECRET: Final = secrets.token_hex(32)
_ROLES: Final = {"member": {"contacts.read", "contacts.write"}}


def _signed_cookie() -> list[tuple[bytes, bytes]]:
    data = b64encode(json.dumps({"user": "ann", "tenant": "t1", "role": "member"}).encode())
    return [(b"cookie", b"session=" + TimestampSigner(_SECRET).sign(data)), (b"host", b"app.example.com")]


async def _checked_by_hand(scope: Any, receive: Any, send: Any) -> None:
    session = scope["session"]
    if "user" not in session or "contacts.read" not in _ROLES.get(session["role"], ()):
        raise PermissionError
    await _answer(send)


def _requests(app: Any, headers: list[tuple[bytes, bytes]]) -> Case:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def case() -> None:
        for _ in range(REQUESTS):
            sent.clear()
            await app(
                {
                    "type": "http",
                    "method": "GET",
                    "scheme": "https",
                    "path": "/contacts",
                    "query_string": b"",
                    "headers": headers,
                    "client": ("192.0.2.1", 5000),
                },
                receive,
                send,
            )
            if sent[0]["status"] != 200:
                raise RuntimeError(f"the request was refused: {sent}")

    return case


def _driver_alone(database: GateDatabase, pool: AsyncConnectionPool[Any], person: Person) -> Case:
    """The same statement through bare psycopg: what no design that asks a store can go below."""
    call = joined(Identify(next(database.world.auth.sessions.resolve(person.browser.visitor))), None).statement

    async def case() -> None:
        for _ in range(REQUESTS):
            async with pool.connection() as conn:
                await (await conn.execute(call.sql, call.params)).fetchall()

    return case


# --- Django


class _Django:
    """Django's own sessions, users and permissions on the same server, and the same view without them."""

    def __init__(self, dsn: str) -> None:
        import django
        from django.conf import settings

        # The benchmark calls Django's sync handler on a loop that has nothing else to do.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        settings.configure(
            SECRET_KEY=_SECRET,
            DATABASES={"default": _database(dsn)},
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
            MIDDLEWARE=_DJANGO_STACK,
            ROOT_URLCONF=__name__,
            ALLOWED_HOSTS=["*"],
            USE_TZ=True,
        )
        django.setup()
        from django.core.handlers.wsgi import WSGIHandler
        from django.core.management import call_command
        from django.test import override_settings

        call_command("migrate", verbosity=0)
        self._cookie: Final = self._sign_in()
        self._guarded: Final = WSGIHandler()
        with override_settings(MIDDLEWARE=[]):
            self._bare: Final = WSGIHandler()

    @staticmethod
    def _sign_in() -> str:
        from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
        from django.contrib.auth.models import Group, Permission, User
        from django.contrib.sessions.backends.db import SessionStore

        user = User.objects.create_user("ann", password=None)
        group = Group.objects.create(name="member")
        group.permissions.add(Permission.objects.get(codename="view_user"))
        user.groups.add(group)
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        return f"sessionid={session.session_key}"

    async def bare(self) -> None:
        """The view alone."""
        self._requests(self._bare, "/bare")

    async def guarded(self) -> None:
        """Behind the stack."""
        self._requests(self._guarded, "/guarded")

    def statements(self) -> float:
        """Statements for a request; each is a round trip."""
        from django.db import connection

        seen: list[str] = []

        def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            seen.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            self._requests(self._guarded, "/guarded")
        return len(seen) / REQUESTS

    @staticmethod
    def close() -> None:
        """Close the connection."""
        from django.db import connection

        connection.close()

    def _requests(self, handler: Any, path: str) -> None:
        statuses: list[str] = []
        for _ in range(REQUESTS):
            environ = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": path,
                "SERVER_NAME": "app.example.com",
                "SERVER_PORT": "443",
                "HTTP_COOKIE": self._cookie,
                "wsgi.input": io.BytesIO(),
                "wsgi.url_scheme": "https",
            }
            response = handler(environ, lambda status, headers: statuses.append(status))
            b"".join(response)
            response.close()
        if set(statuses) != {"200 OK"}:
            raise RuntimeError(f"Django refused: {set(statuses)}")


_DJANGO_STACK: Final = [
    f"django.{name}"
    for name in (
        "middleware.security.SecurityMiddleware",
        "contrib.sessions.middleware.SessionMiddleware",
        "middleware.common.CommonMiddleware",
        "middleware.csrf.CsrfViewMiddleware",
        "contrib.auth.middleware.AuthenticationMiddleware",
        "middleware.clickjacking.XFrameOptionsMiddleware",
    )
]


def _database(dsn: str) -> dict[str, Any]:
    parts = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    found = {key: parts.get(name) or "" for key, name in names.items()}
    return {"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": None, **found}


def __getattr__(name: str) -> Any:
    """Django's URLconf is a module; it is this one, and loads Django only where Django asks."""
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.contrib.auth.decorators import permission_required
    from django.http import HttpResponse
    from django.urls import path

    def view(request: Any) -> HttpResponse:
        return HttpResponse(BODY, content_type="application/json")

    return [path("bare", view), path("guarded", permission_required("auth.view_user", raise_exception=True)(view))]

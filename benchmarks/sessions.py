"""What a session costs: the cookie filter against bare itsdangerous, and the round trips of a resolution on PostgreSQL and on Valkey."""

from __future__ import annotations

import contextlib
import secrets
import statistics
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256

import psycopg
from itsdangerous import Signer
from psycopg_pool import ConnectionPool

from axis_security.auth.cookies import CookieKind
from axis_security.auth.sessions import Authenticated
from axis_security.auth.store_postgres import PostgresVault
from axis_security.auth.store_split import SplitStore
from axis_security.auth.store_valkey import ValkeyStore
from axis_security.auth.vault_sql import VAULT
from axis_security.auth.visitor import Visitor
from axis_security.auth.work import AnyStore
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.context import base_part
from axis_security.testing.auth_world import AuthWorld, TestBrowser
from axis_security.testing.cluster import Cluster
from axis_security.testing.latency_proxy import LatencyProxy
from axis_security.testing.servers import ServiceMissing, Valkey
from benchmarks.harness import Row, Settings, interleaved, measured

CALLS = 200
RESOLUTIONS = 20
DELAY_SECONDS = 0.005


def run(settings: Settings) -> Iterable[Row]:
    """The rows of ``python -m benchmarks sessions``."""
    yield from _filter(settings)
    with Cluster() as cluster, vault(cluster) as (dsn, direct):
        with LatencyProxy("127.0.0.1", cluster.port, delay_seconds=DELAY_SECONDS) as proxy:
            through = dsn.replace(f"port={cluster.port}", f"port={proxy.port}").replace(f":{cluster.port}/", f":{proxy.port}/")
            with ConnectionPool(through, min_size=1, max_size=1) as pool:
                yield _trips("PostgreSQL", signed_in(direct), PostgresVault(pool), proxy, settings)
        try:
            with Valkey() as server, LatencyProxy("127.0.0.1", server.port, delay_seconds=DELAY_SECONDS) as proxy:
                near = ValkeyStore(server.url, replicas=0)
                far = ValkeyStore(server.url.replace(f":{server.port}", f":{proxy.port}"), replicas=0)
                try:
                    browser = signed_in(SplitStore(accounts=direct, sessions=near))
                    yield _trips("Valkey", browser, SplitStore(accounts=direct, sessions=far), proxy, settings)
                finally:
                    near.close()
                    far.close()
        except ServiceMissing as missing:
            print(f"left out: {missing}")


def _filter(settings: Settings) -> Iterable[Row]:
    world = AuthWorld()
    world.account()
    browser = world.browser()
    browser.sign_in()
    value = browser.jar[world.auth.profile.name(CookieKind.SESSION)]
    profile, signer = world.auth.profile, world.keys.signer(CookieKind.SESSION.value)
    # As its documentation shows it, with the digest that we use too.
    bare = Signer(b"k" * 32, salt=b"session", digest_method=sha256)
    signed = bare.sign(value.partition(".")[0]).decode()
    headers = {
        "one cookie": f"{profile.name(CookieKind.SESSION)}={value}",
        "five cookies": f"theme=dark; _ga=GA1.2.1; {profile.name(CookieKind.SESSION)}={value}; lang=en; consent=1",
    }

    def filtered(header: str) -> None:
        for _ in range(CALLS):
            if signer.unsign(profile.read(header).values[CookieKind.SESSION].reveal()) is None:
                raise RuntimeError("our own cookie was refused")

    def unsigned() -> None:
        for _ in range(CALLS):
            bare.unsign(signed)

    for name, header in headers.items():
        times = interleaved({"ours": partial(filtered, header), "bare": unsigned}, rounds=settings.rounds(300), scale=1e6 / CALLS)
        base = statistics.median(times["bare"])
        yield measured(
            "sessions",
            f"cookie filter, {name}: read the header, check the signature",
            "µs",
            times["ours"],
            limit=base,
            target="at most 1.3 x bare itsdangerous unsign",
            met=statistics.median(times["ours"]) <= 1.3 * base,
        )


def signed_in(store: AnyStore) -> TestBrowser:
    """A browser with a session of an account of its own."""
    world = AuthWorld(store=store, start=datetime.now(UTC))
    name = f"user-{secrets.token_hex(6)}@example.com"
    world.account(name)
    browser = world.browser()
    browser.sign_in(name)
    return browser


def _trips(name: str, browser: TestBrowser, store: AnyStore, proxy: LatencyProxy, settings: Settings) -> Row:
    world = AuthWorld(store=store, start=browser.world.time)
    visitor: Visitor = browser.visitor
    trips, times = [], []
    for number in range(settings.rounds(10) + 1):
        before, began = proxy.round_trips, time.perf_counter()
        for _ in range(RESOLUTIONS):
            if not isinstance(world.run(world.auth.sessions.resolve(visitor)), Authenticated):
                raise TypeError("the session did not resolve")
        if number:  # the first round connects
            times.append((time.perf_counter() - began) / RESOLUTIONS * 1000)
            trips.append((proxy.round_trips - before) / RESOLUTIONS)
    return measured(
        "sessions",
        f"resolution on {name}, {statistics.median(times):.1f} ms over a link of 5 ms each way",
        "round trips",
        trips,
        limit=1.0,
        target="one round trip",
        met=max(trips) <= 1.0,
    )


@contextlib.contextmanager
def vault(cluster: Cluster) -> Iterator[tuple[str, PostgresVault]]:
    """A vault in a database of its own, and that database as the app role."""
    roles = DatabaseRoles.prefixed("bench_" + secrets.token_hex(4))
    with cluster.database("bench") as name:
        with psycopg.connect(cluster.dsn(name), autocommit=True) as conn:
            for role, login in ((roles.owner, "LOGIN"), (roles.app, "LOGIN"), (roles.system, "LOGIN"), (roles.guard, "NOLOGIN")):
                conn.execute(f"CREATE ROLE {role} {login} NOINHERIT")
            for part in (base_part(KeyType.TEXT), VAULT):
                for statement in part.create(roles):
                    conn.execute(statement)
        dsn = cluster.dsn(name, user=roles.app)
        with ConnectionPool(dsn, min_size=1, max_size=2) as pool:
            yield dsn, PostgresVault(pool)

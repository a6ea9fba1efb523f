"""A killed PostgreSQL: the answer is "unavailable", nothing is half written, and the same store works once the server is back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.integration.auth.conftest import VaultWorld, vault_world

from axis_security.auth import ports as p
from axis_security.auth import session_ports as s
from axis_security.auth.factors import CountRecovery, LoadTotp, ReplaceRecovery
from axis_security.auth.store_postgres import AsyncPostgresVault, PostgresVault
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.ids import UserId
from axis_security.testing.cluster import Cluster
from axis_security.testing.latency_proxy import LatencyProxy
from axis_security.testing.store_cases import START, at, digest, is_live, key, registered, start, stored

SECRET: Final = "\u00e9-not-to-be-seen"


@pytest.fixture(scope="module")
def frail() -> Iterator[VaultWorld]:
    """A vault on a server of its own, to be killed."""
    with Cluster(settings={"fsync": "on", "synchronous_commit": "on"}) as cluster, vault_world(cluster, size=4) as world:
        yield world


def eventually(world: VaultWorld, request: p.Op[object]) -> object:
    """Ask until the pool has connections again."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return world.vault.perform(request)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_killed_server_fails_closed_and_comes_back(frail: VaultWorld) -> None:
    """Sessions are refused while it is down, never adopted or forgotten; afterwards the same store answers, and the revoked stay revoked."""
    perform = frail.vault.perform
    user = registered(perform, stored())
    _, kept = start(perform, user)
    _, ended = start(perform, user)
    perform(s.EndSession(key(user, ended)))
    frail.cluster.crash()
    for request in (s.ResolveSession(key=key(user, kept), now=at(1)), p.LoadSettings(user), p.Reserve((), START), LoadTotp(user, False)):
        with pytest.raises(Unavailable) as refused:
            PostgresVault(ConnectionPoolOf(frail)).perform(request)
        assert refused.value.http_status == 503
        assert refused.value.__suppress_context__
    frail.cluster.start()
    eventually(frail, p.AccountOf(user))
    assert is_live(perform, user, kept)
    assert not is_live(perform, user, ended)


class ConnectionPoolOf:
    """A connection per block, with no wait: what a pool gives up to after its timeout."""

    def __init__(self, world: VaultWorld) -> None:
        self._world = world

    def connection(self) -> psycopg.Connection[object]:
        """A fresh one."""
        return psycopg.connect(self._world.dsn(self._world.roles.app), connect_timeout=2)


def test_a_server_killed_midway_leaves_all_or_nothing(frail: VaultWorld) -> None:
    """Ten codes are replaced by ten again and again while the server is killed: ten of one set are there afterwards."""
    user = UserId("midway")
    sets = [tuple((f"set{n}", bytes([n, i]) * 16) for i in range(10)) for n in range(2)]
    frail.vault.perform(ReplaceRecovery(user, sets[0]))
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for codes in sets:
                try:
                    frail.vault.perform(ReplaceRecovery(user, codes))
                except Unavailable:
                    return

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    frail.cluster.crash()
    frail.cluster.start()
    stop.set()
    for thread in threads:
        thread.join(30)
    assert eventually(frail, CountRecovery(user)) == 10
    with frail.superuser() as conn:
        rows = conn.execute("SELECT DISTINCT key_id FROM axis.vault_recovery WHERE account = 'text:midway'").fetchall()
    assert len(rows) == 1


def test_errors_of_the_driver_say_nothing(world: VaultWorld) -> None:
    """A refusing database becomes Unavailable, without the parameters; a missing part says what to apply."""
    user = UserId("ann")
    long = p.IssueToken(purpose="verify_email", user=None, digest=("k", b"\0" * 32), now=START, lasting=timedelta(1), payload=SECRET * 100)
    with pytest.raises(Unavailable) as refused:
        world.vault.perform(long)
    assert SECRET not in repr(refused.value) + str(refused.value.audit())
    with ConnectionPool(world.cluster.dsn(), min_size=1, open=True) as elsewhere, pytest.raises(Unavailable, match="apply the vault part"):
        PostgresVault(elsewhere).perform(p.AccountOf(user))
    with pytest.raises(ConfigError):
        world.vault.perform("drop everything")


def test_a_held_lock_stalls_nobody_for_long(world: VaultWorld) -> None:
    """Somebody who keeps a transaction open on one account makes others of that account unavailable within seconds, not for ever."""
    user = registered(world.vault.perform, stored())
    with psycopg.connect(world.dsn(world.roles.app)) as holder:
        holder.execute("SELECT axis.vault_set_active(%s, true)", (f"text:{user.text}",))
        began = time.monotonic()
        with pytest.raises(Unavailable):
            world.vault.perform(p.SetActive(user, False))
        assert time.monotonic() - began < 6


def test_each_request_is_one_round_trip(world: VaultWorld) -> None:
    """Counted by a proxy: session resolution and a login's comparison cost one round trip each, on a pool's connection."""
    user = registered(world.vault.perform, stored())
    _, made = start(world.vault.perform, user)
    with LatencyProxy("127.0.0.1", world.cluster.port, delay_seconds=0.001) as proxy:
        dsn = world.dsn(world.roles.app).replace(f"port={world.cluster.port}", f"port={proxy.port}")
        with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
            vault = PostgresVault(pool)
            request = s.ResolveSession(key=key(user, made), now=at(1))
            for _ in range(8):  # past psycopg's preparation of the statement
                vault.perform(request)
            before = proxy.round_trips
            for _ in range(5):
                vault.perform(request)
            assert proxy.round_trips - before == 5


def test_the_async_store_is_the_same_store(world: VaultWorld) -> None:
    """Answers of the async form; fifty tasks and one winner; an unreachable server is Unavailable."""

    async def main() -> None:
        async with AsyncConnectionPool(world.dsn(world.roles.app), min_size=1, max_size=4, open=False) as pool:
            vault = AsyncPostgresVault(pool)
            user, token, now = UserId("async-" + datetime.now(UTC).strftime("%f")), digest(), START
            assert await vault.perform(p.Register(user=user, identifier=user.text, hash=stored()))
            assert await vault.perform(p.IssueToken(purpose="verify_email", user=user, digest=token, now=now, lasting=timedelta(1)))
            take = p.ConsumeToken(purpose="verify_email", candidates=(token,), now=now)
            answers = await asyncio.gather(*(vault.perform(take) for _ in range(50)))
            assert sum(answer is not None for answer in answers) == 1
        async with AsyncConnectionPool("host=127.0.0.1 port=1", min_size=0, max_size=1, open=False, timeout=0.2) as nowhere:
            with pytest.raises(Unavailable):
                await AsyncPostgresVault(nowhere).perform(take)

    asyncio.run(main())

"""Valkey beside the vault: the same contract, one server and a cluster, sync and async; closed when it is gone, back when it is."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.integration.auth.conftest import VaultWorld

from axis_security.auth import valkey_scripts
from axis_security.auth.ports import AccountOf, AsyncStore, Budget, BumpEpoch, Register, Reserve, SetActive
from axis_security.auth.session_ports import (
    LiveSession,
    ResolveSession,
    RevokeSessions,
    SessionKey,
    StartSession,
    session_route,
)
from axis_security.auth.store_postgres import AsyncPostgresVault, PostgresVault
from axis_security.auth.store_split import AsyncSplitStore, SplitStore
from axis_security.auth.store_valkey import AsyncValkeyStore, ValkeyStore
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance
from axis_security.core.secret import Secret
from axis_security.testing import session_cases, session_store_cases, store_cases
from axis_security.testing.factors import MemoryFactors
from axis_security.testing.latency_proxy import LatencyProxy
from axis_security.testing.servers import Valkey
from axis_security.testing.stores import NotConforming, Perform

NIGHTLY: Final = os.environ.get("AXIS_TEST_PROFILE") == "nightly"
ROUNDS: Final = 200 if NIGHTLY else 3
CASES: Final = (*session_store_cases.SESSION_CASES, *session_store_cases.THROTTLE_CASES, *store_cases.ACCOUNT_CASES)
RACES: Final = (*session_store_cases.SESSION_RACES, *session_store_cases.THROTTLE_RACES, *store_cases.ACCOUNT_RACES)
Case = Callable[[Perform], None]
NOW: Final = store_cases.START
SECOND: Final = timedelta(seconds=1)


def named(case: Case) -> str:
    return case.__name__


@pytest.fixture(scope="module")
def store(valkey: Valkey) -> Iterator[ValkeyStore]:
    """A store on one server."""
    made = ValkeyStore(valkey.url, replicas=0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def split(world: VaultWorld, store: ValkeyStore) -> SplitStore:
    """Accounts in the vault, sessions in Valkey."""
    return SplitStore(accounts=world.vault, sessions=store)


def start_of(user: UserId, *, epoch: int = 0, **more: Any) -> StartSession:
    """A login."""
    fields: dict[str, Any] = {
        "user": user, "handle": uuid4(), "digest": ("k1", os.urandom(32)), "epoch": epoch, "now": NOW, "idle": timedelta(minutes=30),
        "lifetime": timedelta(hours=12), "assurance": Assurance.AAL1, "methods": ("password",), **more,
    }  # fmt: skip
    return StartSession(**fields)


def key_of(start: StartSession) -> SessionKey:
    """What its browser presents."""
    return SessionKey(session_route(start.user), (start.digest,))


def seen(perform: Perform, start: StartSession, *, after: timedelta = SECOND) -> Any:
    """Who the session is."""
    return perform(ResolveSession(key=key_of(start), now=NOW + after))


@pytest.mark.parametrize("case", CASES, ids=named)
def test_split_store_conforms(split: SplitStore, case: Case) -> None:
    """Vault and Valkey together keep the contract of one store."""
    case(split.perform)


@pytest.mark.parametrize("case", session_cases.SESSION_ONLY_CASES, ids=named)
def test_valkey_alone_conforms(store: ValkeyStore, case: Case) -> None:
    """Valkey keeps the contract of sessions and throttles by itself."""
    case(store.perform)


@pytest.mark.parametrize("case", session_cases.SESSION_ONLY_RACES, ids=named)
def test_valkey_alone_races(store: ValkeyStore, case: Case) -> None:
    """Valkey has one winner among fifty."""
    for _ in range(ROUNDS):
        case(store.perform)


@pytest.mark.parametrize("case", [*session_cases.SESSION_ONLY_CASES, *session_cases.SESSION_ONLY_RACES], ids=named)
def test_other_stores_conform_to_it_too(world: VaultWorld, case: Case) -> None:
    """Two suites written apart agree about the vault, and about the store for tests."""
    case(world.vault.perform)
    case(MemoryFactors().perform)


@pytest.mark.parametrize("case", RACES, ids=named)
def test_split_store_races(split: SplitStore, case: Case) -> None:
    """Vault and Valkey together have one winner among fifty."""
    for _ in range(ROUNDS):
        case(split.perform)


class Loop:
    """An event loop in a thread of its own, so that cases made for threads drive an async store."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Any) -> Any:
        """Run *work* there and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def close(self) -> None:
        """End the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    """An event loop beside this thread."""
    made = Loop()
    yield made
    made.close()


def test_async_store_conforms(world: VaultWorld, valkey: Valkey, loop: Loop) -> None:
    """The async form keeps the contract, races included."""
    store = AsyncValkeyStore(valkey.url, replicas=0)
    threads = SplitStore(accounts=world.vault, sessions=_Blocking(store, loop))
    for case in (*session_store_cases.SESSION_CASES, *session_store_cases.SESSION_RACES, *session_store_cases.THROTTLE_CASES):
        case(threads.perform)
    loop.run(store.close())


def test_async_split_store_conforms(world: VaultWorld, valkey: Valkey, loop: Loop) -> None:
    """Both halves async: the account-bound cases and races hold, on one event loop."""

    async def opened() -> tuple[AsyncConnectionPool[Any], AsyncValkeyStore]:
        pool = AsyncConnectionPool(world.dsn(world.roles.app), min_size=1, max_size=8, open=False)
        await pool.open()
        return pool, AsyncValkeyStore(valkey.url, replicas=0)

    pool, store = loop.run(opened())
    both = _Blocking(AsyncSplitStore(accounts=AsyncPostgresVault(pool), sessions=store), loop)
    try:
        for case in (*CASES, *session_store_cases.SESSION_RACES):
            case(both.perform)
    finally:
        loop.run(store.close())
        loop.run(pool.close())


def test_a_session_is_resolved_in_one_round_trip(valkey: Valkey) -> None:
    """Once the servers are known and the script is loaded: one question, one answer, however many keys are in use."""
    with LatencyProxy("127.0.0.1", valkey.port, delay_seconds=0.001) as proxy:
        store = ValkeyStore(f"valkey://127.0.0.1:{proxy.port}/0", replicas=0)
        start = start_of(UserId("r" + os.urandom(6).hex()))
        assert store.perform(start)
        key = SessionKey(session_route(start.user), (("k0", os.urandom(32)), start.digest))
        resolve = ResolveSession(key=key, now=NOW + timedelta(minutes=2))
        assert store.perform(resolve) is not None
        before = proxy.round_trips
        for _ in range(10):
            assert isinstance(store.perform(resolve), LiveSession)
        assert proxy.round_trips - before == 10
        store.close()


def test_the_vault_resolves_a_session_in_one_round_trip(world: VaultWorld) -> None:
    """PostgreSQL likewise, note of the use included. psycopg prepares a statement at its sixth use, which costs one trip more, once a connection."""
    with LatencyProxy("127.0.0.1", world.cluster.port, delay_seconds=0.001) as proxy:
        dsn = make_conninfo(world.dsn(world.roles.app), host="127.0.0.1", port=proxy.port)
        with ConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool:
            vault = PostgresVault(pool)
            user = UserId("r" + os.urandom(6).hex())
            vault.perform(Register(user=user, identifier=f"{user.text}@example.org", hash=None))
            start = start_of(user)
            assert vault.perform(start)
            trips = []
            for minute in range(1, 21):
                before = proxy.round_trips
                found = vault.perform(ResolveSession(key=key_of(start), now=NOW + timedelta(minutes=2 * minute)))
                assert isinstance(found, LiveSession)
                trips.append(proxy.round_trips - before)
            assert sum(trips[:10]) <= 11
            assert trips[10:] == [1] * 10


class _Blocking:
    def __init__(self, store: AsyncStore, loop: Loop) -> None:
        self._store, self._loop = store, loop

    def perform(self, op: Any) -> Any:
        return self._loop.run(self._store.perform(op))


def test_a_cancelled_request_leaves_no_answer_for_the_next(valkey: Valkey) -> None:
    """Requests are cancelled at every stage; nobody ever gets the answer that was meant for somebody else."""

    async def go() -> None:
        store = AsyncValkeyStore(valkey.url, replicas=0)
        starts = [start_of(UserId(f"c{n}-{os.urandom(4).hex()}")) for n in range(4)]
        for start in starts:
            assert await store.perform(start)
        for turn in range(300):
            task = asyncio.ensure_future(store.perform(ResolveSession(key=key_of(starts[turn % 4]), now=NOW)))
            for _ in range(turn % 12):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            other = starts[(turn + 1) % 4]
            found = await store.perform(ResolveSession(key=key_of(other), now=NOW))
            assert isinstance(found, LiveSession)
            assert found.user == other.user
        await store.close()

    asyncio.run(go())


def test_a_login_that_a_password_change_overtook_starts_nothing(split: SplitStore, store: ValkeyStore) -> None:
    """CVE class of sessions that outlive their password: the epoch is checked by the accounts, and again by the sessions."""
    user = UserId("e" + os.urandom(6).hex())
    assert split.perform(Register(user=user, identifier=f"{user.text}@example.org", hash=None))
    before = split.perform(AccountOf(user))
    assert before is not None
    early = start_of(user, epoch=before.epoch)
    assert split.perform(early)
    after = split.perform(BumpEpoch(user))
    assert after is not None
    assert after.epoch > before.epoch
    assert seen(split.perform, early) is None
    late = start_of(user, epoch=before.epoch)
    assert split.perform(late) is False
    assert store.perform(late) is False, "the session store refuses it by itself: the accounts were asked a moment too early"
    assert split.perform(start_of(user, epoch=after.epoch)) is True


def test_disabled_accounts_have_no_sessions(split: SplitStore) -> None:
    """Disabled: the next request fails, and no login starts another (ASVS 7.4.2)."""
    user = UserId("d" + os.urandom(6).hex())
    split.perform(Register(user=user, identifier=f"{user.text}@example.org", hash=None))
    start = start_of(user)
    assert split.perform(start)
    disabled = split.perform(SetActive(user, active=False))
    assert disabled is not None
    assert seen(split.perform, start) is None
    assert split.perform(start_of(user, epoch=disabled.epoch)) is False
    enabled = split.perform(SetActive(user, active=True))
    assert enabled is not None
    assert split.perform(start_of(user, epoch=enabled.epoch)) is True
    assert seen(split.perform, start) is None, "what was ended stays ended"


def test_a_login_over_a_dead_session_goes_on_while_a_replica_is_away(valkey: Valkey) -> None:
    """Only what ends a session waits for the replicas: a stale cookie in the browser keeps nobody out while one is away."""
    store = ValkeyStore(valkey.url, replicas=1, timeout_seconds=0.2)  # a server that has none
    split = SplitStore(accounts=MemoryFactors(), sessions=store)
    user, other = UserId("r" + os.urandom(6).hex()), UserId("s" + os.urandom(6).hex())
    for one in (user, other):
        assert split.perform(Register(user=one, identifier=f"{one.text}@example.org", hash=None))
    stale = key_of(start_of(other))
    assert split.perform(start_of(user, ends=stale)) is True
    live = start_of(other)
    assert split.perform(live) is True
    with pytest.raises(Unavailable):  # control: this one would end a session
        split.perform(start_of(user, ends=key_of(live)))
    store.close()


def test_killed_valkey_fails_closed_and_comes_back(world: VaultWorld) -> None:
    """Killed under load: Unavailable, never "no session" and never a session; the same store works when the server does."""
    with Valkey() as server:
        store = ValkeyStore(server.url, replicas=0, timeout_seconds=0.5)
        split = SplitStore(accounts=world.vault, sessions=store)
        user = UserId("k" + os.urandom(6).hex())
        split.perform(Register(user=user, identifier=f"{user.text}@example.org", hash=None))
        start = start_of(user)
        assert split.perform(start)
        assert isinstance(seen(split.perform, start), LiveSession)
        server.stop()
        for op in (
            ResolveSession(key=key_of(start), now=NOW),
            start_of(user),
            RevokeSessions(user=user),
            Reserve((Budget(b"k", 5, timedelta(minutes=1)),), NOW),
        ):
            with pytest.raises(Unavailable) as raised:
                split.perform(op)
            assert raised.value.__cause__ is None
        before = split.perform(AccountOf(user))
        with pytest.raises(Unavailable):
            split.perform(BumpEpoch(user))
        assert split.perform(AccountOf(user)) == before, "where the sessions cannot be ended, the account is not changed either"
        server.start()
        assert seen(split.perform, start) is None, "a server that lost its memory knows no session"
        again = start_of(user)
        assert split.perform(again)
        assert isinstance(seen(split.perform, again), LiveSession)
        store.close()


def test_async_store_comes_back(loop: Loop) -> None:
    """The async form, too."""
    with Valkey() as server:
        store = AsyncValkeyStore(server.url, replicas=0, timeout_seconds=0.5)
        start = start_of(UserId("a1"))
        assert loop.run(store.perform(start))
        server.stop()
        with pytest.raises(Unavailable):
            loop.run(store.perform(ResolveSession(key=key_of(start), now=NOW)))
        server.start()
        assert loop.run(store.perform(ResolveSession(key=key_of(start), now=NOW))) is None
        loop.run(store.close())


def test_a_hanging_server_is_not_waited_for() -> None:
    """A server that accepts and says nothing is Unavailable within the timeout."""
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as listening:
        store = ValkeyStore(f"valkey://127.0.0.1:{listening.getsockname()[1]}", replicas=0, timeout_seconds=0.2)
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            store.perform(ResolveSession(key=key_of(start_of(UserId("h"))), now=NOW))
        assert time.monotonic() - begun < 3


def test_an_error_of_the_server_quotes_nothing(valkey: Valkey) -> None:
    """What Valkey says about a request is not repeated: it may quote keys or arguments."""
    import valkey as client

    user = UserId("w" + os.urandom(6).hex())
    raw: Any = client.Valkey.from_url(valkey.url)
    raw.set(f"axis:s:{{{session_route(user)}}}", "not a hash")
    store = ValkeyStore(valkey.url, replicas=0)
    with pytest.raises(Unavailable) as raised:
        store.perform(start_of(user, client="tell nobody"))
    text = str(raised.value)
    assert "tell nobody" not in text
    assert session_route(user) not in text
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    raw.close()
    store.close()


def test_no_raw_id_and_no_name_lies_in_valkey(valkey: Valkey) -> None:
    """A copy of the server's memory holds digests of ids, never an id; and budget keys as they were given."""
    import valkey as client

    user, store = UserId("n" + os.urandom(6).hex()), ValkeyStore(valkey.url, replicas=0)
    start = start_of(user)
    store.perform(start)
    raw: Any = client.Valkey.from_url(valkey.url)
    fields = raw.hgetall(f"axis:s:{{{session_route(user)}}}")
    assert {field[:2] for field in fields} == {b"s:", b"i:"}
    assert b"i:" + start.digest[1] in fields
    assert 0 < raw.ttl(f"axis:s:{{{session_route(user)}}}") <= 12 * 3600, "and it goes by itself"
    raw.close()
    store.close()


@pytest.mark.parametrize(
    "arguments",
    [
        {"urls": (), "replicas": 0},
        {"urls": ("redis://x",), "replicas": 0},
        {"urls": ("valkey://",), "replicas": 0},
        {"urls": ("valkey://x",), "replicas": -1},
        {"urls": ("valkey://x",), "replicas": 0, "timeout_seconds": 0},
    ],
)
def test_unusable_settings_are_refused(arguments: dict[str, Any]) -> None:
    """Nothing is guessed about addresses, replicas or time limits; a password in an address is not shown."""
    urls = arguments.pop("urls")
    with pytest.raises(ConfigError):
        ValkeyStore(*urls, **arguments)
    with pytest.raises(ConfigError) as raised:
        ValkeyStore(Secret("redis://:hush@x"), replicas=0)
    assert "hush" not in str(raised.value)


def test_accounts_are_not_kept_here(store: ValkeyStore) -> None:
    """An operation on accounts is refused by name, not silently dropped."""
    with pytest.raises(ConfigError, match="Register"):
        store.perform(Register(user=UserId("x"), identifier="x", hash=None))


MUTANTS: Final = {
    "an id rotates twice": ("ROTATE", "if not s or i.sup or not live(s, now)", "if not s or not live(s, now)"),
    "a dead session rotates": ("ROTATE", "or not live(s, now)", ""),
    "limits are ignored": ("RESOLVE", "if not s or not live(s, now)", "if not s"),
    "the absolute limit is ignored": ("RESOLVE", "return s.en > now and", "return"),
    "the idle limit is ignored": ("RESOLVE", "and s.se + s.id > now", ""),
    "old ids live for ever": ("RESOLVE", "i.sup + grace <= now", "false"),
    "an old id has what its successor proved": ("RESOLVE", "answer(i.h, s, i, 1)", "answer(i.h, s, s, 1)"),
    "the cap is ignored": ("START", "going[kept[n][1]] = true", ""),
    "sign-out leaves ids": ("END", "drop({[i.h] = true})", ""),
    "others are revoked, this one too": ("REVOKE", "elseif name ~= keep then", "elseif true then"),
    "another's handle is revoked": ("REVOKE", "if name == handle then going[name] = true end", ""),
    "an old epoch starts": ("START", "if ep < lowest(u) or", "if"),
    "a budget holds one more": ("RESERVE", "tat - now > window", "tat - now > window + step"),
    "a refund gives nothing back": ("REFUND", "tat = tat - step", ""),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_contract_finds_a_faulty_script(valkey: Valkey, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Negative control: each check taken out of a script is noticed by at least one case."""
    which, good, bad = MUTANTS[name]
    script = getattr(valkey_scripts, which)
    assert good in script.text
    monkeypatch.setattr(valkey_scripts, which, valkey_scripts.Script(script.text.replace(good, bad)))
    store = ValkeyStore(valkey.url, replicas=0)
    broken = []
    for case in (*session_cases.SESSION_ONLY_CASES, *session_cases.SESSION_ONLY_RACES):
        try:
            case(store.perform)
        except (NotConforming, AttributeError, TypeError):
            broken.append(case.__name__)
        if broken:
            break
    store.close()
    assert broken, f"no case notices that {name}"

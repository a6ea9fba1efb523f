"""A cluster of three primaries, each with a replica: keys on every node, a primary killed, and no revoked session comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final, Self
from uuid import uuid4

import pytest
import valkey as client
from tests.conftest import service_missing

from axis_security.auth.session_ports import (
    EndedSession,
    EndSession,
    LiveSession,
    ResolveSession,
    RevokeSessions,
    RotateSession,
    SessionKey,
    StartSession,
    session_route,
)
from axis_security.auth.store_valkey import ValkeyStore
from axis_security.core.errors import Unavailable
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance
from axis_security.testing.cluster import free_port
from axis_security.testing.servers import ServiceMissing, Valkey
from axis_security.testing.session_cases import NOW, SESSION_ONLY_CASES, SESSION_ONLY_RACES
from axis_security.testing.stores import Perform
from axis_security.testing.valkey_cluster import ValkeyCluster

_SECOND: Final = timedelta(seconds=1)
_PATIENCE: Final = 40.0


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for *holds*."""
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ask(node: Valkey, *words: str) -> Any:
    """One administrator's command to one node."""
    with contextlib.closing(client.Valkey.from_url(node.url, socket_timeout=2)) as raw:
        return raw.execute_command(*words)


class Replicated:
    """Three primaries and a replica of each."""

    def __init__(self) -> None:
        self.cluster = ValkeyCluster()
        self.replicas: list[Valkey] = []
        self._ids: list[str] = []

    def __enter__(self) -> Self:
        self.cluster.start()
        for primary in self.cluster.nodes:
            replica = Valkey(
                {
                    **primary.settings,
                    "cluster-port": str(free_port()),
                    "repl-diskless-sync-delay": "0",
                    "cluster-replica-validity-factor": "0",
                }
            )
            self.replicas.append(replica.start())
            ask(primary, "CLUSTER", "MEET", "127.0.0.1", str(replica.port), replica.settings["cluster-port"])
            self._ids.append(ask(primary, "CLUSTER", "MYID").decode())
        for replica, primary_id in zip(self.replicas, self._ids, strict=True):
            until(lambda r=replica, i=primary_id: i in str(ask(r, "CLUSTER", "NODES")), "the nodes did not meet")  # type: ignore[misc]
            ask(replica, "CLUSTER", "REPLICATE", primary_id)
        for replica in self.replicas:
            until(lambda r=replica: ask(r, "INFO", "replication").get("master_link_status") == "up", "a replica did not come up")  # type: ignore[misc]
        # Everybody must know who replicates whom, or nobody may vote.
        for node in self.cluster.nodes:
            until(lambda n=node: _count_replicas(n) == 3, "the cluster did not settle")  # type: ignore[misc]
        return self

    def __exit__(self, *_: object) -> None:
        for replica in self.replicas:
            replica.close()
        self.cluster.close()

    @property
    def urls(self) -> list[str]:
        """Addresses of the primaries."""
        return [node.url for node in self.cluster.nodes]

    def user_on(self, nth: int) -> UserId:
        """A fresh person whose sessions live on primary *nth*."""
        from valkey.crc import key_slot

        first, beyond = 16_384 * nth // 3, 16_384 * (nth + 1) // 3
        while True:
            user = UserId("f" + os.urandom(8).hex())
            if first <= key_slot(f"axis:s:{{{session_route(user)}}}".encode()) < beyond:
                return user

    def fail_over(self, nth: int) -> None:
        """Kill primary *nth* and wait until its replica serves in its place."""
        self.cluster.nodes[nth].stop()
        until(lambda: ask(self.replicas[nth], "INFO", "replication").get("role") == "master", "nobody took over")
        others = [node for n, node in enumerate(self.cluster.nodes) if n != nth]
        until(lambda: all("cluster_state:ok" in _info(node) for node in [*others, self.replicas[nth]]), "the cluster did not recover")

    def heal(self, nth: int) -> None:
        """Bring the killed primary back: it becomes the replica of the one that took over."""
        back = self.cluster.nodes[nth].start()
        until(lambda: ask(back, "INFO", "replication").get("master_link_status") == "up", "it did not come back as a replica")


def _count_replicas(node: Valkey) -> int:
    return str(ask(node, "CLUSTER", "NODES")).count("slave")


def _info(node: Valkey) -> str:
    return str(ask(node, "CLUSTER", "INFO")).replace("': '", ":")


def started(perform: Perform, user: UserId) -> StartSession:
    """A login."""
    start = StartSession(
        user=user, handle=uuid4(), digest=("k1", os.urandom(32)), epoch=0, now=NOW, idle=timedelta(hours=1), lifetime=timedelta(hours=12),
        assurance=Assurance.AAL1, methods=("password",),
    )  # fmt: skip
    assert perform(start)
    return start


def key_of(start: StartSession) -> SessionKey:
    """What its browser presents."""
    return SessionKey(session_route(start.user), (start.digest,))


def who(store: ValkeyStore, start: StartSession) -> Any:
    """Who the session is."""
    return store.perform(ResolveSession(key=key_of(start), now=NOW + _SECOND))


def repeated(act: Callable[[], Any]) -> Any:
    """Repeat *act* until it returns."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return act()
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Replicated]:
    """The cluster; each test that kills a primary kills another one."""
    try:
        made = Replicated()
    except ServiceMissing as missing:
        service_missing(missing)
    with made:
        yield made


def test_the_contract_holds_on_a_cluster(nodes: Replicated) -> None:
    """Every case and race, on keys that lie on all nodes, each change confirmed by a replica."""
    store = ValkeyStore(nodes.cluster.url, replicas=1)
    for case in (*SESSION_ONLY_CASES, *SESSION_ONLY_RACES):
        case(store.perform)
    for nth in range(3):
        assert isinstance(who(store, started(store.perform, nodes.user_on(nth))), LiveSession)
    store.close()


def test_no_revoked_session_comes_back(nodes: Replicated) -> None:
    """A primary is killed right after sessions were ended in four ways: on the replica that takes over they are dead, and the others live.

    The same store goes on without a restart.
    """
    store = ValkeyStore(nodes.cluster.url, replicas=1, timeout_seconds=1)
    people = [nodes.user_on(0) for _ in range(40)]
    kept = [started(store.perform, user) for user in people]
    signed_out, revoked, rotated = ([started(store.perform, user) for user in people] for _ in range(3))
    gone_people = [nodes.user_on(0) for _ in range(10)]
    everything = [started(store.perform, user) for user in gone_people]
    for out, device, old in zip(signed_out, revoked, rotated, strict=True):
        assert isinstance(store.perform(EndSession(key_of(out))), EndedSession)
        assert store.perform(RevokeSessions(user=device.user, handle=device.handle)) == 1
        assert store.perform(RotateSession(key=key_of(old), digest=("k1", os.urandom(32)), now=NOW)) is not None
    for user in gone_people:
        assert store.perform(RevokeSessions(user=user, epoch=1)) == 1
    nodes.fail_over(0)
    assert isinstance(repeated(lambda: who(store, kept[0])), LiveSession)
    assert {type(who(store, start)) for start in kept} == {LiveSession}
    assert [who(store, start) for start in (*signed_out, *revoked, *everything)] == [None] * 90
    assert {who(store, start).superseded for start in rotated} == {True}, "an id that was rotated is still superseded"
    assert all(started_again(store, user) is False for user in gone_people), "nor can a login of the old epoch finish"
    fresh = started(store.perform, nodes.user_on(0))
    assert isinstance(who(store, fresh), LiveSession), "logins go on without the replica"
    with pytest.raises(Unavailable, match="replica"):
        store.perform(EndSession(key_of(fresh)))
    with pytest.raises(Unavailable, match="replica"):
        store.perform(EndSession(key_of(fresh)))
    assert who(store, fresh) is None, (
        "an end that no replica has is not called done, the second time neither, though nothing was left to end"
    )
    nodes.heal(0)
    assert repeated(lambda: store.perform(EndSession(key_of(fresh)))) is None, (
        "with the replica back it is done, without a restart of anything"
    )
    store.close()


def started_again(store: ValkeyStore, user: UserId) -> bool:
    """Whether a login that began before everything was revoked still gets a session."""
    return bool(
        store.perform(
            StartSession(
                user=user, handle=uuid4(), digest=("k1", os.urandom(32)), epoch=0, now=NOW, idle=timedelta(hours=1),
                lifetime=timedelta(hours=12), assurance=Assurance.AAL1, methods=("password",),
            )
        )
    )  # fmt: skip


def test_a_revocation_that_no_replica_has_is_not_called_done(nodes: Replicated) -> None:
    """With the replica cut off, revoking raises. Control: a store told to wait for nobody says "done", and after the failover the session is back."""
    careful, careless = (ValkeyStore(*nodes.urls, replicas=n, timeout_seconds=1) for n in (1, 0))
    first, second = (started(careful.perform, nodes.user_on(1)) for _ in range(2))
    os.kill(nodes.replicas[1].pid, signal.SIGSTOP)
    try:
        # Its connection goes as well, so that nothing waits in a buffer for it.
        ask(nodes.cluster.nodes[1], "CLIENT", "KILL", "TYPE", "replica")
        with pytest.raises(Unavailable, match="replica"):
            careful.perform(RevokeSessions(user=first.user))
        assert who(careful, first) is None, "on the primary it has happened"
        assert careless.perform(RevokeSessions(user=second.user)) == 1
        nodes.cluster.nodes[1].stop()
    finally:
        os.kill(nodes.replicas[1].pid, signal.SIGCONT)
    nodes.fail_over(1)
    assert isinstance(repeated(lambda: who(careless, second)), LiveSession), "the control: called done, and undone by the failover"
    assert isinstance(repeated(lambda: who(careful, first)), LiveSession), "the caller was told that this could happen"
    nodes.heal(1)
    assert repeated(lambda: careful.perform(RevokeSessions(user=first.user))) == 1, "repeated until it returns, as the module says"
    assert who(careful, first) is None
    careful.close()
    careless.close()


def test_a_primary_without_replicas_answers_nobody() -> None:
    """With `min-replicas-to-write`, a primary that is cut off refuses to say who a session is, not only to change it."""
    with Valkey({"min-replicas-to-write": "1", "min-replicas-max-lag": "1"}) as alone:
        store = ValkeyStore(alone.url, replicas=1)
        with pytest.raises(Unavailable, match="NOREPLICAS"):
            store.perform(ResolveSession(key=SessionKey("A" * 12, (("k1", b"\0" * 32),)), now=NOW))
        store.close()

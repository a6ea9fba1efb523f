"""The key ring at its edges: the second a limit falls on, what two processes do to one another, what is asked of whom, and what is told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import EventKind
from axis_security.core.ids import TenantId
from axis_security.core.secret import Secret
from axis_security.crypto import keyring
from axis_security.crypto.errors import KeyMissing, KeyShredded, KmsRefused, KmsUnavailable
from axis_security.crypto.keyring import CachePolicy, RotationPolicy
from axis_security.crypto.keys import KeyRecord, KeyState
from axis_security.crypto.stream import ObjectName
from axis_security.testing.crypto import KekState

from .test_keyring import ACME, FIELD, GLOBEX, Bench, bench

__all__ = ["bench"]

NEW = TenantId("new")
OBJECT = ObjectName(tenant="acme", bucket="files", key="a")


def unknown(bench: Bench, tenant: TenantId, key_id: int = 99) -> bytes:
    """A value that names a key that is not there."""
    sealed = bytearray(bench.ring.seal(b"x", tenant=tenant, field=FIELD))
    sealed[2:6] = key_id.to_bytes(4, "big")
    return bytes(sealed)


# --- limits


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ({"ttl": timedelta(hours=1)}, {"ttl": timedelta(hours=1, microseconds=1)}),
        ({"ttl": timedelta(microseconds=1)}, {"ttl": timedelta(0)}),
        ({"ceiling": timedelta(days=1)}, {"ceiling": timedelta(days=1, microseconds=1)}),
        ({"ceiling": timedelta(0)}, {"ceiling": timedelta(microseconds=-1)}),
        ({"tenants": 1}, {"tenants": 0}),
        ({"missing": timedelta(0)}, {"missing": timedelta(microseconds=-1)}),
        ({"missing": timedelta(hours=1)}, {"missing": timedelta(hours=1, microseconds=1)}),
    ],
)
def test_each_limit_of_the_cache_holds_at_its_edge(inside: dict[str, Any], outside: dict[str, Any]) -> None:
    """The last value that is allowed, and the first that is not."""
    CachePolicy(**inside)
    with pytest.raises(ConfigError):
        CachePolicy(**outside)


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ({"uses": 1}, {"uses": 0}),
        ({"uses": 2**31}, {"uses": 2**31 + 1}),
        ({"age": timedelta(microseconds=1)}, {"age": timedelta(0)}),
    ],
)
def test_each_limit_of_rotation_holds_at_its_edge(inside: dict[str, Any], outside: dict[str, Any]) -> None:
    """A key that is never due, or due beyond what NIST SP 800-38D allows, cannot be asked for."""
    RotationPolicy(**inside)
    with pytest.raises(ConfigError):
        RotationPolicy(**outside)


def test_uses_are_counted_one_by_one_and_written_by_the_4096(tmp_path: Path) -> None:
    """Nothing is written before, all of it then, and the count here begins at nothing again."""
    bench = Bench(tmp_path, rotation=RotationPolicy(uses=4097))
    bench.ring.create(ACME)
    for _ in range(4095):
        bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.store.load("acme")[0].uses == 0
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.store.load("acme")[0].uses == 4096
    assert not bench.ring.due(ACME)
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.ring.due(ACME)
    assert not bench.process().due(ACME), "a process that has sealed nothing adds nothing"


def test_one_use_counts_as_one(tmp_path: Path) -> None:
    """98 in the store and one here are 99 of 100; none here and 99 there, too."""
    bench = Bench(tmp_path, rotation=RotationPolicy(uses=100))
    bench.ring.create(ACME)
    bench.store.add_uses("acme", 1, 98)
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert not bench.ring.due(ACME)
    bench.store.add_uses("acme", 1, 1)
    assert bench.ring.due(ACME)
    assert not bench.process().due(ACME)


def test_what_was_counted_is_written_when_the_keys_are_read_again(bench: Bench) -> None:
    """A quiet tenant's uses reach the store with the ttl, not with the 4,096th only."""
    for _ in range(10):
        bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.time.seconds += 300
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.store.load("acme")[0].uses == 10


def test_a_store_that_does_not_count_stops_nobody(bench: Bench) -> None:
    """The counter is approximate: it is kept here and written with the next 4,096, or when the keys are read again; not tried at each value."""
    kept, tries = bench.store.add_uses, list[int]()

    def down(tenant: str, key_id: int, count: int) -> None:
        tries.append(count)
        raise Unavailable(what="the store is down", why="test", fix="wait")

    bench.store.add_uses = down  # type: ignore[method-assign]
    for _ in range(4097):
        bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert tries == [4096]
    bench.store.add_uses = kept  # type: ignore[method-assign]
    bench.time.seconds += 300
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.store.load("acme")[0].uses == 4097


# --- time


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda bench, sealed: bench.ring.open(sealed, tenant=ACME, field=FIELD), id="open"),
        pytest.param(lambda bench, sealed: bench.ring.seal(b"x", tenant=ACME, field=FIELD), id="seal"),
        pytest.param(lambda bench, sealed: bench.ring.object(OBJECT), id="object"),
        pytest.param(lambda bench, sealed: bench.ring.subkey(ACME, "backup"), id="subkey"),
    ],
)
def test_keys_are_read_again_at_the_ttl_and_not_before(bench: Bench, use: Any) -> None:
    """A second before five minutes nobody is asked; at five minutes store and service are asked once."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    use(bench, sealed)
    bench.time.seconds += 299
    loads, unwraps = bench.store.loads, bench.kms.unwraps
    use(bench, sealed)
    assert (bench.store.loads, bench.kms.unwraps) == (loads, unwraps)
    bench.time.seconds += 1
    use(bench, sealed)
    assert (bench.store.loads, bench.kms.unwraps) == (loads + 1, unwraps + 1)


def test_a_silent_key_service_is_survived_until_the_ceiling_and_not_at_it(bench: Bench) -> None:
    """A second before ttl + ceiling the keys in memory serve; at it they do not."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.kms.state = KekState.DOWN
    bench.time.seconds += 300 + 3600 - 1
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"
    bench.time.seconds += 1
    with pytest.raises(KmsUnavailable):
        bench.ring.open(sealed, tenant=ACME, field=FIELD)


def test_a_tenant_without_keys_is_looked_at_again_after_five_seconds(bench: Bench) -> None:
    """Another process may give it some at any moment: not five minutes, and not at each call."""
    for _ in range(2):
        with pytest.raises(KeyMissing):
            bench.ring.seal(b"x", tenant=NEW, field=FIELD)
    bench.process().create(NEW)
    with pytest.raises(KeyMissing):
        bench.ring.seal(b"x", tenant=NEW, field=FIELD)
    bench.time.seconds += 5
    assert bench.ring.seal(b"x", tenant=NEW, field=FIELD)


def test_an_unknown_key_is_looked_for_again_after_five_seconds(bench: Bench) -> None:
    """Within them it is believed to be missing; at five seconds the store is asked once more; forgetting a tenant forgets its own only."""
    values = {tenant: unknown(bench, tenant) for tenant in (ACME, GLOBEX)}

    def looks(tenant: TenantId) -> int:
        before = bench.store.loads
        with pytest.raises(KeyMissing):
            bench.ring.open(values[tenant], tenant=tenant, field=FIELD)
        return bench.store.loads - before

    assert [looks(ACME), looks(GLOBEX), looks(ACME)] == [1, 1, 0]
    bench.time.seconds += 4.9
    assert looks(ACME) == 0
    bench.time.seconds += 0.1
    assert looks(ACME) == 1
    assert looks(GLOBEX) == 1
    bench.ring.forget(ACME)
    assert looks(GLOBEX) == 0
    assert looks(ACME) == 2, "its keys, and the one that is not there"


def test_what_is_remembered_as_missing_is_bounded(bench: Bench) -> None:
    """Whoever sends made-up ids fills no memory: at a hundred of a tenant's all are let go."""
    sizes = []
    for key_id in range(1000, 1102):
        with pytest.raises(KeyMissing):
            bench.ring.object(OBJECT, key_id=key_id)
        sizes.append(len(bench.ring._keys.get("acme").missing))
    assert sizes[98:] == [99, 100, 1, 2]


def test_the_tenant_read_again_last_stays_longest(tmp_path: Path) -> None:
    """A reload counts as use: of two tenants the one whose keys were read again is not the one that gives way."""
    bench = Bench(tmp_path, cache=CachePolicy(tenants=2))
    for tenant in (ACME, GLOBEX, NEW):
        bench.ring.create(tenant)
    ring = bench.process()
    ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.time.seconds += 200
    ring.seal(b"x", tenant=GLOBEX, field=FIELD)
    bench.time.seconds += 100
    ring.seal(b"x", tenant=ACME, field=FIELD)
    ring.seal(b"x", tenant=NEW, field=FIELD)
    unwraps = bench.kms.unwraps
    ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.kms.unwraps == unwraps
    ring.seal(b"x", tenant=GLOBEX, field=FIELD)
    assert bench.kms.unwraps == unwraps + 1


# --- two processes, two threads


def test_a_tenant_has_its_first_key_once_and_rotation_may_make_it(bench: Bench) -> None:
    """`create` again answers the key that is there; `rotate` of a tenant without one gives it its first."""
    assert bench.ring.create(ACME) == 1
    assert bench.process().create(ACME) == 1
    assert bench.ring.rotate(NEW) == 1
    assert list(bench.ring.tenants()) == ["acme", "globex", "new"]


def test_rotation_reads_what_another_process_has_done_first(bench: Bench) -> None:
    """Within the ttl of what this one remembers, the other's rotation is not undone and not taken for its own."""
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.process().rotate(ACME) == 2
    assert bench.ring.rotate(ACME) == 3


def test_a_key_that_another_process_made_and_shredded_is_told_as_shredded(bench: Bench) -> None:
    """Looked up because it is unknown here: shredded is the answer, not a failure of the key service."""
    other = bench.process()
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    other.rotate(ACME)
    value = other.seal(b"x", tenant=ACME, field=FIELD)
    bench.store.shred("acme", [2])
    with pytest.raises(KeyShredded):
        bench.ring.open(value, tenant=ACME, field=FIELD)


def test_what_only_the_store_says_was_shredded_is_shredded(bench: Bench) -> None:
    """The ledger is the second witness, not the only one."""
    bench.store.shred("acme", [1])
    for act in (lambda: bench.process().seal(b"x", tenant=ACME, field=FIELD), lambda: bench.process().object(OBJECT)):
        with pytest.raises(KeyShredded):
            act()


def test_a_tenant_that_is_given_its_first_key_just_now_is_looked_at_again_soon(bench: Bench) -> None:
    """Read between another process' two steps, a key that seals nothing yet is no answer for five minutes."""
    other, kept = bench.process(), bench.store.activate

    def activate(tenant: str, key_id: int) -> bool:
        with pytest.raises(KeyMissing):
            bench.ring.seal(b"x", tenant=NEW, field=FIELD)
        return kept(tenant, key_id)

    bench.store.activate = activate  # type: ignore[method-assign]
    assert other.create(NEW) == 1
    bench.time.seconds += 5
    assert bench.ring.seal(b"x", tenant=NEW, field=FIELD)


def test_two_processes_that_give_a_tenant_its_first_key_both_have_one(bench: Bench) -> None:
    """The one that had looked before, and comes in the middle of the first one's two steps, makes another: nobody is told that key 0 is active."""
    other, kept, made = bench.process(), bench.store.activate, list[int]()
    with pytest.raises(KeyMissing):
        other.seal(b"x", tenant=NEW, field=FIELD)

    def activate(tenant: str, key_id: int) -> bool:
        bench.store.activate = kept  # type: ignore[method-assign]
        made.append(other.create(NEW))
        return kept(tenant, key_id)

    bench.store.activate = activate  # type: ignore[method-assign]
    made.append(bench.ring.create(NEW))
    value = other.seal(b"x", tenant=NEW, field=FIELD)
    assert made == [2, 1]
    assert bench.ring.open(value, tenant=NEW, field=FIELD) == b"x"


def test_two_rotations_at_once_are_each_told_a_new_key(bench: Bench) -> None:
    """The one that loses the race for an id is not told the old key's."""
    other, kept, made = bench.process(), bench.store.insert, list[int]()

    def insert(record: KeyRecord) -> bool:
        bench.store.insert = kept  # type: ignore[method-assign]
        made.append(other.rotate(ACME))
        return kept(record)

    bench.store.insert = insert  # type: ignore[method-assign]
    made.append(bench.ring.rotate(ACME))
    assert made == [2, 2], "the other's key is new to this one too"
    bench.store.insert = lambda record: False if kept(replace(record, key_id=record.key_id + 20)) else kept(record)  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="no new key"):
        bench.ring.rotate(ACME)


def test_a_rotation_that_began_before_a_shredding_gives_no_key_after_it(bench: Bench) -> None:
    """Its key comes to the store when all others are gone: it stays without effect, and the tenant stays shredded."""
    other, kept = bench.process(), bench.store.insert

    def insert(record: KeyRecord) -> bool:
        bench.store.insert = kept  # type: ignore[method-assign]
        other.shred(ACME, reason="DSR-17")
        return kept(record)

    bench.store.insert = insert  # type: ignore[method-assign]
    with pytest.raises(KeyShredded):
        bench.ring.rotate(ACME)
    assert [record.state for record in bench.store.load("acme")] == [KeyState.SHREDDED, KeyState.PENDING]
    with pytest.raises(KeyShredded):
        bench.process().seal(b"x", tenant=ACME, field=FIELD)


def test_a_bad_row_that_was_shredded_takes_no_tenant_with_it(bench: Bench) -> None:
    """Planted and activated by injected SQL it stops sealing; shredded by the system role alone, it leaves the old key opening and a new one to come."""
    value = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    good = bench.store.load("acme")[0]
    assert bench.store.insert(replace(good, key_id=2, state=KeyState.PENDING, wrapped=b"planted"))
    assert bench.store.activate("acme", 2)
    with pytest.raises(KmsRefused):
        bench.process().seal(b"x", tenant=ACME, field=FIELD)
    bench.store.shred("acme", [2])
    ring = bench.process()
    assert ring.open(value, tenant=ACME, field=FIELD) == b"x"
    with pytest.raises(KeyMissing):
        ring.seal(b"x", tenant=ACME, field=FIELD)
    assert ring.rotate(ACME) == 3
    assert ring.open(ring.seal(b"y", tenant=ACME, field=FIELD), tenant=ACME, field=FIELD) == b"y"


def test_threads_that_wait_for_one_another_get_the_same_keys(bench: Bench) -> None:
    """While one opens a slow key, others wait for it; then all seal, and the service was asked once."""
    ring, kept = bench.process(), bench.kms.unwrap

    def slow(wrapped: bytes, context: Mapping[str, str]) -> Secret[bytes]:
        time.sleep(0.1)
        return kept(wrapped, context)

    bench.kms.unwrap = slow  # type: ignore[method-assign]
    unwraps, made = bench.kms.unwraps, list[bytes]()
    threads = [threading.Thread(target=lambda: made.append(ring.seal(b"x", tenant=ACME, field=FIELD))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ring.open(value, tenant=ACME, field=FIELD) for value in made] == [b"x"] * 4
    assert bench.kms.unwraps == unwraps + 1


def test_keys_read_while_the_tenant_was_forgotten_serve_once(bench: Bench) -> None:
    """A rotation or shredding told of in the middle of a load: what was read may be from before, so the next use reads again."""
    ring, kept = bench.process(), bench.store.load

    def load(tenant: str) -> Sequence[KeyRecord]:
        found = kept(tenant)
        bench.store.load = kept  # type: ignore[method-assign]
        ring.forget(ACME)
        return found

    bench.store.load = load  # type: ignore[method-assign]
    assert ring.seal(b"x", tenant=ACME, field=FIELD)
    loads = bench.store.loads
    ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.store.loads == loads + 1


def test_warming_opens_the_keys_or_says_why_not(bench: Bench) -> None:
    """After it sealing asks nobody; who has no keys, or whose service refuses, is told at once."""
    ring = bench.process()
    asyncio.run(ring.awarm(ACME))
    unwraps = bench.kms.unwraps
    ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.kms.unwraps == unwraps
    with pytest.raises(KeyMissing):
        asyncio.run(ring.awarm(NEW))
    bench.ring.shred(GLOBEX, reason="DSR-18")
    with pytest.raises(KeyShredded):
        asyncio.run(ring.awarm(GLOBEX))
    bench.kms.state = KekState.DISABLED
    bench.time.seconds += 300
    with pytest.raises(KmsRefused):
        asyncio.run(ring.awarm(ACME))


def test_warming_opens_old_keys_too(bench: Bench) -> None:
    """A value that an earlier key sealed would otherwise hold up the event loop; what was shredded, or never sealed anything, is left."""
    old = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    for _ in range(3):
        bench.ring.rotate(ACME)
    bench.store.shred("acme", [2])
    planted = bench.store.load("acme")[0]
    assert bench.store.insert(replace(planted, key_id=9, state=KeyState.PENDING))
    ring, unwraps = bench.process(), bench.kms.unwraps
    asyncio.run(ring.awarm(ACME))
    assert bench.kms.unwraps == unwraps + 3
    bench.kms.state = KekState.DOWN
    assert ring.open(old, tenant=ACME, field=FIELD) == b"x"


def test_a_warm_value_is_opened_without_reading_its_header(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a list of a thousand rows: the key is found by the header's bytes, and checked by the cipher."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)

    def read(*_: Any, **__: Any) -> None:
        raise LookupError("the header was read")

    monkeypatch.setattr(keyring, "read_header", read)
    assert bench.ring.open(sealed, tenant=ACME, field=FIELD) == b"x"


# --- shredding, probing, telling


def test_shredding_asks_first_whether_it_can(bench: Bench) -> None:
    """A store that will not shred is found out before the ledger says that it did."""
    kept = bench.store.shred

    def refuse(tenant: str, key_ids: Sequence[int]) -> int:
        raise Unavailable(what="not the system role", why="test", fix="use it")

    bench.store.shred = refuse  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        bench.ring.shred(ACME, reason="DSR-17")
    assert bench.ledger.shredded() == {}
    bench.store.shred = kept  # type: ignore[method-assign]
    assert bench.ring.shred(ACME, reason="DSR-17") == 1
    assert bench.store.load("acme")[0].state is KeyState.SHREDDED


@pytest.mark.parametrize(("reason", "taken"), [("DSR", False), ("  DSR  ", False), ("DSR1", True), ("x" * 512, True), ("x" * 513, False)])
def test_a_reason_for_shredding_has_four_characters(bench: Bench, reason: str, taken: bool) -> None:
    """Fewer explain nothing to whoever reads the log; blanks do not count. More than the log takes is refused before anything is destroyed."""
    if taken:
        assert bench.ring.shred(ACME, reason=reason) == 1
    else:
        with pytest.raises(ConfigError):
            bench.ring.shred(ACME, reason=reason)
        assert bench.ring.seal(b"x", tenant=ACME, field=FIELD)


def test_shredding_reaches_a_key_that_was_made_meanwhile(bench: Bench) -> None:
    """Another process rotates between the look and the deed: its key goes too, and the ledger knows both."""
    other, kept = bench.process(), bench.store.load

    def load(tenant: str) -> Sequence[KeyRecord]:
        found = kept(tenant)
        bench.store.load = kept  # type: ignore[method-assign]
        assert other.rotate(ACME) == 2
        return found

    bench.store.load = load  # type: ignore[method-assign]
    assert bench.ring.shred(ACME, reason="DSR-17") == 2
    assert {record.state for record in kept("acme")} == {KeyState.SHREDDED}
    assert bench.ledger.shredded() == {"acme": frozenset({1, 2})}
    assert bench.ring.shred(ACME, reason="DSR-17") == 0
    told = [event.detail for event in bench.sink.events if event.kind is EventKind.KEY_SHREDDED]
    assert told == [{"key_id": 1}, {"key_id": 2}]


def test_shredding_does_not_go_on_for_ever(bench: Bench) -> None:
    """Somebody who makes keys as fast as they are shredded is told of, not followed."""
    kept = bench.store.shred

    def shred(tenant: str, key_ids: Sequence[int]) -> int:
        done = kept(tenant, key_ids)
        last = bench.store.load(tenant)[-1]
        if key_ids:
            bench.store.insert(replace(last, key_id=last.key_id + 1, state=KeyState.PENDING, wrapped=b"x"))
        return done

    bench.store.shred = shred  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="has keys still"):
        bench.ring.shred(ACME, reason="DSR-17")
    assert bench.ledger.shredded() == {"acme": frozenset(range(1, 6))}


@pytest.mark.parametrize("fault", ["store", "sink"])
def test_after_the_ledger_no_key_in_memory_serves(bench: Bench, fault: str) -> None:
    """What fails behind the ledger's line, the store or the log, does not leave the ring sealing for the rest of the ttl."""
    value = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    kept = bench.store.shred

    def down(*_: Any) -> Any:
        raise Unavailable(what="down", why="test", fix="wait")

    if fault == "store":
        bench.store.shred = lambda tenant, key_ids: kept(tenant, key_ids) if not key_ids else down()  # type: ignore[method-assign]
    else:
        bench.sink.emit = down  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable):
        bench.ring.shred(ACME, reason="DSR-17")
    with pytest.raises(KeyShredded):
        bench.ring.open(value, tenant=ACME, field=FIELD)
    with pytest.raises(KeyShredded):
        bench.ring.seal(b"x", tenant=ACME, field=FIELD)


def test_a_probe_asks_the_key_service_now(bench: Bench) -> None:
    """Warm keys hide that the service was disabled; the probe does not."""
    assert bench.ring.probe() == "fake/1"
    bench.kms.state = KekState.DISABLED
    with pytest.raises(KmsRefused):
        bench.ring.probe()
    bench.kms.state = KekState.LIES
    with pytest.raises(KmsUnavailable, match="does not give back"):
        bench.ring.probe()


def test_a_key_of_another_length_is_refused(bench: Bench) -> None:
    """AES-256 has 32 bytes: what the service gives beside that opens nothing, and no shorter root is made of it."""
    for length in (0, 16, 31, 33):
        bench.kms.unwrap = lambda wrapped, context, length=length: Secret(bytes(length))  # type: ignore[method-assign,misc]
        with pytest.raises(KmsUnavailable, match="another length"):
            bench.process().seal(b"x", tenant=ACME, field=FIELD)


def test_keys_that_come_and_change_are_told(bench: Bench) -> None:
    """Created: suite and kek; rotated: which key it was before."""
    bench.ring.rotate(ACME)
    told = [(event.kind, dict(event.detail)) for event in bench.sink.events if event.tenant == ACME]
    assert told == [
        (EventKind.KEY_CREATED, {"key_id": 1, "suite": 1, "kek": "fake/1"}),
        (EventKind.KEY_ROTATED, {"key_id": 2, "previous": 1}),
    ]

"""Keys in memory: whose turn it is to ask, what a failure costs those who waited, and what a restore does not bring back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from axis_security.core.errors import AxisError, Unavailable
from axis_security.core.ids import TenantId
from axis_security.core.secret import Secret
from axis_security.crypto.errors import KeyMissing, KeyShredded, KmsRefused, KmsUnavailable
from axis_security.crypto.keys import KeyRecord
from axis_security.testing.crypto import KekState

from .test_keyring import ACME, FIELD, GLOBEX, Bench, bench

__all__ = ["bench"]


def crowd(count: int, work: Callable[[], object]) -> list[AxisError]:
    """What *count* threads are told that do *work* at once."""
    told, ready = list[AxisError](), threading.Barrier(count)

    def one() -> None:
        ready.wait()
        try:
            work()
        except AxisError as error:
            told.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def slow(bench: Bench) -> None:
    """The key service takes its time to fail."""
    kept = bench.kms.unwrap

    def unwrap(wrapped: bytes, context: Mapping[str, str]) -> Secret[bytes]:
        time.sleep(0.3)
        return kept(wrapped, context)

    bench.kms.unwrap, bench.kms.state = unwrap, KekState.DOWN  # type: ignore[method-assign]


def test_who_waited_for_a_failure_is_told_it_and_does_not_ask_again(bench: Bench) -> None:
    """Eight threads on a cold key wait for one timeout of the key service, not for eight in turn; whoever comes later asks anew."""
    ring = bench.process()
    slow(bench)
    unwraps = bench.kms.unwraps
    told = crowd(8, lambda: ring.seal(b"x", tenant=ACME, field=FIELD))
    assert [type(error) for error in told] == [KmsUnavailable] * 8
    assert len({id(error) for error in told}) == 8, "each thread has an error of its own to add its traceback to"
    assert {str(error) for error in told} == {str(told[0])}
    assert bench.kms.unwraps == unwraps + 1
    with pytest.raises(KmsUnavailable):
        ring.seal(b"x", tenant=ACME, field=FIELD)
    assert bench.kms.unwraps == unwraps + 2
    bench.kms.state = KekState.ENABLED
    assert ring.seal(b"x", tenant=ACME, field=FIELD)


def test_so_it_is_with_a_key_that_only_opens(bench: Bench) -> None:
    """An old key that the service does not open now costs those who want it one wait, and those who want another key none."""
    value = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.ring.rotate(ACME)
    ring = bench.process()
    new = ring.seal(b"y", tenant=ACME, field=FIELD)
    slow(bench)
    unwraps = bench.kms.unwraps
    told = crowd(8, lambda: ring.open(value, tenant=ACME, field=FIELD))
    assert [type(error) for error in told] == [KmsUnavailable] * 8
    assert bench.kms.unwraps == unwraps + 1
    assert ring.open(new, tenant=ACME, field=FIELD) == b"y"
    bench.kms.state = KekState.ENABLED
    assert ring.open(value, tenant=ACME, field=FIELD) == b"x"
    assert bench.kms.unwraps == unwraps + 2


def test_who_waited_for_an_old_key_shares_it(bench: Bench) -> None:
    """Eight threads, one call."""
    value = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.ring.rotate(ACME)
    ring = bench.process()
    ring.seal(b"y", tenant=ACME, field=FIELD)
    slow(bench)
    bench.kms.state = KekState.ENABLED
    unwraps = bench.kms.unwraps
    assert crowd(8, lambda: ring.open(value, tenant=ACME, field=FIELD)) == []
    assert bench.kms.unwraps == unwraps + 1


def test_a_slow_old_key_holds_nobody_up_who_wants_another(bench: Bench) -> None:
    """While the service takes its time over key 1, the tenant's keys are read and its new key opened."""
    value = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.ring.rotate(ACME)
    ring = bench.process()
    ring.seal(b"y", tenant=ACME, field=FIELD)
    kept, asked, sealed = bench.kms.unwrap, threading.Event(), threading.Event()
    late: list[bool] = []

    def unwrap(wrapped: bytes, context: Mapping[str, str]) -> Secret[bytes]:
        if context["key_id"] == "1":
            asked.set()
            late.append(not sealed.wait(10))
        return kept(wrapped, context)

    bench.kms.unwrap = unwrap  # type: ignore[method-assign]
    opener = threading.Thread(target=lambda: ring.open(value, tenant=ACME, field=FIELD))
    opener.start()
    assert asked.wait(10)
    ring.forget(ACME)
    ring.seal(b"y", tenant=ACME, field=FIELD)
    sealed.set()
    opener.join()
    assert late == [False]


def test_a_failure_of_the_store_is_shared_as_well(bench: Bench) -> None:
    """A pool that has no connection to give makes everybody wait once."""
    ring, asked = bench.process(), list[str]()

    def load(tenant: str) -> Sequence[KeyRecord]:
        asked.append(tenant)
        time.sleep(0.3)
        raise Unavailable(what="down", why="test", fix="wait")

    bench.store.load = load  # type: ignore[method-assign]
    assert len(crowd(8, lambda: ring.seal(b"x", tenant=ACME, field=FIELD))) == 8
    assert asked == ["acme"]


def test_a_refusal_is_asked_for_once_and_told_to_whoever_wants_the_tenant(bench: Bench) -> None:
    """A key service that said no is not asked a second time for the same value, and `create` does not answer that all is well."""
    ring = bench.process()
    bench.kms.state = KekState.DISABLED
    acts: list[Callable[[], Any]] = [
        lambda: ring.seal(b"x", tenant=ACME, field=FIELD),
        lambda: ring.create(ACME),
        lambda: ring.rotate(ACME),
    ]
    for act in acts:
        unwraps = bench.kms.unwraps
        with pytest.raises(KmsRefused):
            act()
        assert bench.kms.unwraps == unwraps + 1


def test_what_is_kept_does_not_grow_with_the_tenants_that_came_by(bench: Bench) -> None:
    """Beside the keys themselves, which are bounded, nothing stays of a tenant that was looked for."""
    for n in range(50):
        with pytest.raises(KeyMissing):
            bench.ring.seal(b"x", tenant=TenantId(f"nobody{n}"), field=FIELD)
    assert len(bench.ring._keys._turns) == 0


def test_a_key_looked_for_again_is_looked_for_in_the_ledger_too(bench: Bench) -> None:
    """Made elsewhere after this process had read, then shredded, then brought back by a restore: the ledger's word stands."""
    other = bench.process()
    bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    other.rotate(ACME)
    value = other.seal(b"x", tenant=ACME, field=FIELD)
    backup = bench.store.snapshot()
    other.shred(ACME, reason="DSR-17")
    bench.store.restore(backup)
    with pytest.raises(KeyShredded):
        bench.ring.open(value, tenant=ACME, field=FIELD)


def test_a_restore_to_before_the_first_key_does_not_make_the_tenant_new(bench: Bench) -> None:
    """The store knows nothing of it, the ledger does: shredded is what is told, to whoever seals, opens or makes a key."""
    sealed = bench.ring.seal(b"x", tenant=ACME, field=FIELD)
    bench.ring.shred(ACME, reason="DSR-17")
    bench.store.restore({})
    ring = bench.process()
    acts: list[Callable[[], Any]] = [
        lambda: ring.seal(b"x", tenant=ACME, field=FIELD),
        lambda: ring.open(sealed, tenant=ACME, field=FIELD),
        lambda: ring.subkey(ACME, "backup"),
        lambda: ring.create(ACME),
        lambda: ring.rotate(ACME),
    ]
    for act in acts:
        with pytest.raises(KeyShredded):
            act()
    with pytest.raises(KeyMissing):
        ring.seal(b"x", tenant=GLOBEX, field=FIELD)

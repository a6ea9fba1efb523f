"""A tenant's keys in memory: opened once, kept for a bounded time, and gone as soon as the ring is told so.

A warm tenant asks nobody. A cold one is read by one thread, however many want it, and those who waited share its answer, a no included: a key service
that takes five seconds to fail costs its callers five seconds, not five for each of them in turn. If the service is silent, keys in memory go on for a
bounded time, and then the answer is no. If it refuses, it is no at the end of the ttl.
"""

from __future__ import annotations

import copy
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.secret import Secret
from axis_security.crypto.envelope import SUITE_AES256_GCM, FieldCipher
from axis_security.crypto.errors import KeyMissing, KeyShredded, KmsRefused, KmsUnavailable, UnknownFormat
from axis_security.crypto.keys import ROOT_BYTES, KeyRecord, KeyService, KeyState, KeyStore, ShredLedger, wrap_context

__all__ = ["CachePolicy"]

T = TypeVar("T")

_LIVING: Final = frozenset({KeyState.ACTIVE, KeyState.DECRYPT_ONLY})
_MISSING_IDS: Final = 100
"""How many ids that are not there are remembered for a tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """How long opened keys stay in memory.

    Args:
        ttl: after this, a tenant's records are read again and its keys opened again.
        ceiling: how long beyond its ttl a key may serve while the key service does not answer.
        tenants: how many tenants' keys are kept; whose were read longest ago goes first.
        missing: how long "no such key" is believed.

    Raises:
        ConfigError: a value is out of range.
    """

    ttl: timedelta = timedelta(minutes=5)
    ceiling: timedelta = timedelta(hours=1)
    tenants: int = 1_000
    missing: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        zero, hour = timedelta(0), timedelta(hours=1)
        usable = zero < self.ttl <= hour and zero <= self.ceiling <= timedelta(days=1) and zero <= self.missing <= hour
        if not usable or self.tenants < 1:
            raise ConfigError(
                what="the key cache is not usable",
                why="ttl must lie in (0, 1 h], ceiling in [0, 1 day], missing in [0, 1 h], and at least one tenant must fit",
                fix="keep the defaults: 5 min, 1 h, 5 s, 1,000 tenants",
            )


class TenantKeys:
    """A tenant's keys as they were read at one moment. Roots and ciphers come as they are asked for; the rest stays as it is."""

    __slots__ = ("active", "ciphers", "good_until", "missing", "openers", "records", "roots", "shredded", "tenant", "usable_until", "uses")

    def __init__(self, tenant: str) -> None:
        self.tenant: Final = tenant
        self.records: dict[int, KeyRecord] = {}
        self.roots: dict[int, Secret[bytes]] = {}
        self.shredded: frozenset[int] = frozenset()
        self.active = 0
        self.ciphers: dict[tuple[int, str], FieldCipher] = {}
        self.openers: dict[tuple[bytes, str], Callable[[bytes, bytes | None], bytes]] = {}
        self.missing: dict[int, float] = {}
        self.good_until = 0.0
        self.usable_until = 0.0
        self.uses = 0

    @property
    def living(self) -> list[int]:
        """The ids of the keys that open something."""
        return [key_id for key_id, record in self.records.items() if record.state in _LIVING and key_id not in self.shredded]

    @property
    def gone(self) -> bool:
        """Whether the tenant was shredded: it had keys, and none is left. One bad row that was shredded leaves the others."""
        return bool(self.shredded) and not self.living

    def id_of(self, key_id: int | None, name: str) -> int:
        """*key_id*, or the active key's for ``None``.

        Raises:
            KeyMissing, KeyShredded: there is no active key.
        """
        number = self.active if key_id is None else key_id
        if not number:
            raise (KeyShredded if self.gone else KeyMissing)(name=name)
        return number


class _Turn:
    """Whose turn it is to ask for one thing, how often that was done, and how the last time failed."""

    __slots__ = ("__weakref__", "failure", "lock", "times")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.times = 0
        self.failure: Unavailable | None = None


class KeyCache:
    """Opened keys of many tenants. Thread-safe.

    Args:
        store, service, ledger, sink: see :class:`~axis_security.crypto.keyring.KeyRing`.
        policy: limits.
        clock, monotonic: time.
    """

    def __init__(
        self,
        *,
        store: KeyStore,
        service: KeyService,
        ledger: ShredLedger,
        sink: EventSink,
        policy: CachePolicy,
        clock: Clock = SYSTEM_CLOCK,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._service, self._ledger, self._sink = store, service, ledger, sink
        self._policy, self._clock, self._now = policy, clock, monotonic
        self._tenants: OrderedDict[str, TenantKeys] = OrderedDict()
        # Weak: a turn lives as long as somebody takes or awaits it, so that their number is that of the threads, not of the tenants.
        self._turns: WeakValueDictionary[tuple[str, int], _Turn] = WeakValueDictionary()
        self._guard = threading.Lock()
        self._forgotten = 0

    def warm(self, tenant: str) -> TenantKeys | None:
        """The tenant's keys if they are in memory and within their ttl. Asks nobody."""
        held = self._tenants.get(tenant)
        return held if held is not None and self._now() < held.good_until else None

    def uses(self, tenant: str) -> int:
        """How many values were sealed here that the store does not know of yet."""
        held = self._tenants.get(tenant)
        return 0 if held is None else held.uses

    def get(self, tenant: str, *, fresh: bool = False) -> TenantKeys:
        """The tenant's keys, read and opened if they are not warm; empty for a tenant that never had one.

        Args:
            fresh: read them, warm or not.

        Raises:
            KmsUnavailable, LedgerUnavailable, Unavailable: the keys cannot be read or opened now.
        """
        held = None if fresh else self.warm(tenant)
        if held is None:
            held = self._in_turn((tenant, 0), lambda: None if fresh else self.warm(tenant), lambda: self._load(tenant))
        return held

    def root(self, held: TenantKeys, key_id: int, name: str) -> Secret[bytes]:
        """The root key *key_id*, opened now if it was not yet.

        Raises:
            KeyMissing, KeyShredded: there is none, or none any more.
            UnknownFormat: its record is for another suite.
            KmsUnavailable, LedgerUnavailable, Unavailable: it cannot be read or opened now.
        """
        if key_id in held.shredded:
            raise KeyShredded(name=name)
        root = held.roots.get(key_id)
        if root is None:
            record = held.records.get(key_id) or self._look_again(held, key_id, name)

            def opened() -> Secret[bytes]:
                held.roots[key_id] = self._unwrap(record)
                return held.roots[key_id]

            root = self._in_turn((held.tenant, key_id), lambda: held.roots.get(key_id), opened)
        return root

    def cipher(self, held: TenantKeys, key_id: int, field: str) -> FieldCipher:
        """The cipher of *field* under the key *key_id*; raises as :meth:`root`."""
        cipher = held.ciphers.get((key_id, field))
        if cipher is None:
            cipher = FieldCipher(self.root(held, key_id, field).reveal(), tenant=held.tenant, field=field, key_id=key_id)
            held.ciphers[key_id, field] = cipher
            held.openers[key_id.to_bytes(4, "big"), field] = cipher.open
        return cipher

    def drop(self, tenant: str) -> None:
        """Forget the tenant's keys, those that are being read included."""
        with self._guard:
            self._forgotten += 1  # a load that is under way may have read what was there before
            self._tenants.pop(tenant, None)

    def write_uses(self, held: TenantKeys) -> None:
        """Add what was counted here to the store's count. A store that is down keeps nobody from sealing: the next round adds it."""
        count, held.uses = held.uses, 0
        try:
            self._store.add_uses(held.tenant, held.active, count)
        except Unavailable:
            held.uses += count

    # Inside

    def _in_turn(self, what: tuple[str, int], ready: Callable[[], T | None], work: Callable[[], T]) -> T:
        with self._guard:
            turn = self._turns.setdefault(what, _Turn())
        seen = turn.times
        with turn.lock:
            found = ready()
            if found is not None:
                return found
            if turn.failure is not None and turn.times != seen:
                raise copy.copy(turn.failure)
            turn.failure = None
            try:
                return work()
            except Unavailable as error:
                turn.failure = copy.copy(error)  # without its traceback, whose frames would stay alive
                raise
            finally:
                turn.times += 1

    def _load(self, tenant: str) -> TenantKeys:
        old, now, forgotten = self._tenants.get(tenant), self._now(), self._forgotten
        if old is not None and old.uses:
            self.write_uses(old)
        new = TenantKeys(tenant)
        shredded = set(self._ledger.shredded().get(tenant, ()))
        new.records = {record.key_id: record for record in self._store.load(tenant)}
        shredded.update(key_id for key_id, record in new.records.items() if record.state is KeyState.SHREDDED)
        new.shredded = frozenset(shredded)
        new.active = next((key_id for key_id in new.living if new.records[key_id].state is KeyState.ACTIVE), 0)
        # Without an active key somebody is just giving the tenant one, as like as not.
        new.good_until = now + (self._policy.ttl if new.active or new.gone else self._policy.missing).total_seconds()
        new.usable_until = new.good_until + self._policy.ceiling.total_seconds()
        if new.active:
            try:
                new.roots[new.active] = self._unwrap(new.records[new.active])
            except KmsRefused:
                self.drop(tenant)
                raise
            except KmsUnavailable:
                # Keys in memory go on for a bounded time; shredded ones are out whatever the key service says.
                if old is None or now >= old.usable_until or new.active not in old.roots:
                    raise
                new.roots = {key_id: root for key_id, root in old.roots.items() if key_id not in new.shredded}
                new.good_until, new.usable_until = now + 1.0, old.usable_until
        with self._guard:
            if forgotten == self._forgotten:  # else good for this once: it may be from before the shredding that we were told of
                self._tenants[tenant] = new
                self._tenants.move_to_end(tenant)
                while len(self._tenants) > self._policy.tenants:
                    self._tenants.popitem(last=False)
        return new

    def _look_again(self, held: TenantKeys, key_id: int, name: str) -> KeyRecord:
        # Another process may have rotated since we read; but whoever sends unknown ids must not make us read at each.
        if self._now() < held.missing.get(key_id, 0.0):
            raise KeyMissing(name=name)
        gone = self._ledger.shredded().get(held.tenant, ())
        for record in self._store.load(held.tenant):
            if record.key_id == key_id:
                if record.state is KeyState.SHREDDED or key_id in gone:
                    raise KeyShredded(name=name)
                return record
        if len(held.missing) >= _MISSING_IDS:
            held.missing.clear()
        held.missing[key_id] = self._now() + self._policy.missing.total_seconds()
        raise KeyMissing(name=name)

    def _unwrap(self, record: KeyRecord) -> Secret[bytes]:
        if record.suite != SUITE_AES256_GCM:  # the record decides, before the key is there: what is stored cannot ask for another
            raise UnknownFormat(name=f"key {record.key_id}")
        try:
            key = self._service.unwrap(record.wrapped, wrap_context(record.tenant, record.key_id)).reveal()
        except KmsUnavailable as error:
            self._sink.emit(
                AuditEvent(
                    kind=EventKind.KMS_UNAVAILABLE,
                    at=self._clock.now(),
                    outcome=Outcome.FAILED,
                    detail={"kek": record.kek, "code": error.code},
                )
            )
            raise
        if len(key) != ROOT_BYTES:
            raise KmsUnavailable(kek=record.kek, why="it gave a key of another length")
        # HKDF-Extract (RFC 5869, section 2.2): whoever answers for the key service cannot steer the root, for the salt is ours.
        return Secret(hmac.digest(record.salt, key, "sha256"))

"""The key ring: which key seals now, which keys open what is there, and how a key comes, ages and goes.

Key service (KEK) -> one key per tenant and version, kept wrapped, and made the root with a salt of ours -> HKDF subkeys per field and object. Opened root keys are cached in memory for a
few minutes, so that a warm ring asks nobody; a cold one asks once per key, however many threads want it. If the key service is down, keys in memory go on
for a bounded time, and then the answer is no. If it refuses, it is no at the end of the ttl.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.ids import TenantId
from axis_security.core.secret import Secret
from axis_security.crypto.envelope import SUITE_AES256_GCM, FieldCipher, read_header
from axis_security.crypto.errors import KeyMissing, KeyShredded, KmsRefused, KmsUnavailable, UnknownFormat
from axis_security.crypto.keys import KeyRecord, KeyService, KeyState, KeyStore, LedgerEntry, ShredLedger, wrap_context
from axis_security.crypto.stream import ObjectName, ObjectSeal

__all__ = ["CachePolicy", "KeyRing", "RotationPolicy"]

_ROOT_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """How long opened keys stay in memory.

    Args:
        ttl: after this, a tenant's records are read again and its keys opened again.
        ceiling: how long beyond its ttl a key may serve while the key service does not answer.
        tenants: how many tenants' keys are kept; the least recently used goes first.
        missing: how long "no such key" is believed.

    Raises:
        ConfigError: a value is out of range.
    """

    ttl: timedelta = timedelta(minutes=5)
    ceiling: timedelta = timedelta(hours=1)
    tenants: int = 1_000
    missing: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        if not timedelta(0) < self.ttl <= timedelta(hours=1) or not timedelta(0) <= self.ceiling <= timedelta(days=1) or self.tenants < 1:
            raise ConfigError(
                what="the key cache is not usable",
                why="ttl must lie in (0, 1 h], ceiling in [0, 1 day], and at least one tenant must fit",
                fix="keep the defaults: 5 min, 1 h, 1,000 tenants",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """When a key has served enough.

    Args:
        uses: values sealed; 2**31 stays a factor of two under NIST SP 800-38D's 2**32 random nonces a key.
        age: days.
    """

    uses: int = 2**31
    age: timedelta = timedelta(days=365)


class _Tenant:
    """A tenant's keys in memory."""

    __slots__ = ("active", "ciphers", "failing_until", "good_until", "openers", "records", "roots", "shredded", "usable_until", "uses")

    def __init__(self) -> None:
        self.records: dict[int, KeyRecord] = {}
        self.roots: dict[int, Secret[bytes]] = {}
        self.shredded: frozenset[int] = frozenset()
        self.active = 0
        self.ciphers: dict[tuple[int, str], FieldCipher] = {}
        self.openers: dict[tuple[bytes, str], Callable[[bytes, bytes | None], bytes]] = {}
        self.good_until = 0.0
        self.usable_until = 0.0
        self.failing_until = 0.0
        self.uses = 0


class KeyRing:
    """Seals and opens for tenants. Thread-safe.

    Args:
        store: where wrapped keys are kept.
        service: what opens them.
        ledger: what was shredded, kept outside the database; read before any key is given out.
        sink: takes KEY_CREATED, KEY_ROTATED, KEY_SHREDDED and KMS_UNAVAILABLE.
        cache, rotation: limits.
        clock, monotonic, random: time and randomness.
    """

    def __init__(
        self,
        *,
        store: KeyStore,
        service: KeyService,
        ledger: ShredLedger,
        sink: EventSink,
        cache: CachePolicy | None = None,
        rotation: RotationPolicy | None = None,
        clock: Clock = SYSTEM_CLOCK,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store, self._service, self._ledger, self._sink = store, service, ledger, sink
        self._cache = cache or CachePolicy()
        self._rotation = rotation or RotationPolicy()
        self._clock, self._now, self._random = clock, monotonic, random
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._missing: dict[tuple[str, int], float] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._forgotten = 0

    # Values

    def seal(self, plaintext: bytes, *, tenant: TenantId, field: str, row: bytes | None = None) -> bytes:
        """Seal a field's value under the tenant's active key.

        Raises:
            KeyMissing: the tenant has no active key; see :meth:`create`.
            KeyShredded: its keys were shredded.
            KmsUnavailable, LedgerUnavailable: the key cannot be opened now.
        """
        return self.field(tenant, field).seal(plaintext, row)

    def open(self, sealed: bytes, *, tenant: TenantId, field: str, row: bytes | None = None) -> bytes:
        """Open a field's value, whichever of the tenant's keys sealed it.

        Raises:
            SealError: see :meth:`FieldCipher.open <axis_security.crypto.envelope.FieldCipher.open>`; KeyMissing and KeyShredded besides.
            KmsUnavailable, LedgerUnavailable: the key cannot be opened now.
        """
        held = self._tenants.get(tenant.text)
        if held is not None and self._now() < held.good_until:
            opener = held.openers.get((sealed[2:6], field))
            if opener is not None:
                return opener(sealed, row)
        key_id = read_header(sealed, name=field).key_id
        return self._cipher(tenant, key_id, field).open(sealed, row)

    def field(self, tenant: TenantId, field: str) -> FieldCipher:
        """The cipher that seals *field* of *tenant* now. Ask anew for each value: keys rotate and are shredded. Raises as :meth:`seal`."""
        held = self._tenants.get(tenant.text)
        if held is None or self._now() >= held.good_until or not held.active:
            held = self._held(tenant.text, field)
        if not held.active:
            raise (KeyShredded if held.shredded else KeyMissing)(name=field)
        held.uses += 1
        if held.uses >= 4096:
            self._flush_uses(tenant.text, held)
        cipher = held.ciphers.get((held.active, field))
        return cipher if cipher is not None else self._build(held, tenant.text, held.active, field)

    def object(self, name: ObjectName, *, key_id: int | None = None) -> ObjectSeal:
        """What seals (or, with the *key_id* of its header, opens) an object. Raises as :meth:`seal` and :meth:`open`."""
        held = self._held(name.tenant, name.label)
        if key_id is None and not held.active:
            raise (KeyShredded if held.shredded else KeyMissing)(name=name.label)
        number = key_id or held.active
        return ObjectSeal(self._root(held, name.tenant, number, name.label).reveal(), key_id=number, name=name)

    def subkey(self, tenant: TenantId, purpose: str, *, key_id: int | None = None) -> tuple[int, Secret[bytes]]:
        """A 32-byte key of *tenant* for *purpose* (``backup``, ``export``) and the id of the root key it comes from. Raises as :meth:`seal`."""
        held = self._held(tenant.text, purpose)
        number = key_id or held.active
        if not number:
            raise (KeyShredded if held.shredded else KeyMissing)(name=purpose)
        root = self._root(held, tenant.text, number, purpose).reveal()
        return number, Secret(hmac.new(root, b"axis-security/subkey/v1\0" + purpose.encode() + b"\x01", hashlib.sha512).digest()[:32])

    async def awarm(self, tenant: TenantId) -> None:
        """Open the tenant's keys in a thread, so that sealing and opening on the event loop ask nobody. Raises as :meth:`seal`."""
        await asyncio.to_thread(self._held, tenant.text, "warm")

    # Life of a key

    def create(self, tenant: TenantId) -> int:
        """Give *tenant* its first key, if it has none; returns the active key's id.

        Raises:
            KeyShredded: the tenant's keys were shredded: it cannot come back under the same id.
            KmsUnavailable, LedgerUnavailable: nothing was created.
        """
        held = self._held(tenant.text, "create", may_be_empty=True)
        if held.active:
            return held.active
        if held.shredded:
            raise KeyShredded(name=tenant.text)
        return self._add(tenant, EventKind.KEY_CREATED, held)

    def rotate(self, tenant: TenantId) -> int:
        """Make a new key that seals from now on; the old one goes on opening. Returns the new key's id. Raises as :meth:`create`."""
        held = self._held(tenant.text, "rotate", may_be_empty=True, fresh=True)
        if held.shredded and not held.active:
            raise KeyShredded(name=tenant.text)
        return self._add(tenant, EventKind.KEY_ROTATED, held)

    def due(self, tenant: TenantId) -> bool:
        """Whether the active key has served long or often enough to be rotated. Asks the store, not the key service."""
        counted = held.uses if (held := self._tenants.get(tenant.text)) is not None else 0
        return any(
            record.uses + counted >= self._rotation.uses or self._clock.now() - record.created >= self._rotation.age
            for record in self._store.load(tenant.text)
            if record.state is KeyState.ACTIVE
        )

    def shred(self, tenant: TenantId, *, reason: str) -> int:
        """Destroy every key of *tenant*, for good; rows stay and can never be read again. Returns how many keys.

        The ledger comes first: if it cannot be written, nothing is destroyed; once it is, no restore brings the keys back. Other processes follow at
        once where they :func:`listen <axis_security.crypto.keystore.listen>`, and within the cache's ttl where they don't.

        Raises:
            ConfigError: no reason.
            LedgerUnavailable: nothing was destroyed.
        """
        if len(reason.strip()) < 4:
            fix = 'write reason="DSR-17, erasure at the customer\'s request"'
            raise ConfigError(what="shredding needs a reason", why="it destroys data for good", fix=fix)
        self._store.shred(tenant.text, ())  # asks for nothing: whether it may and can, before anything is recorded
        ids = tuple(record.key_id for record in self._store.load(tenant.text) if record.state is not KeyState.SHREDDED)
        if ids:
            self._ledger.append(LedgerEntry(tenant=tenant.text, key_ids=ids, at=self._clock.now(), reason=reason))
            self._store.shred(tenant.text, ids)
            self._emit(EventKind.KEY_SHREDDED, Outcome.ALLOWED, tenant, reason=reason, key_id=max(ids))
        self.forget(tenant)
        return len(ids)

    def rewrap(self, tenant: TenantId) -> int:
        """Wrap the tenant's keys anew under the key service's present key; values stay as they are. Returns how many were rewrapped.

        Raises:
            KmsUnavailable: the key service does not answer, refuses, or does not give back what it wrapped; that key's record stays as it was.
            Unavailable: the store does not answer, or its login is not the system role's.
        """
        done = 0
        for record in self._store.load(tenant.text):
            if record.state is not KeyState.SHREDDED and record.kek != self._service.kek:
                context = wrap_context(tenant.text, record.key_id)
                wrapped = self._wrap(self._service.unwrap(record.wrapped, context), context)
                done += self._store.rewrap(tenant.text, record.key_id, old=record.wrapped, new=wrapped, kek=self._service.kek)
        self.forget(tenant)
        return done

    def probe(self) -> str:
        """Have the key service wrap and unwrap a key of no use, now: keys in memory hide for a while that it was disabled. Returns the kek's name.

        Raises:
            KmsUnavailable, KmsRefused: it does not do both; new keys cannot be made, and those in memory have their ttl left.
        """
        self._wrap(Secret(self._random(_ROOT_BYTES)), wrap_context("axis:probe", 1))
        return self._service.kek

    def forget(self, tenant: TenantId) -> None:
        """Drop the tenant's keys from memory; a listener calls it when another process rotated or shredded."""
        self._drop(tenant.text)

    def status(self, tenant: TenantId) -> Sequence[KeyRecord]:
        """The tenant's records as the store has them now."""
        return self._store.load(tenant.text)

    def tenants(self) -> Sequence[str]:
        """The text form of every tenant that has keys."""
        return self._store.tenants()

    def replay_ledger(self) -> int:
        """Shred in the store whatever the ledger says was shredded (after a restore); returns how many keys had come back."""
        return sum(self._store.shred(tenant, sorted(ids)) for tenant, ids in self._ledger.shredded().items())

    # Inside

    def _drop(self, tenant: str) -> None:
        with self._guard:
            self._forgotten += 1  # a load that is under way may have read what was there before
            self._tenants.pop(tenant, None)
            self._missing = {key: until for key, until in self._missing.items() if key[0] != tenant}

    def _add(self, tenant: TenantId, kind: EventKind, held: _Tenant) -> int:
        taken = {*held.records, *held.shredded}
        key_id = max(taken, default=0) + 1
        record = KeyRecord(
            tenant=tenant.text,
            key_id=key_id,
            state=KeyState.PENDING,
            wrapped=self._wrap(Secret(self._random(_ROOT_BYTES)), wrap_context(tenant.text, key_id)),
            kek=self._service.kek,
            salt=self._random(_ROOT_BYTES),
            created=self._clock.now(),
        )
        if self._store.insert(record) and self._store.activate(tenant.text, key_id):
            detail = {"suite": SUITE_AES256_GCM, "kek": self._service.kek} if kind is EventKind.KEY_CREATED else {"previous": held.active}
            self._emit(kind, Outcome.ALLOWED, tenant, key_id=key_id, **detail)
        self.forget(tenant)  # whoever won, the store knows which key is active now
        return self._held(tenant.text, "added").active

    def _wrap(self, key: Secret[bytes], context: Mapping[str, str]) -> bytes:
        wrapped = self._service.wrap(key, context)
        # INVARIANT: wrapped bytes are kept only once they have been opened; a key that nobody can unwrap is data that nobody can read.
        if self._service.unwrap(wrapped, context) != key:
            raise KmsUnavailable(kek=self._service.kek, why="it does not give back what it wrapped")
        return wrapped

    def _cipher(self, tenant: TenantId, key_id: int, field: str) -> FieldCipher:
        held = self._held(tenant.text, field)
        return held.ciphers.get((key_id, field)) or self._build(held, tenant.text, key_id, field)

    def _build(self, held: _Tenant, tenant: str, key_id: int, field: str) -> FieldCipher:
        cipher = FieldCipher(self._root(held, tenant, key_id, field).reveal(), tenant=tenant, field=field, key_id=key_id)
        held.ciphers[key_id, field] = cipher
        held.openers[key_id.to_bytes(4, "big"), field] = cipher.open
        return cipher

    def _root(self, held: _Tenant, tenant: str, key_id: int, name: str) -> Secret[bytes]:
        if key_id in held.shredded:
            raise KeyShredded(name=name)
        root = held.roots.get(key_id)
        if root is not None:
            return root
        record = held.records.get(key_id)
        if record is None:
            record = self._look_again(tenant, key_id, name)
        with self._lock_of(tenant):
            root = held.roots.get(key_id)
            if root is None:
                root = self._unwrap(record)
                held.roots[key_id] = root
        return root

    def _look_again(self, tenant: str, key_id: int, name: str) -> KeyRecord:
        # Another process may have rotated since we read; but whoever sends unknown ids must not make us read at each.
        until = self._missing.get((tenant, key_id), 0.0)
        if self._now() < until:
            raise KeyMissing(name=name)
        for record in self._store.load(tenant):
            if record.key_id == key_id:
                if record.state is KeyState.SHREDDED:
                    raise KeyShredded(name=name)
                return record
        if len(self._missing) > 10_000:
            self._missing.clear()
        self._missing[tenant, key_id] = self._now() + self._cache.missing.total_seconds()
        raise KeyMissing(name=name)

    def _held(self, tenant: str, name: str, *, may_be_empty: bool = False, fresh: bool = False) -> _Tenant:
        held = self._tenants.get(tenant)
        if held is not None and not fresh and self._now() < held.good_until:
            return held
        with self._lock_of(tenant):
            held = self._tenants.get(tenant)
            now = self._now()
            if held is not None and not fresh and now < max(held.good_until, held.failing_until):
                return held
            held = self._load(tenant, held, name)
        if not held.records and not may_be_empty:
            raise KeyMissing(name=name)
        return held

    def _load(self, tenant: str, old: _Tenant | None, name: str) -> _Tenant:
        now, forgotten = self._now(), self._forgotten
        if old is not None and old.uses:
            self._flush_uses(tenant, old)
        gone = self._ledger.shredded().get(tenant, frozenset())
        new = _Tenant()
        for record in self._store.load(tenant):
            if record.state is KeyState.SHREDDED or record.key_id in gone:
                gone = gone | {record.key_id}
            new.records[record.key_id] = record
            if record.state is KeyState.ACTIVE and record.key_id not in gone:
                new.active = record.key_id
        new.shredded = gone
        if new.active:
            record = new.records[new.active]
            try:
                new.roots[new.active] = self._unwrap(record)
            except KmsRefused:
                self._drop(tenant)
                raise
            except KmsUnavailable:
                # Keys in memory go on for a bounded time; shredded ones are out whatever the key service says.
                if old is None or now >= old.usable_until or new.active not in old.roots:
                    raise
                new.roots = {key_id: root for key_id, root in old.roots.items() if key_id not in gone}
                new.failing_until = now + 1.0
                new.good_until, new.usable_until = new.failing_until, old.usable_until
                return self._keep(tenant, new, forgotten)
        # A tenant without keys may be given some by another process at any moment.
        new.good_until = now + (self._cache.ttl if new.records else self._cache.missing).total_seconds()
        new.usable_until = new.good_until + self._cache.ceiling.total_seconds()
        return self._keep(tenant, new, forgotten)

    def _keep(self, tenant: str, held: _Tenant, forgotten: int) -> _Tenant:
        with self._guard:
            if forgotten != self._forgotten:
                return held  # good for this once: it may be from before the shredding that we were told of
            self._tenants[tenant] = held
            self._tenants.move_to_end(tenant)
            while len(self._tenants) > self._cache.tenants:
                self._tenants.popitem(last=False)
        return held

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
        if len(key) != _ROOT_BYTES:
            raise KmsUnavailable(kek=record.kek, why="it gave a key of another length")
        # HKDF-Extract (RFC 5869, section 2.2): whoever answers for the key service cannot steer the root, for the salt is ours.
        return Secret(hmac.digest(record.salt, key, "sha256"))

    def _flush_uses(self, tenant: str, held: _Tenant) -> None:
        count, held.uses = held.uses, 0
        try:
            self._store.add_uses(tenant, held.active, count)
        except Unavailable:
            held.uses += count  # an approximate counter is no reason not to seal; the next round counts it

    def _lock_of(self, tenant: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(tenant, threading.Lock())

    def _emit(self, kind: EventKind, outcome: Outcome, tenant: TenantId, *, reason: str | None = None, **detail: str | int) -> None:
        self._sink.emit(AuditEvent(kind=kind, at=self._clock.now(), outcome=outcome, tenant=tenant, reason=reason, detail=detail))

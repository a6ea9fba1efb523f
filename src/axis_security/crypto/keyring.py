"""The key ring: which key seals now, which keys open what is there, and how a key comes, ages and goes.

Key service (KEK) -> one key per tenant and version, kept wrapped, and made the root with a salt of ours -> HKDF subkeys per field and object. What is in
memory, and for how long, is the cache's (:mod:`~axis_security.crypto.cache`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import MAX_TEXT, AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.ids import TenantId
from axis_security.core.secret import Secret
from axis_security.crypto.cache import CachePolicy as CachePolicy
from axis_security.crypto.cache import KeyCache, TenantKeys
from axis_security.crypto.envelope import SUITE_AES256_GCM, FieldCipher, read_header
from axis_security.crypto.errors import KeyShredded, KmsUnavailable
from axis_security.crypto.keys import ROOT_BYTES, KeyRecord, KeyService, KeyState, KeyStore, LedgerEntry, ShredLedger, wrap_context
from axis_security.crypto.stream import ObjectName, ObjectSeal

__all__ = ["KeyRing", "RotationPolicy"]

_USES_WRITTEN: Final = 4096
_PASSES: Final = 5
"""How often something is begun anew because another process changed the tenant's keys meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """When a key has served enough.

    Args:
        uses: values sealed; the default, which is the most, stays a factor of two under NIST SP 800-38D's 2**32 random nonces a key, since uses
            are counted approximately.
        age: how long after it was made.

    Raises:
        ConfigError: a value is out of range.
    """

    uses: int = 2**31
    age: timedelta = timedelta(days=365)

    def __post_init__(self) -> None:
        if not 1 <= self.uses <= 2**31 or self.age <= timedelta(0):
            raise ConfigError(
                what="the rotation policy is not usable",
                why="uses must lie in [1, 2**31], and the age be positive",
                fix="keep the defaults: 2**31 uses, 365 days",
            )


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
        self._rotation = rotation or RotationPolicy()
        self._clock, self._random = clock, random
        self._keys = KeyCache(
            store=store, service=service, ledger=ledger, sink=sink, policy=cache or CachePolicy(), clock=clock, monotonic=monotonic
        )

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
        held = self._keys.warm(tenant.text)
        if held is not None:
            opener = held.openers.get((sealed[2:6], field))
            if opener is not None:
                return opener(sealed, row)
        key_id = read_header(sealed, name=field).key_id
        return self._keys.cipher(self._keys.get(tenant.text), key_id, field).open(sealed, row)

    def field(self, tenant: TenantId, field: str) -> FieldCipher:
        """The cipher that seals *field* of *tenant* now. Ask anew for each value: keys rotate and are shredded. Raises as :meth:`seal`."""
        held = self._keys.warm(tenant.text) or self._keys.get(tenant.text)
        key_id = held.active or held.id_of(None, field)
        uses = held.uses = held.uses + 1
        if uses % _USES_WRITTEN == 0:
            self._keys.write_uses(held)
        return held.ciphers.get((key_id, field)) or self._keys.cipher(held, key_id, field)

    def object(self, name: ObjectName, *, key_id: int | None = None) -> ObjectSeal:
        """What seals (or, with the *key_id* of its header, opens) an object. Raises as :meth:`seal` and :meth:`open`."""
        held = self._keys.get(name.tenant)
        number = held.id_of(key_id, name.label)
        return ObjectSeal(self._keys.root(held, number, name.label).reveal(), key_id=number, name=name)

    def subkey(self, tenant: TenantId, purpose: str, *, key_id: int | None = None) -> tuple[int, Secret[bytes]]:
        """A 32-byte key of *tenant* for *purpose* (``backup``, ``export``) and the id of the root key it comes from. Raises as :meth:`seal`."""
        held = self._keys.get(tenant.text)
        number = held.id_of(key_id, purpose)
        root = self._keys.root(held, number, purpose).reveal()
        return number, Secret(hmac.new(root, b"axis-security/subkey/v1\0" + purpose.encode() + b"\x01", hashlib.sha512).digest()[:32])

    async def awarm(self, tenant: TenantId) -> None:
        """Open the tenant's keys in a thread, old ones too, so that sealing and opening on the event loop ask nobody until the ttl. Raises as :meth:`seal`."""
        await asyncio.to_thread(self._warm, tenant.text)

    # Life of a key

    def create(self, tenant: TenantId) -> int:
        """Give *tenant* its first key, if it has none; returns the active key's id.

        Raises:
            KeyShredded: the tenant's keys were shredded: it cannot come back under the same id.
            KmsUnavailable, LedgerUnavailable: nothing was created.
            Unavailable: the store does not answer, or others make keys for the tenant all the while.
        """
        held = self._keys.get(tenant.text)
        return held.active or self._add(tenant, EventKind.KEY_CREATED, held)

    def rotate(self, tenant: TenantId) -> int:
        """Make a new key that seals from now on; the old one goes on opening. Returns the new key's id, or that of one that another process made
        meanwhile. Raises as :meth:`create`.
        """
        return self._add(tenant, EventKind.KEY_ROTATED, self._keys.get(tenant.text, fresh=True))

    def due(self, tenant: TenantId) -> bool:
        """Whether the active key has served long or often enough to be rotated. Asks the store, not the key service."""
        counted = self._keys.uses(tenant.text)
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
            ConfigError: no reason, or one too long for the log.
            LedgerUnavailable: nothing was destroyed.
            Unavailable: the store does not answer, or its login is not the system role's; or others go on making keys for the tenant. What was
                destroyed is in the ledger; do it again.
        """
        if len(reason.strip()) < 4 or len(reason) > MAX_TEXT:
            raise ConfigError(
                what="shredding needs a reason",
                why=f"it destroys data for good; the log takes {MAX_TEXT} characters",
                fix='write reason="DSR-17, erasure at the customer\'s request"',
            )
        self._store.shred(tenant.text, ())  # asks for nothing: whether it may and can, before anything is recorded
        count = 0
        try:
            # Again until none is left: another process may have rotated between the look and the deed.
            for _ in range(_PASSES):
                ids = tuple(record.key_id for record in self._store.load(tenant.text) if record.state is not KeyState.SHREDDED)
                if not ids:
                    return count
                self._ledger.append(LedgerEntry(tenant=tenant.text, key_ids=ids, at=self._clock.now(), reason=reason))
                count += self._store.shred(tenant.text, ids)
                self._emit(EventKind.KEY_SHREDDED, tenant, reason=reason, key_id=max(ids))
        finally:
            self.forget(tenant)  # whatever failed: from the ledger's line on, no key in memory may serve
        raise _crowded("the tenant has keys still")

    def rewrap(self, tenant: TenantId) -> int:
        """Wrap the tenant's keys anew under the key service's present key; values stay as they are. Returns how many were rewrapped.

        All of them, each time: a service that rotates its key under the same name (Transit, AWS) does not tell which of its versions wrapped. It must
        still open what the one before wrapped.

        Raises:
            KmsUnavailable: the key service does not answer, refuses, or does not give back what it wrapped; that key's record stays as it was.
            Unavailable: the store does not answer, or its login is not the system role's.
        """
        done = 0
        try:
            for record in self._store.load(tenant.text):
                if record.state is not KeyState.SHREDDED:
                    context = wrap_context(tenant.text, record.key_id)
                    wrapped = self._wrap(self._service.unwrap(record.wrapped, context), context)
                    done += self._store.rewrap(tenant.text, record.key_id, old=record.wrapped, new=wrapped, kek=self._service.kek)
        finally:
            self.forget(tenant)
        return done

    def probe(self) -> str:
        """Have the key service wrap and unwrap a key of no use, now: keys in memory hide for a while that it was disabled. Returns the kek's name.

        Raises:
            KmsUnavailable, KmsRefused: it does not do both; new keys cannot be made, and those in memory have their ttl left.
        """
        self._wrap(Secret(self._random(ROOT_BYTES)), wrap_context("axis:probe", 1))
        return self._service.kek

    def forget(self, tenant: TenantId) -> None:
        """Drop the tenant's keys from memory; a listener calls it when another process changed them."""
        self._keys.drop(tenant.text)

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

    def _warm(self, tenant: str) -> None:
        held = self._keys.get(tenant)
        held.id_of(None, "warm")
        for key_id in held.living:
            self._keys.root(held, key_id, "warm")

    def _add(self, tenant: TenantId, kind: EventKind, held: TenantKeys) -> int:
        before = held.active
        for _ in range(_PASSES):
            if held.gone:
                raise KeyShredded(name=tenant.text)
            key_id = max((*held.records, *held.shredded), default=0) + 1
            record = KeyRecord(
                tenant=tenant.text,
                key_id=key_id,
                state=KeyState.PENDING,
                wrapped=self._wrap(Secret(self._random(ROOT_BYTES)), wrap_context(tenant.text, key_id)),
                kek=self._service.kek,
                salt=self._random(ROOT_BYTES),
                created=self._clock.now(),
            )
            made = self._store.insert(record) and self._store.activate(tenant.text, key_id)
            self.forget(tenant)
            if made:
                more = {"suite": SUITE_AES256_GCM, "kek": self._service.kek} if kind is EventKind.KEY_CREATED else {"previous": before}
                self._emit(kind, tenant, key_id=key_id, **more)
            # Whoever won, the store knows which key is active now; somebody else's may still be on its way.
            held = self._keys.get(tenant.text)
            if held.active not in {0, before}:
                return held.active
        raise _crowded("no new key became active")

    def _wrap(self, key: Secret[bytes], context: Mapping[str, str]) -> bytes:
        wrapped = self._service.wrap(key, context)
        # INVARIANT: wrapped bytes are kept only once they have been opened; a key that nobody can unwrap is data that nobody can read.
        if self._service.unwrap(wrapped, context) != key:
            raise KmsUnavailable(kek=self._service.kek, why="it does not give back what it wrapped")
        return wrapped

    def _emit(self, kind: EventKind, tenant: TenantId, *, reason: str | None = None, **detail: str | int) -> None:
        self._sink.emit(AuditEvent(kind=kind, at=self._clock.now(), outcome=Outcome.ALLOWED, tenant=tenant, reason=reason, detail=detail))


def _crowded(what: str) -> Unavailable:
    return Unavailable(what=what, why="other processes make keys for this tenant at the same time", fix="do it again once they have ended")

"""Keys as records: their states, and the ports that a ring needs: a store for records, a key service, a ledger of shredded keys."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from axis_security.core.secret import Secret
from axis_security.crypto.envelope import SUITE_AES256_GCM

__all__ = ["LEGAL", "KeyRecord", "KeyService", "KeyState", "KeyStore", "LedgerEntry", "ShredLedger", "wrap_context"]

ROOT_BYTES: Final = 32
"""Bytes of a root key, and of its salt."""


class KeyState(enum.StrEnum):
    """Where a key is in its life."""

    PENDING = "pending"
    """Made, and not yet known to open again: seals nothing."""
    ACTIVE = "active"
    """Seals and opens. At most one a tenant."""
    DECRYPT_ONLY = "decrypt_only"
    """Opens what it sealed before."""
    SHREDDED = "shredded"
    """Gone for good; what it sealed cannot be read by anybody."""


LEGAL: Final[Mapping[KeyState, frozenset[KeyState]]] = MappingProxyType(
    {
        KeyState.PENDING: frozenset({KeyState.ACTIVE, KeyState.SHREDDED}),
        KeyState.ACTIVE: frozenset({KeyState.DECRYPT_ONLY, KeyState.SHREDDED}),
        KeyState.DECRYPT_ONLY: frozenset({KeyState.SHREDDED}),
        KeyState.SHREDDED: frozenset(),
    }
)
"""Every transition there is. INVARIANT: nothing leads back, and nothing seals before it has been opened once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A tenant's root key as it is kept: wrapped by the key service, useless without it.

    Args:
        tenant: the tenant's text form.
        key_id: 1 to 2**32-1, unique in the tenant's ring.
        state: where it is in its life.
        wrapped: what the key service gave; empty once shredded.
        kek: which key of the service wrapped it.
        salt: 32 random bytes of ours, extracted with what the service unwraps (RFC 5869, section 2.2), so that whoever runs the key service
            cannot choose the root key; empty once shredded. No secret by itself.
        created: when.
        suite: what it may be used with; the ciphertext has no say.
        uses: about how many values it has sealed.
    """

    tenant: str
    key_id: int
    state: KeyState
    wrapped: bytes
    kek: str
    salt: bytes
    created: datetime
    suite: int = SUITE_AES256_GCM
    uses: int = 0


class KeyStore(Protocol):
    """Keeps records. Each method is one conditional statement."""

    def load(self, tenant: str) -> Sequence[KeyRecord]:
        """All records of *tenant*, by key id."""
        ...

    def insert(self, record: KeyRecord) -> bool:
        """Add a pending record; ``False`` if the tenant has that id already."""
        ...

    def activate(self, tenant: str, key_id: int) -> bool:
        """Make the pending key active and the active one decrypt-only, in one step.

        ``False`` if it was not pending, or if the tenant was shredded (it has shredded keys, and none that opens): what began before a shredding must not
        give the tenant a key after it.
        """
        ...

    def shred(self, tenant: str, key_ids: Sequence[int]) -> int:
        """Empty the wrapped bytes and mark as shredded, for good; how many were not so before. Tells other processes."""
        ...

    def rewrap(self, tenant: str, key_id: int, *, old: bytes, new: bytes, kek: str) -> bool:
        """Replace the wrapped bytes if they are still *old*; whether they were. Tells other processes."""
        ...

    def add_uses(self, tenant: str, key_id: int, count: int) -> None:
        """Count *count* more uses."""
        ...

    def tenants(self) -> Sequence[str]:
        """Every tenant that has a key."""
        ...


class KeyService(Protocol):
    """Wraps and unwraps root keys under a key that never leaves it. The context is authenticated: other context, no key."""

    @property
    def kek(self) -> str:
        """Which key wraps now, such as ``transit/axis``; recorded beside what it wrapped."""
        ...

    def wrap(self, key: Secret[bytes], context: Mapping[str, str]) -> bytes:
        """Wrap *key*, bound to *context*.

        Raises:
            KmsUnavailable: the service did not answer.
            KmsRefused: it answered no.
        """
        ...

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> Secret[bytes]:
        """Unwrap, if *context* is the one it was wrapped with.

        Raises:
            KmsUnavailable: the service did not answer.
            KmsRefused: it answered no.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One shredding. Args: tenant, key_ids: what; at: when; reason: why."""

    tenant: str
    key_ids: tuple[int, ...]
    at: datetime
    reason: str


class ShredLedger(Protocol):
    """Remembers shreddings outside the database, so that a restore cannot bring keys back."""

    def append(self, entry: LedgerEntry) -> None:
        """Keep *entry* durably before returning.

        Raises:
            LedgerUnavailable: it was not kept.
        """
        ...

    def shredded(self) -> Mapping[str, frozenset[int]]:
        """Every shredded key id, by tenant, as of now; the chain verified.

        Raises:
            LedgerUnavailable: it cannot be read, or was tampered with.
        """
        ...


def wrap_context(tenant: str, key_id: int) -> dict[str, str]:
    """What a wrapped root key is bound to: a row copied to another tenant or id does not unwrap."""
    return {"app": "axis-security", "purpose": "tenant-root", "tenant": tenant, "key_id": str(key_id)}

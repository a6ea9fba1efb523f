"""Fakes for faults of key services and stores that the real ones do not show on demand. For tests only."""

from __future__ import annotations

import enum
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from axis_security.core.secret import Secret
from axis_security.crypto.errors import KmsRefused, KmsUnavailable
from axis_security.crypto.keys import LEGAL, KeyRecord, KeyState

__all__ = ["FakeKms", "KekState", "MemoryKeyStore"]


class KekState(enum.Enum):
    """What the key-encryption key is in. Emulators let disabled keys decrypt; this one does not."""

    ENABLED = "Enabled"
    DISABLED = "DisabledException"
    PENDING_DELETION = "KMSInvalidStateException"
    THROTTLED = "ThrottlingException"
    DOWN = "EndpointConnectionError"
    LIES = "lies"
    """Answers with a key of its own choosing."""


class FakeKms:
    """A strict key service in memory that counts its calls and fails as told."""

    def __init__(self, kek: str = "fake/1") -> None:
        self.kek = kek
        self.state = KekState.ENABLED
        self.wraps = self.unwraps = 0
        self._keys: dict[str, AESGCM] = {}
        self._lock = threading.Lock()

    def wrap(self, key: Secret[bytes], context: Mapping[str, str]) -> bytes:
        """Wrap under the present kek."""
        with self._lock:
            self.wraps += 1
        self._check()
        nonce = secrets.token_bytes(12)
        return (
            self.kek.encode() + b"|" + nonce + self._cipher(self.kek).encrypt(nonce, key.reveal(), repr(sorted(context.items())).encode())
        )

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> Secret[bytes]:
        """Unwrap under the kek that wrapped."""
        with self._lock:
            self.unwraps += 1
        self._check()
        if self.state is KekState.LIES:
            return Secret(bytes(32))
        kek, _, rest = wrapped.partition(b"|")
        try:
            return Secret(self._cipher(kek.decode()).decrypt(rest[:12], rest[12:], repr(sorted(context.items())).encode()))
        except (InvalidTag, ValueError):
            raise KmsRefused(kek=self.kek, why="InvalidCiphertextException") from None

    def _check(self) -> None:
        if self.state not in {KekState.ENABLED, KekState.LIES}:
            refused = self.state in {KekState.DISABLED, KekState.PENDING_DELETION}
            raise (KmsRefused if refused else KmsUnavailable)(kek=self.kek, why=self.state.value)

    def _cipher(self, kek: str) -> AESGCM:
        return self._keys.setdefault(kek, AESGCM(secrets.token_bytes(32)))


class MemoryKeyStore:
    """Records in memory, with the same conditions as the database's functions."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], KeyRecord] = {}
        self._lock = threading.Lock()
        self.loads = 0

    def load(self, tenant: str) -> Sequence[KeyRecord]:
        """See KeyStore."""
        with self._lock:
            self.loads += 1
            return sorted((record for (owner, _), record in self._records.items() if owner == tenant), key=lambda record: record.key_id)

    def insert(self, record: KeyRecord) -> bool:
        """See KeyStore."""
        with self._lock:
            if (record.tenant, record.key_id) in self._records or record.state is not KeyState.PENDING:
                return False
            self._records[record.tenant, record.key_id] = record
            return True

    def activate(self, tenant: str, key_id: int) -> bool:
        """See KeyStore."""
        with self._lock:
            record = self._records.get((tenant, key_id))
            states = {found.state for (owner, _), found in self._records.items() if owner == tenant}
            shredded = KeyState.SHREDDED in states and not states & {KeyState.ACTIVE, KeyState.DECRYPT_ONLY}
            if record is None or KeyState.ACTIVE not in LEGAL[record.state] or shredded:
                return False
            for (owner, other), found in list(self._records.items()):
                if owner == tenant and found.state is KeyState.ACTIVE:
                    self._records[owner, other] = replace(found, state=KeyState.DECRYPT_ONLY)
            self._records[tenant, key_id] = replace(record, state=KeyState.ACTIVE)
            return True

    def shred(self, tenant: str, key_ids: Sequence[int]) -> int:
        """See KeyStore."""
        with self._lock:
            done = 0
            for key_id in key_ids:
                record = self._records.get((tenant, key_id))
                if record is not None and record.state is not KeyState.SHREDDED:
                    self._records[tenant, key_id] = replace(record, state=KeyState.SHREDDED, wrapped=b"", salt=b"")
                    done += 1
            return done

    def rewrap(self, tenant: str, key_id: int, *, old: bytes, new: bytes, kek: str) -> bool:
        """See KeyStore."""
        with self._lock:
            record = self._records.get((tenant, key_id))
            if record is None or record.wrapped != old or record.state is KeyState.SHREDDED:
                return False
            self._records[tenant, key_id] = replace(record, wrapped=new, kek=kek)
            return True

    def add_uses(self, tenant: str, key_id: int, count: int) -> None:
        """See KeyStore."""
        with self._lock:
            record = self._records.get((tenant, key_id))
            if record is not None:
                self._records[tenant, key_id] = replace(record, uses=record.uses + count)

    def tenants(self) -> Sequence[str]:
        """See KeyStore."""
        with self._lock:
            return sorted({tenant for tenant, _ in self._records})

    def snapshot(self) -> dict[tuple[str, int], KeyRecord]:
        """What a backup would hold."""
        with self._lock:
            return dict(self._records)

    def restore(self, snapshot: Mapping[tuple[str, int], KeyRecord]) -> None:
        """Go back to a backup, as a point-in-time restore does."""
        with self._lock:
            self._records = dict(snapshot)

"""Secrets that belong to no row: TOTP seeds and the like."""

from __future__ import annotations

from pathlib import Path

import pytest

from axis_security.auth.totp import Sealer
from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.crypto.errors import KeyMissing, KeyShredded, Tampered, WrongContext
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.sealer import ACCOUNTS, RingSealer
from axis_security.testing.crypto import FakeKms, MemoryKeyStore


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """An empty ring."""
    return KeyRing(store=MemoryKeyStore(), service=FakeKms(), ledger=FileShredLedger(tmp_path / "ledger", create=True), sink=NullSink())


def test_a_seed_opens_for_its_owner_and_purpose_only(ring: KeyRing) -> None:
    """Bound to its context, its purpose and its scope; the first sealing makes the scope's key; rotation leaves old seeds readable."""
    sealer: Sealer = RingSealer(ring, "totp.seed")
    with pytest.raises(KeyMissing):
        sealer.open(bytes([0xA1, 1, 0, 0, 0, 1]) + bytes(60), b"user 1")
    sealed = sealer.seal(b"seed", b"user 1")
    assert b"seed" not in sealed
    ring.rotate(ACCOUNTS)
    assert sealer.open(sealed, b"user 1") == b"seed"
    with pytest.raises(Tampered):
        sealer.open(sealed, b"user 2")
    with pytest.raises(WrongContext):
        RingSealer(ring, "recovery").open(sealed, b"user 1")
    other = RingSealer(ring, "totp.seed", scope=TenantId("acme"))
    other.seal(b"x", b"")
    with pytest.raises(WrongContext):
        other.open(sealed, b"user 1")


def test_a_shredded_scope_is_not_made_again(ring: KeyRing) -> None:
    """Sealing again does not quietly give a shredded scope a new key."""
    sealer = RingSealer(ring, "totp.seed")
    sealed = sealer.seal(b"seed", b"user 1")
    ring.shred(ACCOUNTS, reason="end of service")
    for work in (lambda: sealer.open(sealed, b"user 1"), lambda: sealer.seal(b"seed", b"user 1")):
        with pytest.raises(KeyShredded):
            work()
    assert "seed" not in repr(sealer).replace("totp.seed", "")

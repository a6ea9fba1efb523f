"""The client's half of the sealed context."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.errors import ConfigError
from axis_security.core.principal import Principal
from axis_security.core.secret import Secret
from axis_security.rls.sealed import DEFAULT_LASTING, Sealer, SealKey, SealKeyring, seal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def test_the_text_is_the_documented_one() -> None:
    """Fields in the documented order, and an HMAC-SHA256 over everything before it."""
    key = SealKey(7, Secret(bytes(range(32))))
    text = seal(Principal(tenant=5, user="u1", role="member"), keyring=SealKeyring(current=key), now=NOW, lasting=timedelta(seconds=60))
    body, mac = text[:-64], text[-64:]
    assert body == f"axis1 7 {int(NOW.timestamp()) + 60} 5 u1 member "
    assert mac == hmac.new(bytes(range(32)), body.encode(), hashlib.sha256).hexdigest()


@given(VISIBLE, st.none() | VISIBLE, VISIBLE, st.none() | VISIBLE)
def test_distinct_principals_have_distinct_texts(tenant: str, user: str | None, tenant2: str, user2: str | None) -> None:
    """No choice of ids makes two principals share a text: fields cannot run into each other."""
    sealer = Sealer(SealKeyring(current=SealKey(1, Secret(bytes(32)))))
    one, two = Principal(tenant=tenant, user=user, role="member"), Principal(tenant=tenant2, user=user2, role="member")
    assert (sealer.at(one, now=NOW) == sealer.at(two, now=NOW)) == (one == two)


def test_blocks_are_the_two_pads_of_rfc_2104() -> None:
    """What the database keeps computes the same HMAC from plain SHA-256."""
    key = SealKey.generate(1)
    inner, outer = (block.reveal() for block in key.blocks())
    by_hand = hashlib.sha256(outer + hashlib.sha256(inner + b"message").digest()).hexdigest()
    assert by_hand == hmac.new(key.secret.reveal(), b"message", hashlib.sha256).hexdigest()


def test_a_key_survives_its_printable_form() -> None:
    """text() and parse() are inverse, and a changed character is refused without showing the key."""
    key = SealKey.generate(12)
    text = key.text().reveal()
    assert SealKey.parse(Secret(text)) == key
    broken = text[:-1] + ("0" if text[-1] != "0" else "1")
    with pytest.raises(ConfigError) as caught:
        SealKey.parse(Secret(broken))
    assert text[12:30] not in str(caught.value)


@pytest.mark.parametrize("number", [0, -1, 2**31, True])
def test_unusable_key_ids_are_refused(number: int) -> None:
    """A key id fits PostgreSQL's integer and is positive."""
    with pytest.raises(ConfigError):
        SealKey(number, Secret(bytes(32)))


def test_short_keys_and_twin_ids_are_refused() -> None:
    """A key has 32 bytes, and two keys of a ring differ in id."""
    with pytest.raises(ConfigError):
        SealKey(1, Secret(bytes(31)))
    with pytest.raises(ConfigError):
        SealKeyring(current=SealKey.generate(1), previous=SealKey.generate(1))


@pytest.mark.parametrize("lasting", [timedelta(0), timedelta(hours=2)])
def test_the_life_of_a_seal_is_bounded(lasting: timedelta) -> None:
    """No seal without end, and none that is dead at once."""
    with pytest.raises(ConfigError):
        Sealer(SealKeyring(current=SealKey.generate(1)), lasting=lasting)


def test_nothing_shows_the_key() -> None:
    """Neither the ring nor the sealer prints its secret."""
    ring = SealKeyring(current=SealKey(1, Secret(b"k" * 32)))
    assert "kkkk" not in repr(ring) + repr(Sealer(ring)) + str(ring.current.blocks())


def test_the_ring_is_read_from_its_printable_forms() -> None:
    """One key, or two while keys change; a text without an id says so."""
    one, two = SealKey.generate(1), SealKey.generate(2)
    assert SealKeyring.from_text(two.text()) == SealKeyring(current=two)
    assert SealKeyring.from_text(two.text(), one.text()) == SealKeyring(current=two, previous=one)
    with pytest.raises(ConfigError, match="does not start with the key's id"):
        SealKeyring.from_text(Secret(one.text().reveal().partition(":")[2]))


def test_the_limits_of_ids_and_lives() -> None:
    """A key's id is a positive integer of PostgreSQL; a seal lives two minutes unless told, an hour at most."""
    assert SealKey(2**31 - 1, Secret(bytes(32))).id == 2**31 - 1
    with pytest.raises(ConfigError):
        SealKey(2**31, Secret(bytes(32)))
    assert timedelta(minutes=2) == DEFAULT_LASTING
    ring = SealKeyring(current=SealKey.generate(1))
    Sealer(ring, lasting=timedelta(hours=1))
    with pytest.raises(ConfigError):
        Sealer(ring, lasting=timedelta(hours=1, microseconds=1))

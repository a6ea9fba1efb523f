"""AXF1: frozen vectors, and every way to damage or move a value refused by its own error."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from axis_security.crypto.envelope import OVERHEAD, FieldCipher, FieldHeader, explain, read_header
from axis_security.crypto.errors import SealError, Tampered, Truncated, UnknownFormat, WrongContext

VECTORS = Path(__file__).parents[2] / "vectors" / "crypto"
ROOT = bytes(range(32))
CIPHER = FieldCipher(ROOT, tenant="acme", field="users.ssn", key_id=7)


def checker() -> ModuleType:
    """The independent opener."""
    spec = importlib.util.spec_from_file_location("check_axf1", VECTORS / "check_axf1.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frozen() -> list[dict[str, Any]]:
    """The golden vectors."""
    found: list[dict[str, Any]] = json.loads((VECTORS / "axf1.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("vector", frozen(), ids=lambda vector: vector["comment"])
def test_frozen_vectors_open_here_and_in_an_independent_opener(vector: dict[str, Any]) -> None:
    """Values sealed by an earlier version open for ever, and the format is what the specification says."""
    cipher = FieldCipher(bytes.fromhex(vector["root"]), tenant=vector["tenant"], field=vector["field"], key_id=vector["key_id"])
    row = None if vector["row"] is None else bytes.fromhex(vector["row"])
    assert cipher.open(bytes.fromhex(vector["sealed"]), row).hex() == vector["plaintext"]
    assert checker().open_vector(vector).hex() == vector["plaintext"]


@given(st.binary(max_size=300), st.none() | st.binary(max_size=40))
def test_what_is_sealed_opens_and_never_looks_the_same_twice(plaintext: bytes, row: bytes | None) -> None:
    """Round trip with 50 bytes over; equal plaintexts give different bytes."""
    sealed = CIPHER.seal(plaintext, row)
    assert CIPHER.open(sealed, row) == plaintext
    assert len(sealed) == len(plaintext) + OVERHEAD
    assert CIPHER.seal(plaintext, row) != sealed


def test_every_single_bit_flip_is_refused_by_the_right_error() -> None:
    """Format bytes: unknown format; key id and commitment: wrong context; nonce, ciphertext and tag: tampered."""
    sealed = CIPHER.seal(b"123-45-6789", b"row")
    for at in range(len(sealed)):
        expected = UnknownFormat if at < 2 else WrongContext if at < 22 else Tampered
        for bit in range(8):
            damaged = bytearray(sealed)
            damaged[at] ^= 1 << bit
            with pytest.raises(expected) as caught:
                CIPHER.open(bytes(damaged), b"row")
            assert type(caught.value) is expected


def test_every_truncation_and_extension_is_refused() -> None:
    """Cut anywhere or longer by anything: refused."""
    sealed = CIPHER.seal(b"12345", b"row")
    for end in range(len(sealed)):
        with pytest.raises(SealError) as caught:
            CIPHER.open(sealed[:end], b"row")
        assert type(caught.value) is (Truncated if end < OVERHEAD else Tampered)
    with pytest.raises(Tampered):
        CIPHER.open(sealed + b"\0", b"row")


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"tenant": "globex"}, WrongContext),
        ({"field": "users.dob"}, WrongContext),
        ({"key_id": 8}, WrongContext),
        ({"root": bytes(32)}, WrongContext),
    ],
)
def test_a_value_of_another_tenant_field_or_key_is_refused(other: dict[str, Any], error: type[SealError]) -> None:
    """Moved to another tenant, column or key: the commitment does not fit."""
    arguments: dict[str, Any] = {"root": ROOT, "tenant": "acme", "field": "users.ssn", "key_id": 7, **other}
    cipher = FieldCipher(arguments.pop("root"), **arguments)
    with pytest.raises(error):
        cipher.open(CIPHER.seal(b"x"))


def test_a_value_of_another_row_is_refused() -> None:
    """Two rows' bytes swapped, or a row-bound value read without its row: refused."""
    with pytest.raises(Tampered):
        CIPHER.open(CIPHER.seal(b"x", b"1"), b"2")
    with pytest.raises(Tampered):
        CIPHER.open(CIPHER.seal(b"x", b"1"))


def test_a_ciphertext_made_for_two_keys_opens_under_neither_commitment() -> None:
    """Plain GCM lets one ciphertext authenticate under two keys; here the header names one, so the other refuses before decrypting."""
    one, two = (FieldCipher(bytes([n]) * 32, tenant="acme", field="f", key_id=7) for n in (1, 2))
    sealed = one.seal(b"payload")
    crafted = two._header + sealed[22:]
    with pytest.raises(WrongContext):
        two.open(sealed)
    with pytest.raises(Tampered):
        two.open(crafted)


def test_a_plain_gcm_message_is_not_passed_through() -> None:
    """Plaintext, or bytes of another scheme, is never given back as if it had been opened."""
    for foreign in (b"", b"plain text", b"\xa1", b"\xa1\x02" + bytes(60), AESGCM(bytes(32)).encrypt(bytes(12), b"x" * 40, None)):
        with pytest.raises(SealError):
            CIPHER.open(foreign)


CONTEXTS = st.tuples(st.text(max_size=6), st.text(max_size=6), st.integers(0, 3))


@given(CONTEXTS, CONTEXTS)
def test_distinct_contexts_never_derive_the_same_key(a: tuple[str, str, int], b: tuple[str, str, int]) -> None:
    """Tenant `a` with field `b-c` and tenant `a-b` with field `c` have nothing in common: info is length-prefixed."""
    one, two = (FieldCipher(ROOT, tenant=tenant, field=field, key_id=key_id) for tenant, field, key_id in (a, b))
    assert (one._info == two._info) is (a == b)
    assert (one._header == two._header) is (a == b)


@given(st.binary(max_size=120))
def test_any_bytes_are_opened_or_refused(data: bytes) -> None:
    """No input makes it raise anything but a SealError, and a message never holds the data."""
    with pytest.raises(SealError) as caught:
        CIPHER.open(data)
    assert data.hex() not in str(caught.value) or len(data) < 3


def test_explain_shows_the_header_and_no_key() -> None:
    """A person sees format, key id and length."""
    assert explain(CIPHER.seal(b"12345")) == "AXF1, AES-256-GCM, key 7, 5 bytes of plaintext"
    assert read_header(CIPHER.seal(b""), name="x").plaintext_bytes == 0
    assert ROOT.hex() not in repr(CIPHER)


def test_too_large_a_field_is_refused() -> None:
    """16 MiB is the limit; larger values are objects."""
    with pytest.raises(ValueError, match="16 MiB"):
        CIPHER.seal(bytes(16 * 2**20 + 1))


def test_the_header_is_read_as_it_was_written() -> None:
    """Suite, key and length, each from its own bytes; a suite that nobody knows is told before the value's length is."""
    sealed = FieldCipher(ROOT, tenant="acme", field="x", key_id=0x05060708).seal(b"abc")
    assert read_header(sealed, name="x") == FieldHeader(suite=1, key_id=0x05060708, plaintext_bytes=3)
    for short in (b"\xa7\x02", bytes((sealed[0], 2))):
        with pytest.raises(UnknownFormat):
            read_header(short, name="x")
    with pytest.raises(Truncated):
        read_header(sealed[:1], name="x")


def test_the_largest_field_is_16_mib() -> None:
    """The limit itself is allowed."""
    assert len(CIPHER.seal(bytes(16 * 2**20))) == 16 * 2**20 + OVERHEAD


def test_a_cipher_cannot_be_pickled_or_copied() -> None:
    """It holds a key."""
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a key"):
            act(CIPHER)

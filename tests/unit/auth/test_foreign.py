"""Hash strings that other systems make themselves verify here, and nothing else parses."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import argon2
import bcrypt
import pytest
from django.conf import settings
from django.contrib.auth import hashers
from werkzeug.security import generate_password_hash

from axis_security.auth.foreign import UnsupportedHash, parse_foreign
from axis_security.auth.kdf import OWASP_12_MIB, CostRefused
from axis_security.auth.passwords import PasswordRefused, Passwords, Verified
from axis_security.core.secret import Secret

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'crypt' is deprecated", DeprecationWarning)
    from passlib import hash as passlib_hash

if not settings.configured:
    settings.configure(USE_TZ=True)


def accepting(stored: str) -> Passwords:
    """Accepts hashes as costly as *stored* is, and no others: the suite stays quick."""
    return Passwords(cost=OWASP_12_MIB, legacy=[parse_foreign(stored).call])


def _django(hasher: hashers.BasePasswordHasher, **work: int) -> Callable[[str], str]:
    def make(password: str) -> str:
        salt = hasher.salt()
        return str(hasher.encode(password, salt, **work))

    return make


class _CheapBcryptSha256(hashers.BCryptSHA256PasswordHasher):
    rounds = 4


MAKERS: dict[str, Callable[[str], str]] = {
    "django:pbkdf2-sha256": _django(hashers.PBKDF2PasswordHasher(), iterations=1000),
    "django:pbkdf2-sha1": _django(hashers.PBKDF2SHA1PasswordHasher(), iterations=1000),
    "django:argon2id": _django(hashers.Argon2PasswordHasher()),
    "django:scrypt": _django(hashers.ScryptPasswordHasher()),
    "django:bcrypt-sha256": _django(_CheapBcryptSha256()),
    "werkzeug:pbkdf2-sha256": lambda password: generate_password_hash(password, "pbkdf2:sha256:1000"),
    "werkzeug:pbkdf2-sha512": lambda password: generate_password_hash(password, "pbkdf2:sha512:1000"),
    "werkzeug:scrypt": lambda password: generate_password_hash(password, "scrypt"),
    "passlib:pbkdf2-sha1": passlib_hash.pbkdf2_sha1.using(rounds=1000).hash,
    "passlib:pbkdf2-sha256": passlib_hash.pbkdf2_sha256.using(rounds=1000).hash,
    "passlib:pbkdf2-sha512": passlib_hash.pbkdf2_sha512.using(rounds=1000).hash,
    "passlib:scrypt": passlib_hash.scrypt.using(rounds=10).hash,
    "argon2id": lambda password: argon2.PasswordHasher(time_cost=1, memory_cost=1024).hash(password),
    "bcrypt": lambda password: bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode(),
}


@pytest.mark.parametrize("scheme", MAKERS)
def test_strings_made_by_the_other_system_verify(scheme: str) -> None:
    """Each scheme: the system's own output verifies, yields our stored form, and refuses another password; 3 bytes or 200."""
    for password in ("abc", "pässwörd 漢字 " * 12):
        stored = MAKERS[scheme](password)
        assert parse_foreign(stored).scheme == scheme
        answer = accepting(stored).verify(password=Secret(password), stored=Secret(stored))
        assert isinstance(answer, Verified), stored
        assert answer.scheme == scheme
        assert answer.rehashed is not None
        assert answer.rehashed.reveal().startswith("axis1$")
        assert isinstance(accepting(stored).verify(password=Secret("x" + password), stored=Secret(stored)), PasswordRefused)


@pytest.mark.parametrize("scheme", sorted(MAKERS))
def test_the_redacted_form_parses_to_the_same_call(scheme: str) -> None:
    """What a wrapped hash keeps has the same parameters and salt, and none of the digest."""
    parsed = parse_foreign(MAKERS[scheme]("abc"))
    again = parse_foreign(parsed.redacted)
    assert (again.call, again.scheme, again.prehash) == (parsed.call, parsed.scheme, parsed.prehash)
    assert set(again.tag) in ({0}, {ord(".")})


GOLDEN = {
    # The bcrypt self-test vectors of the OpenBSD and crypt_blowfish distributions.
    "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW": "U*U",
    "$2y$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK": "U*U*",
    "$2b$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored",
}


@pytest.mark.parametrize("stored", GOLDEN)
def test_bcrypt_vectors_of_every_prefix(stored: str) -> None:
    """2a, 2y and 2b verify, and a password beyond 72 bytes gives the historic answer instead of an error."""
    assert isinstance(accepting(stored).verify(password=Secret(GOLDEN[stored]), stored=Secret(stored)), Verified)


@pytest.mark.parametrize(
    "stored",
    [
        "$argon2id$v=19$m=4194304,t=50,p=1$c2FsdHNhbHQ$" + "A" * 43,
        "$2b$31$" + "a" * 53,
        "pbkdf2_sha256$999999999$salt$" + "A" * 43 + "=",
        "scrypt:1073741824:8:1$salt$" + "00" * 64,
        "scrypt:3:8:1$salt$" + "00" * 64,
        "$scrypt$ln=9999999,r=8,p=1$c2FsdA$" + "A" * 43,
        "scrypt:32768:8:9999$salt$" + "00" * 64,
    ],
)
def test_hostile_costs_are_refused_at_parsing(stored: str) -> None:
    """A stored cost above the ceiling never reaches a KDF."""
    with pytest.raises(CostRefused):
        parse_foreign(stored)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plain",
        "$2x$05$" + "a" * 53,
        "$2b$05$" + "a" * 52,
        "$1$abc$def",
        "pbkdf2_sha256$1000$s$!!!",
        "sha1$salt$abcd",
        "$argon2id$v=18$m=8,t=1,p=1$a$b",
        "A" * 5000,
        "pbkdf2_sha256$1000$salt$" + "A" * 42 + "B=",
        "pbkdf2:sha256:01000$salt$" + "00" * 32,
        "scrypt:1024:8:1$salt$" + "00" * 64 + "\n",
    ],
)
def test_other_text_does_not_parse(stored: str) -> None:
    """One spelling per format: damaged, non-canonical and unknown strings are refused by one error type."""
    with pytest.raises(UnsupportedHash):
        parse_foreign(stored)

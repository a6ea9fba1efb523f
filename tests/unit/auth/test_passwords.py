"""Password hashes: they verify, they upgrade, and every path costs the same."""

from __future__ import annotations

import warnings

import bcrypt
import pytest
from argon2.low_level import Type, core, ffi
from werkzeug.security import generate_password_hash

from axis_security.auth.foreign import UnsupportedHash, bcrypt_ceiling, pbkdf2_ceiling, scrypt_ceiling
from axis_security.auth.kdf import OWASP_19_MIB, OWASP_46_MIB, RFC9106_LOW_MEMORY, Argon2Call, Argon2Cost, CostRefused, SystemKdf
from axis_security.auth.passwords import Derived, PasswordRefused, Passwords, Refusal, UnusablePassword, Verified
from axis_security.auth.peppers import PepperRing
from axis_security.auth.ports import CheckPassword
from axis_security.auth.vault import vault_call
from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret
from axis_security.testing.kdf import CountingKdf

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "'crypt' is deprecated", DeprecationWarning)
    from passlib.hash import pbkdf2_sha256

RIGHT = Secret("correct horse battery staple")
WRONG = Secret("incorrect horse battery staple")


def ring(active: str = "p1", *ids: str) -> PepperRing:
    return PepperRing(active=active, keys={name: Secret(name.encode() * 16) for name in {active, *ids}})


def test_a_hash_verifies_with_real_argon2_and_no_other_password_does() -> None:
    """Round trip at the default cost, through argon2-cffi itself."""
    passwords = Passwords()
    stored = passwords.hash(RIGHT)
    assert passwords.verify(password=RIGHT, stored=stored) == Verified(None)
    assert passwords.verify(password=WRONG, stored=stored) == PasswordRefused(Refusal.MISMATCH)
    assert "m=47104,t=1,p=1" in stored.reveal()


def test_every_hash_has_its_own_salt() -> None:
    """Equal passwords never give equal stored forms."""
    passwords = Passwords(kdf=CountingKdf())
    assert len({passwords.hash(RIGHT).reveal() for _ in range(50)}) == 50


def test_canonically_equal_spellings_are_one_password() -> None:
    """NFC: é typed as one code point or as e plus accent; case and compatibility forms stay different."""
    passwords = Passwords(kdf=CountingKdf())
    stored = passwords.hash(Secret("caf\u00e9-plain-pass"))
    assert isinstance(passwords.verify(password=Secret("cafe\u0301-plain-pass"), stored=stored), Verified)
    assert isinstance(passwords.verify(password=Secret("CAF\u00c9-plain-pass"), stored=stored), PasswordRefused)
    fi = passwords.hash(Secret("\ufb01ne"))
    assert isinstance(passwords.verify(password=Secret("fine"), stored=fi), PasswordRefused)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", Refusal.EMPTY),
        ("a\0b", Refusal.NOT_TEXT),
        ("\ud800", Refusal.NOT_TEXT),
        ("x" * 1_000_000, Refusal.TOO_LONG),
        ("é" * 513, Refusal.TOO_LONG),
    ],
)
def test_unusable_text_is_refused_before_any_work(text: str, why: Refusal) -> None:
    """CVE-2013-1443's class: size and shape are checked first, and the answer does not depend on the account."""
    kdf = CountingKdf()
    passwords = Passwords(kdf=kdf)
    stored = passwords.hash(RIGHT)
    kdf.take()
    for account in (stored, None, Secret("$2b$12$" + "a" * 53)):
        assert passwords.verify(password=Secret(text), stored=account) == PasswordRefused(why)
    assert kdf.take() == {}
    with pytest.raises(UnusablePassword):
        passwords.hash(Secret(text))


def test_passwords_of_64_and_of_512_characters_are_allowed() -> None:
    """ASVS 6.2.9."""
    passwords = Passwords(kdf=CountingKdf())
    for size in (64, 512):
        assert passwords.verify(password=Secret("x" * size), stored=passwords.hash(Secret("x" * size))) == Verified(None)


def test_every_path_spends_the_same_units() -> None:
    """CVE-2024-39329's class: unknown, wrong, right, legacy right, legacy wrong, cheap legacy, wrapped, damaged, hostile: equal work."""
    kdf = CountingKdf(real=True)
    passwords = Passwords(kdf=kdf, legacy=[bcrypt_ceiling(cost=6), pbkdf2_ceiling(iterations=1000), scrypt_ceiling(n=1024, r=8, p=1)])
    secret = RIGHT.reveal()
    accounts: dict[str, Secret[str] | None] = {
        "unknown": None,
        "native": passwords.hash(RIGHT),
        "bcrypt": Secret(bcrypt.hashpw(secret.encode(), bcrypt.gensalt(6)).decode()),
        "cheap bcrypt": Secret(bcrypt.hashpw(secret.encode(), bcrypt.gensalt(4)).decode()),
        "pbkdf2": Secret(generate_password_hash(secret, "pbkdf2:sha256:1000")),
        "cheap pbkdf2": Secret(pbkdf2_sha256.using(rounds=10).hash(secret)),
        "cheap scrypt": Secret(generate_password_hash(secret, "scrypt:512:8:1")),
        "damaged": Secret("not a hash"),
        "empty": Secret(""),
        "hostile": Secret("$argon2id$v=19$m=4194304,t=50,p=1$c2FsdHNhbHRzYWx0$" + "A" * 43),
    }
    accounts["wrapped"] = passwords.wrap(Secret(bcrypt.hashpw(secret.encode(), bcrypt.gensalt(6)).decode()))
    kdf.take()
    passwords.spend()
    expected = kdf.take()
    assert expected == {"argon2": OWASP_46_MIB.memory_kib, "bcrypt": 64, "pbkdf2-sha256": 1000, "scrypt": 8192}
    seen = {}
    for name, stored in accounts.items():
        for label, password in (("right", RIGHT), ("wrong", WRONG)):
            answer = passwords.verify(password=password, stored=stored)
            assert isinstance(answer, Verified) == (label == "right" and name not in {"unknown", "damaged", "empty", "hostile"}), (
                name,
                label,
            )
            seen[name, label] = kdf.take()
    extra = {**expected, "argon2": 2 * expected["argon2"]}
    assert seen.pop(("wrapped", "right")) == extra  # a success that upgrades spends the new hash on top
    assert {name: units for name, units in seen.items() if units != expected} == {}


def test_an_older_native_cost_is_topped_up_and_upgraded() -> None:
    """A wrong password on an old, cheaper hash costs what one on a current hash does; a right one yields a current hash."""
    kdf = CountingKdf()
    old = Passwords(kdf=kdf, cost=OWASP_19_MIB).hash(RIGHT)
    passwords = Passwords(kdf=kdf, cost=OWASP_46_MIB)
    kdf.take()
    assert passwords.verify(password=WRONG, stored=old) == PasswordRefused(Refusal.MISMATCH)
    assert kdf.take() == {"argon2": 47_104}
    answer = passwords.verify(password=RIGHT, stored=old)
    assert isinstance(answer, Verified)
    assert answer.rehashed is not None
    assert passwords.verify(password=RIGHT, stored=answer.rehashed) == Verified(None)


def test_pepper_rotation_keeps_old_hashes_and_moves_them() -> None:
    """An old pepper verifies; the login moves the account; a lost pepper refuses, with the same work."""
    kdf = CountingKdf()
    old = Passwords(kdf=kdf, peppers=ring("p1")).hash(RIGHT)
    both = Passwords(kdf=kdf, peppers=ring("p2", "p1"))
    answer = both.verify(password=RIGHT, stored=old)
    assert isinstance(answer, Verified)
    assert answer.rehashed is not None
    assert answer.rehashed.reveal().startswith("axis1$p2$")
    lost = Passwords(kdf=kdf, peppers=ring("p2"))
    kdf.take()
    assert lost.verify(password=RIGHT, stored=old) == PasswordRefused(Refusal.UNKNOWN_PEPPER)
    assert kdf.take() == {"argon2": 47_104}


def test_a_stolen_hash_is_useless_without_the_pepper() -> None:
    """The pepper takes part: the same text without it, or under another key of the same name, does not verify."""
    kdf = CountingKdf()
    stored = Passwords(kdf=kdf, peppers=ring("p1")).hash(RIGHT)
    other = PepperRing(active="p1", keys={"p1": Secret(b"x" * 32)})
    assert Passwords(kdf=kdf, peppers=other).verify(password=RIGHT, stored=stored) == PasswordRefused(Refusal.MISMATCH)
    stripped = Secret(stored.reveal().replace("$p1$", "$-$"))
    assert Passwords(kdf=kdf).verify(password=RIGHT, stored=stripped) == PasswordRefused(Refusal.MISMATCH)


@pytest.mark.parametrize("stored", ["axis1$-$-$m=4194304,t=50,p=1$", "axis1$-$-$m=47104,t=99999,p=1$", "axis1$-$-$m=47104,t=1,p=99$"])
def test_hostile_stored_costs_are_never_spent(stored: str) -> None:
    """A stored hash is input: 4 GiB for 50 passes is refused and costs one ordinary hash."""
    kdf = CountingKdf()
    passwords = Passwords(kdf=kdf)
    assert passwords.verify(password=RIGHT, stored=Secret(stored + "A" * 22 + "$" + "A" * 43)) == PasswordRefused(Refusal.COST)
    assert kdf.take() == {"argon2": 47_104}


def test_undeclared_schemes_are_refused() -> None:
    """Equal work can only be promised for declared schemes, so others do not verify, and the ceiling binds."""
    stored = Secret(bcrypt.hashpw(RIGHT.reveal().encode(), bcrypt.gensalt(5)).decode())
    assert Passwords(kdf=CountingKdf()).verify(password=RIGHT, stored=stored) == PasswordRefused(Refusal.UNSUPPORTED_HASH)
    low = Passwords(kdf=CountingKdf(), legacy=[bcrypt_ceiling(cost=4)])
    assert low.verify(password=RIGHT, stored=stored) == PasswordRefused(Refusal.COST)
    with pytest.raises(CostRefused):
        low.wrap(stored)
    with pytest.raises(UnsupportedHash):
        Passwords(kdf=CountingKdf()).wrap(stored)


def test_a_wrapped_hash_does_not_hold_the_old_digest() -> None:
    """Wrap-now: the weak digest is gone from the stored text, salt and cost remain, and the password still verifies."""
    text = bcrypt.hashpw(RIGHT.reveal().encode(), bcrypt.gensalt(5)).decode()
    passwords = Passwords(legacy=[bcrypt_ceiling(cost=5)], peppers=ring())
    wrapped = passwords.wrap(Secret(text))
    inner = passwords._read(wrapped.reveal())
    assert text[29:] not in repr(inner)
    assert inner.inner.redacted == text[:29] + "." * 31  # type: ignore[union-attr]
    answer = passwords.verify(password=RIGHT, stored=wrapped)
    assert isinstance(answer, Verified)
    assert answer.scheme == "axis1+bcrypt"
    assert answer.rehashed is not None
    assert passwords.verify(password=RIGHT, stored=answer.rehashed) == Verified(None)
    assert passwords.verify(password=WRONG, stored=wrapped) == PasswordRefused(Refusal.MISMATCH)


def test_costs_below_the_floor_cannot_be_built() -> None:
    """ASVS 11.4.2: a weaker Argon2id than the approved ones is no setting."""
    for memory, passes in ((47_103, 1), (19_455, 2), (12_287, 3), (65_536, 0)):
        with pytest.raises(ConfigError):
            Argon2Cost(memory_kib=memory, passes=passes, lanes=1)
    with pytest.raises(AttributeError):
        OWASP_19_MIB.memory_kib = 8  # type: ignore[misc]
    assert RFC9106_LOW_MEMORY == Argon2Cost(memory_kib=65_536, passes=3, lanes=4)


def test_nothing_secret_in_any_repr() -> None:
    """No stored form, password or key shows in a repr."""
    passwords = Passwords(kdf=CountingKdf(), peppers=ring())
    stored = passwords.hash(RIGHT)
    kept = passwords.split(stored)
    asked = CheckPassword(account="ann", settings=None, digest=kept.digest)
    shown = repr((stored, RIGHT, passwords.verify(password=RIGHT, stored=stored), ring(), kept, asked, vault_call(asked)))
    assert repr(kept.digest) not in shown
    assert "axis1$" not in shown
    assert "correct horse" not in shown
    assert "p1p1" not in shown


@pytest.mark.parametrize(
    ("kind", "tag"),
    [
        (Type.D, "512b391b6f1162975371d30919734294f868e3be3984f3c1a13a4db9fabe4acb"),
        (Type.I, "c814d9d1dc7f37aa13f0d77f2494bda1c8de6b016dd388d29952a4c4672b6ce8"),
        (Type.ID, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"),
    ],
)
def test_rfc9106_section_5_test_values(kind: Type, tag: str) -> None:
    """The native library that we call computes the RFC's own values, secret value and associated data included."""
    parts = {"pwd": b"\x01" * 32, "salt": b"\x02" * 16, "secret": b"\x03" * 8, "ad": b"\x04" * 12}
    held = {name: ffi.new("uint8_t[]", value) for name, value in parts.items()}
    lengths = {f"{name}len": len(value) for name, value in parts.items()}
    out = ffi.new("uint8_t[32]")
    cost = {"version": 0x13, "t_cost": 3, "m_cost": 32, "lanes": 4, "threads": 4}
    hooks = {"allocate_cbk": ffi.NULL, "free_cbk": ffi.NULL, "flags": 0}
    assert core(ffi.new("argon2_context *", {"out": out, "outlen": 32, **held, **lengths, **cost, **hooks}), kind.value) == 0
    assert bytes(ffi.buffer(out)).hex() == tag


def test_rfc9106_argon2id_known_answer() -> None:
    """The low-level call gives the value that the reference implementation's own tests list (argon2id v19, m=64 MiB, t=2, p=1)."""
    call = Argon2Call(salt=b"somesalt", memory_kib=65_536, passes=2, lanes=1)
    assert SystemKdf().derive(call, b"password").hex() == "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"


@pytest.mark.parametrize("kind", ["own", "peppered", "bcrypt", "pbkdf2", "werkzeug-scrypt", "wrapped"])
def test_a_split_hash_verifies_like_the_whole_one(kind: str) -> None:
    """A store may keep the digest and give out the settings: right and wrong passwords derive the right and another digest, at verify's work."""
    kdf = CountingKdf(real=True)
    legacy = (bcrypt_ceiling(cost=4), pbkdf2_ceiling(iterations=1000), scrypt_ceiling(n=1024))
    passwords = Passwords(kdf=kdf, peppers=ring() if kind == "peppered" else None, legacy=legacy)
    salted = bcrypt.hashpw(RIGHT.reveal().encode(), bcrypt.gensalt(4)).decode()
    stored = {
        "own": lambda: passwords.hash(RIGHT),
        "peppered": lambda: passwords.hash(RIGHT),
        "bcrypt": lambda: Secret(salted),
        "pbkdf2": lambda: Secret(pbkdf2_sha256.using(rounds=1000).hash(RIGHT.reveal())),
        "werkzeug-scrypt": lambda: Secret(generate_password_hash(RIGHT.reveal(), "scrypt:1024:8:1")),
        "wrapped": lambda: passwords.wrap(Secret(salted)),
    }[kind]()
    parts = passwords.split(stored)
    assert parts.digest.hex() not in parts.settings
    assert parts.settings != stored.reveal()
    kdf.take()
    assert isinstance(passwords.verify(password=WRONG, stored=stored), PasswordRefused)
    work = kdf.take()
    wrong = passwords.derive(password=WRONG, settings=parts.settings)
    assert kdf.take() == work
    right = passwords.derive(password=RIGHT, settings=parts.settings)
    assert kdf.take() == work
    assert isinstance(wrong, Derived)
    assert wrong.digest.reveal() != parts.digest
    assert isinstance(right, Derived)
    assert right.digest.reveal() == parts.digest
    renewed = passwords.renew(password=RIGHT, derived=right)
    assert (renewed is None) == (kind in {"own", "peppered"})
    if renewed is not None:
        assert passwords.verify(password=RIGHT, stored=renewed) == Verified(None)


def test_settings_alone_never_verifies() -> None:
    """The zero digest in the settings is no digest of anything, and having no settings costs what having some costs."""
    kdf = CountingKdf()
    passwords = Passwords(kdf=kdf)
    settings = passwords.split(passwords.hash(RIGHT)).settings
    kdf.take()
    assert passwords.verify(password=RIGHT, stored=Secret(settings)) == PasswordRefused(Refusal.MISMATCH)
    work = kdf.take()
    assert passwords.derive(password=RIGHT, settings=None) == PasswordRefused(Refusal.NO_ACCOUNT)
    assert kdf.take() == work
    with pytest.raises(UnsupportedHash):
        passwords.split(Secret("not a hash"))

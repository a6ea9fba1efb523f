"""Any password and any stored text: a typed answer of the same shape for every kind of account."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axis_security.auth.foreign import bcrypt_ceiling, pbkdf2_ceiling
from axis_security.auth.passwords import PasswordRefused, Passwords, Refusal, UnusablePassword, Verified
from axis_security.core.secret import Secret
from axis_security.testing.kdf import CountingKdf

ODD = st.sampled_from(
    ["", "\0", "a\0b", "\ud800", "x\udfff", "x" * 1_000_000, "y" * 81, "é" * 60, "e\u0301" * 60, "\u1100\u1161\u11a8", "ﷺ" * 300]
)
PASSWORDS = st.one_of(st.text(), st.text(st.characters()), ODD)
HASHES = st.one_of(
    st.text(),
    st.from_regex(r"axis1\$-\$-\$m=[0-9]{1,8},t=[0-9]{1,3},p=[0-9]\$[A-Za-z0-9_-]{22}\$[A-Za-z0-9_-]{43}", fullmatch=True),
    st.from_regex(r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{50,54}", fullmatch=True),
    st.from_regex(r"pbkdf2_sha256\$[0-9]{1,8}\$[a-z]{1,8}\$[A-Za-z0-9+/]{40,44}={0,2}", fullmatch=True),
)
KDF = CountingKdf()
PASSWORDS_UNDER_TEST = Passwords(kdf=KDF, legacy=[bcrypt_ceiling(cost=12), pbkdf2_ceiling(iterations=600_000)])
ACCOUNTS = {
    "native": PASSWORDS_UNDER_TEST.hash(Secret("some other password")),
    "unknown": None,
    "bcrypt": Secret("$2b$10$" + "a" * 53),
    "wrapped": PASSWORDS_UNDER_TEST.wrap(Secret("$2b$10$" + "a" * 53)),
    "django": Secret("pbkdf2_sha256$1000$salt$" + "A" * 43 + "="),
    "damaged": Secret("!"),
}


@given(PASSWORDS)
def test_any_password_gets_the_same_shape_and_work_from_every_account(text: str) -> None:
    """The refusal before work is the same for all accounts; otherwise all spend equal units and none verifies."""
    answers, work = [], []
    for stored in ACCOUNTS.values():
        KDF.take()
        answers.append(PASSWORDS_UNDER_TEST.verify(password=Secret(text), stored=stored))
        work.append(KDF.take())
    assert all(isinstance(answer, PasswordRefused) for answer in answers)
    assert all(units == work[0] for units in work)
    unusable = [a for a in answers if isinstance(a, PasswordRefused) and a.refusal in {Refusal.EMPTY, Refusal.TOO_LONG, Refusal.NOT_TEXT}]
    assert len(unusable) in {0, len(answers)}
    try:
        stored = PASSWORDS_UNDER_TEST.hash(Secret(text))
    except UnusablePassword:
        assert unusable
    else:
        assert PASSWORDS_UNDER_TEST.verify(password=Secret(text), stored=stored) == Verified(None)


@given(HASHES)
def test_any_stored_text_is_answered_with_bounded_work(text: str) -> None:
    """Whatever stands in the column: a typed answer, and no more work than the ceilings plus one hash."""
    KDF.take()
    answer = PASSWORDS_UNDER_TEST.verify(password=Secret("a password"), stored=Secret(text))
    units = KDF.take()
    assert isinstance(answer, (Verified, PasswordRefused))
    assert units["argon2"] <= 1024 * 1024
    assert units.get("bcrypt", 0) <= 2**12
    assert units.get("pbkdf2-sha256", 0) <= 600_000

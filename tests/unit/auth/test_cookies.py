"""Cookies and their signatures: one accepted form, and everything else is absent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from itsdangerous import Signer

from axis_security.auth.cookies import MAX_HEADER_CHARS, CookieKind, CookieProblem, CookieProfile, is_loopback
from axis_security.auth.signing import SigningKeys
from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment

PROFILE = CookieProfile.production()
NAME = "__Host-axis_session"
OLD, NEW = Secret(b"o" * 32), Secret(b"n" * 32)


def session_of(header: str | bytes | list[bytes]) -> str | None:
    found = PROFILE.read(header).values.get(CookieKind.SESSION)
    return None if found is None else found.reveal()


def test_a_plain_cookie_is_read_among_others() -> None:
    """The control of all that follows: our cookie, in our spelling, is found anywhere in the header."""
    for header in (f"{NAME}=v", f"a=b; {NAME}=v; c=d", f'x="q;uoted"; {NAME}=v', f"{NAME}=v ;", [b"a=1", f"{NAME}=v".encode()]):
        assert session_of(header) == "v"


@pytest.mark.parametrize(
    "header",
    [
        f"={NAME}=v",
        f"; ={NAME}=v",
        f"\u2000{NAME}=v",
        f"\u2000{NAME}=v".encode(),
        f"\x85{NAME}=v",
        f"\xa0{NAME}=v",
        f"\u3000{NAME}=v",
        "__host-axis_session=v",
        "__HOST-axis_session=v",
        f"{NAME}\u200b=v",
        "__Host\u2010axis_session=v",
        f"$Version=1; ,{NAME}=v",
        f"a=1, {NAME}=v",
    ],
)
def test_cve_2023_23934_and_prefix_bypass_names_that_only_look_like_ours_are_ignored(header: str | bytes) -> None:
    """A nameless cookie, a look-alike or another case is no cookie of ours, under any reading."""
    read = PROFILE.read(header)
    assert not read.values
    assert not read.problems


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (f"{NAME}=a; {NAME}=b", CookieProblem.DUPLICATE),
        (f"{NAME}=a; {NAME}=a", CookieProblem.DUPLICATE),
        (f"{NAME}=a; {NAME}=b; {NAME}=c", CookieProblem.DUPLICATE),
        (f'{NAME}="v"; {NAME}=b', CookieProblem.DUPLICATE),
        (f'{NAME}="v"', CookieProblem.MALFORMED),
        (f"{NAME}=", CookieProblem.MALFORMED),
        (NAME, CookieProblem.MALFORMED),
        (f"{NAME}=a b", CookieProblem.MALFORMED),
        (f"{NAME}=a\u2000", CookieProblem.MALFORMED),
        (f"{NAME}=a%00", CookieProblem.MALFORMED),
        (f"{NAME}=" + "a" * 4096, CookieProblem.MALFORMED),
        (f"{NAME}=a\x00", CookieProblem.HEADER),
        (f"x=\r\n; {NAME}=a", CookieProblem.HEADER),
        (f"{NAME}=a; x=" + "b" * MAX_HEADER_CHARS, CookieProblem.HEADER),
    ],
)
def test_duplicates_quotes_and_control_characters_deny(header: str, problem: CookieProblem) -> None:
    """Two of one name are none; a quoted, empty, long or odd value is none; a header with control characters or beyond the limit holds none."""
    read = PROFILE.read(header)
    assert CookieKind.SESSION not in read.values
    assert read.problems[CookieKind.SESSION] is problem


def test_asvs_3_3_every_cookie_is_host_bound_secure_and_hidden_from_scripts() -> None:
    """ASVS 3.3.1 to 3.3.4: `__Host-`, Secure, HttpOnly, SameSite, Path=/, no Domain, for setting and clearing, for each kind."""
    for kind in CookieKind:
        for name, line in (PROFILE.set(kind, Secret("v"), lasting=timedelta(minutes=1)), PROFILE.clear(kind)):
            assert name == "Set-Cookie"
            assert line.startswith("__Host-axis_")
            parts = {part.strip().partition("=")[0] for part in line.split(";")[1:]}
            assert {"Path", "Secure", "HttpOnly", "SameSite"} <= parts
            assert "Domain" not in parts
            assert "; Path=/;" in line
            assert "SameSite=None" not in line


def test_asvs_3_3_5_no_cookie_exceeds_4096_bytes() -> None:
    """A value that a browser would drop is refused when it is written."""
    PROFILE.set(CookieKind.SESSION, Secret("v" * (4096 - len(NAME))))
    with pytest.raises(ConfigError):
        PROFILE.set(CookieKind.SESSION, Secret("v" * (4097 - len(NAME))))
    with pytest.raises(ConfigError):
        PROFILE.set(CookieKind.SESSION, Secret("v; Domain=evil.example"))


def test_development_cookies_exist_on_this_machine_only() -> None:
    """The plain profile needs the development environment and a loopback host, and never uses the production name."""
    for environment in (Environment.PRODUCTION, Environment.TEST):
        with pytest.raises(ConfigError):
            CookieProfile.development(environment=environment)
    plain = CookieProfile.development(environment=Environment.DEVELOPMENT)
    _, line = plain.set(CookieKind.SESSION, Secret("v"), host="localhost:8000")
    assert "Secure" not in line
    assert "HttpOnly" in line
    assert plain.name(CookieKind.SESSION) != NAME
    assert CookieKind.SESSION in plain.read("axis_dev_session=v", host="127.0.0.1").values
    for host in ("app.example.com", "localhost.evil.example", "127.0.0.1.nip.io", "", "localhost:8000@evil"):
        assert not is_loopback(host)
        assert not plain.read("axis_dev_session=v", host=host).values
        with pytest.raises(ConfigError):
            plain.set(CookieKind.SESSION, Secret("v"), host=host)
    assert not PROFILE.read("axis_dev_session=v", host="localhost").values


def test_a_signature_is_for_one_purpose_and_one_spelling() -> None:
    """A signed text passes for its purpose, and no change of it passes at all; not even another spelling of the same bits."""
    keys = SigningKeys([OLD])
    signed = keys.signer("session").sign("abc.def").reveal()
    assert keys.signer("session").unsign(signed) == "abc.def"
    assert keys.signer("pending").unsign(signed) is None
    for at in range(len(signed)):
        changed = signed[:at] + ("A" if signed[at] != "A" else "B") + signed[at + 1 :]
        assert keys.signer("session").unsign(changed) is None
    for odd in ("", ".", "abc", signed + "=", signed + "\n", " " + signed, signed * 40, "\ud800", "é." + signed):
        assert keys.signer("session").unsign(odd) is None
    last = "AEIMQUYcgkosw048".index(signed[-1]) * 4
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    respelled = signed[:-1] + alphabet[last + 1]
    assert keys.signer("session").unsign(respelled) is None
    inner = keys.signer("session")._signer
    assert isinstance(inner, Signer)
    assert inner.unsign(respelled) == b"abc.def", "control: the bare signer takes the second spelling"


def test_key_rotation_signs_nobody_out() -> None:
    """A text signed under the old key passes while that key is listed, new ones get the new key, and dropping the old key ends the old text."""
    old, both, new = (SigningKeys(keys).signer("session") for keys in ([OLD], [OLD, NEW], [NEW]))
    signed = old.sign("id").reveal()
    assert both.unsign(signed) == "id"
    assert new.unsign(signed) is None
    assert new.unsign(both.sign("id").reveal()) == "id"


def test_unusable_keys_are_refused() -> None:
    """No key, a short key or the same key twice is refused when the ring is built."""
    for keys in ([], [Secret(b"short")], [OLD, OLD]):
        with pytest.raises(ConfigError):
            SigningKeys(keys)
    assert "oooo" not in repr(SigningKeys([OLD]))

"""Promises 4, 5 and 6: how passwords, sessions and second factors are kept, measured on what the host's own objects make."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from axis_security.auth.cookies import CookieKind, CookieProfile, Header
from axis_security.core.checks import CheckResult, Finding
from axis_security.core.errors import AxisError
from axis_security.core.events import NullSink
from axis_security.core.ids import UserId
from axis_security.core.secret import Secret
from axis_security.ops.promises.answer import Connect, Look, answer, finding, rows

if TYPE_CHECKING:
    from axis_security.auth.passwords import Passwords
    from axis_security.auth.totp import Sealer, TotpPolicy

__all__ = ["argon2id", "cookies_seen", "session_cookies", "stored_passwords", "totp"]

_NATIVE: Final = re.compile(r"axis1\$([^$]*)\$([^$]*)\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9_-]+)(?:\$([A-Za-z0-9_-]+))?", re.ASCII)
_MIN_SALT_CHARS: Final = 22
"""16 bytes in base64url: RFC 9106 section 3.1."""


def _below_floor(memory_kib: int, passes: int) -> bool:
    # OWASP password storage cheat sheet; ASVS 5.0 appendix C. The same floor that Argon2Cost holds new hashes to.
    return passes < 1 or memory_kib < {1: 47_104, 2: 19_456}.get(passes, 12_288)


def argon2id(passwords: Passwords) -> Look:
    """A password hashed now is Argon2id at or above the floor of OWASP and ASVS, under a salt of its own, and verifies; a wrong one does not."""

    def look() -> CheckResult:
        from axis_security.auth.passwords import Verified

        password, wrong = Secret(secrets.token_urlsafe(24)), Secret(secrets.token_urlsafe(24))
        stored = [passwords.hash(password) for _ in range(2)]
        found: list[Finding] = []

        def find(code: str, what: str, why: str) -> None:
            found.append(
                finding(f"passwords.{code}", "new hashes", what, why, "build Passwords() with its defaults; see docs/how-to/passwords.md")
            )

        matches = [_NATIVE.fullmatch(text.reveal()) for text in stored]
        first, second = matches
        if first is None or second is None:
            find("not_argon2id", "a new hash is not Argon2id", "its stored form is another one")
            return answer("passwords.argon2id", "unknown form", found)
        memory, passes, lanes = (int(first[n]) for n in (3, 4, 5))
        if _below_floor(memory, passes):
            find("weak", "Argon2id costs less than the floor", f"m={memory} KiB, t={passes}, p={lanes}")
        if first[6] == second[6] or len(first[6]) < _MIN_SALT_CHARS:
            find("salt", "two hashes share a salt, or it is short", "the source of randomness is not one")
        if first[1] == first[2] == "-" and not _recomputed(password, first):
            find("not_argon2id", "a new hash is not Argon2id", "the reference implementation computes another tag from the same parameters")
        if not isinstance(passwords.verify(password=password, stored=stored[0]), Verified):
            find("refused", "the right password does not verify", "the hash that was made does not fit it")
        if isinstance(passwords.verify(password=wrong, stored=stored[0]), Verified):
            find("accepted", "a wrong password verifies", "the check accepts anything")
        return answer("passwords.argon2id", f"m={memory} KiB, t={passes}, p={lanes}, a salt of {len(first[6]) * 6 // 8} bytes each", found)

    return look


def _recomputed(password: Secret[str], match: re.Match[str]) -> bool:
    from argon2.low_level import Type, hash_secret_raw

    from axis_security.core.encoding import b64url_decode

    tag = b64url_decode(match[7])
    made = hash_secret_raw(
        password.reveal().encode(),
        b64url_decode(match[6]),
        time_cost=int(match[4]),
        memory_cost=int(match[3]),
        parallelism=int(match[5]),
        hash_len=len(tag),
        type=Type.ID,
    )
    return secrets.compare_digest(made, tag)


def stored_passwords(connect: Connect, *, legacy: bool = False) -> Look:
    """Every password in the vault is stored as Argon2id at or above the floor, and no two share a salt. Digests are not read.

    Args:
        connect: a login that may read schema ``axis``: the one that applies plans, never the app's.
        legacy: hashes of an older system that have not been wrapped are accepted; wrap them, and take this out.
    """

    def look() -> CheckResult:
        total, weak, foreign, salts = 0, 0, 0, set[str]()
        with connect() as connection:
            for (settings,) in rows(connection, "SELECT settings FROM axis.vault_account WHERE settings IS NOT NULL"):
                total += 1
                match = _NATIVE.fullmatch(settings.rstrip("$"))
                if match is None:
                    foreign += 1
                    continue
                salts.add(match[6])
                weak += _below_floor(int(match[3]), int(match[4]))
        shared = total - foreign - len(salts)
        fix = "Passwords.wrap() takes old hashes over without a login; reset the passwords of the rest"
        wanted = (
            ("weak_stored", weak, "stored hashes cost less than the floor"),
            ("shared_salt", shared, "stored hashes share a salt with another"),
            ("foreign_stored", 0 if legacy else foreign, "stored hashes are not Argon2id"),
        )
        found = [
            finding(f"passwords.{code}", "vault", what, f"{count} of {total}", fix, count=count) for code, count, what in wanted if count
        ]
        return answer("passwords.stored", f"{total} stored, {total - foreign} Argon2id, {len(salts)} salts", found)

    return look


def session_cookies(profile: CookieProfile) -> Look:
    """Every cookie that the profile writes is ``__Host-``, Secure, HttpOnly, SameSite, for the whole host and for no other."""

    def written() -> Iterator[Header]:
        for kind in CookieKind:
            yield profile.set(kind, Secret("measured"), host="localhost")

    return _cookies("sessions.written", lambda: [value for _, value in written()])


def cookies_seen(name: str, fetch: Callable[[], Iterable[str]]) -> Look:
    """The same for cookies as they arrive.

    Args:
        name: the check's name, such as ``sessions.login``.
        fetch: makes a request that sets cookies, and gives the values of the answer's ``Set-Cookie`` headers.
    """
    return _cookies(name, fetch)


def _cookies(name: str, fetch: Callable[[], Iterable[str]]) -> Look:
    def look() -> CheckResult:
        lines = list(fetch())
        found = [each for line in lines for each in _judge(line)]
        if not lines:
            found.append(
                finding("sessions.no_cookie", name, "no cookie was set", "the answer had no Set-Cookie header", "log in in fetch()")
            )
        return answer(name, f"{len(lines)} cookies" + ("" if found else ": __Host-, Secure, HttpOnly, SameSite"), found)

    return look


def _judge(line: str) -> Iterator[Finding]:
    first, *rest = (part.strip() for part in line.split(";"))
    cookie = first.partition("=")[0]
    attributes = {key.strip().lower(): value.strip() for key, _, value in (part.partition("=") for part in rest)}
    rules = (
        ("secure" in attributes, "secure", "it is not Secure: it travels over plain http (ASVS 3.3.1)"),
        ("httponly" in attributes, "httponly", "it is not HttpOnly: an injected script can read it (ASVS 3.3.4)"),
        (attributes.get("samesite", "").lower() in {"lax", "strict"}, "samesite", "SameSite is not Lax or Strict (ASVS 3.3.2)"),
        (cookie.startswith("__Host-"), "prefix", "its name has no __Host- prefix: a sibling domain can plant one (ASVS 3.3.3)"),
        ("domain" not in attributes, "domain", "it has a Domain: sibling hosts get it too"),
        (attributes.get("path") == "/", "path", "its Path is not /, which __Host- asks for"),
    )
    for holds, code, why in rules:
        if not holds:
            yield finding(
                f"sessions.{code}", cookie, "a session cookie is not protected", why, "use CookieProfile.production(), over https"
            )


def totp(policy: TotpPolicy, sealer: Sealer) -> Look:
    """Any account can enrol: a fresh seed has 160 bits, is stored sealed and bound to its person, and the right code, and only it, fits.

    Args:
        policy, sealer: the host's own, as given to :class:`~axis_security.auth.service.Auth`.
    """

    def look() -> CheckResult:
        import pyotp

        from axis_security.auth.factors import ReauthProof
        from axis_security.auth.totp import Totp, matching_step
        from axis_security.core.flow import drive

        now = datetime.now(UTC)
        user = UserId("axis-verify")
        stored: list[bytes] = []

        def store(request: object) -> None:
            stored.append(request.sealed)  # type: ignore[attr-defined]  # BeginEnrolment is all that an enrolment asks

        enrolment = drive(
            Totp(policy=policy, sealer=sealer, events=NullSink()).enrol(user=user, account="verify", proof=ReauthProof(user=user, at=now)),
            store,
        )
        text = enrolment.secret_base32.reveal()
        seed = _seed(text)
        found: list[Finding] = []

        def find(code: str, what: str, why: str, fix: str) -> None:
            found.append(finding(f"totp.{code}", "seed", what, why, fix))

        if len(seed) < 20:
            find("short", "a TOTP seed is too short", f"{len(seed)} bytes, RFC 4226 section 4 asks for 20", "use Totp as it is")
        if any(seed in each or text.encode() in each for each in stored):
            find("in_clear", "TOTP seeds are stored in the clear", "what is stored holds the seed", "give Auth a RingSealer (ASVS 13.3.1)")
        try:
            sealer.open(stored[0], b"another person")
        except AxisError:
            pass
        else:
            find("unbound", "a TOTP seed opens for another person", "its seal is not bound to a context", "give Auth a RingSealer")
        device = pyotp.TOTP(text)
        unix = now.timestamp()

        def fits(at: float) -> bool:
            code = device.at(int(at))
            return matching_step(secret=Secret(seed), code=code, unix_seconds=unix, drift_steps=policy.drift_steps) is not None

        if not fits(unix):
            find("refused", "the right code does not fit", "an authenticator computes another", "check the server's clock")
        if fits(unix - 300) or fits(unix + 300):
            find("drift", "an old code fits", "a code of five minutes away was accepted", "TotpPolicy(drift_steps=1)")
        return answer("totp.enrolment", f"{len(seed) * 8}-bit seed, sealed; {policy.drift_steps} step of drift", found)

    return look


def _seed(text: str) -> bytes:
    import base64

    return base64.b32decode(text + "=" * (-len(text) % 8))

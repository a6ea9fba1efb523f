"""Password hashes: Argon2id with a salt of its own for each, equal work on every path.

Stored form, one line of ASCII::

    axis1$<pepper id or ->$<inner or ->$m=<KiB>,t=<passes>,p=<lanes>$<salt>$<tag>

``inner`` is set when an older hash was wrapped (:meth:`Passwords.wrap`): the older string without its digest. Salt and tag are
base64url. Hash strings of other systems (:mod:`axis_security.auth.foreign`) verify too, where the host declares their scheme.

Unicode rule: text is taken to NFC, the form that leaves canonically equal spellings alone in meaning (RFC 8265 section 4.2), and
nothing else: no case change, no trimming, no truncation (ASVS 6.2.8). Foreign hashes are checked against the text as received.

Equal work: whatever the account (unknown, wrong password, older hash), a call spends one Argon2id at the current cost plus, for each
declared legacy scheme, its ceiling. Only a *successful* login may spend one more hash, to upgrade a hash of a lower cost.
"""

from __future__ import annotations

import enum
import hmac
import re
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from axis_security.auth.foreign import ForeignHash, UnsupportedHash, parse_foreign
from axis_security.auth.kdf import DEFAULT_COST, Argon2Call, Argon2Cost, CostRefused, Kdf, KdfCall, SystemKdf, fill
from axis_security.auth.peppers import NO_PEPPER, PepperRing
from axis_security.auth.ports import StoredHash
from axis_security.core.encoding import MalformedEncoding, b64url_decode, b64url_encode
from axis_security.core.errors import ConfigError, Denied
from axis_security.core.secret import Secret

__all__ = [
    "MAX_PASSWORD_BYTES",
    "MAX_PASSWORD_CHARS",
    "Derived",
    "PasswordRefused",
    "Passwords",
    "Refusal",
    "UnusablePassword",
    "Verified",
    "password_bytes",
]

MAX_PASSWORD_CHARS: Final = 512
"""Longest password, in code points; ASVS 6.2.9 asks for at least 64."""
MAX_PASSWORD_BYTES: Final = 1024
"""Longest password, in UTF-8 bytes."""

SALT_BYTES: Final = 16
TAG_BYTES: Final = 32

_NATIVE: Final = re.compile(
    r"axis1\$(-|[A-Za-z0-9_]{1,32})\$(-|[A-Za-z0-9_-]{2,700})\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,3})"
    r"\$([A-Za-z0-9_-]{11,171})\$([A-Za-z0-9_-]{22,171})",
    re.ASCII,
)


class Refusal(enum.StrEnum):
    """Why a password did not verify. For logs and branches; strangers are told one thing only."""

    MISMATCH = "mismatch"
    NO_ACCOUNT = "no_account"
    EMPTY = "empty"
    TOO_LONG = "too_long"
    NOT_TEXT = "not_text"
    UNSUPPORTED_HASH = "unsupported_hash"
    COST = "cost"
    UNKNOWN_PEPPER = "unknown_pepper"


class UnusablePassword(Denied):
    """A password that no account can have: empty, too long, with a NUL or a lone surrogate. Raised when one is to be *set*."""

    code = "auth.unusable_password"
    http_status = 400
    public_text = "This password cannot be used. Use 1 to 512 characters of text."

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(what="unusable password", why=refusal.value, fix="ask for another password", facts={"refusal": refusal.value})


@dataclass(frozen=True, slots=True)
class Verified:
    """The password is right. ``rehashed`` is a new stored form to put in place of the old one, if that has not changed meanwhile."""

    rehashed: Secret[str] | None
    scheme: str = "axis1"


@dataclass(frozen=True, slots=True)
class PasswordRefused:
    """The password is not right, or could not be checked."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Derived:
    """What a password derives to under the settings of a :class:`~axis_security.auth.ports.StoredHash`; whoever holds the digest says whether that is right.

    Args:
        digest: to be compared.
        scheme: name of the settings' format.
        stale: if the digest is right, the account deserves a new stored form: :meth:`Passwords.renew` gives it.
        made: that new form, where equal work demanded to make it already.
    """

    digest: Secret[bytes]
    scheme: str
    stale: bool
    made: Secret[str] | None = None


def password_bytes(password: Secret[str]) -> bytes | Refusal:
    """The bytes to hash for *password*: NFC, UTF-8; or why there are none. Sizes are checked before any work on the text."""
    text = password.reveal()
    problem = _problem(text)
    if problem is not None:
        return problem
    # NFC can lengthen text (at most threefold); the cap holds for the result as well.
    data = unicodedata.normalize("NFC", text).encode("utf-8")
    return data if len(data) <= MAX_PASSWORD_BYTES else Refusal.TOO_LONG


def _problem(text: object) -> Refusal | None:
    if not isinstance(text, str):
        return Refusal.NOT_TEXT
    if not text:
        return Refusal.EMPTY
    if len(text) > MAX_PASSWORD_CHARS:
        return Refusal.TOO_LONG
    if "\0" in text:
        return Refusal.NOT_TEXT
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return Refusal.NOT_TEXT
    return Refusal.TOO_LONG if size > MAX_PASSWORD_BYTES else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Native:
    pepper: str
    inner: ForeignHash | None
    call: Argon2Call
    tag: bytes


class Passwords:
    """Makes and checks stored password hashes. Synchronous and costly; :class:`~axis_security.auth.kdf_pool.KdfPool` bounds it.

    Args:
        cost: what a new hash costs; see docs/how-to/passwords.md.
        peppers: the pepper keys, or ``None`` for hashes without one.
        legacy: the ceiling of each scheme other than the current that stored hashes may still have, from ``bcrypt_ceiling`` and its
            siblings. Each adds its cost to *every* login, so that nobody can tell whose hash is old; take it out when none is left.
        kdf: does the work.
        entropy: random bytes for salts.

    Raises:
        ConfigError: two ceilings for one algorithm.
    """

    def __init__(
        self,
        *,
        cost: Argon2Cost = DEFAULT_COST,
        peppers: PepperRing | None = None,
        legacy: Sequence[KdfCall] = (),
        kdf: Kdf | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        ceilings = {call.algorithm: call for call in legacy}
        if len(ceilings) != len(legacy):
            raise ConfigError(
                what="two legacy ceilings for one algorithm", why=f"{[c.algorithm for c in legacy]}", fix="keep the costlier one"
            )
        self.cost: Final = cost
        self._peppers: Final = peppers
        self._kdf: Final[Kdf] = kdf or SystemKdf()
        self._entropy: Final = entropy
        # An Argon2 ceiling and the current cost are one budget: a login evaluates one Argon2 or the other.
        self._argon2_ceiling: Final = max((self._fresh_call(), ceilings.pop("argon2", self._fresh_call())), key=lambda call: call.units)
        self._ceilings: Final = ceilings

    @property
    def memory_bytes(self) -> int:
        """Peak memory of one call, for the pool's budget."""
        return max(self.cost.memory_kib * 1024, self._argon2_ceiling.memory_bytes, *(c.memory_bytes for c in self._ceilings.values()), 0)

    def hash(self, password: Secret[str]) -> Secret[str]:
        """The stored form of *password*, under a fresh salt, the current cost and the active pepper.

        Raises:
            UnusablePassword: nothing was computed.
        """
        data = password_bytes(password)
        if isinstance(data, Refusal):
            raise UnusablePassword(data)
        return self._seal(data)

    def verify(self, *, password: Secret[str], stored: Secret[str] | None) -> Verified | PasswordRefused:
        """Check *password* against *stored*; pass ``None`` for an account that does not exist or has no password.

        Never raises on account of the password or the stored text, and does the same work whatever they are (ASVS 6.3.8); a password
        that none can have is refused before any work, whatever the account.

        Raises:
            Unavailable: the KDF could not run.
        """
        data = password_bytes(password)
        if isinstance(data, Refusal):
            return PasswordRefused(data)
        parsed = self._parse(None if stored is None else stored.reveal())
        if isinstance(parsed, Refusal):
            self._burn()
            return PasswordRefused(parsed)
        done = self._compute(data, password, parsed)
        if not hmac.compare_digest(done.digest.reveal(), parsed.tag):
            return PasswordRefused(Refusal.MISMATCH)
        return Verified(self._renewed(data, done), scheme=done.scheme)

    def split(self, stored: Secret[str]) -> StoredHash:
        """Take a stored form apart, for a store that keeps the digest to itself. The settings are the stored form with an all-zero digest.

        Raises:
            UnsupportedHash: no stored form that this object accepts.
            CostRefused: its cost is above the ceiling.
        """
        parsed = self._read(stored.reveal())
        if isinstance(parsed, Refusal):
            raise UnsupportedHash(why=parsed.value)
        if isinstance(parsed, ForeignHash):
            return StoredHash(parsed.redacted, parsed.tag)
        head, _, tag = stored.reveal().rpartition("$")
        return StoredHash(f"{head}${'A' * len(tag)}", parsed.tag)

    def derive(self, *, password: Secret[str], settings: str | None) -> Derived | PasswordRefused:
        """What *password* derives to under *settings*: the same work, and the same refusals, as :meth:`verify`.

        Raises:
            Unavailable: the KDF could not run.
        """
        data = password_bytes(password)
        if isinstance(data, Refusal):
            return PasswordRefused(data)
        parsed = self._parse(settings)
        if isinstance(parsed, Refusal):
            self._burn()
            return PasswordRefused(parsed)
        return self._compute(data, password, parsed)

    def renew(self, *, password: Secret[str], derived: Derived) -> Secret[str] | None:
        """The better stored form to keep once the store has said that *derived* is right; ``None`` if the present one is current."""
        data = password_bytes(password)
        return None if isinstance(data, Refusal) else self._renewed(data, derived)

    def spend(self) -> None:
        """Do the work of one :meth:`verify` and nothing else: for paths (forgot, resend, register) that must cost the same."""
        self._burn()

    def wrap(self, stored: Secret[str]) -> Secret[str]:
        """Put Argon2id over the digest of a foreign hash, now, without the password: for accounts that may never come back.

        Its scheme must stay in ``legacy``: a login still computes the inner hash. Returns the stored form to keep instead.

        Raises:
            UnsupportedHash: no foreign hash that this object accepts.
            CostRefused: its cost is above the declared ceiling.
        """
        foreign = parse_foreign(stored.reveal())
        if isinstance(foreign.call, Argon2Call):
            raise UnsupportedHash(why="an Argon2 hash gains nothing from being wrapped")
        self._admit(foreign.call)
        return self._seal(foreign.tag, inner=foreign)

    # --- the paths of verify

    def _compute(self, data: bytes, password: Secret[str], parsed: _Native | ForeignHash) -> Derived:
        return (
            self._compute_native(data, password, parsed) if isinstance(parsed, _Native) else self._compute_foreign(data, password, parsed)
        )

    def _compute_native(self, data: bytes, password: Secret[str], parsed: _Native) -> Derived:
        if parsed.inner is not None:
            digest = self._kdf.derive(parsed.inner.call, parsed.inner.secret_bytes(password.reveal().encode("utf-8")))
            self._top_up(parsed.inner.call)
        else:
            digest = data
            self._top_up(None)
        derived = self._kdf.derive(parsed.call, self._peppered(parsed.pepper, digest))
        fill(self._kdf, parsed.call, self._argon2_ceiling)
        current = (
            parsed.call.memory_kib == self.cost.memory_kib
            and parsed.call.passes == self.cost.passes
            and parsed.call.lanes == self.cost.lanes
            and parsed.inner is None
            and parsed.pepper == self._active_pepper
        )
        return Derived(Secret(derived), "axis1" if parsed.inner is None else f"axis1+{parsed.inner.scheme}", stale=not current)

    def _compute_foreign(self, data: bytes, password: Secret[str], parsed: ForeignHash) -> Derived:
        digest = Secret(self._kdf.derive(parsed.call, parsed.secret_bytes(password.reveal().encode("utf-8"))))
        if isinstance(parsed.call, Argon2Call):
            fill(self._kdf, parsed.call, self._argon2_ceiling)
            self._top_up(None)
            return Derived(digest, parsed.scheme, stale=True)
        self._top_up(parsed.call)
        # Made whether it is needed or not: this is the Argon2id that every other path spends.
        made = self._seal(data)
        fill(self._kdf, self._fresh_call(), self._argon2_ceiling)
        return Derived(digest, parsed.scheme, stale=True, made=made)

    def _renewed(self, data: bytes, derived: Derived) -> Secret[str] | None:
        if not derived.stale:
            return None
        return derived.made if derived.made is not None else self._seal(data)

    def _burn(self) -> None:
        self._top_up(None)
        self._kdf.derive(self._fresh_call(), b"\0" * TAG_BYTES)
        fill(self._kdf, self._fresh_call(), self._argon2_ceiling)

    def _top_up(self, done: KdfCall | None) -> None:
        for algorithm, ceiling in self._ceilings.items():
            if done is not None and done.algorithm == algorithm:
                fill(self._kdf, done, ceiling)
            else:
                self._kdf.derive(ceiling, b"x")

    # --- parts

    @property
    def _active_pepper(self) -> str:
        return NO_PEPPER if self._peppers is None else self._peppers.active

    def _peppered(self, key_id: str, data: bytes) -> bytes:
        return data if key_id == NO_PEPPER or self._peppers is None else self._peppers.apply(key_id, data)

    def _fresh_call(self) -> Argon2Call:
        return Argon2Call(
            salt=self._entropy(SALT_BYTES),
            memory_kib=self.cost.memory_kib,
            passes=self.cost.passes,
            lanes=self.cost.lanes,
            tag_bytes=TAG_BYTES,
        )

    def _seal(self, data: bytes, *, inner: ForeignHash | None = None) -> Secret[str]:
        call = self._fresh_call()
        tag = self._kdf.derive(call, self._peppered(self._active_pepper, data))
        within = "-" if inner is None else b64url_encode(inner.redacted.encode("ascii"))
        return Secret(
            f"axis1${self._active_pepper}${within}$m={call.memory_kib},t={call.passes},p={call.lanes}${b64url_encode(call.salt)}${b64url_encode(tag)}"
        )

    def _admit(self, call: KdfCall) -> None:
        ceiling = self._argon2_ceiling if isinstance(call, Argon2Call) else self._ceilings.get(call.algorithm)
        if ceiling is None:
            raise UnsupportedHash(why=f"its algorithm {call.algorithm} is not declared")
        if call.units > ceiling.units:
            raise CostRefused(algorithm=call.algorithm, why=f"its work {call.units} is above the declared ceiling {ceiling.units}")

    def _parse(self, stored: str | None) -> _Native | ForeignHash | Refusal:
        if stored is None:
            return Refusal.NO_ACCOUNT
        try:
            return self._read(stored)
        except CostRefused:
            return Refusal.COST
        except (UnsupportedHash, MalformedEncoding):
            return Refusal.UNSUPPORTED_HASH

    def _read(self, text: str) -> _Native | ForeignHash | Refusal:
        if len(text) > 2048:
            return Refusal.UNSUPPORTED_HASH
        match = _NATIVE.fullmatch(text)
        if match is None:
            foreign = parse_foreign(text)
            self._admit(foreign.call)
            return foreign
        tag = b64url_decode(match[7])
        call = Argon2Call(
            salt=b64url_decode(match[6]), memory_kib=int(match[3]), passes=int(match[4]), lanes=int(match[5]), tag_bytes=len(tag)
        )
        call.check(trusted=self.cost)
        inner = None
        if match[2] != "-":
            inner = parse_foreign(b64url_decode(match[2]).decode("ascii", "replace"))
            self._admit(inner.call)
        pepper = match[1]
        if pepper != NO_PEPPER and (self._peppers is None or pepper not in self._peppers):
            return Refusal.UNKNOWN_PEPPER
        return _Native(pepper=pepper, inner=inner, call=call, tag=tag)

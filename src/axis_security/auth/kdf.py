"""Key derivation: what a password hash may cost, and the one door through which every costly call goes.

Every call is a value (:data:`KdfCall`) with a countable amount of work (``units``), and passes through a :class:`Kdf`. That makes
"the same work on every path" something a test can count instead of something it has to time (ASVS 6.3.8), and keeps the ceilings
on stored costs in one place: a stored hash is input, and may not choose how much memory this process spends (ASVS 11.4.2).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final, Protocol

from argon2.low_level import Type, hash_secret_raw

from axis_security.core.errors import AxisError, ConfigError, MissingExtra, Unavailable

__all__ = [
    "DEFAULT_COST",
    "OWASP_12_MIB",
    "OWASP_19_MIB",
    "OWASP_46_MIB",
    "RFC9106_HIGH_MEMORY",
    "RFC9106_LOW_MEMORY",
    "Argon2Call",
    "Argon2Cost",
    "BcryptCall",
    "CostRefused",
    "Kdf",
    "KdfCall",
    "Pbkdf2Call",
    "ScryptCall",
    "SystemKdf",
    "fill",
]

_MAX_ARGON2_KIB: Final = 256 * 1024
_MAX_ARGON2_WORK_KIB: Final = 1024 * 1024  # kibibytes touched: memory times passes
_MAX_ARGON2_LANES: Final = 16
_MAX_PBKDF2_ITERATIONS: Final = 5_000_000
_MAX_SCRYPT_BYTES: Final = 256 * 1024 * 1024  # 128 * N * r
_MAX_SCRYPT_LANES: Final = 16
_BCRYPT_COST_RANGE: Final = (4, 15)
_SALT_BYTES: Final = (1, 128)
_TAG_BYTES: Final = (16, 128)


class CostRefused(AxisError):
    """A stored hash asks for more work than the ceiling, or for parameters that no algorithm accepts. Nothing was computed."""

    code = "auth.cost_refused"

    def __init__(self, *, algorithm: str, why: str) -> None:
        super().__init__(
            what=f"a stored {algorithm} hash was not evaluated",
            why=why,
            fix="let the account reset its password; a hash with such parameters was not made by a login system",
        )


def _refuse_unless(holds: bool, algorithm: str, why: str) -> None:
    if not holds:
        raise CostRefused(algorithm=algorithm, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Cost:
    """What one Argon2id hash costs.

    Args:
        memory_kib: memory in kibibytes (RFC 9106 ``m``).
        passes: passes over it (``t``).
        lanes: lanes (``p``); each may use a core.

    Raises:
        ConfigError: below the floor that ASVS 5.0 appendix C and the OWASP cheat sheet set, or above what a verifier accepts.
    """

    memory_kib: int
    passes: int
    lanes: int

    def __post_init__(self) -> None:
        floor = {1: 47_104, 2: 19_456}.get(self.passes, 12_288)
        if self.passes < 1 or self.lanes < 1 or self.memory_kib < floor:
            raise ConfigError(
                what="Argon2id cost below the floor",
                why=f"m={self.memory_kib} KiB with t={self.passes} and p={self.lanes}; OWASP asks for 46 MiB/1, 19 MiB/2 or 12 MiB/3 and up",
                fix="use a preset such as OWASP_19_MIB, or run `axis-security passwords calibrate`",
            )
        if self.lanes > _MAX_ARGON2_LANES or self.memory_kib * self.passes > 3 * 2 * 1024 * 1024:
            raise ConfigError(
                what="Argon2id cost above the ceiling",
                why=f"m={self.memory_kib}, t={self.passes}, p={self.lanes}",
                fix="choose a smaller cost",
            )


RFC9106_HIGH_MEMORY: Final = Argon2Cost(memory_kib=2 * 1024 * 1024, passes=1, lanes=4)
"""RFC 9106 section 4, first recommended option: 2 GiB a hash. For offline use; a login server would stop."""
RFC9106_LOW_MEMORY: Final = Argon2Cost(memory_kib=65_536, passes=3, lanes=4)
"""RFC 9106 section 4, second recommended option (64 MiB, 3 passes, 4 lanes)."""
OWASP_46_MIB: Final = Argon2Cost(memory_kib=47_104, passes=1, lanes=1)
"""OWASP password storage cheat sheet and ASVS 5.0 appendix C."""
OWASP_19_MIB: Final = Argon2Cost(memory_kib=19_456, passes=2, lanes=1)
"""OWASP password storage cheat sheet and ASVS 5.0 appendix C: equal strength to :data:`OWASP_46_MIB` with less memory."""
OWASP_12_MIB: Final = Argon2Cost(memory_kib=12_288, passes=3, lanes=1)
"""OWASP password storage cheat sheet and ASVS 5.0 appendix C."""
DEFAULT_COST: Final = OWASP_46_MIB
"""The most memory an attacker must buy among the options that cost a small server 50 ms: see docs/explanation/passwords.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Call:
    """One Argon2id evaluation. ``variant`` is ``id``, or ``i``/``d`` for hashes made elsewhere."""

    salt: bytes
    memory_kib: int
    passes: int
    lanes: int
    tag_bytes: int = 32
    variant: str = "id"
    version: int = 19

    @property
    def algorithm(self) -> str:
        """Which algorithm does the work."""
        return "argon2"

    @property
    def units(self) -> int:
        """Work in kibibytes touched: memory times passes."""
        return self.memory_kib * self.passes

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the call."""
        return self.memory_kib * 1024

    def check(self, *, trusted: Argon2Cost | None = None) -> None:
        """Refuse a cost above the ceiling, unless it is the one the host itself configured (*trusted*).

        Raises:
            CostRefused: see the message.
        """
        _refuse_unless(self.variant in {"i", "d", "id"} and self.version in {16, 19}, "argon2", "unknown variant or version")
        _refuse_unless(8 <= len(self.salt) <= _SALT_BYTES[1], "argon2", "salt length out of range")
        _refuse_unless(_TAG_BYTES[0] <= self.tag_bytes <= _TAG_BYTES[1], "argon2", "tag length out of range")
        _refuse_unless(
            1 <= self.lanes <= _MAX_ARGON2_LANES and self.passes >= 1 and self.memory_kib >= 8 * self.lanes,
            "argon2",
            "parameters out of range",
        )
        if trusted is not None and self.memory_kib <= trusted.memory_kib and self.passes <= trusted.passes:
            return
        _refuse_unless(self.memory_kib <= _MAX_ARGON2_KIB, "argon2", f"m={self.memory_kib} KiB is above {_MAX_ARGON2_KIB} KiB")
        _refuse_unless(self.units <= _MAX_ARGON2_WORK_KIB, "argon2", f"m*t={self.units} KiB is above {_MAX_ARGON2_WORK_KIB} KiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pbkdf2Call:
    """One PBKDF2-HMAC evaluation. ``digest`` is a hashlib name."""

    salt: bytes
    iterations: int
    digest: str = "sha256"
    tag_bytes: int = 32

    @property
    def algorithm(self) -> str:
        """Which algorithm does the work."""
        return f"pbkdf2-{self.digest}"

    @property
    def units(self) -> int:
        """Work in iterations of one output block."""
        return self.iterations

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the call."""
        return 0

    def check(self, *, trusted: Argon2Cost | None = None) -> None:
        """Refuse a cost above the ceiling.

        Raises:
            CostRefused: see the message.
        """
        _refuse_unless(self.digest in {"sha1", "sha256", "sha512"}, "pbkdf2", "unknown digest")
        _refuse_unless(1 <= self.iterations <= _MAX_PBKDF2_ITERATIONS, "pbkdf2", f"iterations outside 1..{_MAX_PBKDF2_ITERATIONS}")
        # More output than one block multiplies the work for the defender only.
        _refuse_unless(_TAG_BYTES[0] <= self.tag_bytes <= hashlib.new(self.digest).digest_size, "pbkdf2", "tag length out of range")
        _refuse_unless(len(self.salt) <= _SALT_BYTES[1], "pbkdf2", "salt length out of range")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScryptCall:
    """One scrypt evaluation (RFC 7914)."""

    salt: bytes
    n: int
    r: int
    p: int
    tag_bytes: int = 64

    @property
    def algorithm(self) -> str:
        """Which algorithm does the work."""
        return "scrypt"

    @property
    def units(self) -> int:
        """Work in blocks mixed: N times r times p."""
        return self.n * self.r * self.p

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the call."""
        return 128 * self.r * (self.n + self.p)

    def check(self, *, trusted: Argon2Cost | None = None) -> None:
        """Refuse a cost above the ceiling.

        Raises:
            CostRefused: see the message.
        """
        _refuse_unless(2 <= self.n <= 2**24 and self.n & (self.n - 1) == 0, "scrypt", "N is not a usable power of two")
        _refuse_unless(1 <= self.r <= 64 and 1 <= self.p <= _MAX_SCRYPT_LANES, "scrypt", "r or p out of range")
        _refuse_unless(self.memory_bytes <= _MAX_SCRYPT_BYTES, "scrypt", f"needs {self.memory_bytes} bytes, above {_MAX_SCRYPT_BYTES}")
        _refuse_unless(self.units <= 8 * 2**20, "scrypt", "N*r*p is above the ceiling")
        _refuse_unless(_TAG_BYTES[0] <= self.tag_bytes <= _TAG_BYTES[1], "scrypt", "tag length out of range")
        _refuse_unless(len(self.salt) <= _SALT_BYTES[1], "scrypt", "salt length out of range")


@dataclass(frozen=True, slots=True, kw_only=True)
class BcryptCall:
    """One bcrypt evaluation. ``setting`` is the first 29 characters of the hash: ``$2b$12$`` and the salt."""

    setting: str

    @property
    def algorithm(self) -> str:
        """Which algorithm does the work."""
        return "bcrypt"

    @property
    def cost(self) -> int:
        """The logarithm of the work."""
        return int(self.setting[4:6])

    @property
    def units(self) -> int:
        """Work in key expansions."""
        return 1 << self.cost

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the call."""
        return 0

    def check(self, *, trusted: Argon2Cost | None = None) -> None:
        """Refuse a cost above the ceiling.

        Raises:
            CostRefused: see the message.
        """
        low, high = _BCRYPT_COST_RANGE
        _refuse_unless(low <= self.cost <= high, "bcrypt", f"cost {self.cost} is outside {low}..{high}")


KdfCall = Argon2Call | Pbkdf2Call | ScryptCall | BcryptCall
"""Work for one password, of whichever function the stored hash is."""


class Kdf(Protocol):
    """Does the costly work. :class:`SystemKdf` is the real one; a test passes one that counts."""

    def derive(self, call: KdfCall, secret: bytes) -> bytes:
        """Evaluate *call* over *secret* and return the digest bytes.

        Raises:
            Unavailable: the memory for it could not be had.
        """
        ...


class SystemKdf:
    """argon2-cffi, hashlib and (extra ``bcrypt``) bcrypt. All of them release the GIL while they work."""

    __slots__ = ()

    def derive(self, call: KdfCall, secret: bytes) -> bytes:
        """See :meth:`Kdf.derive`.

        Raises:
            MissingExtra: a bcrypt hash, without the extra ``bcrypt``.
            Unavailable: out of memory.
        """
        try:
            return _derive(call, secret)
        except AxisError:
            raise
        except Exception:  # noqa: BLE001  # the libraries' own error types differ by version; none may reach a caller
            raise Unavailable(
                what=f"{call.algorithm} could not be evaluated",
                why="the library refused or memory ran out",
                fix="lower the memory budget or the cost",
            ) from None


_VARIANT: Final = {"id": Type.ID, "i": Type.I, "d": Type.D}


def _derive(call: KdfCall, secret: bytes) -> bytes:
    match call:
        case Argon2Call():
            return hash_secret_raw(
                secret, call.salt, call.passes, call.memory_kib, call.lanes, call.tag_bytes, _VARIANT[call.variant], call.version
            )
        case Pbkdf2Call():
            return hashlib.pbkdf2_hmac(call.digest, secret, call.salt, call.iterations, call.tag_bytes)
        case ScryptCall():
            return hashlib.scrypt(
                secret, salt=call.salt, n=call.n, r=call.r, p=call.p, dklen=call.tag_bytes, maxmem=call.memory_bytes + 2**20
            )
        case BcryptCall():
            try:
                import bcrypt  # optional extra
            except ImportError:
                raise MissingExtra(package="bcrypt", extra="bcrypt") from None
            # Every bcrypt reads 72 bytes; those before 5.0 cut silently, 5.0 raises. Cutting here keeps old hashes verifiable
            # and gives passwords of every length the same answer.
            return bcrypt.hashpw(secret[:72], call.setting.encode("ascii"))[29:]


def fill(kdf: Kdf, done: KdfCall, ceiling: KdfCall) -> None:
    """Spend the work that *done* stayed below *ceiling* (same algorithm), so that a cheap old hash is no timing signal.

    Raises:
        CostRefused: *done* cost more than the ceiling that the host declared; the caller checks this before any work.
    """
    missing = ceiling.units - done.units
    if missing <= 0:
        return
    match done:
        case Pbkdf2Call():
            kdf.derive(replace(done, iterations=missing), b"")
        case BcryptCall():
            # 2**c + 2**c + 2**(c+1) + … + 2**(top-1) = 2**top
            for cost in range(done.cost, done.cost + (ceiling.units // done.units).bit_length() - 1):
                kdf.derive(BcryptCall(setting=f"{done.setting[:4]}{cost:02d}{done.setting[6:]}"), b"x")
        case ScryptCall():
            blocks = missing // (done.r * done.p)
            while blocks >= 2:  # N must be a power of two: the largest that fits, again and again
                n = 1 << (blocks.bit_length() - 1)
                kdf.derive(replace(done, n=n), b"")
                blocks -= n
        case Argon2Call():
            passes, rest = divmod(missing, done.memory_kib)
            if passes:
                kdf.derive(replace(done, passes=passes), b"")
            if rest >= 8 * done.lanes:
                kdf.derive(replace(done, memory_kib=rest, passes=1), b"")

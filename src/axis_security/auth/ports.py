"""What the login flows ask of a store: operations, each one atomic, whose answer is final. Read this to code against a store.

An operation is a frozen value (``CheckPassword(...)``); a store carries it out: ``store.perform(op)``, or ``await store.perform(op)`` for the
async form of the same store. Flows are generators that yield operations and are run by :func:`axis_security.core.flow.drive` or ``adrive``::

    def sign_out(key: SessionKey) -> Generator[Op[Any], Any, None]:
        ended: EndedSession | None = yield EndSession(key)

    drive(sign_out(key), store.perform)            # or: await adrive(sign_out(key), astore.perform)

What every store keeps (:mod:`axis_security.testing.stores` tests it):

* Nothing is check-then-write. Of any number of parallel callers, exactly one wins a step, a code, a token or a rotation.
* A store that cannot answer raises :class:`~axis_security.core.errors.Unavailable`; it never answers "no such session" for "I don't know".
  An operation that raised may have been carried out; all of them may be repeated, and a repeated single use then loses.
* Digests go in and never come out. A digest is a pair ``(key id, 32 bytes)`` as :class:`~axis_security.auth.recovery.DigestRing` makes it;
  what is looked up comes as *candidates*, one for each key still in use.
* Password hashes are split (:class:`StoredHash`): settings and salt come out, the digest doesn't. The login flow asks for the settings
  (:class:`LoadSettings`), computes the digest (``Passwords.derive``), and has the store compare (:class:`CheckPassword`).

Operations on second factors are in :mod:`axis_security.auth.factors`, on sessions in :mod:`axis_security.auth.session_ports`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

from axis_security.core.errors import ConfigError
from axis_security.core.ids import UserId

__all__ = [
    "Account",
    "AccountOf",
    "AsyncStore",
    "Budget",
    "BumpEpoch",
    "ChangeIdentifier",
    "ChangePassword",
    "CheckPassword",
    "ConsumeToken",
    "DeleteAccount",
    "Digest",
    "FindAccount",
    "IssueToken",
    "LoadSettings",
    "Op",
    "PasswordChecked",
    "PeekToken",
    "Prune",
    "RefundThrottle",
    "Register",
    "Rehash",
    "Reserve",
    "ResetPassword",
    "ResetThrottle",
    "RevokeTokens",
    "SetActive",
    "Store",
    "StoredHash",
    "Throttled",
    "TokenGrant",
    "VerifyIdentifier",
    "digests_of",
]

R_co = TypeVar("R_co", covariant=True)
Digest = tuple[str, bytes]
"""Key id and HMAC-SHA-256 digest."""
DIGEST_BYTES: Final = 32


class Op(Generic[R_co]):
    """One atomic operation whose answer is an ``R_co``."""

    __slots__ = ()


class Store(Protocol):
    """Carries out operations. A store that does not know an operation raises ``ConfigError``."""

    def perform(self, op: Op[R_co]) -> R_co:
        """Carry out *op*.

        Raises:
            Unavailable: the store did not answer; see the module's text.
        """
        ...


class AsyncStore(Protocol):
    """:class:`Store` for async code."""

    async def perform(self, op: Op[R_co]) -> R_co:
        """Carry out *op*.

        Raises:
            Unavailable: the store did not answer; see the module's text.
        """
        ...


# --- accounts and passwords


@dataclass(frozen=True, slots=True)
class StoredHash:
    """A password hash in two halves, as ``Passwords.split`` cuts it.

    Args:
        settings: algorithm, parameters, pepper id and salt; no secret.
        digest: what the KDF must give; 16 to 128 bytes.
    """

    settings: str
    digest: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.settings) <= 2048 or not self.settings.isascii() or "\0" in self.settings or not 16 <= len(self.digest) <= 128:
            raise ConfigError(
                what="unusable password hash", why="its settings or digest have no usable length", fix="make it with Passwords.split(...)"
            )

    def __repr__(self) -> str:
        return "StoredHash(***)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a login needs to know of an account.

    Args:
        user: whose it is.
        active: whether it may sign in at all.
        verified: whether its identifier (e-mail address) was confirmed.
        has_totp: whether a second factor must be asked for.
        epoch: number of times everything was signed out; sessions of another epoch are dead.
    """

    user: UserId
    active: bool
    verified: bool
    has_totp: bool
    epoch: int


@dataclass(frozen=True, slots=True)
class PasswordChecked:
    """Answer of a comparison. ``verdict`` is ``match`` (only then there is an account), ``mismatch`` (no such account and no password too),
    ``locked`` (too many failures in a row; nothing was compared), or ``stale`` (the settings were replaced meanwhile: load them again, once)."""

    verdict: str
    account: Account | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Register(Op[bool]):
    """Create an active, unverified account, if both *user* and *identifier* are free. Answer: whether it was created.

    Args:
        identifier: the normalised login name; at most 320 characters, no NUL.
        hash: ``None`` for an account without a password (single sign-on, invitation).
        verified_at: when the identifier was confirmed, if it was already.
    """

    user: UserId
    identifier: str
    hash: StoredHash | None
    verified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LoadSettings(Op["str | None"]):
    """The settings of the hash of *account* (a normalised identifier, or a user). For one that has none, others that stay the same for the
    same identifier; ``None`` only where nobody has ever had a password. Hand the answer to ``Passwords.derive`` whatever it is."""

    account: UserId | str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPassword(Op[PasswordChecked]):
    """Compare *digest* with the account's, in the store; a mismatch adds one to its failures, a match sets them to zero.

    Args:
        account: a normalised identifier, or a user (step-up).
        settings: those that *digest* was computed with.
        digest: what ``Passwords.derive`` gave; ``None`` where it could not be computed, which is a mismatch.
        max_failures: failures in a row after which nothing is compared any more (NIST SP 800-63B-4 section 3.2.2: at most 100). A reset lifts it.
    """

    account: UserId | str
    settings: str | None
    digest: bytes | None = field(repr=False)
    max_failures: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehash(Op[PasswordChecked]):
    """If *old* still is the user's hash, keep *new* in its place; sessions stay."""

    user: UserId
    old: StoredHash
    new: StoredHash
    max_failures: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword(Op[PasswordChecked]):
    """If *old* still is the user's hash: keep *new*, begin a new epoch, end every session but *keep*, and void remember and purpose tokens.
    The account in the answer has the new epoch.

    Args:
        keep: handle of the session in which the change was made.
    """

    user: UserId
    old: StoredHash
    new: StoredHash
    keep: UUID | None
    max_failures: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetPassword(Op["Account | None"]):
    """Consume a token of *purpose* and, in the same transaction: keep *new*, clear failures, begin a new epoch, end all sessions, void remember
    and purpose tokens. Factors stay (ASVS 6.4.3). Answer: the account, or ``None`` where the token is not good or the account is disabled."""

    candidates: tuple[Digest, ...]
    new: StoredHash
    now: datetime
    purpose: str = "password_reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyIdentifier(Op["Account | None"]):
    """Consume a token of *purpose* whose payload is the identifier that the account *still* has, and mark it verified."""

    candidates: tuple[Digest, ...]
    now: datetime
    purpose: str = "verify_email"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeIdentifier(Op["Account | None"]):
    """Consume a token of *purpose*, and make its payload the account's identifier, verified. ``None`` where the token is not good, or the
    identifier was taken meanwhile (the token is then spent, too)."""

    candidates: tuple[Digest, ...]
    now: datetime
    purpose: str = "change_email"


@dataclass(frozen=True, slots=True)
class AccountOf(Op["Account | None"]):
    """The account of *user*."""

    user: UserId


@dataclass(frozen=True, slots=True)
class FindAccount(Op["Account | None"]):
    """The account that signs in as *identifier* (normalised). For forgot, resend and register, whose public answer never depends on it."""

    identifier: str


@dataclass(frozen=True, slots=True)
class SetActive(Op["Account | None"]):
    """Enable or disable an account. Disabling begins a new epoch, ends all sessions, and voids remember and purpose tokens (ASVS 7.4.2)."""

    user: UserId
    active: bool


@dataclass(frozen=True, slots=True)
class BumpEpoch(Op["Account | None"]):
    """Sign *user* out everywhere: begin a new epoch, end all sessions, void remember tokens."""

    user: UserId


@dataclass(frozen=True, slots=True)
class DeleteAccount(Op[bool]):
    """Delete the account and all that belongs to it, factors included. Answer: whether there was one."""

    user: UserId


# --- purpose tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant:
    """What a good token stands for. ``user`` is ``None`` for a token that was issued to no account (an invitation)."""

    user: UserId | None
    payload: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueToken(Op[bool]):
    """Keep a token. Answer: ``False`` where *user* is no active account.

    Args:
        purpose: a lower-case name of at most 32 characters; a token of one purpose is unknown for every other.
        user: whose; ``None`` for nobody's.
        payload: at most 1024 characters, such as the exact new e-mail address.
        lasting: from *now* until it expires.
        replace: whether earlier tokens of this purpose and user are void from now on.
    """

    purpose: str
    user: UserId | None
    digest: Digest
    now: datetime
    lasting: timedelta
    payload: str = ""
    replace: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PeekToken(Op["TokenGrant | None"]):
    """What the token stands for; it stays good. For the page that a GET shows."""

    purpose: str
    candidates: tuple[Digest, ...]
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeToken(Op["TokenGrant | None"]):
    """What the token stands for; it is gone. Exactly one of parallel callers gets it."""

    purpose: str
    candidates: tuple[Digest, ...]
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeTokens(Op[int]):
    """Void the user's tokens of *purpose*, or of every purpose. Answer: how many."""

    user: UserId
    purpose: str | None = None


# --- throttle


@dataclass(frozen=True, slots=True)
class Budget:
    """How often something may happen: *limit* times at once, and *limit* times per *window* in the long run (GCRA, the token bucket kept as
    one time stamp).

    Args:
        key: names the thing that is counted, such as a digest of ``account:ann``; 1 to 64 bytes.
        limit: 1 to 1,000,000.
        window: 1 s to 31 days.
    """

    key: bytes
    limit: int
    window: timedelta

    def __post_init__(self) -> None:
        if (
            not 1 <= len(self.key) <= 64
            or not 1 <= self.limit <= 1_000_000
            or not timedelta(seconds=1) <= self.window <= timedelta(days=31)
        ):
            raise ConfigError(what="unusable budget", why="key, limit or window out of range", fix="1..64 bytes, 1..1e6, 1 s..31 days")

    @property
    def interval(self) -> float:
        """Seconds that one attempt costs."""
        return self.window.total_seconds() / self.limit


@dataclass(frozen=True, slots=True)
class Throttled:
    """Answer of :class:`Reserve`. ``retry_after`` is in seconds, 0 where allowed; ``key`` is the budget that has run out first."""

    allowed: bool
    retry_after: float = 0.0
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reserve(Op[Throttled]):
    """Take one attempt from every budget, or from none: before the attempt, so that parallel guesses cannot share one.

    No store ever grants more than a budget holds. A store that is spread over several nodes may refuse an attempt whose last unit is, at that
    moment, held by another attempt that is about to be refused.
    """

    budgets: tuple[Budget, ...]
    now: datetime


@dataclass(frozen=True, slots=True)
class RefundThrottle(Op[bool]):
    """Give one attempt back to every budget (a success). Never more than was taken."""

    budgets: tuple[Budget, ...]
    now: datetime


@dataclass(frozen=True, slots=True)
class ResetThrottle(Op[bool]):
    """Forget what was counted for these keys."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Prune(Op[int]):
    """Delete what expired before *now*: sessions, tokens, idle throttle keys; some thousands at a time. Answer: how many rows went. Run it on a
    schedule until it answers 0. Stores that expire by themselves answer 0."""

    now: datetime


def digests_of(candidates: tuple[Digest, ...]) -> list[bytes]:
    """The digests of *candidates*, without their key ids.

    Raises:
        ConfigError: one is not 32 bytes long.
    """
    found = [digest for _, digest in candidates]
    if any(len(digest) != DIGEST_BYTES for digest in found):
        raise ConfigError(what="unusable digest", why=f"a digest has {DIGEST_BYTES} bytes", fix="make digests with DigestRing")
    return found

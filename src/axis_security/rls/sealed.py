"""The sealed context: who is acting, in a text that the database can check and the application's SQL cannot make.

The text is ``axis1 <key id> <expiry> <tenant> <user> <role> <mac>``, fields apart by one space. No field can hold a space (ids are visible
ASCII, roles are plain names), so distinct principals never give equal texts. The MAC is HMAC-SHA256 (RFC 2104) in hex over
everything before it, the last space included. Expiry is in Unix seconds and is compared with the *start* of the transaction: the seal only
has to outlive the way to the server, and a long transaction does not lose its rights half-way.

It is set with ``set_config('axis.context', …, true)``: for one transaction only. `rls/context.py` holds the database's half.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError
from axis_security.core.minted import MINTED_BYTES, minted_text, parse_minted
from axis_security.core.principal import Principal
from axis_security.core.secret import Secret

__all__ = ["DEFAULT_LASTING", "SealKey", "SealKeyring", "Sealer", "seal"]

DEFAULT_LASTING: Final = timedelta(minutes=2)
"""How long after sealing a transaction may begin with the text: the way to the server plus the difference of two clocks."""

_MAX_LASTING: Final = timedelta(hours=1)
_MAX_KEY_ID: Final = 2**31 - 1
_BLOCK: Final = 64  # SHA-256's block, RFC 2104's B


@dataclass(frozen=True, slots=True)
class SealKey:
    """One key of the seal.

    Args:
        id: 1 to 2**31-1; never used twice for different keys.
        secret: 32 random bytes.

    Raises:
        ConfigError: the id or the length is not usable.
    """

    id: int
    secret: Secret[bytes]

    def __post_init__(self) -> None:
        if type(self.id) is not int or not 1 <= self.id <= _MAX_KEY_ID:
            raise ConfigError(
                what="unusable seal key id",
                why="it must be an integer in 1 .. 2**31-1",
                fix="number the keys 1, 2, 3, …",
            )
        if len(self.secret.reveal()) != MINTED_BYTES:
            raise ConfigError(
                what="unusable seal key",
                why="it must have 32 bytes",
                fix="use SealKey.generate(id)",
            )

    @classmethod
    def generate(cls, id: int) -> SealKey:
        """A fresh random key."""
        return cls(id, Secret(secrets.token_bytes(MINTED_BYTES)))

    @classmethod
    def parse(cls, text: Secret[str]) -> SealKey:
        """Read ``<id>:axis_seal_…`` as :meth:`text` gave it.

        Raises:
            ConfigError: cut short, changed, or the key of something else. The message never shows the text.
        """
        number, _, minted = text.reveal().strip().partition(":")
        if re.fullmatch(r"[1-9][0-9]{0,9}", number, re.ASCII) is None:
            raise ConfigError(
                what="not a usable seal key",
                why="the text does not start with the key's id and a colon",
                fix="pass `<id>:axis_seal_…` as it was minted",
            )
        return cls(int(number), parse_minted("seal", Secret(minted)))

    def text(self) -> Secret[str]:
        """The printable form, for a secrets manager: ``<id>:axis_seal_…`` with a checksum."""
        return Secret(f"{self.id}:{minted_text('seal', self.secret.reveal()).reveal()}")

    def blocks(self) -> tuple[Secret[bytes], Secret[bytes]]:
        """The key, padded and masked as RFC 2104 has it (inner, outer): what the database keeps. As secret as the key."""
        padded = self.secret.reveal().ljust(_BLOCK, b"\0")
        return Secret(bytes(b ^ 0x36 for b in padded)), Secret(bytes(b ^ 0x5C for b in padded))

    def fingerprint(self) -> str:
        """SHA-256 over the blocks, in hex: tells whether the database holds this key, and nothing about the key."""
        inner, outer = self.blocks()
        return hashlib.sha256(inner.reveal() + outer.reveal()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealKeyring:
    """The key that seals, and the one before it that the database still accepts while processes change over.

    Rotation: apply the plan with ``current=new, previous=old``, restart the processes, apply again without ``previous``.

    Raises:
        ConfigError: both keys have the same id.
    """

    current: SealKey
    previous: SealKey | None = None

    def __post_init__(self) -> None:
        if self.previous is not None and self.previous.id == self.current.id:
            raise ConfigError(
                what="unusable seal keyring",
                why="current and previous have the same id",
                fix="give each key its own id",
            )

    @classmethod
    def from_text(cls, current: Secret[str], previous: Secret[str] | None = None) -> SealKeyring:
        """Read the keys from their printable forms.

        Raises:
            ConfigError: a text is not a seal key.
        """
        return cls(
            current=SealKey.parse(current),
            previous=None if previous is None else SealKey.parse(previous),
        )

    @property
    def keys(self) -> tuple[SealKey, ...]:
        """The live keys, the current one first."""
        return (self.current,) if self.previous is None else (self.current, self.previous)


class Sealer:
    """Seals principals with the current key of a keyring; holds the prepared HMAC state.

    Args:
        keyring: its current key seals.
        lasting: how long a transaction may begin with the text; at most an hour.
        clock: tells the time; the database compares with its own.

    Raises:
        ConfigError: *lasting* is not usable.
    """

    __slots__ = ("_clock", "_head", "_lasting_seconds", "_state")

    def __init__(
        self,
        keyring: SealKeyring,
        *,
        lasting: timedelta = DEFAULT_LASTING,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not timedelta(seconds=1) <= lasting <= _MAX_LASTING:
            raise ConfigError(
                what="unusable life of the sealed context",
                why="it must be between a second and an hour",
                fix="leave the default of two minutes",
            )
        self._head: Final = f"axis1 {keyring.current.id}"
        self._state: Final = hmac.new(keyring.current.secret.reveal(), digestmod="sha256")
        self._lasting_seconds: Final = int(lasting.total_seconds())
        self._clock: Final = clock

    def __call__(self, principal: Principal) -> str:
        """The sealed context of *principal*, from now on."""
        return self.at(principal, now=self._clock.now())

    def at(self, principal: Principal, *, now: datetime) -> str:
        """The sealed context of *principal*, from *now* on."""
        user = "" if principal.user is None else principal.user.text
        body = f"{self._head} {int(now.timestamp()) + self._lasting_seconds} {principal.tenant.text} {user} {principal.role} "
        mac = self._state.copy()
        mac.update(body.encode("ascii"))
        return body + mac.hexdigest()

    def __repr__(self) -> str:
        return f"Sealer({self._head!r})"


def seal(
    principal: Principal,
    *,
    keyring: SealKeyring,
    now: datetime,
    lasting: timedelta = DEFAULT_LASTING,
) -> str:
    """The sealed context of *principal*; a :class:`Sealer` does the same faster, many times."""
    return Sealer(keyring, lasting=lasting).at(principal, now=now)

"""Which new passwords are accepted: length, not on a list, not the product's name. No composition rules, no expiry.

NIST SP 800-63B-4 section 3.1.1.2 and ASVS 5.0: at least 15 characters where the password stands alone, 8 where a second factor is asked for
(6.2.1); all characters allowed (6.2.5); checked against common (6.2.4), contextual (6.2.11) and breached passwords (6.2.12).
"""

from __future__ import annotations

import enum
import gzip
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from axis_security.auth.breach import BreachSource, sha1_of
from axis_security.auth.passwords import MAX_PASSWORD_CHARS, Refusal, password_bytes
from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret

__all__ = ["Accepted", "PasswordRules", "Reason", "Rejected", "common_passwords"]

_SHORTEST_WORD: Final = 4
_ENOUGH_BESIDE_WORDS: Final = 8
_LONGEST_UNIT: Final = 4


class Reason(enum.Enum):
    """Why a new password is not accepted; the value is the text for the person."""

    TOO_SHORT = "This password is too short."
    TOO_LONG = "This password is too long."
    NOT_TEXT = "This password contains characters that cannot be used."
    COMMON = "This password is on a list of passwords that many people use."
    CONTEXT = "This password is built around your name, e-mail address or the name of this service."
    REPETITIVE = "This password only repeats a few characters."
    BREACHED = "This password has appeared in a data breach. Do not use it anywhere."


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every rule holds."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """At least one rule does not hold."""

    reasons: tuple[Reason, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """What to tell the person."""
        return tuple(reason.value for reason in self.reasons)


@cache
def common_passwords() -> frozenset[str]:
    """The bundled list of about 20,000 common passwords, in lower case. Its origin is in NOTICE."""
    packed = (files("axis_security.auth") / "data" / "common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode("utf-8").split("\n")) - {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordRules:
    """The rules for a new password.

    Args:
        minimum: shortest password, in characters: 15 alone, 8 with a second factor that every account must use.
        context_words: words that must not make up the password: product, company, domain (ASVS 6.1.2); shorter than 4 characters are ignored.
        breached: a :class:`~axis_security.auth.breach.BreachFilter`, a ``RangeClient``, or ``None`` for the bundled list alone.

    Raises:
        ConfigError: a minimum below 8 or above 64.
    """

    minimum: int = 15
    context_words: tuple[str, ...] = ()
    breached: BreachSource | None = None

    def __post_init__(self) -> None:
        if not 8 <= self.minimum <= 64:
            raise ConfigError(
                what="unusable minimum password length",
                why=f"{self.minimum} characters",
                fix="use 8 to 64; 15 without a second factor (ASVS 6.2.1, 6.2.9)",
            )

    def check(self, password: Secret[str], *, about: Iterable[str] = ()) -> Accepted | Rejected:
        """Judge a new password. Any text is answered.

        Args:
            password: as the person typed it.
            about: words of this account: name, e-mail address.

        Raises:
            Unavailable: the breach source did not answer; the password is not accepted.
        """
        data = password_bytes(password)
        match data:
            case Refusal.EMPTY:
                return Rejected((Reason.TOO_SHORT,))
            case Refusal.TOO_LONG:
                return Rejected((Reason.TOO_LONG,))
            case Refusal():
                return Rejected((Reason.NOT_TEXT,))
        text = unicodedata.normalize("NFC", password.reveal())
        folded = text.casefold()
        reasons = []
        if len(text) < self.minimum:
            reasons.append(Reason.TOO_SHORT)
        if folded in common_passwords():
            reasons.append(Reason.COMMON)
        if _built_around(folded, (*self.context_words, *about)):
            reasons.append(Reason.CONTEXT)
        if 0 < (folded + folded).find(folded, 1) <= _LONGEST_UNIT:
            reasons.append(Reason.REPETITIVE)
        # Last, since it may ask a service; not at all for what is refused already.
        if not reasons and self.breached is not None and self.breached.contains(sha1_of(data)):
            reasons.append(Reason.BREACHED)
        return Rejected(tuple(reasons)) if reasons else Accepted()


def _built_around(folded: str, words: Iterable[str]) -> bool:
    found, rest = False, folded
    for word in sorted({part for given in words for part in _parts(given)}, key=lambda part: (-len(part), part)):
        if word in rest:
            found, rest = True, rest.replace(word, "")
    return found and sum(map(str.isalnum, rest)) < _ENOUGH_BESIDE_WORDS


def _parts(word: str) -> Iterable[str]:
    whole = unicodedata.normalize("NFC", word[:MAX_PASSWORD_CHARS]).casefold()
    pieces = "".join(char if char.isalnum() else " " for char in whole).split()
    return (part for part in (whole, *pieces) if len(part) >= _SHORTEST_WORD)

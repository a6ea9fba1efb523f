"""Typed identifiers. Inner code takes :class:`TenantId` and :class:`UserId`, never a bare ``str``.

A tenant key in the host's tables is a ``uuid``, a ``bigint`` or a ``text``; an id keeps the Python type that fits the column,
and has exactly one text form (:attr:`TenantId.text`), which is what travels in the sealed context.
"""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from axis_security.core.errors import MalformedId

__all__ = ["IdValue", "KeyType", "TenantId", "UserId", "parse_id"]

IdValue = uuid.UUID | int | str
"""What an id may be made of; which of them a tenancy takes, its key type says."""

MAX_ID_CHARS: Final = 128
"""Longest text id, in characters. A limit keeps contexts, cookies and log lines bounded."""

_MAX_BIGINT: Final = 2**63 - 1


class KeyType(enum.Enum):
    """The column type of a key, as PostgreSQL names it."""

    UUID = "uuid"
    INT = "bigint"
    TEXT = "text"

    @classmethod
    def of(cls, value: IdValue) -> KeyType:
        """The key type that *value* fits."""
        if isinstance(value, uuid.UUID):
            return cls.UUID
        return cls.INT if isinstance(value, int) else cls.TEXT


def _check(noun: str, value: object) -> None:
    match value:
        case bool():
            reason = "a bool is not an id"
        case uuid.UUID():
            return
        case int():
            if 0 <= value <= _MAX_BIGINT:
                return
            reason = "an integer id must lie in 0 .. 2**63-1"
        case str():
            if not value:
                reason = "an id must not be empty"
            elif len(value) > MAX_ID_CHARS:
                reason = f"an id must have at most {MAX_ID_CHARS} characters"
            elif not value.isascii() or not value.isprintable() or " " in value:
                # Visible ASCII only: no look-alikes, no control characters in logs, no NUL (which PostgreSQL refuses).
                reason = "an id must be visible ASCII"
            else:
                return
        case _:
            reason = f"an id must be uuid.UUID, int or str, not {type(value).__name__}"
    raise MalformedId(what=f"malformed {noun} id", why=reason, fix="pass the id exactly as the database holds it")


@dataclass(frozen=True, slots=True)
class _Id:
    value: IdValue
    noun: ClassVar[str] = "object"

    def __post_init__(self) -> None:
        _check(self.noun, self.value)

    @classmethod
    def of(cls, value: Self | IdValue) -> Self:
        """Return *value* as an id; an id passes through.

        Raises:
            MalformedId: *value* has no accepted spelling.
        """
        return value if isinstance(value, cls) else cls(value)  # type: ignore[arg-type]  # an id of another noun: _check refuses it

    @property
    def text(self) -> str:
        """The one text form: UUIDs in lower case with dashes, integers in decimal, text as it is."""
        return str(self.value)

    @property
    def key_type(self) -> KeyType:
        """The column type this id fits."""
        return KeyType.of(self.value)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class TenantId(_Id):
    """A workspace: the unit of isolation."""

    noun: ClassVar[str] = "tenant"


@dataclass(frozen=True, slots=True)
class UserId(_Id):
    """A person or service account."""

    noun: ClassVar[str] = "user"


def parse_id(text: str, key_type: KeyType) -> IdValue:
    """Read the text form of an id back as *key_type*.

    Raises:
        MalformedId: *text* is not the canonical spelling of an id of that type.
    """
    try:
        value: IdValue = {KeyType.UUID: uuid.UUID, KeyType.INT: int, KeyType.TEXT: str}[key_type](text)
    except ValueError:
        value = ""
    if str(value) != text or not text:
        raise MalformedId(
            what="malformed id", why=f"not the canonical text of a {key_type.value}", fix="pass the id exactly as it was issued"
        )
    # What no id may be (negative, out of range, invisible) must not come back as one by being read.
    _check("object", value)
    return value

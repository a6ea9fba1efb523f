"""Blind indexes: a keyed digest beside a sealed value, so that equal values can be found without being readable.

``u8 version || HMAC-SHA256(key, LP(normalised))[:16]``, 17 bytes, in a column of its own. The key is the tenant's and the field's, of a lineage apart from
the keys of values; equal values of two tenants have nothing in common. While two versions are live a query asks for both.

What it gives away: which rows of one tenant hold equal values. A field with few possible values (a flag, a country, a birth date) is therefore not
indexed: whoever can write rows could tell all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from axis_security.core.encoding import length_prefixed
from axis_security.core.errors import ConfigError

__all__ = ["INDEX_BYTES", "NORMALISERS", "BlindIndex", "IndexCipher"]

INDEX_BYTES: Final = 17
"""Length of an index value."""


def _nfc_casefold_v1(text: str) -> str:
    # Folding can undo the composition, so it is composed again.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold().strip())


def _digits_v1(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _email_v1(text: str) -> str:
    # The local part is folded as well: two people whose addresses differ in case only are one person in practice.
    local, at, domain = unicodedata.normalize("NFC", text.strip()).rpartition("@")
    return f"{local.casefold()}{at}{domain.casefold()}"


def _exact_v1(text: str) -> str:
    return text


NORMALISERS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {"nfc-casefold-v1": _nfc_casefold_v1, "digits-v1": _digits_v1, "email-v1": _email_v1, "exact-v1": _exact_v1}
)
"""What counts as equal. A name stands for one behaviour for ever; a better one gets a new name and a new index column."""


@dataclass(frozen=True, slots=True)
class BlindIndex:
    """How a sealed field is looked up.

    Args:
        normaliser: a name of :data:`NORMALISERS`: what counts as equal.
        unique: no two rows of a tenant may hold equal values. Kept by a unique index, and through a rotation of the index key by a lock.

    Raises:
        ConfigError: there is no such normaliser.
    """

    normaliser: str
    unique: bool = False

    def __post_init__(self) -> None:
        if self.normaliser not in NORMALISERS:
            raise ConfigError(
                what=f"no normaliser `{self.normaliser}`", why="it must be one of " + ", ".join(NORMALISERS), fix="choose one of them"
            )

    def normalise(self, value: str | bytes) -> bytes:
        """The bytes that equal values share."""
        return value if isinstance(value, bytes) else NORMALISERS[self.normaliser](value).encode()


class IndexCipher:
    """Makes index values of one field of one tenant. Immutable and thread-safe; built and kept by the ring.

    Args:
        roots: the tenant's live index keys by version, at most two.
        tenant, field: whose, and which.
        writes: the version that is written.
    """

    __slots__ = ("_keys", "newest", "versions", "writes")

    def __init__(self, roots: Mapping[int, bytes], *, tenant: str, field: str, writes: int) -> None:
        if not all(0 < version < 256 for version in roots) or len(roots) > 2:
            raise ConfigError(
                what="the index keys cannot be used",
                why="at most two are live, and versions end at 255",
                fix="finish the rotation under way",
            )
        self._keys: Final = {version: _key(root, tenant, field, version) for version, root in roots.items()}
        self.writes: Final = writes
        self.versions: Final = (writes, *(version for version in roots if version != writes))
        self.newest: Final = max(roots)

    def value(self, normalised: bytes, version: int | None = None) -> bytes:
        """The index value of *normalised*, under *version* or the one that is written."""
        number = version or self.writes
        return bytes((number,)) + hmac.digest(self._keys[number], length_prefixed(normalised), "sha256")[:16]

    def in_slot(self, normalised: bytes, slot: int) -> bytes:
        """The index value under the live version of *slot* (0 or 1), the written one standing in where only one is live."""
        return self.value(normalised, self.versions[min(slot, len(self.versions) - 1)])

    def __repr__(self) -> str:
        return f"IndexCipher(versions={self.versions})"


def _key(root: bytes, tenant: str, field: str, version: int) -> bytes:
    info = length_prefixed(b"axbi", tenant.encode(), field.encode()) + version.to_bytes(4, "big")
    return hmac.new(root, info + b"\x01", hashlib.sha512).digest()[:32]

"""Equality search over sealed values: a keyed digest in a column of its own, under a key lineage of its own.

``u8 version || HMAC-SHA256(index key, LP(field) LP(normalised))[:16]``: 17 bytes. The index key does not come from the tenant's root keys, so rotating those
never reindexes. Equal values give equal digests, which tells whoever reads the column which rows are equal; a field with few possible values would
give its values away by their counts, so booleans, enumerations and the like must not be indexed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from axis_security.core.encoding import length_prefixed
from axis_security.core.errors import ConfigError
from axis_security.core.ids import TenantId
from axis_security.core.minted import parse_minted
from axis_security.core.secret import Secret

__all__ = ["NORMALISERS", "BlindIndex", "IndexKeys"]

DIGEST_BYTES: Final = 17


def _casefold(value: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).casefold())


def _email(value: str) -> str:
    local, at, domain = value.strip().rpartition("@")
    return f"{_casefold(local)}{at}{domain.lower()}"


NORMALISERS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {
        "exact-v1": lambda value: value,
        "nfc-casefold-v1": lambda value: _casefold(" ".join(value.split())),
        "digits-v1": lambda value: re.sub(r"[^0-9]", "", value),
        "email-v1": _email,
    }
)
"""How a value is brought into one spelling before its digest. Versioned: what a name does never changes, or rows would no longer be found."""


class IndexKeys:
    """The index's master keys by version: the current one writes, all of them are searched while a rotation lasts.

    Args:
        keys: version (1 to 255) to a minted ``index`` key.
        current: the version that writes.

    Raises:
        ConfigError: no such version, or not an index key.
    """

    def __init__(self, keys: Mapping[int, Secret[str]], *, current: int) -> None:
        if current not in keys or any(not 1 <= version <= 255 for version in keys):
            raise ConfigError(
                what="the index keys are not usable",
                why="`current` must be one of the versions, each 1 to 255",
                fix="IndexKeys({1: key}, current=1)",
            )
        self.current: Final = current
        self._keys: Final = {version: parse_minted("index", key) for version, key in keys.items()}
        self._tenant_keys: dict[tuple[int, str, str], bytes] = {}

    @property
    def versions(self) -> tuple[int, ...]:
        """Every live version, the current one first."""
        return (self.current, *sorted(version for version in self._keys if version != self.current))

    def digest(self, value: str, *, tenant: TenantId, field: str, version: int) -> bytes:
        """The 17 bytes for a normalised *value*."""
        key = self._tenant_keys.get((version, tenant.text, field))
        if key is None:
            key = hmac.new(
                self._keys[version].reveal(),
                b"axis-security/blind-index/v1" + length_prefixed(tenant.text.encode(), field.encode()),
                hashlib.sha256,
            ).digest()
            if len(self._tenant_keys) > 10_000:
                self._tenant_keys.clear()
            self._tenant_keys[version, tenant.text, field] = key
        return bytes((version,)) + hmac.new(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()[:16]

    def __repr__(self) -> str:
        return f"IndexKeys(current={self.current})"


class BlindIndex:
    """Declares that a sealed field can be found by equality.

    Args:
        normaliser: a name of :data:`NORMALISERS`.
        unique: whether two rows of a tenant may not hold the same value.

    Raises:
        ConfigError: an unknown normaliser.
    """

    __slots__ = ("normalise", "normaliser", "unique")

    def __init__(self, normaliser: str, *, unique: bool = False) -> None:
        if normaliser not in NORMALISERS:
            raise ConfigError(what=f"unknown normaliser `{normaliser}`", why=f"there are {', '.join(NORMALISERS)}", fix="use one of them")
        self.normaliser: Final = normaliser
        self.normalise: Final = NORMALISERS[normaliser]
        self.unique: Final = unique

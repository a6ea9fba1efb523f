"""How sealing refuses. One shape of message for all: which field or object, never a value, a key or a byte of either."""

from __future__ import annotations

from typing import ClassVar

from axis_security.core.errors import AxisError, Unavailable

__all__ = [
    "KeyMissing",
    "KeyShredded",
    "KmsRefused",
    "KmsUnavailable",
    "LedgerUnavailable",
    "SealError",
    "Tampered",
    "TenantRequired",
    "Truncated",
    "UnknownFormat",
    "WrongContext",
]


class SealError(AxisError):
    """Something sealed could not be opened, or something could not be sealed. Nothing of the plaintext was given out."""

    code = "crypto.seal"
    what_happened: ClassVar[str] = "the sealed value cannot be opened"
    because: ClassVar[str] = ""
    remedy: ClassVar[str] = ""

    def __init__(self, *, name: str) -> None:
        super().__init__(what=f"{self.what_happened}: `{name}`", why=self.because, fix=self.remedy, facts={"name": name})


class UnknownFormat(SealError):
    """The first bytes name no format or suite that the key's record allows."""

    code = "crypto.unknown_format"
    because = "its header names a format or suite that is not this key's"
    remedy = "check that the column holds values sealed by this library; plaintext is never passed through"


class Truncated(SealError):
    """It is shorter than its format can be, or its end is missing."""

    code = "crypto.truncated"
    because = "its end is missing"
    remedy = "restore it from a backup; find out what cut it off"


class KeyMissing(SealError):
    """The key that it names is not in the tenant's ring."""

    code = "crypto.key_missing"
    because = "its key is not in the tenant's ring"
    remedy = "check the tenant, and that the ring's store is the one the value was sealed under"


class KeyShredded(SealError):
    """The key that it names was destroyed, for good."""

    code = "crypto.key_shredded"
    http_status = 410
    because = "its key was shredded, for good"
    remedy = "nothing brings it back; delete the row or the object"


class WrongContext(SealError):
    """It was sealed for another tenant or field: the key commitment does not fit."""

    code = "crypto.wrong_context"
    because = "it was sealed for another tenant or field, or its header was changed"
    remedy = "read it under the tenant and field it was written for"


class Tampered(SealError):
    """Its bytes were changed, or it was moved to another row: authentication failed."""

    code = "crypto.tampered"
    because = "authentication failed: it was changed, or belongs to another row or object"
    remedy = "restore it from a backup, and find out who could write there"


class TenantRequired(SealError):
    """Something was to be sealed or opened, and nobody is acting for a tenant."""

    code = "crypto.tenant_required"
    what_happened = "no tenant to seal for"
    because = "this code runs outside `acting_as(...)`; there is no default tenant"
    remedy = "wrap the work in `with acting_as(Principal(...)):`"


class KmsUnavailable(Unavailable):
    """The key service did not answer, or refused, and what is in memory is too old to go on with."""

    code = "crypto.kms_unavailable"

    def __init__(self, *, kek: str, why: str) -> None:
        super().__init__(
            what="the key service did not open a key",
            why=f"{kek}: {why}",
            fix="check that the key service is up and that this service may use the key",
            facts={"kek": kek},
        )


class KmsRefused(KmsUnavailable):
    """The key service answered, and the answer was no: the key is disabled or on its way out, or this service lost its right to it.

    Unlike silence this is somebody's decision, so keys in memory do not outlive their ttl on it.
    """

    code = "crypto.kms_refused"


class LedgerUnavailable(Unavailable):
    """The shred ledger could not be read or written; no ring opens, and nothing was shredded."""

    code = "crypto.ledger_unavailable"

    def __init__(self, *, why: str) -> None:
        super().__init__(
            what="the shred ledger is not usable",
            why=why,
            fix="make the ledger's file or object readable and writable again; it must not live in the database's backup",
        )

"""Seals small secrets that belong to no row of the host's: TOTP seeds, links, whatever has a context of its own."""

from __future__ import annotations

from typing import Final

from axis_security.core.ids import TenantId
from axis_security.crypto.errors import KeyMissing
from axis_security.crypto.keyring import KeyRing

__all__ = ["ACCOUNTS", "RingSealer"]

ACCOUNTS: Final = TenantId("axis:accounts")
"""The scope of what belongs to people rather than to one workspace; a ring keeps its keys as it keeps a tenant's."""


class RingSealer:
    """Fits the ``Sealer`` ports: ``RingSealer(ring, "totp.seed")`` seals what :class:`~axis_security.auth.totp.Totp` stores.

    Args:
        ring: whose keys seal.
        purpose: what is sealed; part of the key, and never changed.
        scope: whose keys: a tenant's, or :data:`ACCOUNTS`. It is given its first key when something is first sealed.
    """

    def __init__(self, ring: KeyRing, purpose: str, *, scope: TenantId = ACCOUNTS) -> None:
        self._ring, self._field, self._scope = ring, purpose, scope

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Seal *plain*, bound to *context* (at most 65,535 bytes): it opens under the same context only.

        Raises:
            KeyShredded, KmsUnavailable, LedgerUnavailable: see :meth:`KeyRing.seal <axis_security.crypto.keyring.KeyRing.seal>`.
        """
        try:
            return self._ring.seal(plain, tenant=self._scope, field=self._field, row=context)
        except KeyMissing:
            self._ring.create(self._scope)
        return self._ring.seal(plain, tenant=self._scope, field=self._field, row=context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Open *sealed*, whichever key of the scope sealed it.

        Raises:
            Tampered: changed, or of another context.
            SealError: otherwise not to be opened; see :meth:`KeyRing.open <axis_security.crypto.keyring.KeyRing.open>`.
        """
        return self._ring.open(sealed, tenant=self._scope, field=self._field, row=context)

    def __repr__(self) -> str:
        return f"RingSealer({self._field!r})"

"""Looking after keys: what a person, a cron job or ``axis-security keys`` does with a ring and the tables it sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError, MalformedId
from axis_security.core.ids import KeyType, TenantId, parse_id
from axis_security.core.principal import Principal
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.keys import KeyRecord, KeyState
from axis_security.crypto.sealer import ACCOUNTS

if TYPE_CHECKING:
    from sqlalchemy import MetaData
    from sqlalchemy.engine import Engine

    from axis_security.crypto.reencrypt import Progress, SealedColumn

__all__ = ["KeyUpkeep"]

_USER: Final = "axis:keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUpkeep:
    """A ring and the tables it sealed, for an operator's hands.

    Args:
        ring: on a store that logs in as the system role, where keys are to be listed, rewrapped or shredded.
        engine: the application's own, guarded by the tenancy; with *metadata* it finds and re-seals rows. Without it only keys are looked after.
        metadata: the application's tables.
        role: under which rows are re-sealed; it must be able to write every table that has sealed columns.
        key_type: of the tables' tenant column.
        tenant_column: its name; ``None`` where row security alone decides.

    Raises:
        ConfigError: an engine without metadata, or the reverse.
    """

    ring: KeyRing
    engine: Engine | None = None
    metadata: MetaData | None = None
    role: str = "owner"
    key_type: KeyType = KeyType.TEXT
    tenant_column: str | None = "tenant_id"

    def __post_init__(self) -> None:
        if (self.engine is None) != (self.metadata is None):
            raise ConfigError(what="rows cannot be found", why="engine and metadata belong together", fix="pass both, or neither")

    def tenant(self, text: str) -> TenantId:
        """The id that *text* stands for. Raises MalformedId."""
        return ACCOUNTS if text == ACCOUNTS.text else TenantId(parse_id(text, self.key_type))

    def tenants(self, *, due: bool = False) -> Sequence[TenantId]:
        """Everybody who has a key that lives; with *due*, whose active key has served long or often enough.

        What is no id of a tenant is passed over (``axis-security keys status`` names it): nobody can act for it, and a row that injected SQL planted must
        not stop the rotation of all others.
        """
        found = []
        for text in self.ring.tenants():
            with suppress(MalformedId):
                found.append(self.tenant(text))
        return [each for each in found if self.active(each) is not None and (not due or self.ring.due(each))]

    def active(self, tenant: TenantId) -> KeyRecord | None:
        """The record of the key that seals for *tenant* now."""
        return next((record for record in self.ring.status(tenant) if record.state is KeyState.ACTIVE), None)

    def columns(self, tenant: TenantId) -> Sequence[SealedColumn]:
        """Every sealed column in which *tenant* can have rows: those of the tables. What belongs to people (:data:`~axis_security.crypto.sealer.ACCOUNTS`) is in none."""
        from axis_security.crypto.reencrypt import sealed_columns

        return [] if self.metadata is None or tenant == ACCOUNTS else sealed_columns(self.metadata)

    def left(self, tenant: TenantId, column: SealedColumn) -> int:
        """How many of *tenant*'s rows are sealed under another key than the active one. Raises as :func:`~axis_security.crypto.reencrypt.remaining`."""
        from axis_security.crypto.reencrypt import remaining

        with self._acting(tenant) as engine:
            return remaining(engine, self.ring, column, tenant_column=self.tenant_column)

    def reseal(self, tenant: TenantId, column: SealedColumn, *, report: Callable[[Progress], object] | None = None) -> Progress:
        """Seal *tenant*'s rows of *column* under the active key. Raises as :func:`~axis_security.crypto.reencrypt.reencrypt`."""
        from axis_security.crypto.reencrypt import reencrypt

        with self._acting(tenant) as engine:
            return reencrypt(engine, self.ring, column, tenant_column=self.tenant_column, report=report)

    @contextmanager
    def _acting(self, tenant: TenantId) -> Iterator[Engine]:
        if self.engine is None:
            raise ConfigError(
                what="rows cannot be found", why="KeyUpkeep got no engine", fix="KeyUpkeep(ring=…, engine=…, metadata=Base.metadata)"
            )
        with acting_as(Principal(tenant=tenant, user=_USER, role=self.role)):
            yield self.engine

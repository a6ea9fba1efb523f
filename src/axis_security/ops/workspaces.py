"""What the operator does to a workspace: suspend, resume, and erase it so that nothing is left, which is then proved by counting.

All of it is system work: another login, a reason, an end, and an event before anything is opened (``tenancy.system``). Members' own steps (ask for
deletion, take it back) are in :mod:`axis_security.rbac.members`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Table, TextClause, delete, func, select, text
from sqlalchemy.sql import Executable

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import AxisError, ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.flow import adrive, drive
from axis_security.core.ids import IdValue, TenantId
from axis_security.rls.metadata import belonging, name_of
from axis_security.rls.tenancy import Tenancy

__all__ = ["Erased", "ErasureFailed", "NotErasable", "Workspaces"]

R = TypeVar("R")

_SUSPEND: Final = text("SELECT axis.workspace_suspend(:tenant, :suspended)")
_PURGE: Final = text("SELECT axis.workspace_purge(:tenant)")

Progress = Callable[[str, int], None]
"""Told a table's name and how many of its rows went."""


class NotErasable(AxisError):
    """The workspace is not waiting for its deletion, or its grace is not over. Nothing was deleted."""

    code = "ops.not_erasable"
    http_status = 409


class ErasureFailed(AxisError):
    """Rows of the workspace were still there after deleting; everything was rolled back."""

    code = "ops.erasure_failed"


@dataclass(frozen=True, slots=True)
class Erased:
    """What went. Args: rows: by table; every table was counted afterwards, and held none of the tenant's rows."""

    rows: Mapping[str, int]

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.rows.values())


class Workspaces:
    """The operator's hand on workspaces; each method has an async twin with an ``a`` in front.

    Args:
        tenancy: with a system engine installed (``tenancy.install(engine, system=system_engine)``).
        events: takes WORKSPACE_SUSPENDED, WORKSPACE_RESUMED, WORKSPACE_DELETED and TENANT_ERASED.
        lasting: the longest an operation may take.
    """

    def __init__(
        self, tenancy: Tenancy, *, events: EventSink, lasting: timedelta = timedelta(minutes=30), clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._tenancy, self._events, self._lasting, self._clock = tenancy, events, lasting, clock

    def suspend(self, tenant: TenantId | IdValue, *, reason: str) -> bool:
        """Shut *tenant* out, from its next request on; ``False`` if it was not active. Raises: ConfigError (no reason)."""
        return self._run(self._switch(TenantId.of(tenant), reason, suspended=True), reason)

    async def asuspend(self, tenant: TenantId | IdValue, *, reason: str) -> bool:
        """See :meth:`suspend`."""
        return await self._arun(self._switch(TenantId.of(tenant), reason, suspended=True), reason)

    def resume(self, tenant: TenantId | IdValue, *, reason: str) -> bool:
        """Let *tenant* in again; ``False`` if it was not suspended. Raises: ConfigError (no reason)."""
        return self._run(self._switch(TenantId.of(tenant), reason, suspended=False), reason)

    async def aresume(self, tenant: TenantId | IdValue, *, reason: str) -> bool:
        """See :meth:`resume`."""
        return await self._arun(self._switch(TenantId.of(tenant), reason, suspended=False), reason)

    def erase(self, tenant: TenantId | IdValue, *, reason: str, progress: Progress | None = None) -> Erased:
        """Delete every row of *tenant*, in every protected table and in schema ``axis``, in one transaction; then count, and commit only at zero.

        The audit log's entries stay (they are the proof), and so do backups until their retention ends: shred the tenant's keys as well
        (:meth:`KeyRing.shred <axis_security.crypto.keyring.KeyRing.shred>`), which reaches both.

        Raises:
            NotErasable: its deletion was not asked for, or the grace is not over.
            ErasureFailed: rows were left; nothing was deleted.
            ConfigError: no reason.
        """
        return self._run(self._erase(TenantId.of(tenant), reason, progress), reason)

    async def aerase(self, tenant: TenantId | IdValue, *, reason: str, progress: Progress | None = None) -> Erased:
        """See :meth:`erase`."""
        return await self._arun(self._erase(TenantId.of(tenant), reason, progress), reason)

    def _run(self, flow: Generator[Any, Any, tuple[R, list[AuditEvent]]], reason: str) -> R:
        _need(reason)
        with self._tenancy.system(reason=reason, lasting=self._lasting) as connection:
            answer, events = drive(flow, lambda request: connection.execute(*request))
        for event in events:  # after the commit: an event says what has happened
            self._events.emit(event)
        return answer

    async def _arun(self, flow: Generator[Any, Any, tuple[R, list[AuditEvent]]], reason: str) -> R:
        _need(reason)
        async with self._tenancy.system(reason=reason, lasting=self._lasting) as connection:
            answer, events = await adrive(flow, lambda request: connection.execute(*request))
        for event in events:
            self._events.emit(event)
        return answer

    def _switch(
        self, tenant: TenantId, reason: str, *, suspended: bool
    ) -> Generator[tuple[TextClause, dict[str, Any]], Any, tuple[bool, list[AuditEvent]]]:
        result = yield _SUSPEND, {"tenant": tenant.text, "suspended": suspended}
        changed = result.scalar_one() == "ok"
        kind = EventKind.WORKSPACE_SUSPENDED if suspended else EventKind.WORKSPACE_RESUMED
        return changed, [self._event(kind, tenant, reason)] if changed else []

    def _erase(
        self, tenant: TenantId, reason: str, progress: Progress | None
    ) -> Generator[tuple[Executable, dict[str, Any]], Any, tuple[Erased, list[AuditEvent]]]:
        result = yield _PURGE, {"tenant": tenant.text}
        if result.scalar_one() != "ok":
            raise NotErasable(
                what="the workspace cannot be erased",
                why="its deletion was not asked for, or the grace is not over",
                fix="an owner asks for the deletion; erase when the grace has passed",
            )
        tables, belongs = self._protected(tenant)
        rows: dict[str, int] = {}
        for table in tables:  # children before the parents they point at
            result = yield delete(table).where(belongs(table)), {}
            rows[table.fullname] = result.rowcount
            if progress is not None:
                progress(table.fullname, result.rowcount)
        for table in tables:
            result = yield select(func.count()).select_from(table).where(belongs(table)), {}
            if result.scalar_one() != 0:
                raise ErasureFailed(
                    what="rows of the workspace were left",
                    why=f"`{table.fullname}` was written to meanwhile, or a trigger kept rows",
                    fix="suspend the workspace first, then erase again",
                )
        erased = Erased(rows)
        events = [
            self._event(EventKind.WORKSPACE_DELETED, tenant, reason),
            self._event(EventKind.TENANT_ERASED, tenant, reason, tables=len(tables), rows=erased.total),
        ]
        return erased, events

    def _protected(self, tenant: TenantId) -> tuple[list[Table], Callable[[Table], ColumnElement[bool]]]:
        model, metadata = self._tenancy.model(), self._tenancy.metadata
        names = model.protected()
        return [table for table in reversed(metadata.sorted_tables) if name_of(table) in names], belonging(metadata, model, tenant)

    def _event(self, kind: EventKind, tenant: TenantId, reason: str, **detail: int) -> AuditEvent:
        return AuditEvent(kind=kind, at=self._clock.now(), outcome=Outcome.ALLOWED, tenant=tenant, reason=reason, detail=detail)


def _need(reason: str) -> None:
    if len(reason.strip()) < 4:
        raise ConfigError(
            what="work on a workspace needs a reason",
            why="it is kept in the audit log",
            fix='write reason="unpaid since March, ticket 1234"',
        )

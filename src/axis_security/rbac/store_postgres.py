"""Memberships in PostgreSQL, over psycopg: two thin shells around :class:`~axis_security.rbac.members.MemberFlows`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

import psycopg

from axis_security.core.errors import AxisError, CheckFailed, PrincipalRequired, Unavailable
from axis_security.core.events import AuditEvent, EventSink, Outcome
from axis_security.core.flow import Rows, Statement, adrive, drive
from axis_security.core.ids import IdValue, TenantId, UserId
from axis_security.rbac.members import Invitation, Member, MemberFlow, MemberFlows, Membership, OwnRole, Workspace
from axis_security.rbac.policy import Policy, Role

__all__ = ["AsyncConnectionSource", "AsyncPostgresMembers", "ConnectionSource", "PostgresMembers"]

Result = TypeVar("Result")


class ConnectionSource(Protocol):
    """Gives connections whose block is one transaction: ``psycopg_pool.ConnectionPool`` fits."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection; commits on leaving the block, rolls back on an exception."""
        ...


class AsyncConnectionSource(Protocol):
    """Gives async connections: ``psycopg_pool.AsyncConnectionPool`` fits."""

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """A connection; commits on leaving the block, rolls back on an exception."""
        ...


class PostgresMembers:
    """Workspaces and their members. Every method is described in :class:`~axis_security.rbac.members.MemberFlows`.

    Args:
        policy: the rules that the database was given too (``members_part(policy)``).
        bound: connections that bind the acting principal at BEGIN (``tenancy.install(pool)``).
        unbound: connections as the app role without a principal, for what happens before sign-in is complete.

    Each method raises:
        PermissionDenied: the guard says no.
        MemberRefused, LastOwner: the database says no.
        PrincipalRequired: nobody is acting.
        Unavailable, CheckFailed: the database did not answer, or answered with an error.
    """

    def __init__(self, policy: Policy, *, bound: ConnectionSource, unbound: ConnectionSource) -> None:
        self._flows: Final = MemberFlows(policy)
        self._policy: Final = policy
        self._bound: Final = bound
        self._unbound: Final = unbound

    def create_workspace(self, name: str) -> None:
        """Create the acting principal's workspace, with the acting user as first owner."""
        self._run(self._bound, self._flows.create_workspace(name))

    def invite(self, *, digest: bytes, email: str, role: str, lasting: timedelta = timedelta(days=7)) -> uuid.UUID:
        """Record an invitation; returns its public handle."""
        return self._run(self._bound, self._flows.invite(digest=digest, email=email, role=role, lasting=lasting))

    def peek(self, *, digest: bytes) -> Invitation | None:
        """What an open invitation offers."""
        return self._run(self._unbound, self._flows.peek(digest=digest))

    def accept(self, *, digest: bytes, email: str) -> str:
        """Join; returns the role."""
        return self._run(self._bound, self._flows.accept(digest=digest, email=email))

    def revoke_invitation(self, invitation: uuid.UUID) -> None:
        """Take back an open invitation."""
        self._run(self._bound, self._flows.revoke_invitation(invitation))

    def change_role(self, user: UserId | IdValue, role: str) -> None:
        """Give *user* another role."""
        self._run(self._bound, self._flows.change_role(user, role))

    def remove(self, user: UserId | IdValue) -> None:
        """End *user*'s membership."""
        self._run(self._bound, self._flows.remove(user))

    def leave(self) -> None:
        """End one's own membership."""
        self._run(self._bound, self._flows.leave())

    def transfer(self, user: UserId | IdValue, *, keep: str) -> None:
        """Hand over ownership and keep the role *keep*."""
        self._run(self._bound, self._flows.transfer(user, keep=keep))

    def delete_workspace(self, *, grace: timedelta = timedelta(days=30)) -> None:
        """Mark the workspace for deletion."""
        self._run(self._bound, self._flows.delete_workspace(grace=grace))

    def undelete_workspace(self) -> None:
        """Take a deletion back."""
        self._run(self._bound, self._flows.undelete_workspace())

    def members(self) -> Sequence[Member]:
        """The workspace's members."""
        return self._run(self._bound, self._flows.members())

    def define_role(self, role: Role) -> None:
        """Define a role of the workspace's own."""
        self._run(self._bound, self._flows.define_role(role))

    def drop_role(self, name: str) -> None:
        """Drop a role of the workspace's own."""
        self._run(self._bound, self._flows.drop_role(name))

    def own_roles(self) -> Sequence[OwnRole]:
        """The workspace's own roles."""
        return self._run(self._bound, self._flows.own_roles())

    def resolve(self, tenant: TenantId | IdValue, user: UserId | IdValue) -> Membership | None:
        """Role and state, for the gate."""
        return self._run(self._unbound, self._flows.resolve(tenant, user))

    def workspaces(self, user: UserId | IdValue) -> Sequence[Workspace]:
        """Every workspace of *user*."""
        return self._run(self._unbound, self._flows.workspaces(user))

    def _run(self, source: ConnectionSource, flow: MemberFlow[Result]) -> Result:
        pending: list[AuditEvent] = []
        try:
            with source.connection() as conn:

                def perform(request: Statement | AuditEvent) -> Rows:
                    if isinstance(request, AuditEvent):
                        pending.append(request)
                        return ()
                    return conn.execute(request.sql, request.params).fetchall()

                result = drive(flow, perform)
        except BaseException as error:
            _write(self._policy.events, pending, through=False)
            if isinstance(error, psycopg.Error):
                raise _translated(error) from None
            raise
        _write(self._policy.events, pending, through=True)
        return result


class AsyncPostgresMembers:
    """:class:`PostgresMembers` for async code."""

    def __init__(self, policy: Policy, *, bound: AsyncConnectionSource, unbound: AsyncConnectionSource) -> None:
        self._flows: Final = MemberFlows(policy)
        self._policy: Final = policy
        self._bound: Final = bound
        self._unbound: Final = unbound

    async def create_workspace(self, name: str) -> None:
        """Create the acting principal's workspace, with the acting user as first owner."""
        await self._run(self._bound, self._flows.create_workspace(name))

    async def invite(self, *, digest: bytes, email: str, role: str, lasting: timedelta = timedelta(days=7)) -> uuid.UUID:
        """Record an invitation; returns its public handle."""
        return await self._run(self._bound, self._flows.invite(digest=digest, email=email, role=role, lasting=lasting))

    async def peek(self, *, digest: bytes) -> Invitation | None:
        """What an open invitation offers."""
        return await self._run(self._unbound, self._flows.peek(digest=digest))

    async def accept(self, *, digest: bytes, email: str) -> str:
        """Join; returns the role."""
        return await self._run(self._bound, self._flows.accept(digest=digest, email=email))

    async def revoke_invitation(self, invitation: uuid.UUID) -> None:
        """Take back an open invitation."""
        await self._run(self._bound, self._flows.revoke_invitation(invitation))

    async def change_role(self, user: UserId | IdValue, role: str) -> None:
        """Give *user* another role."""
        await self._run(self._bound, self._flows.change_role(user, role))

    async def remove(self, user: UserId | IdValue) -> None:
        """End *user*'s membership."""
        await self._run(self._bound, self._flows.remove(user))

    async def leave(self) -> None:
        """End one's own membership."""
        await self._run(self._bound, self._flows.leave())

    async def transfer(self, user: UserId | IdValue, *, keep: str) -> None:
        """Hand over ownership and keep the role *keep*."""
        await self._run(self._bound, self._flows.transfer(user, keep=keep))

    async def delete_workspace(self, *, grace: timedelta = timedelta(days=30)) -> None:
        """Mark the workspace for deletion."""
        await self._run(self._bound, self._flows.delete_workspace(grace=grace))

    async def undelete_workspace(self) -> None:
        """Take a deletion back."""
        await self._run(self._bound, self._flows.undelete_workspace())

    async def members(self) -> Sequence[Member]:
        """The workspace's members."""
        return await self._run(self._bound, self._flows.members())

    async def define_role(self, role: Role) -> None:
        """Define a role of the workspace's own."""
        await self._run(self._bound, self._flows.define_role(role))

    async def drop_role(self, name: str) -> None:
        """Drop a role of the workspace's own."""
        await self._run(self._bound, self._flows.drop_role(name))

    async def own_roles(self) -> Sequence[OwnRole]:
        """The workspace's own roles."""
        return await self._run(self._bound, self._flows.own_roles())

    async def resolve(self, tenant: TenantId | IdValue, user: UserId | IdValue) -> Membership | None:
        """Role and state, for the gate."""
        return await self._run(self._unbound, self._flows.resolve(tenant, user))

    async def workspaces(self, user: UserId | IdValue) -> Sequence[Workspace]:
        """Every workspace of *user*."""
        return await self._run(self._unbound, self._flows.workspaces(user))

    async def _run(self, source: AsyncConnectionSource, flow: MemberFlow[Result]) -> Result:
        pending: list[AuditEvent] = []
        try:
            async with source.connection() as conn:

                async def perform(request: Statement | AuditEvent) -> Rows:
                    if isinstance(request, AuditEvent):
                        pending.append(request)
                        return ()
                    return await (await conn.execute(request.sql, request.params)).fetchall()

                result = await adrive(flow, perform)
        except BaseException as error:
            _write(self._policy.events, pending, through=False)
            if isinstance(error, psycopg.Error):
                raise _translated(error) from None
            raise
        _write(self._policy.events, pending, through=True)
        return result


def _write(sink: EventSink, pending: Sequence[AuditEvent], *, through: bool) -> None:
    # What did not commit did not happen; a refusal did.
    for event in pending:
        if through or event.outcome is not Outcome.ALLOWED:
            sink.emit(event)


def _translated(error: psycopg.Error) -> AxisError:
    if error.sqlstate == "AX001":
        return PrincipalRequired()
    facts = {"sqlstate": error.sqlstate}
    if isinstance(error, psycopg.OperationalError):
        return Unavailable(
            what="the membership store did not answer", why=f"{type(error).__name__}", fix="try again; check the database", facts=facts
        )
    return CheckFailed(
        what="a membership function failed",
        why=f"PostgreSQL answered {error.sqlstate}",
        fix="check the arguments; apply the current plan",
        facts=facts,
    )

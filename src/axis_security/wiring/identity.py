"""Who is behind a session, and as what: session and membership asked for at once."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from axis_security.auth.session_ports import ListSessions, LiveSession, ResolveSession, ReusedSession
from axis_security.auth.vault import VaultCall, vault_call
from axis_security.core.errors import MalformedId
from axis_security.core.flow import Rows, Statement, adrive, drive
from axis_security.core.ids import KeyType, TenantId, UserId, parse_id
from axis_security.rbac.members import Membership
from axis_security.rbac.policy import Policy

__all__ = [
    "AsyncIdentity",
    "AsyncTwoStores",
    "AsyncVaultIdentity",
    "Identified",
    "Identify",
    "Identity",
    "Recheck",
    "TwoStores",
    "VaultIdentity",
    "joined",
]


@dataclass(frozen=True, slots=True)
class Identify:
    """Resolve a session, and the membership of its person in its workspace. Answer: :class:`Identified`."""

    session: ResolveSession


@dataclass(frozen=True, slots=True)
class Identified:
    """What the stores know. ``membership`` is ``None`` without a session, without a workspace, or for a stranger to it."""

    session: LiveSession | ReusedSession | None
    membership: Membership | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """Whether a session still lives, by its public handle, and the membership it acts with. Answer: :class:`Identified`.

    A long connection asks this. It must not present the cookie it began with: that id may have been replaced since, and would count as stolen.
    """

    sessions: ListSessions
    handle: UUID
    tenant: str | None


class Identity(Protocol):
    """Answers :class:`Identify` and :class:`Recheck`. Any other request of the gate is for the adapter."""

    def perform(self, request: Identify | Recheck, /) -> Identified:
        """Carry out *request*. Raises: Unavailable."""
        ...


class AsyncIdentity(Protocol):
    """:class:`Identity` for async code."""

    def perform(self, request: Identify | Recheck, /) -> Awaitable[Identified]:
        """Carry out *request*. Raises: Unavailable."""
        ...


class Vault(Protocol):
    """Carries out calls: :class:`~axis_security.auth.store_postgres.PostgresVault` fits, and its async twin."""

    def carry_out(self, call: VaultCall, /) -> Any:
        """Carry out *call*; or an awaitable of its answer."""
        ...


class VaultIdentity:
    """Sessions and memberships in one PostgreSQL: one statement, one round trip.

    Args:
        vault: the :class:`~axis_security.auth.store_postgres.PostgresVault`.
        policy: learns what a workspace's own role holds now; without it, such a role holds nothing.
    """

    def __init__(self, vault: Vault, *, policy: Policy | None = None) -> None:
        self._vault: Final = vault
        self._policy: Final = policy

    def perform(self, request: Identify | Recheck, /) -> Identified:
        """See :class:`Identity`."""
        found: Identified = self._vault.carry_out(joined(request, self._policy))
        return found


class AsyncVaultIdentity:
    """:class:`VaultIdentity` for async code, over :class:`~axis_security.auth.store_postgres.AsyncPostgresVault`."""

    def __init__(self, vault: Vault, *, policy: Policy | None = None) -> None:
        self._vault: Final = vault
        self._policy: Final = policy

    async def perform(self, request: Identify | Recheck, /) -> Identified:
        """See :class:`Identity`."""
        found: Identified = await self._vault.carry_out(joined(request, self._policy))
        return found


class Members(Protocol):
    """Role and state of a member now: ``PostgresMembers`` and ``AsyncPostgresMembers`` fit."""

    def resolve(self, tenant: TenantId, user: UserId, /) -> Any:
        """A :class:`~axis_security.rbac.members.Membership`, ``None`` for no member; or an awaitable of it."""
        ...


class Store(Protocol):
    """Resolves sessions: any store of :mod:`axis_security.auth` fits."""

    def perform(self, op: Any, /) -> Any:
        """Carry out *op*; or an awaitable of its answer."""
        ...


class TwoStores:
    """Sessions in one store (Valkey, say), memberships in another: one round trip to each.

    Args:
        store: resolves sessions.
        members: knows memberships.
        key: type of the tenant's key.
    """

    def __init__(self, store: Store, members: Members, *, key: KeyType = KeyType.UUID) -> None:
        self._store, self._members, self._key = store, members, key

    def perform(self, request: Identify | Recheck, /) -> Identified:
        """See :class:`Identity`."""
        return drive(_steps(request, self._key), self._step)

    def _step(self, step: _Step) -> Any:
        return self._store.perform(step.op) if step.op is not None else self._members.resolve(*step.who)


class AsyncTwoStores:
    """:class:`TwoStores` for async code."""

    def __init__(self, store: Store, members: Members, *, key: KeyType = KeyType.UUID) -> None:
        self._store, self._members, self._key = store, members, key

    async def perform(self, request: Identify | Recheck, /) -> Identified:
        """See :class:`Identity`."""
        return await adrive(_steps(request, self._key), self._step)

    async def _step(self, step: _Step) -> Any:
        return await (self._store.perform(step.op) if step.op is not None else self._members.resolve(*step.who))


@dataclass(frozen=True, slots=True)
class _Step:
    op: ResolveSession | ListSessions | None
    who: tuple[Any, ...] = ()


def _steps(request: Identify | Recheck, key: KeyType) -> Generator[_Step, Any, Identified]:
    if isinstance(request, Identify):
        session = yield _Step(request.session)
        text = session.tenant if isinstance(session, LiveSession) else None
    else:
        listed: tuple[LiveSession, ...] = yield _Step(request.sessions)
        session = next((each for each in listed if each.handle == request.handle), None)
        text = None if session is None else request.tenant
    if text is None:
        return Identified(session)
    try:
        tenant = TenantId(parse_id(text, key))
    except MalformedId:
        return Identified(session)  # of another key type: nobody is a member of that
    return Identified(session, (yield _Step(None, (tenant, session.user))))


# The vault's key of an account is its type, a colon and the id; memberships know the id alone.
_IDENTIFY: Final = (
    "SELECT s.*, m.role, m.state, m.grants FROM axis.vault_resolve_session(%s::text, %s::bytea[], %s::timestamptz, %s::interval, %s::interval) s"
    " LEFT JOIN LATERAL axis.membership_of(s.tenant, substr(s.account, strpos(s.account, ':') + 1)) m ON true"
)
_RECHECK: Final = (
    "SELECT s.*, m.role, m.state, m.grants FROM axis.vault_list_sessions(%s::text, %s::timestamptz) s"
    " LEFT JOIN LATERAL axis.membership_of(%s::text, substr(s.account, strpos(s.account, ':') + 1)) m ON true WHERE s.handle = %s::uuid"
)


def joined(request: Identify | Recheck, policy: Policy | None) -> VaultCall:
    """The one statement that answers *request*."""
    call = vault_call(request.session if isinstance(request, Identify) else request.sessions)

    def read(rows: Rows) -> Identified:
        if not rows:
            return Identified(None)
        *columns, role, state, grants = rows[0]
        answer = call.answer([tuple(columns)])
        session = answer[0] if isinstance(answer, tuple) else answer
        if role is None:
            return Identified(session)
        tenant = request.tenant if isinstance(request, Recheck) else session.tenant
        if grants is not None and policy is not None and tenant is not None:
            policy.admit(tenant, role, grants)
        return Identified(session, Membership(role, state, None if grants is None else tuple(grants)))

    if isinstance(request, Identify):
        return VaultCall(Statement(_IDENTIFY, call.statement.params), read)
    return VaultCall(Statement(_RECHECK, (*call.statement.params, request.tenant, request.handle)), read)

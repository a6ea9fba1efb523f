"""Accounts in one store (PostgreSQL), sessions and throttles in another (Valkey), behind one ``perform``.

What spans both is done in an order that fails closed:

* A session is started only for an account that is active and whose epoch is the one the login saw; the session store checks the epoch once
  more, so a password change in between wins.
* A change that ends sessions (password changed or reset, account disabled or deleted, signed out everywhere) first makes sure that the session
  store answers: where it does not, nothing is changed. Then the accounts change, and begin a new epoch; then the session store ends what is older
  and refuses to start more of it. If it fails just then, :class:`~axis_security.core.errors.Unavailable` says so: the change has happened, and
  sessions may be left. Repeat with :class:`~axis_security.auth.ports.BumpEpoch` until that returns.
* Remember tokens stay with the accounts; ending a session voids those given with it. A session that only gave way to a newer one at the cap
  leaves its token: its browser signs in again, and may.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

from axis_security.auth.ports import (
    Account,
    AccountOf,
    AsyncStore,
    BumpEpoch,
    ChangePassword,
    DeleteAccount,
    Op,
    Prune,
    RefundThrottle,
    Reserve,
    ResetPassword,
    ResetThrottle,
    SetActive,
    Store,
)
from axis_security.auth.session_ports import (
    EndedSession,
    EndSession,
    ListSessions,
    ResolveSession,
    ReusedSession,
    RevokeSessions,
    RotateSession,
    StartSession,
)
from axis_security.core.flow import adrive, drive
from axis_security.core.ids import UserId

__all__ = ["AsyncSplitStore", "SplitStore"]

R = TypeVar("R")

_NOBODY: Final = UUID(int=0)
"""No session has this handle, so revoking it only asks whether the store, and its replicas, answer."""
_NEVER_AGAIN: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _To:
    where: Literal["accounts", "sessions"]
    op: Op[Any]


_Steps = Generator[_To, Any, Any]


def _steps(op: Op[Any]) -> _Steps:
    match op:
        case StartSession():
            found: Account | None = yield _To("accounts", AccountOf(op.user))
            if found is None or not found.active or found.epoch != op.epoch:
                return False
            # Who is displaced is asked before, and not by ending it: that would wait for every replica, and logins go on while one is away.
            displaced = None if op.ends is None else (yield _To("sessions", ResolveSession(key=op.ends, now=op.now)))
            started = yield _To("sessions", op)
            if started and displaced is not None:
                yield _To("accounts", RevokeSessions(user=displaced.user, handle=displaced.handle))
            return started
        case ResolveSession():
            seen = yield _To("sessions", op)
            if isinstance(seen, ReusedSession):
                yield _To("accounts", RevokeSessions(user=seen.user, handle=seen.handle))
            return seen
        case EndSession():
            ended: EndedSession | None = yield _To("sessions", op)
            if ended is not None:
                yield _To("accounts", RevokeSessions(user=ended.user, handle=ended.handle))
            return ended
        case RevokeSessions():
            # Tokens first: one that is left could start a session after the sessions have been ended.
            yield _To("accounts", RevokeSessions(user=op.user, handle=op.handle, keep=op.keep))
            return (yield _To("sessions", op))
        case RotateSession() | ListSessions() | Reserve() | RefundThrottle() | ResetThrottle():
            return (yield _To("sessions", op))
        case ChangePassword():
            yield _answers(op.user)
            checked = yield _To("accounts", op)
            if checked.account is not None:
                yield _older_end(checked.account, keep=op.keep)
            return checked
        case ResetPassword():
            # Whose token it is only the accounts know, so any key will do to ask whether the store answers at all.
            yield _answers(UserId("reset"))
            return (yield from _ending(op))
        case BumpEpoch():
            yield _answers(op.user)
            return (yield from _ending(op))
        case SetActive():
            if op.active:
                return (yield _To("accounts", op))
            yield _answers(op.user)
            return (yield from _ending(op))
        case DeleteAccount():
            yield _answers(op.user)
            gone = yield _To("accounts", op)
            # An id that is given to another account within the mark's day gets no session; ids of deleted accounts are not for reuse.
            yield _To("sessions", RevokeSessions(user=op.user, epoch=_NEVER_AGAIN))
            return gone
        case Prune():
            return (yield _To("accounts", op)) + (yield _To("sessions", op))
        case _:
            return (yield _To("accounts", op))


def _answers(user: UserId) -> _To:
    return _To("sessions", RevokeSessions(user=user, handle=_NOBODY))


def _ending(op: Op[Any]) -> _Steps:
    account: Account | None = yield _To("accounts", op)
    if account is not None:
        yield _older_end(account, keep=None)
    return account


def _older_end(account: Account, *, keep: UUID | None) -> _To:
    return _To("sessions", RevokeSessions(user=account.user, keep=keep, epoch=account.epoch))


class SplitStore:
    """One store out of two.

    Args:
        accounts: keeps everything else; a vault.
        sessions: keeps sessions and throttles; a :class:`~axis_security.auth.store_valkey.ValkeyStore`.
    """

    def __init__(self, *, accounts: Store, sessions: Store) -> None:
        self._stores: Final = {"accounts": accounts, "sessions": sessions}

    def perform(self, op: Op[R]) -> R:
        """Carry out *op*.

        Raises:
            Unavailable: a store did not answer; see the module's text.
        """
        result: R = drive(_steps(op), lambda step: self._stores[step.where].perform(step.op))
        return result


class AsyncSplitStore:
    """:class:`SplitStore` for async code."""

    def __init__(self, *, accounts: AsyncStore, sessions: AsyncStore) -> None:
        self._stores: Final = {"accounts": accounts, "sessions": sessions}

    async def perform(self, op: Op[R]) -> R:
        """See :meth:`SplitStore.perform`."""
        result: R = await adrive(_steps(op), lambda step: self._stores[step.where].perform(step.op))
        return result

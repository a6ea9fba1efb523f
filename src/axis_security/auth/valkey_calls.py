"""What each operation is to Valkey: calls of scripts, each on one key, and how their answers read. Pure: no client in here."""

from __future__ import annotations

import base64
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from axis_security.auth import valkey_scripts as scripts
from axis_security.auth.ports import Budget, Prune, RefundThrottle, Reserve, ResetThrottle, Throttled, digests_of
from axis_security.auth.session_ports import (
    MAX_GRACE,
    EndedSession,
    EndSession,
    ListSessions,
    LiveSession,
    ResolveSession,
    ReusedSession,
    RevokeSessions,
    RotateSession,
    StartSession,
    session_route,
)
from axis_security.auth.valkey_scripts import Script
from axis_security.auth.vault import account_key, plain
from axis_security.core.errors import ConfigError
from axis_security.core.ids import KeyType, UserId, parse_id
from axis_security.core.principal import Assurance

__all__ = ["Call", "Steps", "steps_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MARK_LASTS: Final = timedelta(days=1)
"""How long the mark of an epoch stays at least: longer than any login takes from its password check to its session."""
_UNIT: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class Call:
    """One script on the keys of one slot.

    Args:
        durable: whether the answer counts only once the replicas have it (see ``ValkeyStore``). Such a script always writes.
    """

    script: Script
    keys: tuple[str, ...]
    args: tuple[Any, ...] = ()
    durable: bool = False


Steps = Generator[Call, Any, Any]
"""A flow of calls to Valkey, driven by the sync and by the async store alike."""


def steps_of(op: object) -> Steps:
    """The calls that carry out *op*.

    Raises:
        ConfigError: not an operation on sessions or throttles.
    """
    match op:
        case StartSession():
            return _start(op)
        case ResolveSession():
            return _resolve(op)
        case RotateSession():
            return _rotate(op)
        case EndSession():
            return _end(op)
        case RevokeSessions():
            return _revoke(op)
        case ListSessions():
            return _list(op)
        case Reserve():
            return _reserve(op)
        case RefundThrottle():
            return _refund(op)
        case ResetThrottle():
            return _reset(op)
        case Prune():
            return _prune()
        case _:
            raise ConfigError(
                what="an operation that Valkey does not keep",
                why=f"{type(op).__name__}: it holds sessions and throttles only",
                fix="use SplitStore(accounts=PostgresVault(...), sessions=ValkeyStore(...))",
            )


# --- sessions


def _start(op: StartSession) -> Steps:
    route = session_route(op.user)
    ends: tuple[bytes, ...] = ()
    if op.ends is not None:
        if op.ends.route == route:
            ends = tuple(digests_of(op.ends.candidates))
        else:
            # Somebody else's session in this browser lives on another node: it ends first, so that a failure leaves too little, not too much.
            elsewhere = op.ends.route
            if (yield Call(scripts.END, (_sessions(elsewhere),), tuple(digests_of(op.ends.candidates)))):
                yield _confirm(elsewhere)
    args = (
        account_key(op.user), str(op.handle), _digest(op.digest), op.epoch, _us(op.now), _span(op.idle), _span(op.lifetime), int(op.assurance),
        _joined(op.methods), _us(op.auth_time or op.now), op.tenant or "", plain(op.client, 200), plain(op.network, 200), op.max_live, *ends,
    )  # fmt: skip
    # A start that a failover undoes means to sign in again, so it waits for no replica, and logins go on while one is away. What it ended
    # must stay ended.
    started, ended = yield Call(scripts.START, (_sessions(route),), args)
    if ended:
        yield _confirm(route)
    return started == 1


def _resolve(op: ResolveSession) -> Steps:
    args = (_us(op.now), _span(op.touch_after), _span(min(op.grace, MAX_GRACE)), *digests_of(op.key.candidates))
    found = yield Call(scripts.RESOLVE, (_sessions(op.key.route),), args)
    if not found:
        return None
    if found[0] == b"reused":
        yield _confirm(op.key.route)
        return ReusedSession(UUID(found[1].decode("ascii")), _user(found[2]))
    return _live(found)


def _rotate(op: RotateSession) -> Steps:
    args = (
        _digest(op.digest), _us(op.now), "" if op.assurance is None else int(op.assurance), "" if op.methods is None else "=" + _joined(op.methods),
        "" if op.auth_time is None else _us(op.auth_time), int(op.switch_tenant), op.tenant or "", *digests_of(op.key.candidates),
    )  # fmt: skip
    found = yield Call(scripts.ROTATE, _lasting(op.key.route), args, durable=True)
    return _live(found) if found else None


def _end(op: EndSession) -> Steps:
    found = yield Call(scripts.END, _lasting(op.key.route), tuple(digests_of(op.key.candidates)), durable=True)
    return EndedSession(UUID(found[0].decode("ascii")), _user(found[1])) if found else None


def _revoke(op: RevokeSessions) -> Steps:
    args = (
        account_key(op.user), "" if op.handle is None else str(op.handle), "" if op.keep is None else str(op.keep),
        "" if op.epoch is None else op.epoch, _span(_MARK_LASTS),
    )  # fmt: skip
    gone = yield Call(scripts.REVOKE, _lasting(session_route(op.user)), args, durable=True)
    return int(gone)


def _list(op: ListSessions) -> Steps:
    found = yield Call(scripts.LIST, (_sessions(session_route(op.user)),), (account_key(op.user), _us(op.now)))
    sessions = [_live(row) for row in found]
    sessions.sort(key=lambda s: str(s.handle))
    sessions.sort(key=lambda s: (s.seen_at, s.started_at), reverse=True)
    return tuple(sessions)


# --- throttles


def _reserve(op: Reserve) -> Steps:
    taken: list[Budget] = []
    for budget in op.budgets:
        allowed, wait = yield Call(scripts.RESERVE, (_throttle(budget.key),), (_us(op.now), _step(budget), _span(budget.window)))
        if not allowed:
            # Keys live on several nodes, where nothing is atomic across them. Giving back can refuse somebody a moment early; granting
            # more than a budget holds is what it can't do.
            yield from _refund(RefundThrottle(tuple(taken), op.now))
            return Throttled(allowed=False, retry_after=int(wait) / 1e6, key=budget.key)
        taken.append(budget)
    return Throttled(allowed=True)


def _refund(op: RefundThrottle) -> Steps:
    for budget in op.budgets:
        yield Call(scripts.REFUND, (_throttle(budget.key),), (_us(op.now), _step(budget)))
    return True


def _reset(op: ResetThrottle) -> Steps:
    for key in op.keys:
        yield Call(scripts.RESET, (_throttle(key),))
    return True


def _prune() -> Steps:
    return 0  # keys expire by themselves
    yield


# --- texts and numbers


def _sessions(route: str) -> str:
    return f"axis:s:{{{route}}}"


def _lasting(route: str) -> tuple[str, str]:
    return _sessions(route), f"axis:w:{{{route}}}"


def _confirm(route: str) -> Call:
    return Call(scripts.CONFIRM, (f"axis:w:{{{route}}}",), durable=True)


def _throttle(key: bytes) -> str:
    return "axis:t:{" + base64.urlsafe_b64encode(key).decode("ascii") + "}"


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _span(span: timedelta) -> int:
    return span // _MICROSECOND


def _step(budget: Budget) -> int:
    return _span(budget.window) // budget.limit


def _moment(text: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=int(text))


def _digest(digest: tuple[str, bytes]) -> bytes:
    return digests_of((digest,))[0]


def _joined(methods: tuple[str, ...]) -> str:
    if any(_UNIT in method or not method for method in methods) or len(methods) > 8:
        raise ConfigError(what="unusable authentication methods", why="at most eight plain names", fix='such as ("password", "totp")')
    return _UNIT.join(methods)


def _user(key: bytes) -> UserId:
    kind, _, text = key.decode("ascii").partition(":")
    return UserId(parse_id(text, KeyType(kind)))


def _live(row: list[Any]) -> LiveSession:
    _, handle, user, tenant, assurance, methods, auth_time, started, seen, ends, client, network, superseded = row
    return LiveSession(
        handle=UUID(handle.decode("ascii")),
        user=_user(user),
        tenant=tenant.decode("utf-8") or None,
        assurance=Assurance(int(assurance)),
        methods=tuple(methods.decode("utf-8").split(_UNIT)) if methods else (),
        auth_time=_moment(auth_time),
        started_at=_moment(started),
        seen_at=_moment(seen),
        ends_at=_moment(ends),
        client=client.decode("utf-8"),
        network=network.decode("utf-8"),
        superseded=superseded == 1,
    )

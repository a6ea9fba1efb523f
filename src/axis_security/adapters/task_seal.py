"""The seal of a background task: who asked for it, for which task, with which arguments, until when.

A queue is a place where anybody who can write to the broker can put a message. So the principal does not travel as data that a worker
believes, but as a text that only holders of the key can make, bound to the task's name and to the bytes of its arguments. What the worker
takes from it is *who*, never *what they may*: the role is asked for again when the task runs (ASVS 8.3.2), and the sign-in does not travel
at all, so a task never satisfies a guard that asks for a fresh or a second factor.

A queue delivers at least once; a seal is therefore no single-use token. Whoever can replay a message makes the same task run again with the
same arguments until the seal expires: write tasks that may run twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Collection, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from axis_security.auth.ports import AccountOf
from axis_security.auth.signing import SigningKeys
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.context import acting_as, acting_as_nobody
from axis_security.core.encoding import MalformedEncoding, b64url_decode, b64url_encode, length_prefixed
from axis_security.core.errors import ConfigError, Denied
from axis_security.core.events import AuditEvent, EventKind, EventSink, LoggingSink, Outcome
from axis_security.core.flow import adrive, drive
from axis_security.core.ids import KeyType, TenantId, UserId, parse_id
from axis_security.core.principal import Principal

__all__ = ["Accounts", "MembershipSource", "TaskRefused", "TaskSeals", "as_sealed"]

_LABEL: Final = b"axis-security/task/v1"
_VERSION: Final = "t1"
_LONGEST: Final = timedelta(days=7)

_REASONS: Final = {
    "unsealed": ("it carries no seal, or one for nobody", "send it through the task's own call, with somebody acting"),
    "forged": ("its seal is not one that these keys made for this task and these arguments", "give producers and workers the same keys"),
    "expired": ("its seal has expired", "raise `lasting`, or look why the queue is so far behind"),
    "unknown_task": ("no task of that name is registered here", "import the module that declares it in the worker"),
    "malformed": ("the message is not in the one form that a task's message has", "put the text into the queue as `message()` gave it"),
    "not_a_member": ("whoever asked for it is no member of an active workspace any more", "nothing: that is the rule at work"),
    "account_disabled": ("the account that asked for it is disabled or gone", "nothing: that is the rule at work"),
}


class TaskRefused(Denied):
    """A worker did not run a message. ``reason`` says which rule; the body was not entered."""

    code = "tasks.refused"
    reason: str = ""

    def __init__(self, reason: str, *, task: str | None) -> None:
        why, fix = _REASONS[reason]
        super().__init__(what=f"the task {f'`{task}` ' if task else ''}was not run", why=why, fix=fix, facts={"reason": reason})
        self.reason = reason


class MembershipSource(Protocol):
    """Role and state of a member now: ``PostgresMembers`` and ``AsyncPostgresMembers`` fit."""

    def resolve(self, tenant: TenantId, user: UserId, /) -> Any:
        """An object with ``role`` and ``state``, ``None`` for no member; or an awaitable of it."""
        ...


class Accounts(Protocol):
    """Says whether an account is active: any store of :mod:`axis_security.auth.ports` fits."""

    def perform(self, op: AccountOf, /) -> Any:
        """An object with ``active``, or ``None``; or an awaitable of it."""
        ...


@dataclass(frozen=True, slots=True)
class _Opened:
    tenant: TenantId | None
    user: UserId | None
    role: str | None


_Ask = Generator[Any, Any, Principal | None]


class TaskSeals:
    """Makes and opens the seals of tasks; the part that every queue has in common.

    Args:
        keys: the same for producers and workers; derived for this purpose, so the keys of cookies may serve.
        members: asked at each run for the role, on connections that nobody is bound to.
        accounts: asked at each run whether the account is active; ``None`` where accounts live elsewhere.
        lasting: how long a seal holds, at most seven days; longer than the queue is ever behind.
        service_roles: roles that a principal *without* a user may take into a task; nobody's membership backs them, so name few.
        clock: tells the time.
        sink: takes a TASK_REFUSED event for each message that was not run.

    Raises:
        ConfigError: *lasting* is not usable.
    """

    __slots__ = ("_accounts", "_clock", "_lasting", "_members", "_service", "_signer", "_sink")

    def __init__(
        self,
        *,
        keys: SigningKeys,
        members: MembershipSource,
        accounts: Accounts | None = None,
        lasting: timedelta = timedelta(hours=24),
        service_roles: Collection[str] = (),
        clock: Clock = SYSTEM_CLOCK,
        sink: EventSink | None = None,
    ) -> None:
        self._lasting: Final = _usable(lasting)
        self._signer: Final = keys.signer("task")
        self._members: Final = members
        self._accounts: Final = accounts
        self._service: Final = frozenset(service_roles)
        self._clock: Final = clock
        self._sink: Final[EventSink] = LoggingSink() if sink is None else sink

    def seal(self, principal: Principal | None, *, name: str, body: bytes, lasting: timedelta | None = None) -> str:
        """A seal for *principal* (``None``: for nobody, which only tasks declared unbound accept), this task and these argument bytes.

        Raises:
            ConfigError: the principal has no user, and its role is not one of the service roles; or *lasting* is not usable.
        """
        if principal is not None and principal.user is None and principal.role not in self._service:
            raise ConfigError(
                what=f"the task `{name}` cannot be sent for a principal without a user",
                why=f"no membership backs `{principal.role}`, and it is not one of service_roles",
                fix="act as a person, or list the role in service_roles",
            )
        ends = self._clock.now() + (self._lasting if lasting is None else _usable(lasting))
        user = None if principal is None else principal.user
        who = [
            *_id_parts(None if principal is None else principal.tenant),
            *_id_parts(user),
            principal.role if principal is not None and user is None else None,
        ]
        fields = [_VERSION, *who, int(ends.timestamp()), _digest(name, body)]
        payload = b64url_encode(json.dumps(fields, separators=(",", ":")).encode("ascii"))
        return self._signer.sign(payload).reveal()

    def admit(self, seal: object, *, name: str, body: bytes, unbound: bool = False) -> Principal | None:
        """Whom the task runs as, with today's role; ``None`` for an unbound task sealed for nobody.

        Raises:
            TaskRefused: no seal, a forged or expired one, or whoever asked is no active member any more.
            Unavailable: the membership store did not answer.
        """
        try:
            return drive(self._admission(seal, name, body, unbound=unbound), self._ask)
        except TaskRefused as refused:
            self.note(refused, name)
            raise

    async def aadmit(self, seal: object, *, name: str, body: bytes, unbound: bool = False) -> Principal | None:
        """:meth:`admit` for async code; takes sync and async members."""
        try:
            return await adrive(self._admission(seal, name, body, unbound=unbound), self._aask)
        except TaskRefused as refused:
            self.note(refused, name)
            raise

    def note(self, refused: TaskRefused, name: str | None) -> None:
        """Keep the event of a refusal. *name* is a registered task's, never text out of a message."""
        self._sink.emit(
            AuditEvent(
                kind=EventKind.TASK_REFUSED, at=self._clock.now(), outcome=Outcome.DENIED, detail={"task": name, "code": refused.reason}
            )
        )

    def _admission(self, seal: object, name: str, body: bytes, *, unbound: bool) -> _Ask:
        opened = self._open(seal, name, body)
        if opened.tenant is None:
            if not unbound:
                raise TaskRefused("unsealed", task=name)
            return None
        if opened.user is None:
            if opened.role is None or opened.role not in self._service:
                raise TaskRefused("not_a_member", task=name)
            return Principal(tenant=opened.tenant, role=opened.role)
        if self._accounts is not None:
            account = yield "account", opened
            if account is None or account.active is not True:
                raise TaskRefused("account_disabled", task=name)
        membership = yield "membership", opened
        if membership is None or membership.state != "active":
            raise TaskRefused("not_a_member", task=name)
        return Principal(tenant=opened.tenant, user=opened.user, role=membership.role)

    def _open(self, seal: object, name: str, body: bytes) -> _Opened:
        if not isinstance(seal, str) or not seal:
            raise TaskRefused("unsealed", task=name)
        payload = self._signer.unsign(seal)
        if payload is None:
            raise TaskRefused("forged", task=name)
        try:
            version, tenant_type, tenant, user_type, user, role, ends, digest = json.loads(b64url_decode(payload))
            opened = _Opened(
                None if tenant is None else TenantId(parse_id(tenant, KeyType(tenant_type))),
                None if user is None else UserId(parse_id(user, KeyType(user_type))),
                role,
            )
        except (ValueError, TypeError, MalformedEncoding):
            raise TaskRefused("forged", task=name) from None
        # Equal without constant time: the payload is authentic, and neither side of the comparison is secret.
        if version != _VERSION or digest != _digest(name, body):
            raise TaskRefused("forged", task=name)
        if self._clock.now() >= datetime.fromtimestamp(ends, UTC):
            raise TaskRefused("expired", task=name)
        return opened

    def _question(self, asked: tuple[str, _Opened]) -> Any:
        kind, opened = asked
        if opened.tenant is None or opened.user is None:
            raise TypeError("only a person is asked about")
        if kind == "account" and self._accounts is not None:
            return self._accounts.perform(AccountOf(opened.user))
        return self._members.resolve(opened.tenant, opened.user)

    def _ask(self, asked: tuple[str, _Opened]) -> Any:
        answer = self._question(asked)
        if isinstance(answer, Awaitable):
            if hasattr(answer, "close"):
                answer.close()
            raise ConfigError(
                what="a sync worker was given async stores",
                why="`resolve` returned an awaitable",
                fix="use PostgresMembers here, or run messages with `arun`",
            )
        return answer

    async def _aask(self, asked: tuple[str, _Opened]) -> Any:
        answer = self._question(asked)
        return await answer if isinstance(answer, Awaitable) else answer


def as_sealed(principal: Principal | None) -> AbstractContextManager[object]:
    """Act as whom a seal was opened for; as nobody, whoever acts around, where it was for nobody."""
    return acting_as_nobody() if principal is None else acting_as(principal)


def _digest(name: str, body: bytes) -> str:
    return hashlib.sha256(length_prefixed(_LABEL, name.encode()) + body).hexdigest()


def _id_parts(identifier: TenantId | UserId | None) -> tuple[str | None, str | None]:
    return (None, None) if identifier is None else (identifier.key_type.value, identifier.text)


def _usable(lasting: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= lasting <= _LONGEST:
        raise ConfigError(
            what="a task's seal cannot last that long", why=f"lasting={lasting}", fix="choose between one second and seven days"
        )
    return lasting

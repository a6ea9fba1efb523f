"""Operations on sessions and remember tokens. See :mod:`axis_security.auth.ports` for what every store keeps.

A session's id is a secret of the browser; the store has its digest. Its *handle* is public: it names the device in a list and in the audit
log, and stays the same when the id is rotated. A rotated id answers for a short grace as *superseded* (requests already under way), and after
that as *reused*, which ends the session: somebody keeps an id that its browser no longer has.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from axis_security.auth.ports import Digest, Op
from axis_security.core.encoding import length_prefixed
from axis_security.core.errors import ConfigError
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance

__all__ = [
    "EndRemember",
    "EndSession",
    "EndedSession",
    "IssueRemember",
    "ListSessions",
    "LiveSession",
    "RememberUsed",
    "ResolveSession",
    "ReusedSession",
    "RevokeSessions",
    "RotateSession",
    "SessionKey",
    "StartSession",
    "UseRemember",
    "session_route",
]

ROUTE_CHARS: Final = 12
MAX_GRACE: Final = timedelta(seconds=60)


def session_route(user: UserId) -> str:
    """Where the sessions of *user* live in a spread-out store: 12 characters that the session's cookie carries in front of the id.

    All sessions of a person share it, so every operation on them, revoking all included, is one atomic step on one node. It is no secret and
    proves nothing: a made-up route leads to where there is no such session.
    """
    data = length_prefixed(b"axis-security/route/v1", user.key_type.value.encode("ascii"), user.text.encode("ascii"))
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()[:9]).decode("ascii")


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A session id as it was presented.

    Args:
        route: the cookie's first 12 characters (base64url).
        candidates: digests of the id, one for each key in use.

    Raises:
        ConfigError: the route has another length or alphabet; the cookie parser refuses such a cookie before.
    """

    route: str
    candidates: tuple[Digest, ...]

    def __post_init__(self) -> None:
        if len(self.route) != ROUTE_CHARS or not self.route.isascii() or not self.route.replace("-", "a").replace("_", "a").isalnum():
            raise ConfigError(what="unusable session route", why="a route is 12 base64url characters", fix="use session_route(user)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """A session that is good now.

    Args:
        handle: its public name.
        user: whose.
        tenant: text form of the workspace chosen, or ``None``.
        assurance: how strongly the person was authenticated.
        methods: how, such as ``("password", "totp")``.
        auth_time: when last.
        started_at, seen_at, ends_at: first use, last noted use (coarse), absolute end.
        client: what the browser called itself, cut to 200 characters.
        network: where it came from, as the flow words it.
        superseded: this id was rotated a moment ago; do not rotate or set a cookie in this answer.
    """

    handle: UUID
    user: UserId
    tenant: str | None
    assurance: Assurance
    methods: tuple[str, ...]
    auth_time: datetime
    started_at: datetime
    seen_at: datetime
    ends_at: datetime
    client: str
    network: str
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class ReusedSession:
    """A rotated id was presented after its grace. The session has been ended; tell the audit log and the person."""

    handle: UUID
    user: UserId


@dataclass(frozen=True, slots=True)
class EndedSession:
    """The session that was ended."""

    handle: UUID
    user: UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSession(Op[bool]):
    """Keep a new session. Answer: ``False`` where the account is not active or its epoch is not *epoch* any more.

    Args:
        handle: a fresh UUID (version 4).
        digest: of a fresh 256-bit id.
        epoch: the account's, as the login saw it: a password change between the check and this call wins.
        idle: how long it may go unused.
        lifetime: how long it lasts at most, rotations included.
        max_live: sessions a person may have; the longest unused are ended.
        ends: the id that the browser presented, if any: it is ended (ASVS 7.2.4).
        auth_time: when the person last proved who they are; ``None`` for *now*. A remember token proves nothing about the person, so its
            session must not count as fresh.
    """

    user: UserId
    handle: UUID
    digest: Digest
    epoch: int
    now: datetime
    idle: timedelta
    lifetime: timedelta
    assurance: Assurance
    methods: tuple[str, ...]
    tenant: str | None = None
    client: str = ""
    network: str = ""
    max_live: int = 20
    ends: SessionKey | None = None
    auth_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveSession(Op["LiveSession | ReusedSession | None"]):
    """Who is this? One round trip: idle and absolute limits, epoch, account state, rotation, and a note of the use where the last is older than
    *touch_after*.

    Args:
        grace: how long a rotated id still answers; at most 60 s.
    """

    key: SessionKey
    now: datetime
    touch_after: timedelta = timedelta(seconds=60)
    grace: timedelta = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateSession(Op["LiveSession | None"]):
    """Give a live session a new id; exactly one of parallel callers gets it, the others ``None`` (as does a dead session).

    Args:
        digest: of the new id.
        assurance, methods, auth_time: what a step-up proved; ``None`` keeps what there is.
        tenant: with *switch_tenant*, the workspace chosen now.
    """

    key: SessionKey
    digest: Digest
    now: datetime
    assurance: Assurance | None = None
    methods: tuple[str, ...] | None = None
    auth_time: datetime | None = None
    switch_tenant: bool = False
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class EndSession(Op["EndedSession | None"]):
    """Sign out: end the session, whichever of its ids is presented, and the remember token given with it."""

    key: SessionKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeSessions(Op[int]):
    """End sessions of *user*: the one named *handle*, or all but *keep*, or all; with each, the remember tokens given with it. Answer: how many sessions.

    Args:
        epoch: for a store that does not hold the accounts: nothing of an older epoch is good or may be started from now on, and *keep* is
            carried over to it.
    """

    user: UserId
    handle: UUID | None = None
    keep: UUID | None = None
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class ListSessions(Op["tuple[LiveSession, ...]"]):
    """The user's live sessions, the last used first."""

    user: UserId
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueRemember(Op[bool]):
    """Keep a remember token. Answer: ``False`` where the account is not active or its epoch is another.

    Args:
        handle: of the session it is given with; revoking that session voids the token.
        lasting: until it ends, uses included; the server's word, whatever the cookie says.
    """

    user: UserId
    handle: UUID
    digest: Digest
    epoch: int
    now: datetime
    lasting: timedelta
    client: str = ""


@dataclass(frozen=True, slots=True)
class RememberUsed:
    """Answer of :class:`UseRemember`. ``verdict`` is ``live`` (exactly one of parallel callers), ``raced`` (spent a moment ago by another request:
    refuse, no harm), or ``reused`` (spent long ago: the whole line of tokens was voided; tell the audit log and the person)."""

    verdict: str
    user: UserId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UseRemember(Op["RememberUsed | None"]):
    """Spend a remember token and keep the next of its line in its place, in one step.

    Args:
        digest: of the next token.
        handle: of the session that will be started with it.
        grace: how long after its use a spent token counts as ``raced``; at most 60 s.
    """

    candidates: tuple[Digest, ...]
    digest: Digest
    handle: UUID
    now: datetime
    grace: timedelta = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class EndRemember(Op[bool]):
    """Void a remember token and its line. Answer: whether there was one."""

    candidates: tuple[Digest, ...]

"""Who is acting: one frozen value that drives the guard, the row-level policies and the audit record."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from axis_security.core.errors import ConfigError
from axis_security.core.ids import IdValue, TenantId, UserId

__all__ = ["Assurance", "Principal"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}", re.ASCII)


class Assurance(enum.IntEnum):
    """How strongly the person was authenticated (NIST SP 800-63B authenticator assurance levels)."""

    NONE = 0
    """Nobody signed in: a task or a script acting for a tenant."""
    AAL1 = 1
    """One factor."""
    AAL2 = 2
    """Two factors."""


@dataclass(frozen=True, slots=True, init=False)
class Principal:
    """Tenant, user, role, session and assurance of whoever is acting. Frozen and keyword-only.

    Args:
        tenant: the workspace; ``uuid.UUID``, ``int``, ``str`` or :class:`TenantId`.
        user: the person, or ``None`` for a task that acts for the workspace itself.
        role: the role's name in this workspace. It comes from the membership store at each request, never from a cookie.
        session: the session's *public* handle (never the cookie's value), or ``None`` outside a browser.
        assurance: how the person was authenticated.
        auth_time: when, timezone-aware; ``None`` if nobody signed in.

    Raises:
        MalformedId: an id has no accepted spelling.
        ConfigError: the role's name, the handle, the assurance or the time is malformed.
    """

    tenant: TenantId
    user: UserId | None
    role: str
    session: str | None
    assurance: Assurance
    auth_time: datetime | None

    def __init__(
        self,
        *,
        tenant: TenantId | IdValue,
        role: str,
        user: UserId | IdValue | None = None,
        session: str | None = None,
        assurance: Assurance = Assurance.NONE,
        auth_time: datetime | None = None,
    ) -> None:
        if not isinstance(role, str) or _NAME.fullmatch(role) is None:
            raise ConfigError(
                what="malformed role name",
                why="a role is a lower-case ASCII name of at most 63 characters",
                fix="use a role of the policy, such as `member`",
            )
        if session is not None and (
            not isinstance(session, str) or not session or not session.isascii() or not session.isprintable() or len(session) > 128
        ):
            raise ConfigError(
                what="malformed session handle",
                why="a handle is visible ASCII of at most 128 characters",
                fix="pass the handle the session store gave",
            )
        if isinstance(assurance, bool) or assurance not in set(Assurance):
            # True would read as one factor.
            raise ConfigError(
                what="malformed assurance",
                why="it is none of Assurance.NONE, AAL1 and AAL2",
                fix="pass a member of Assurance",
            )
        if auth_time is not None and (not isinstance(auth_time, datetime) or auth_time.utcoffset() is None):
            raise ConfigError(
                what="naive authentication time",
                why="a datetime without a zone names no moment",
                fix="pass an aware datetime, such as datetime.now(UTC)",
            )
        put = object.__setattr__
        put(self, "tenant", TenantId.of(tenant))
        put(self, "user", None if user is None else UserId.of(user))
        put(self, "role", role)
        put(self, "session", session)
        put(self, "assurance", Assurance(assurance))
        put(self, "auth_time", auth_time)

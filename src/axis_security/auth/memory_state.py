"""The rows of the store in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from axis_security.auth.ports import StoredHash, TokenGrant
from axis_security.auth.session_ports import LiveSession, RotateSession, StartSession
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance

__all__ = ["AccountRow", "LineRow", "SessionRow", "TokenRow"]


@dataclass(slots=True)
class AccountRow:
    """An account."""

    user: UserId
    identifier: str
    verified_at: datetime | None
    active: bool = True
    hash: StoredHash | None = None
    failures: int = 0
    epoch: int = 0


@dataclass(slots=True)
class TokenRow:
    """A purpose token."""

    purpose: str
    grant: TokenGrant


@dataclass(slots=True)
class LineRow:
    """A line of remember tokens; ``ids`` holds when each was spent."""

    user: UserId
    handle: UUID
    epoch: int
    ends_at: datetime
    ids: dict[bytes, datetime | None]


@dataclass(slots=True)
class SessionRow:
    """A session; ``ids`` holds when each was superseded, ``was`` what the session was when that happened."""

    handle: UUID
    user: UserId
    epoch: int
    tenant: str | None
    assurance: Assurance
    methods: tuple[str, ...]
    auth_time: datetime
    started_at: datetime
    seen_at: datetime
    idle: timedelta
    ends_at: datetime
    client: str
    network: str
    ids: dict[bytes, datetime | None]
    was: dict[bytes, LiveSession]

    @classmethod
    def started(cls, r: StartSession, *, client: str, network: str) -> Self:
        """A new session as *r* asks for it."""
        return cls(
            handle=r.handle,
            user=r.user,
            epoch=r.epoch,
            tenant=r.tenant,
            assurance=r.assurance,
            methods=r.methods,
            auth_time=r.auth_time or r.now,
            started_at=r.now,
            seen_at=r.now,
            idle=r.idle,
            ends_at=r.now + r.lifetime,
            client=client,
            network=network,
            ids={r.digest[1]: None},
            was={},
        )

    def is_live(self, now: datetime) -> bool:
        """Within both of its limits."""
        return self.ends_at > now and self.seen_at + self.idle > now

    def changed(self, r: RotateSession) -> None:
        """Take over what a rotation says."""
        self.seen_at = max(self.seen_at, r.now)
        self.assurance = self.assurance if r.assurance is None else r.assurance
        self.methods = self.methods if r.methods is None else r.methods
        self.auth_time = r.auth_time or self.auth_time
        if r.switch_tenant:
            self.tenant = r.tenant

    def told(self, *, superseded: bool) -> LiveSession:
        """The answer about this session."""
        return LiveSession(
            handle=self.handle,
            user=self.user,
            tenant=self.tenant,
            assurance=self.assurance,
            methods=self.methods,
            auth_time=self.auth_time,
            started_at=self.started_at,
            seen_at=self.seen_at,
            ends_at=self.ends_at,
            client=self.client,
            network=self.network,
            superseded=superseded,
        )

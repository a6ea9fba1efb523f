"""Is the login that the application uses one that row-level security holds for? Asked once for each physical connection.

The commonest failure of row-level security is that it was never on: the application ran as a superuser, with BYPASSRLS, or as the
owner of the tables. The next is a server that lacks the fixes row-level security itself needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, LiteralString

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import AxisError, CheckFailed
from axis_security.core.events import (
    AuditEvent,
    EventKind,
    EventSink,
    NullSink,
    Outcome,
)
from axis_security.core.schema import DatabaseRoles

__all__ = ["VERSION_FLOOR", "Posture", "Seen", "ServerTooOld", "SystemOnReplica", "UnsafeRole"]

VERSION_FLOOR: Final = {14: 140019, 15: 150014, 16: 160010, 17: 170006, 18: 180000}
"""Lowest accepted ``server_version_num`` of each major: the minor that fixed CVE-2025-8713 (row security and statistics), which also has
the fixes of CVE-2024-10976 and CVE-2023-2455 (policies applied for the wrong role). Majors below 14 get no fixes any more."""


class UnsafeRole(AxisError):
    """The login would see every tenant's rows, or could become one that does."""

    code = "rls.unsafe_role"


class ServerTooOld(AxisError):
    """The server lacks fixes that row-level security needs."""

    code = "rls.server_too_old"


class SystemOnReplica(AxisError):
    """The system login was used on a streaming replica."""

    code = "rls.system_on_replica"


# `session_user` counts too: code that runs as a harmless role after SET ROLE is one RESET ROLE away from the login.
_QUESTION: Final = """
SELECT pg_catalog.json_build_object(
  'version', pg_catalog.current_setting('server_version_num')::int,
  'standby', pg_catalog.pg_is_in_recovery(),
  'role', session_user,
  'is_super', pg_catalog.bool_or(r.rolsuper),
  'bypasses', pg_catalog.bool_or(r.rolbypassrls),
  'owns', EXISTS (SELECT 1 FROM pg_catalog.pg_class c WHERE c.relrowsecurity AND c.relkind IN ('r', 'p') AND pg_catalog.pg_has_role(session_user, c.relowner, 'MEMBER')),
  'memberships', ARRAY(SELECT g.rolname FROM pg_catalog.pg_roles g WHERE pg_catalog.pg_has_role(session_user, g.oid, 'MEMBER')))::text
FROM pg_catalog.pg_roles r WHERE r.rolname IN (current_user, session_user)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the server says of the login."""

    version: int
    role: str
    is_super: bool
    bypasses: bool
    owns: bool
    memberships: Sequence[str]
    standby: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Posture:
    """Looks at the login and the server of a fresh connection.

    Args:
        roles: the roles of the plan.
        system: whether the connection is for declared system work, whose login may be a member of ``roles.system``.
        sink: takes a POSTURE_REFUSED event before the refusal.
    """

    roles: DatabaseRoles
    system: bool = False
    sink: EventSink = field(default_factory=NullSink)
    clock: Clock = SYSTEM_CLOCK

    question: ClassVar[LiteralString] = _QUESTION
    """One statement that answers one text, so that every driver reads it alike."""

    def check(self, answer: str | bytes) -> None:
        """Judge what the server said to :attr:`question`.

        Raises:
            UnsafeRole: superuser, BYPASSRLS, owner (or a member of the owner) of tables with row security, or a member of a role it must not become.
            ServerTooOld: below :data:`VERSION_FLOOR`.
            SystemOnReplica: the system login on a replica.
            CheckFailed: the answer makes no sense.
        """
        try:
            seen = Seen(**json.loads(answer))
        except (TypeError, ValueError):
            raise CheckFailed(
                what="the posture check got no answer",
                why="the catalog query returned an unexpected shape",
                fix="connect to PostgreSQL directly",
            ) from None
        refusal = self.judge(seen)
        if refusal is not None:
            self.sink.emit(
                AuditEvent(
                    kind=EventKind.POSTURE_REFUSED,
                    at=self.clock.now(),
                    outcome=Outcome.DENIED,
                    detail={"code": refusal.code, "role": seen.role},
                )
            )
            raise refusal

    def judge(self, seen: Seen) -> AxisError | None:
        """The refusal for what the server said, or ``None``."""
        version = seen.version
        floor = VERSION_FLOOR.get(version // 10000)
        if version < 140000 or (floor is not None and version < floor):
            return ServerTooOld(
                what="the PostgreSQL server is too old to be trusted with row-level security",
                why=f"it reports {version}; the lowest accepted is {floor or VERSION_FLOOR[14]}",
                fix="update the server to the current minor release of a supported major",
            )
        if self.system and seen.standby:
            return SystemOnReplica(
                what="work across tenants does not run on a replica",
                why="the server is a streaming replica: what it answers may be behind, and nothing done there can be kept in the audit log beside the data",
                fix="give tenancy.install(…, system=…) an engine of the primary; tenants' reads may go to replicas",
            )
        reserved = {self.roles.owner, self.roles.guard} if self.system else {self.roles.owner, self.roles.guard, self.roles.system}
        if seen.is_super:
            why = "it is a superuser, and row security does not apply to superusers"
        elif seen.bypasses:
            why = "it has BYPASSRLS"
        elif seen.owns:
            why = "it owns, or is a member of the owner of, tables with row security"
        elif becomes := sorted(reserved.intersection([*seen.memberships, seen.role])):
            why = f"it is, or is a member of, {', '.join(becomes)}"
        else:
            return None
        return UnsafeRole(
            what=f"the database login `{seen.role}` is not safe for application code",
            why=why,
            fix=f"connect as `{self.roles.system if self.system else self.roles.app}`, or a login with no more rights: ALTER ROLE … NOSUPERUSER NOBYPASSRLS; REVOKE the membership",
        )

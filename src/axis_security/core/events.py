"""Audit events: a closed list of kinds, each with a closed list of fields.

An event says who did what to which object, when, and how it ended (ASVS 16.2.1, 16.3.1 to 16.3.3). A kind that is not in
:data:`FIELDS`, or a field that its kind does not declare, is refused: an audit log whose shape anyone can extend at the call
site is one that nobody can query. Values are short scalars; a :class:`~axis_security.core.secret.Secret` is refused, and control
characters are escaped (ASVS 16.4.1).
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Protocol

from axis_security.core.errors import AxisError
from axis_security.core.ids import TenantId, UserId
from axis_security.core.principal import Principal

__all__ = ["FIELDS", "AuditEvent", "EventKind", "EventSink", "LoggingSink", "MalformedEvent", "NullSink", "Outcome", "Scalar"]

Scalar = str | int | float | bool | None
"""What a field of an event may hold."""
MAX_TEXT: Final = 512
"""Longest text value of a field, in characters; longer text is refused, not cut, so that no two events look alike by accident."""


class Outcome(enum.StrEnum):
    """How it ended."""

    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"


class EventKind(enum.StrEnum):
    """Every event this library can emit. The value is the wire name, part of the public contract."""

    # rls
    SYSTEM_SCOPE_OPENED = "rls.system_scope_opened"
    SYSTEM_SCOPE_CLOSED = "rls.system_scope_closed"
    PLAN_APPLIED = "rls.plan_applied"
    SEAL_KEY_ROTATED = "rls.seal_key_rotated"
    POSTURE_REFUSED = "rls.posture_refused"
    # auth
    LOGIN = "auth.login"
    LOGOUT = "auth.logout"
    SECOND_FACTOR = "auth.second_factor"
    STEP_UP = "auth.step_up"
    PASSWORD_CHANGED = "auth.password_changed"
    PASSWORD_REHASHED = "auth.password_rehashed"
    TOTP_ENROLLED = "auth.totp_enrolled"
    TOTP_DISABLED = "auth.totp_disabled"
    RECOVERY_CODES_ISSUED = "auth.recovery_codes_issued"
    RECOVERY_CODE_USED = "auth.recovery_code_used"
    SESSION_STARTED = "auth.session_started"
    SESSION_ROTATED = "auth.session_rotated"
    SESSION_REVOKED = "auth.session_revoked"
    SESSION_REUSED = "auth.session_reused"
    REMEMBER_TOKEN_REUSED = "auth.remember_token_reused"
    TOKEN_ISSUED = "auth.token_issued"
    TOKEN_CONSUMED = "auth.token_consumed"
    TOKEN_REFUSED = "auth.token_refused"
    THROTTLED = "auth.throttled"
    ACCOUNT_REGISTERED = "auth.account_registered"
    ACCOUNT_DISABLED = "auth.account_disabled"
    CSRF_REFUSED = "auth.csrf_refused"
    # rbac
    DECISION = "rbac.decision"
    MEMBER_INVITED = "rbac.member_invited"
    INVITATION_ACCEPTED = "rbac.invitation_accepted"
    INVITATION_REVOKED = "rbac.invitation_revoked"
    ROLE_CHANGED = "rbac.role_changed"
    MEMBER_REMOVED = "rbac.member_removed"
    ROLE_DEFINED = "rbac.role_defined"
    ROLE_DROPPED = "rbac.role_dropped"
    OWNERSHIP_TRANSFERRED = "rbac.ownership_transferred"
    WORKSPACE_CREATED = "rbac.workspace_created"
    WORKSPACE_SUSPENDED = "rbac.workspace_suspended"
    WORKSPACE_RESUMED = "rbac.workspace_resumed"
    WORKSPACE_DELETED = "rbac.workspace_deleted"
    # crypto
    KEY_CREATED = "crypto.key_created"
    KEY_ROTATED = "crypto.key_rotated"
    KEY_SHREDDED = "crypto.key_shredded"
    KMS_UNAVAILABLE = "crypto.kms_unavailable"
    DEVELOPMENT_KEK = "crypto.development_kek"
    # ops
    SECRET_ROTATED = "ops.secret_rotated"
    SECRET_STALE = "ops.secret_stale"
    DATA_EXPORTED = "ops.data_exported"
    TENANT_ERASED = "ops.tenant_erased"
    BACKUP_RUN = "ops.backup_run"
    BACKUP_DRILLED = "ops.backup_drilled"
    HEALTH_CHANGED = "ops.health_changed"
    AUDIT_PRUNED = "ops.audit_pruned"
    # wiring
    UNMARKED_ENDPOINT = "wiring.unmarked_endpoint"
    NO_DECISION = "wiring.no_decision"
    TASK_REFUSED = "wiring.task_refused"


def _fields(**kinds: str) -> Mapping[EventKind, frozenset[str]]:
    return MappingProxyType({EventKind[kind]: frozenset(names.split()) for kind, names in kinds.items()})


FIELDS: Final[Mapping[EventKind, frozenset[str]]] = _fields(
    SYSTEM_SCOPE_OPENED="lasting_seconds login",
    SYSTEM_SCOPE_CLOSED="login statements",
    PLAN_APPLIED="statements digest",
    SEAL_KEY_ROTATED="key_id",
    POSTURE_REFUSED="code role",
    LOGIN="account method client code",
    LOGOUT="account",
    SECOND_FACTOR="account method code",
    STEP_UP="account method code",
    PASSWORD_CHANGED="account by",
    PASSWORD_REHASHED="account scheme_from scheme_to",
    TOTP_ENROLLED="account",
    TOTP_DISABLED="account by",
    RECOVERY_CODES_ISSUED="account count",
    RECOVERY_CODE_USED="account remaining",
    SESSION_STARTED="account handle client",
    SESSION_ROTATED="account handle cause",
    SESSION_REVOKED="account handle scope count cause",
    SESSION_REUSED="account handle client",
    REMEMBER_TOKEN_REUSED="account client",
    TOKEN_ISSUED="account purpose",
    TOKEN_CONSUMED="account purpose",
    TOKEN_REFUSED="account purpose code",
    THROTTLED="account network scope retry_after_seconds",
    ACCOUNT_REGISTERED="account",
    ACCOUNT_DISABLED="account by",
    CSRF_REFUSED="code origin method path",
    DECISION="capability code rule missing",
    MEMBER_INVITED="role invitation",
    INVITATION_ACCEPTED="role invitation",
    INVITATION_REVOKED="invitation",
    ROLE_CHANGED="role_from role_to",
    MEMBER_REMOVED="role cause",
    ROLE_DEFINED="defined grants",
    ROLE_DROPPED="defined",
    OWNERSHIP_TRANSFERRED="role_kept",
    WORKSPACE_CREATED="name",
    WORKSPACE_SUSPENDED="",
    WORKSPACE_RESUMED="",
    WORKSPACE_DELETED="grace_seconds",
    KEY_CREATED="key_id suite kek",
    KEY_ROTATED="key_id previous",
    KEY_SHREDDED="key_id",
    KMS_UNAVAILABLE="kek code",
    DEVELOPMENT_KEK="path",
    SECRET_ROTATED="name version",
    SECRET_STALE="name age_seconds",
    DATA_EXPORTED="tables export",
    TENANT_ERASED="tables rows",
    BACKUP_RUN="driver label bytes seconds kind",
    BACKUP_DRILLED="driver label rpo_seconds rto_seconds",
    HEALTH_CHANGED="check from_state to_state code",
    AUDIT_PRUNED="removed keep_seconds",
    UNMARKED_ENDPOINT="method route",
    NO_DECISION="method route",
    TASK_REFUSED="task code",
)
"""The fields that each kind may carry, beside the common ones of :class:`AuditEvent`."""


class MalformedEvent(AxisError):
    """An event of an unknown shape. A bug in the emitting code; the event is not written."""

    code = "events.malformed"


# C0 and C1 controls (a terminal obeys 0x9b as it does ESC), line separators, what turns the reading direction, and halves of
# surrogate pairs, which no store can encode.
_CONTROL: Final = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))} | {
    i: f"\\u{i:04x}" for i in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that happened.

    Args:
        kind: what sort of thing.
        at: when, timezone-aware.
        outcome: how it ended.
        tenant, user, role, session: who acted, where known; :meth:`by` fills them from a principal.
        target: the object acted upon, as ``kind:id`` text, or ``None``.
        reason: what a person gave as the reason, where one is asked for.
        request: the request's id, to join events with logs.
        detail: the kind's own fields, from :data:`FIELDS`.

    Raises:
        MalformedEvent: an undeclared field, a value that is no short scalar (nor is NaN, which JSON lacks), or a naive time.
    """

    kind: EventKind
    at: datetime
    outcome: Outcome
    tenant: TenantId | None = None
    user: UserId | None = None
    role: str | None = None
    session: str | None = None
    target: str | None = None
    reason: str | None = None
    request: str | None = None
    detail: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.at.utcoffset() is None:
            raise _malformed(self.kind, "its time has no zone")
        unknown = self.detail.keys() - FIELDS[self.kind]
        if unknown:
            raise _malformed(self.kind, f"it does not declare the fields {sorted(unknown)}")
        put = object.__setattr__
        put(self, "detail", MappingProxyType({name: _clean(self.kind, name, value) for name, value in self.detail.items()}))
        for name in ("role", "session", "target", "reason", "request"):
            put(self, name, _clean(self.kind, name, getattr(self, name)))

    @classmethod
    def by(
        cls,
        principal: Principal | None,
        kind: EventKind,
        *,
        at: datetime,
        outcome: Outcome,
        target: str | None = None,
        reason: str | None = None,
        **detail: Scalar,
    ) -> AuditEvent:
        """An event whose actor is *principal* (or nobody)."""
        if principal is None:
            return cls(kind=kind, at=at, outcome=outcome, target=target, reason=reason, detail=detail)
        return cls(
            kind=kind,
            at=at,
            outcome=outcome,
            tenant=principal.tenant,
            user=principal.user,
            role=principal.role,
            session=principal.session,
            target=target,
            reason=reason,
            detail=detail,
        )

    def as_dict(self) -> dict[str, Any]:
        """A flat, JSON-ready form with stable key order."""
        return {
            "kind": str(self.kind),
            "at": self.at.isoformat(),
            "outcome": str(self.outcome),
            "tenant": None if self.tenant is None else self.tenant.text,
            "user": None if self.user is None else self.user.text,
            "role": self.role,
            "session": self.session,
            "target": self.target,
            "reason": self.reason,
            "request": self.request,
            "detail": dict(sorted(self.detail.items())),
        }


def _malformed(kind: EventKind, why: str) -> MalformedEvent:
    return MalformedEvent(what=f"malformed `{kind}` event", why=why, fix="emit the fields listed in axis_security.core.events.FIELDS")


def _clean(kind: EventKind, name: str, value: object) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise _malformed(kind, f"`{name}` is not a finite number")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if not isinstance(value, str):
        raise _malformed(kind, f"`{name}` is a {type(value).__name__}, not a short scalar")
    if len(value) > MAX_TEXT:
        raise _malformed(kind, f"`{name}` is longer than {MAX_TEXT} characters")
    return value.translate(_CONTROL)


class EventSink(Protocol):
    """Takes events. ``emit`` must be quick and must not lose an event silently: if it cannot keep one, it raises."""

    def emit(self, event: AuditEvent) -> None:
        """Keep *event*."""
        ...


class LoggingSink:
    """Writes events to the standard library's logging, logger ``axis_security.audit``; the event is the record's ``event`` extra."""

    __slots__ = ("_log",)

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger("axis_security.audit")

    def emit(self, event: AuditEvent) -> None:
        """Log *event*: denied and failed at WARNING, the rest at INFO."""
        level = logging.INFO if event.outcome is Outcome.ALLOWED else logging.WARNING
        self._log.log(level, "%s %s", event.kind, event.outcome, extra={"event": event.as_dict()})


class NullSink:
    """Keeps nothing. For code paths whose events another layer already writes; a host passes a real sink."""

    __slots__ = ()

    def emit(self, event: AuditEvent) -> None:
        """Drop *event*."""

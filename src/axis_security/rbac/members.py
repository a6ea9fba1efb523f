"""Members of a workspace: what the host calls, as flows over one statement each.

Each operation asks the guard for ``users.manage`` first (so that a denial explains itself), then calls one definer function, which
decides again from the membership table. The database's answer is final.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, TypeVar

from axis_security.core.context import current_principal
from axis_security.core.errors import ConfigError, Denied
from axis_security.core.events import MAX_TEXT, AuditEvent, EventKind, Outcome, Scalar
from axis_security.core.flow import Rows, Statement
from axis_security.core.ids import IdValue, TenantId, UserId
from axis_security.rbac.decision import PermissionDenied
from axis_security.rbac.guard import decide
from axis_security.rbac.policy import MANAGE_USERS, Policy
from axis_security.rbac.roles import Role, stored_condition

__all__ = [
    "Invitation",
    "LastOwner",
    "MalformedText",
    "Member",
    "MemberFlow",
    "MemberFlows",
    "MemberRefused",
    "Membership",
    "OwnRole",
    "Workspace",
]

Result = TypeVar("Result")
MemberFlow = Generator[Statement | AuditEvent, Rows, Result]
"""Yields statements to run, and events to write once the transaction is through (a denial: in any case)."""

_REASONS: Final = {
    "not_a_member": ("the actor is no member of an active workspace", "ask somebody who manages its users"),
    "not_allowed": (
        "the rules of membership do not allow it for the actor's role",
        "see the table of transitions: grant up to your own rights, never touch a higher role",
    ),
    "last_owner": ("the workspace would be left without an owner", "make somebody else an owner first"),
    "no_such_member": ("nobody of that id is a member", "check the id"),
    "no_invitation": ("no open invitation matches token, e-mail address and workspace", "ask for a new invitation"),
    "inviter_lost_rights": ("whoever sent the invitation may no longer invite to that role", "ask for a new invitation"),
    "already_member": ("the person is a member already", "change the role instead"),
    "not_active": ("the workspace is not active, or nobody is signed in", "sign in; ask the operator about a suspended workspace"),
    "exists": ("a workspace of that id exists", "use a fresh id"),
    "bad_role": ("the role's name or its grants are malformed", "begin the name with `custom.`, lower-case"),
    "beyond_limit": (
        "it would hold what no workspace's own role may hold",
        "see Policy.own_role_limit; grant in forms that the product itself grants",
    ),
    "no_such_role": ("the workspace has no such role of its own", "check the name"),
    "role_in_use": ("members or open invitations have the role", "give them another role first"),
    "too_many_roles": ("a workspace has at most 100 roles of its own", "drop some"),
    "no_user": ("nobody is signed in", "act as a person"),
    "malformed": (
        "a text is empty or too long, or holds what PostgreSQL does not keep (NUL, half a surrogate pair)",
        "check what was entered: a workspace's name has 1 to 200 characters, an e-mail address 3 to 320, a role's name 1 to 63",
    ),
}


class MemberRefused(Denied):
    """The database refused a change of membership. ``reason`` says which rule."""

    code = "rbac.member_refused"
    reason: str = ""

    def __init__(self, reason: str, *, action: str) -> None:
        why, fix = _REASONS.get(reason, ("the database gave an answer this release does not know", "apply the current plan"))
        super().__init__(what=f"{action} was refused", why=why, fix=fix, facts={"reason": reason, "action": action})
        self.reason = reason


class LastOwner(MemberRefused):
    """A workspace always keeps an owner."""

    code = "rbac.last_owner"
    http_status: ClassVar[int] = 409
    public_text = "A workspace needs at least one owner."


class MalformedText(MemberRefused):
    """An address, a name or a role that cannot be kept; found before the database is asked, so nothing has changed."""

    code = "rbac.malformed_text"
    http_status: ClassVar[int] = 400
    public_text = "Please check what you entered."


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the acting principal's workspace."""

    user: str
    role: str
    joined_at: datetime


@dataclass(frozen=True, slots=True)
class Membership:
    """What the gate needs to know: the role, and the workspace's state (``active``, ``suspended``, ``deleting``)."""

    role: str
    state: str
    grants: tuple[str, ...] | None = None
    """What the role holds, where it is one of the workspace's own; :meth:`Policy.admit` takes it."""


@dataclass(frozen=True, slots=True)
class OwnRole:
    """A role that the workspace has defined for itself. ``grants``: capability and condition, one text each."""

    name: str
    grants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workspace:
    """One of a person's workspaces."""

    tenant: str
    name: str
    role: str
    state: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """What an open invitation offers."""

    tenant: str
    email: str
    role: str
    inviter: str


_NAME: Final = range(1, 201)
_ADDRESS: Final = range(3, 321)
_ROLE: Final = range(1, 64)


class MemberFlows:
    """The operations as flows; :mod:`store_postgres` drives them. All act for the current principal, in its workspace.

    Each raises :class:`MalformedText` for a text that the database would not keep, once the guard has said yes.
    """

    def __init__(self, policy: Policy) -> None:
        if MANAGE_USERS not in policy.caps:
            raise ConfigError(what="members need `users.manage`", why="the registry does not declare it", fix='declare users=("manage",)')
        self._policy: Final = policy
        self._manage: Final = policy.caps[MANAGE_USERS]

    def create_workspace(self, name: str) -> MemberFlow[None]:
        """Create the workspace of the current principal's tenant id, with the current user as its first owner."""
        _fits(name, _NAME, "creating a workspace")
        rows = yield Statement("SELECT axis.workspace_create(%s)", (name,))
        yield from self._settle(_only(rows)[0], "creating a workspace", EventKind.WORKSPACE_CREATED, name=name)

    def invite(self, *, digest: bytes, email: str, role: str, lasting: timedelta = timedelta(days=7)) -> MemberFlow[uuid.UUID]:
        """Record an invitation whose single-use token has *digest* (32 bytes, keyed); returns its public handle. At most 30 days."""
        self._require()
        _fits(email, _ADDRESS, "inviting")
        _fits(role, _ROLE, "inviting")
        rows = yield Statement("SELECT outcome, invitation FROM axis.member_invite(%s, %s, %s, %s)", (digest, email, role, lasting))
        outcome, handle = _only(rows)
        yield from self._settle(outcome, "inviting", EventKind.MEMBER_INVITED, role=role, invitation=str(handle) if handle else None)
        return uuid.UUID(str(handle))

    def peek(self, *, digest: bytes) -> MemberFlow[Invitation | None]:
        """What the open invitation offers; ``None`` if there is none. Needs no principal: the token is the right to look."""
        rows = yield Statement("SELECT tenant, email, role, inviter FROM axis.invitation_peek(%s)", (digest,))
        return Invitation(*rows[0]) if rows else None

    def accept(self, *, digest: bytes, email: str) -> MemberFlow[str]:
        """Join as the current user; *email* is the user's verified address. Returns the role. The inviter's rights are checked again."""
        _fits(email, _ADDRESS, "accepting an invitation")
        rows = yield Statement("SELECT outcome, role, invitation FROM axis.member_accept(%s, %s)", (digest, email))
        outcome, role, handle = _only(rows)
        yield from self._settle(
            outcome, "accepting an invitation", EventKind.INVITATION_ACCEPTED, role=role, invitation=str(handle) if handle else None
        )
        return str(role)

    def revoke_invitation(self, invitation: uuid.UUID) -> MemberFlow[None]:
        """Take back an open invitation."""
        self._require()
        rows = yield Statement("SELECT axis.invitation_revoke(%s)", (invitation,))
        yield from self._settle(_only(rows)[0], "revoking an invitation", EventKind.INVITATION_REVOKED, invitation=str(invitation))

    def change_role(self, user: UserId | IdValue, role: str) -> MemberFlow[None]:
        """Give *user* the role *role*; it holds from the user's next statement on."""
        self._require()
        target = UserId.of(user).text
        _fits(role, _ROLE, "changing a role")
        rows = yield Statement("SELECT outcome, role_before FROM axis.member_change_role(%s, %s)", (target, role))
        outcome, before = _only(rows)
        yield from self._settle(outcome, "changing a role", EventKind.ROLE_CHANGED, target, role_from=before, role_to=role)

    def remove(self, user: UserId | IdValue) -> MemberFlow[None]:
        """End *user*'s membership."""
        self._require()
        target = UserId.of(user).text
        rows = yield Statement("SELECT outcome, role_before FROM axis.member_remove(%s)", (target,))
        outcome, before = _only(rows)
        yield from self._settle(outcome, "removing a member", EventKind.MEMBER_REMOVED, target, role=before, cause="removed")

    def leave(self) -> MemberFlow[None]:
        """End one's own membership; needs no capability."""
        rows = yield Statement("SELECT outcome, role_before FROM axis.member_leave()")
        outcome, before = _only(rows)
        yield from self._settle(outcome, "leaving", EventKind.MEMBER_REMOVED, role=before, cause="left")

    def transfer(self, user: UserId | IdValue, *, keep: str) -> MemberFlow[None]:
        """Make member *user* an owner, and keep the role *keep* oneself, in one step."""
        self._require()
        target = UserId.of(user).text
        _fits(keep, _ROLE, "transferring ownership")
        rows = yield Statement("SELECT axis.member_transfer(%s, %s)", (target, keep))
        yield from self._settle(_only(rows)[0], "transferring ownership", EventKind.OWNERSHIP_TRANSFERRED, target, role_kept=keep)

    def delete_workspace(self, *, grace: timedelta = timedelta(days=30)) -> MemberFlow[None]:
        """Mark the workspace for deletion after *grace* (at least a day); it is closed at once, and an owner may take it back."""
        self._require()
        rows = yield Statement("SELECT axis.workspace_delete(%s)", (grace,))
        yield from self._settle(
            _only(rows)[0], "deleting the workspace", EventKind.WORKSPACE_DELETED, grace_seconds=int(grace.total_seconds())
        )

    def undelete_workspace(self) -> MemberFlow[None]:
        """Take a deletion back, until the operator has erased the workspace (not before its grace is over)."""
        self._require()
        rows = yield Statement("SELECT axis.workspace_undelete()")
        yield from self._settle(_only(rows)[0], "taking a deletion back", EventKind.WORKSPACE_RESUMED)

    def members(self) -> MemberFlow[Sequence[Member]]:
        """The workspace's members; empty for whoever is none."""
        rows = yield Statement("SELECT user_id, role, joined_at FROM axis.member_list()")
        return tuple(Member(*row) for row in rows)

    def define_role(self, role: Role) -> MemberFlow[None]:
        """Define a role of the workspace's own, or define it anew; it holds from the next request on.

        Kept is what the role holds at this moment, not that it includes others. A role of the product that it includes may grow or shrink with a
        later release, and the own role does not: define it anew. It can include roles of the product only, none of the workspace's own.

        Raises:
            UnsoundPolicy: see :meth:`~axis_security.rbac.policy.Policy.flatten`.
        """
        self._require()
        grants = [(grant.capability, stored_condition(grant.when)) for grant in self._policy.flatten(role)]
        names, conditions = [name for name, _ in grants], [condition for _, condition in grants]
        rows = yield Statement("SELECT axis.role_define(%s, %s::text[], %s::text[])", (role.name, names, conditions))
        yield from self._settle(_only(rows)[0], "defining a role", EventKind.ROLE_DEFINED, defined=role.name, grants=_listed(grants))

    def drop_role(self, name: str) -> MemberFlow[None]:
        """Drop a role of the workspace's own that nobody has."""
        self._require()
        _fits(name, _ROLE, "dropping a role")
        rows = yield Statement("SELECT axis.role_drop(%s)", (name,))
        yield from self._settle(_only(rows)[0], "dropping a role", EventKind.ROLE_DROPPED, defined=name)

    def own_roles(self) -> MemberFlow[Sequence[OwnRole]]:
        """The roles that the workspace has defined for itself, by name; empty for whoever is no member."""
        rows = yield Statement("SELECT role, grants FROM axis.role_list()")
        return tuple(OwnRole(name, tuple(grants)) for name, grants in rows)

    def resolve(self, tenant: TenantId | IdValue, user: UserId | IdValue) -> MemberFlow[Membership | None]:
        """For the gate: role and state in one statement, on a connection that nobody is bound to; ``None``: no member.

        Where the role is one of the workspace's own, the policy learns what it holds now.
        """
        where = TenantId.of(tenant)
        rows = yield Statement("SELECT role, state, grants FROM axis.membership_of(%s, %s)", (where.text, UserId.of(user).text))
        if not rows:
            return None
        role, state, grants = rows[0]
        found = Membership(role, state, None if grants is None else tuple(grants))
        if found.grants is not None:
            self._policy.admit(where, found.role, found.grants)
        return found

    def workspaces(self, user: UserId | IdValue) -> MemberFlow[Sequence[Workspace]]:
        """Every workspace of *user*, by name."""
        rows = yield Statement("SELECT tenant, name, role, state FROM axis.workspaces_of(%s)", (UserId.of(user).text,))
        return tuple(Workspace(*row) for row in rows)

    def _require(self) -> None:
        decision = decide(current_principal(), self._manage)
        if not decision.allowed:
            raise PermissionDenied(decision)

    def _settle(self, outcome: object, action: str, kind: EventKind, target: str | None = None, **detail: Scalar) -> MemberFlow[None]:
        allowed = outcome == "ok"
        yield AuditEvent.by(
            current_principal(),
            kind,
            at=self._policy.clock.now(),
            outcome=Outcome.ALLOWED if allowed else Outcome.DENIED,
            target=None if target is None else f"user:{target}",
            reason=None,
            **detail,
        )
        if not allowed:
            raise (LastOwner if outcome == "last_owner" else MemberRefused)(str(outcome), action=action)


def _fits(text: str, length: range, action: str) -> None:
    # Counted in characters, as the tables' CHECKs do. What UTF-8 cannot say and NUL would be errors of the driver.
    if len(text) not in length or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise MalformedText("malformed", action=action)


def _listed(grants: Sequence[tuple[str, str]]) -> str:
    """The grants for the log. What its field cannot take is counted, with a digest of all, so that no two definitions look alike."""
    whole = ", ".join(" ".join(grant).strip() for grant in grants)
    if len(whole) <= MAX_TEXT:
        return whole
    kept = whole[: MAX_TEXT - 100].rpartition(", ")[0]
    more = len(grants) - 1 - kept.count(", ")
    return f"{kept} and {more} more, sha256 {hashlib.sha256(whole.encode()).hexdigest()}"


def _only(rows: Rows) -> tuple[Any, ...]:
    (row,) = rows
    return tuple(row)

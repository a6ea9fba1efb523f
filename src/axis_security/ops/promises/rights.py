"""Promises 7, 8 and 9: the policy is the one that was reviewed, every route asks it, and the database holds to it whatever Python thinks."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from axis_security.core.checks import CheckResult, Finding
from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError, Denied
from axis_security.core.ids import KeyType
from axis_security.core.principal import Principal
from axis_security.ops.promises.answer import Connect, Look, answer, finding, rows

if TYPE_CHECKING:
    from axis_security.rbac.policy import Policy
    from axis_security.rls.tenancy import Tenancy

__all__ = ["ListedRoute", "RouteAudit", "managers", "members_held", "policy_lock", "routes", "write_policy_lock"]

_FOUR: Final = ("viewer", "member", "admin", "owner")
_MAY_MANAGE: Final = frozenset({"admin", "owner"})


def _matrix(policy: Policy) -> Mapping[str, Mapping[str, str]]:
    from axis_security.rbac.matrix import cells

    (_, *roles), *lines = cells(policy)
    return {role: {line[0]: line[n] for line in lines if line[n]} for n, role in enumerate(roles, 1)}


def write_policy_lock(policy: Policy, path: Path) -> None:
    """Write down who holds what, for review and for :func:`policy_lock`. Commit the file: a change of rights is then a change that somebody reads."""
    path.write_text(json.dumps(_matrix(policy), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def policy_lock(policy: Policy, path: Path) -> Look:
    """The four roles are there, each holds all that the one below holds, and every role holds exactly what the reviewed file says."""

    def look() -> CheckResult:
        live = _matrix(policy)
        found = [
            finding("roles.missing", role, "a role is missing", "the policy does not name it", "standard_policy() has all four")
            for role in _FOUR
            if role not in live
        ]
        for lower, higher in pairwise(_FOUR):
            lost = sorted(name for name, how in live.get(lower, {}).items() if how == "yes" and live.get(higher, {}).get(name) != "yes")
            found += [
                finding("roles.order", higher, f"`{higher}` lacks a right of `{lower}`", f"`{name}`", "grant it to both") for name in lost
            ]
        try:
            locked = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ConfigError(
                what=f"the policy lock `{path}` cannot be read", why="it is missing or no JSON", fix="write it with write_policy_lock()"
            ) from None
        for role in sorted(live.keys() | locked.keys()):
            now, then = live.get(role, {}), locked.get(role, {})
            for name in sorted(now.keys() | then.keys()):
                if now.get(name) != then.get(name):
                    why = f"reviewed: {then.get(name, 'no')}; now: {now.get(name, 'no')}"
                    fix = "review the change, then write_policy_lock()"
                    found.append(finding("roles.changed", f"{role}: {name}", "a role's rights are not the reviewed ones", why, fix))
        return answer("roles.lock", f"{len(live)} roles, {sum(map(len, live.values()))} grants, as in {path.name}", found)

    return look


def managers(policy: Policy) -> Look:
    """Only owners and admins hold ``users.manage``, without conditions, and a data export is refused to everybody else before it reads a row."""

    def look() -> CheckResult:
        from axis_security.ops.export import export_workspace
        from axis_security.rbac.policy import MANAGE_USERS

        holders = {role: how for role, grants in _matrix(policy).items() if (how := grants.get(MANAGE_USERS))}
        found = [
            finding("members.holder", role, "a role holds users.manage that must not", f"{role}: {how}", "take it out of the policy")
            for role, how in holders.items()
            if role not in _MAY_MANAGE
        ]
        found += [
            finding(
                "members.no_holder",
                role,
                f"`{role}` cannot manage users",
                "it does not hold users.manage, or on a condition only",
                "grant it",
            )
            for role in sorted(role for role in _MAY_MANAGE if holders.get(role) != "yes")
        ]
        for role in sorted(set(policy.roles) - _MAY_MANAGE):
            try:
                with acting_as(Principal(tenant=1, user="axis-verify", role=role)):
                    export_workspace(io.BytesIO(), source=_Untouchable(), tables=(), policy=policy, export="verify")
            except Denied:
                continue
            except _Touched:
                pass
            found.append(
                finding("members.export", role, f"`{role}` may export the workspace", "the export began", "guard it with users.manage")
            )
        return answer("members.holders", f"users.manage: {', '.join(sorted(holders)) or 'nobody'}", found)

    return look


class _Touched(Exception):  # no error: it says that a door was opened
    pass


class _Untouchable:
    def connection(self) -> Any:
        raise _Touched


def members_held(connect: Connect, tenancy: Tenancy, policy: Policy) -> Look:
    """The database itself refuses invitations and role changes to every role without ``users.manage``, even with a sealed context that claims more.

    A workspace is made for the purpose, in a transaction that is rolled back.

    Args:
        connect: plain connections as the app role.
    """

    def look() -> CheckResult:
        if tenancy.seal is None:
            raise ConfigError(what="the tenancy has no seal", why="nobody can be bound", fix="pass Tenancy(…, seal=…)")
        probe = _Members(tenancy)
        below = [role for role in policy.roles if role not in _MAY_MANAGE]
        with connect() as connection:
            try:
                found = probe.run(connection, below)
            finally:
                connection.rollback()
        return answer("members.database", f"owner may, {', '.join(below)} may not: asked of the database", found)

    return look


class _Members:
    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy
        number = 2**62 + secrets.randbelow(2**61)
        self._tenant: Any = {KeyType.INT: number, KeyType.TEXT: f"axis-verify-{number:x}"}.get(tenancy.key_type)
        if self._tenant is None:
            import uuid

            self._tenant = uuid.uuid4()

    def _as(self, connection: Any, user: str, role: str) -> None:
        from axis_security.rls.sealed import seal

        keyring = self._tenancy.seal
        if keyring is None:
            raise ConfigError(what="the tenancy has no seal", why="nobody can be bound", fix="pass Tenancy(…, seal=…)")
        sealed = seal(Principal(tenant=self._tenant, user=user, role=role), keyring=keyring, now=datetime.now(UTC))
        rows(connection, "SELECT pg_catalog.set_config('axis.context', %s, true)", (sealed,))

    def _invite(self, connection: Any, role: str) -> tuple[str, bytes]:
        digest = secrets.token_bytes(32)
        sql = "SELECT outcome FROM axis.member_invite(%s, %s, %s, %s)"
        return str(rows(connection, sql, (digest, "verify@axis.invalid", role, timedelta(days=1)))[0][0]), digest

    def run(self, connection: Any, below: list[str]) -> list[Finding]:
        found: list[Finding] = []

        def find(code: str, about: str, what: str, why: str) -> None:
            found.append(finding(f"members.{code}", about, what, why, "apply the plan with members_part(policy)"))

        self._as(connection, "axis-verify-owner", "owner")
        made = str(rows(connection, "SELECT axis.workspace_create(%s)", ("axis verify",))[0][0])
        if made != "ok":
            find("unusable", "owner", "a workspace cannot be made", f"the database answered `{made}`")
            return found
        for role in below:
            self._as(connection, "axis-verify-owner", "owner")
            outcome, digest = self._invite(connection, role)
            if outcome != "ok":
                find("owner_refused", role, "an owner cannot invite", f"the database answered `{outcome}`")
                continue
            person = f"axis-verify-{role}"
            self._as(connection, person, role)
            rows(connection, "SELECT outcome FROM axis.member_accept(%s, %s)", (digest, "verify@axis.invalid"))
            for claimed in (role, "owner"):
                self._as(connection, person, claimed)
                if self._invite(connection, role)[0] == "ok":
                    find("invited", role, f"`{role}` can invite", f"the database let it, claiming the role `{claimed}`")
                changed = rows(connection, "SELECT outcome FROM axis.member_change_role(%s, %s)", ("axis-verify-owner", "viewer"))[0][0]
                promoted = rows(connection, "SELECT outcome FROM axis.member_change_role(%s, %s)", (person, "admin"))[0][0]
                if "ok" in (changed, promoted):
                    find("changed_role", role, f"`{role}` can change roles", f"the database let it, claiming the role `{claimed}`")
        return found


class ListedRoute(Protocol):
    """One way into the app, as the route audit of :mod:`axis_security.wiring` lists it."""

    @property
    def path(self) -> str:
        """Its template."""
        ...

    @property
    def methods(self) -> Sequence[str]:
        """Its methods."""
        ...

    @property
    def endpoint(self) -> str:
        """The code's name."""
        ...


class RouteAudit(Protocol):
    """What the adapters' ``audit(app)`` returns."""

    @property
    def routes(self) -> Sequence[object]:
        """Every route."""
        ...

    @property
    def unmarked(self) -> Sequence[ListedRoute]:
        """Those that nobody decided about."""
        ...


def routes(audit: Callable[[], RouteAudit]) -> Look:
    """Every route of the app has a guard, or a reason to have none.

    Args:
        audit: lists them: ``lambda: audit(app)`` with the adapter's own.
    """

    def look() -> CheckResult:
        found = audit()
        fix = "put @requires(...) on it, or @public(reason=...)"
        wrong = [
            finding(
                "requests.unmarked",
                f"{' '.join(route.methods)} {route.path}",
                "a route has no guard",
                f"nobody decided about `{route.endpoint}`",
                fix,
            )
            for route in found.unmarked
        ]
        if not found.routes:
            wrong.append(
                finding("requests.no_routes", "app", "the app has no routes", "the audit listed none", "pass the app that is served")
            )
        return answer("requests.routes", f"{len(found.routes)} routes, {len(found.unmarked)} without a guard or a reason", wrong)

    return look

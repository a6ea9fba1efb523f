"""Rules about the roles and the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axis_security.core.checks import Severity
from axis_security.rls.audit.ground import Ground
from axis_security.rls.audit.rule import Hit, rule
from axis_security.rls.model import quote
from axis_security.rls.posture import VERSION_FLOOR

__all__ = [
    "app_role_attributes",
    "app_role_becomes",
    "app_role_bypasses",
    "app_role_predefined",
    "row_security_off",
    "server_too_old",
]

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_PREDEFINED: Final = {
    "pg_execute_server_program": "runs programs on the server, as the account that owns its files",
    "pg_read_server_files": "reads the server's files, the tables' own among them",
    "pg_write_server_files": "writes the server's files",
    "pg_maintain": "locks and rewrites any table",
    "pg_signal_backend": "ends other sessions",
    "pg_read_all_data": "reads every table that has no row security",
    "pg_write_all_data": "writes every table that has no row security",
    "pg_read_all_stats": "reads statements and parameters of other sessions",
    "pg_monitor": "reads statements of other sessions, and every setting",
    "pg_read_all_settings": "reads every setting",
    "pg_create_subscription": "copies tables from elsewhere",
}


@rule(
    "rls.app_role_bypasses",
    _ERROR,
    what="row security does not hold for the application's role",
    why="it is a superuser or has BYPASSRLS: every policy is skipped, and every test passes",
    modes=(8, 31),
)
def app_role_bypasses(ground: Ground) -> Iterator[Hit]:
    """The commonest fault of all."""
    for role in ground.app:
        if role.superuser or role.bypassrls:
            words = [word for word, present in (("NOSUPERUSER", role.superuser), ("NOBYPASSRLS", role.bypassrls)) if present]
            yield Hit(
                object=f"role {role.name}",
                fix=f"ALTER ROLE {quote(role.name)} {' '.join(words)};",
                evidence={"superuser": role.superuser, "bypassrls": role.bypassrls},
            )


@rule(
    "rls.app_role_becomes",
    _ERROR,
    what="the application's role may become one that sees every tenant",
    why="SET ROLE, or inheriting, lifts row security; so does whatever SQL an attacker gets to run",
    modes=(3, 8, 24),
)
def app_role_becomes(ground: Ground) -> Iterator[Hit]:
    """A member of a superuser, of a BYPASSRLS role, or of a declared system role."""
    for role in ground.app:
        for group in sorted(ground.becomes(role.oid) - {role.oid}):
            if ground.bypasses(group) or group in ground.system:
                direct = [m.group for m in ground.facts.memberships if m.member == role.oid and group in ground.becomes(m.group)]
                yield Hit(
                    object=f"role {role.name}",
                    fix="\n".join(f"REVOKE {quote(ground.role_name(one))} FROM {quote(role.name)};" for one in direct),
                    evidence={"becomes": ground.role_name(group)},
                )


@rule(
    "rls.app_role_attributes",
    _WARNING,
    what="the application's role may do more than query",
    why="CREATEROLE grants itself further roles, REPLICATION reads every table's changes, CREATEDB fills the disk",
    modes=(8, 28),
)
def app_role_attributes(ground: Ground) -> Iterator[Hit]:
    """Attributes that only administrators need."""
    for role in ground.app:
        words = [
            word
            for word, present in (("NOCREATEROLE", role.createrole), ("NOCREATEDB", role.createdb), ("NOREPLICATION", role.replication))
            if present
        ]
        if words and not role.superuser:
            yield Hit(
                object=f"role {role.name}",
                fix=f"ALTER ROLE {quote(role.name)} {' '.join(words)};",
                evidence={"attributes": [word.removeprefix("NO") for word in words]},
                severity=_ERROR if role.replication or role.createrole else None,
            )


@rule(
    "rls.app_role_predefined",
    _WARNING,
    what="the application's role is a member of a predefined role",
    why="predefined roles reach around tables and their policies",
    modes=(8, 22, 28),
)
def app_role_predefined(ground: Ground) -> Iterator[Hit]:
    """pg_read_server_files and its kind."""
    for role in ground.app:
        for membership in ground.facts.memberships:
            group = ground.role_name(membership.group)
            if membership.member == role.oid and group in _PREDEFINED:
                files = "server" in group
                yield Hit(
                    object=f"role {role.name}",
                    fix=f"REVOKE {group} FROM {quote(role.name)};",
                    evidence={"group": group, "allows": _PREDEFINED[group]},
                    severity=_ERROR if files else None,
                )


@rule(
    "rls.row_security_off",
    _WARNING,
    what="row_security = off is stored with a role or the database",
    why="queries that a policy would filter fail with 42501 instead, which is right for a dump and wrong for an application",
    modes=(28,),
)
def row_security_off(ground: Ground) -> Iterator[Hit]:
    """Set by hand once, to make a dump work."""
    for stored in ground.facts.role_settings:
        if stored.name == "row_security" and stored.value in ("off", "false", "no", "0"):
            to = (
                f"ROLE {quote(ground.role_name(stored.role))}"
                if stored.role
                else f"DATABASE {quote(stored.database)}"
                if stored.database
                else "ROLE ALL"
            )
            yield Hit(object=to.lower().replace('"', ""), fix=f"ALTER {to} RESET row_security;")


@rule(
    "rls.server_too_old",
    _ERROR,
    what="the server lacks fixes that row security needs",
    why="policies were applied for the wrong role (CVE-2023-2455, CVE-2024-10976), or statistics showed hidden rows (CVE-2025-8713)",
    modes=(32,),
)
def server_too_old(ground: Ground) -> Iterator[Hit]:
    """Below the minor release that fixed them."""
    version = ground.facts.version
    floor = VERSION_FLOOR.get(version // 10000)
    if version < 140000 or (floor is not None and version < floor):
        yield Hit(
            object=f"server {version // 10000}.{version % 10000}",
            fix="-- update to the current minor release of a supported major",
            evidence={"version": version, "floor": floor or min(VERSION_FLOOR.values())},
        )

"""Promise 3: the login cannot see past row-level security, the tables are as declared, and a stranger finds every one of them empty."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.context import acting_as, acting_as_nobody
from axis_security.core.errors import AxisError
from axis_security.core.ids import IdValue, KeyType
from axis_security.core.principal import Principal
from axis_security.ops.promises.answer import Connect, Look, answer, finding, rows

if TYPE_CHECKING:
    from axis_security.rls.tenancy import Tenancy

__all__ = ["app_login", "as_declared", "strangers"]


def app_login(connect: Connect, tenancy: Tenancy) -> Look:
    """The login that the app uses is no superuser, bypasses nothing, owns no protected table, and the server has the fixes that row security needs.

    Args:
        connect: plain connections with the app's own connection string, not through a guarded pool (which would refuse such a login itself).
    """

    def look() -> CheckResult:
        from axis_security.rls.posture import Posture, Seen

        with connect() as connection:
            seen = Seen(**json.loads(rows(connection, Posture.question)[0][0]))
        refusal = Posture(roles=tenancy.roles).judge(seen)
        found = [] if refusal is None else [finding(refusal.code, seen.role, refusal.what, refusal.why, refusal.fix)]
        return answer("isolation.login", f"login {seen.role}, PostgreSQL {seen.version // 10000}.{seen.version % 10000}", found)

    return look


def as_declared(connect: Connect, tenancy: Tenancy, *, accept: Mapping[str, str] | None = None) -> Look:
    """The live database is as the tenancy declares it (policies, FORCE, grants, foreign keys, functions of schema ``axis``) and no rule of the schema audit finds an error in it.

    Nothing is changed.

    Args:
        connect: a login that may make a plan; see :meth:`Tenancy.plan`.
        accept: findings to set aside, each with the reason; see :meth:`Tenancy.audit`.
    """

    def look() -> CheckResult:
        with connect() as connection:
            report = tenancy.audit(connection, accept=accept)
            getattr(connection, "rollback", lambda: None)()
        aside = f", {len(report.accepted)} accepted" if report.accepted else ""
        return answer("isolation.declared", f"{report.tables} tables, {len(report.findings)} findings{aside}", report.findings)

    return look


def strangers(connect: Connect, tenancy: Tenancy, *, role: str = "owner", system: Connect | None = None) -> Look:
    """A workspace that does not exist finds every protected table empty, and whoever is nobody is refused.

    Args:
        connect: the app's own guarded pool or engine.
        role: the strongest role of the policy, so that no missing right hides a missing wall.
        system: a login that sees all rows, to say how many tables hold any: walls around empty tables show nothing.
    """

    def look() -> CheckResult:
        from axis_security.rls.model import quote

        tables = list(tenancy.model().protected())
        found: list[Finding] = []
        stranger = Principal(tenant=_nobodys(tenancy.key_type), user="axis-verify", role=role)
        with acting_as(stranger), connect() as connection:
            crossed = [name for name in tables if rows(connection, f"SELECT EXISTS (SELECT 1 FROM {quote(*name)})")[0][0]]
        found += [_leak(".".join(name), "a workspace that does not exist sees rows of others") for name in crossed]
        open_to_all = [name for name in tables if _unbound_sees(connect, quote(*name))]
        found += [_leak(".".join(name), "a connection that nobody is bound to sees rows") for name in open_to_all]
        filled = "" if system is None else f", {_filled(system, [quote(*name) for name in tables])} of them hold rows"
        return answer("isolation.strangers", f"{len(tables)} protected tables{filled}; a stranger sees none", found)

    return look


def _nobodys(key_type: KeyType) -> IdValue:
    match key_type:
        case KeyType.UUID:
            return uuid.uuid4()
        case KeyType.INT:
            return 2**62 + secrets.randbelow(2**61)
        case KeyType.TEXT:
            return f"axis-verify-{secrets.token_hex(12)}"


def _unbound_sees(connect: Connect, table: str) -> bool:
    try:
        with acting_as_nobody(), connect() as connection:
            return bool(rows(connection, f"SELECT EXISTS (SELECT 1 FROM {table})")[0][0])  # quoted
    except AxisError:
        return False
    except Exception as error:
        # The server's own refusals: nobody is bound, the seal is bad, or the role has no right.
        if str(_state(error)).startswith(("AX00", "42501")):
            return False
        raise


def _state(error: BaseException) -> Any:
    cause = getattr(error, "orig", error)
    return getattr(cause, "sqlstate", None)


def _filled(system: Connect, tables: list[str]) -> int:
    with system() as connection:
        return sum(bool(rows(connection, f"SELECT EXISTS (SELECT 1 FROM {table})")[0][0]) for table in tables)  # quoted


def _leak(table: str, why: str) -> Finding:
    return Finding(
        code="isolation.leak",
        severity=Severity.ERROR,
        object=table,
        what="rows cross between workspaces",
        why=why,
        fix="take the app out of service, apply the plan, and look at the login with `axis-security verify`",
    )

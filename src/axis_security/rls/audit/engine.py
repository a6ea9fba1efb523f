"""The audit: facts, ground, rules, report. With the host's declaration, or of any schema without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from axis_security.core.checks import Finding, Severity
from axis_security.core.errors import ConfigError
from axis_security.core.flow import Flow
from axis_security.rls.audit import rules_context, rules_doors, rules_effects, rules_keys, rules_policies, rules_roles, rules_tables
from axis_security.rls.audit.facts import Facts
from axis_security.rls.audit.ground import Ground, Scope, infer_scope
from axis_security.rls.audit.read import read_facts
from axis_security.rls.audit.report import ORDER, AuditReport
from axis_security.rls.audit.rule import RULES
from axis_security.rls.model import Model
from axis_security.rls.plan import Declaration, Plan, plan_flow, run

__all__ = ["DRIFT", "audit_flow", "audit_schema", "declared_audit_flow", "judge"]

MODULES: Final = (rules_tables, rules_policies, rules_effects, rules_context, rules_doors, rules_keys, rules_roles)
"""Importing them registers their rules."""

DRIFT: Final = "rls.differs_from_declaration"
"""The code of what the plan would change; the one finding that is no rule over the catalog alone."""

_NO_MODEL: Final = (
    "which tables are meant to be open, which capability guards which command, and whether a predicate is the intended one: "
    "declare a Tenancy and use tenancy.audit()"
)
_RUNTIME: Final = (
    "whether the application binds each transaction: run the isolation machine and the pooler conformance of axis_security.testing"
)


def judge(facts: Facts, scope: Scope, *, accept: Mapping[str, str] | None = None, more: Iterable[Finding] = ()) -> AuditReport:
    """Apply every rule. Pure.

    Args:
        facts: what the catalog says.
        scope: what is declared or assumed.
        accept: findings to set aside, each with the reason: by code, or by code and object with a space between.
        more: findings from elsewhere, to report along.

    Raises:
        ConfigError: an accepted finding has no reason, or names no rule.
    """
    accepted_by = dict(accept or {})
    for name, reason in accepted_by.items():
        if not reason.strip() or (name.partition(" ")[0] not in RULES and name.partition(" ")[0] != DRIFT):
            raise ConfigError(
                what=f"`{name}` cannot be accepted",
                why="it names no finding, or no reason is given",
                fix='accept={"rls.counted_key": "row counts are public"}',
            )
    ground = Ground(facts, scope)
    found = [*more, *(finding for rule in RULES.values() for finding in rule.findings(ground))]
    found.sort(key=lambda f: (ORDER[f.severity], f.object, f.code))
    kept: list[Finding] = []
    aside: list[tuple[Finding, str]] = []
    for finding in found:
        because = accepted_by.get(f"{finding.code} {finding.object}") or accepted_by.get(finding.code)
        if because is None:
            kept.append(finding)
        else:
            aside.append((finding, because))
    unknown = [_RUNTIME] if scope.model is not None else [_NO_MODEL, _RUNTIME]
    if scope.key is None:
        unknown.append("the tenant column: no table has one of the usual names; name it (key=, --key)")
    if not scope.app:
        unknown.append(
            "the application's roles: nobody but owners and superusers may reach a table. If the application logs in as one of those, "
            "no policy holds for it; name its roles (app=, --app)"
        )
    return AuditReport(
        findings=tuple(kept),
        accepted=tuple(aside),
        unknown=tuple(unknown),
        scope=scope,
        tables=len([r for r in ground.relations if r.kind in "rpf"]),
        database=facts.database,
        version=facts.version,
    )


def audit_flow(
    *,
    key: str | None = None,
    app: Iterable[str] = (),
    system: Iterable[str] = (),
    schemas: Iterable[str] = (),
    accept: Mapping[str, str] | None = None,
) -> Flow[AuditReport]:
    """Audit a schema that nobody declared."""
    facts = yield from read_facts()
    known = {role.name for role in facts.roles.values()}
    missing = sorted((set(app) | set(system)) - known)
    if missing:
        raise ConfigError(what=f"no such role: {', '.join(missing)}", why="the server does not know it", fix="name roles of this server")
    return judge(facts, infer_scope(facts, key=key, app=app, system=system, schemas=schemas), accept=accept)


def declared_audit_flow(declaration: Declaration, *, accept: Mapping[str, str] | None = None) -> Flow[AuditReport]:
    """Audit against a declaration: the rules, and whatever the plan would change."""
    plan = yield from plan_flow(declaration)
    facts = yield from read_facts()
    return judge(facts, scope_of(declaration.model), accept=accept, more=_drift(plan))


def scope_of(model: Model) -> Scope:
    """The scope that a declaration gives."""
    roles = model.roles
    schemas = frozenset(declared.table.name[0] for declared in model.tables)
    return Scope(
        key=model.key,
        app=frozenset({roles.app}),
        system=frozenset({roles.system}),
        # Views and functions of other schemas are doors as well, so nothing is left out.
        schemas=frozenset() if schemas else schemas,
        model=model,
    )


def _drift(plan: Plan) -> Iterable[Finding]:
    for step in plan.steps:
        yield Finding(
            code=DRIFT,
            severity=Severity.ERROR if step.flagged else Severity.WARNING,
            object=_subject(step.shown),
            what="the database is not as declared",
            why=step.why,
            fix=step.shown + ";",
            evidence={"look_twice": step.flagged},
        )
    yield from (finding for finding in plan.findings if finding.code not in RULES)


def _subject(sql: str) -> str:
    first = sql.splitlines()[0]
    return first if len(first) <= 100 else first[:99] + "…"


def audit_schema(
    connection: Any,
    *,
    key: str | None = None,
    app: Iterable[str] = (),
    system: Iterable[str] = (),
    schemas: Iterable[str] = (),
    accept: Mapping[str, str] | None = None,
) -> AuditReport:
    """Audit any PostgreSQL schema, with or without this library's policies. Reads the catalog and writes nothing.

    Args:
        connection: a SQLAlchemy ``Engine`` or ``Connection``, or a psycopg ``Connection``; any role that may connect.
        key: the tenant column; inferred unless told.
        app: the roles that serve tenants; inferred from grants unless told.
        system: roles that are meant to see every tenant.
        schemas: look at these only.
        accept: findings to set aside, each with the reason: by code, or by code and object with a space between.

    Raises:
        ConfigError: *connection* is not usable, a role does not exist, or an accepted finding has no reason.
    """
    return run(
        connection, lambda: audit_flow(key=key, app=tuple(app), system=tuple(system), schemas=tuple(schemas), accept=accept), keep=False
    )

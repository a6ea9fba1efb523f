"""Rules about tables: is row security on, whole, and does the tenant column hold what it must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from axis_security.core.checks import Severity
from axis_security.rls.audit.expression import mentions
from axis_security.rls.audit.facts import Relation
from axis_security.rls.audit.ground import Ground
from axis_security.rls.audit.rule import Hit, rule
from axis_security.rls.model import quote

__all__ = [
    "app_owns_table",
    "no_policy",
    "no_system_path",
    "no_tenant_index",
    "not_enabled",
    "not_forced",
    "open_table_has_key",
    "policies_not_enabled",
    "tenant_default_fixed",
    "tenant_nullable",
    "tenant_type_differs",
    "undeclared_table",
]

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_INFO: Final = Severity.INFO


@rule(
    "rls.not_enabled",
    _ERROR,
    what="a table with the tenant column has no row security",
    why="whoever may read it reads every tenant's rows",
    modes=(13,),
)
def not_enabled(ground: Ground) -> Iterator[Hit]:
    """Reachable by the application, row security off, no policy: forgotten."""
    for table in ground.guarded:
        if not table.enabled and not table.policies and ground.reachable(table):
            yield Hit(
                object=table.label,
                fix=f"ALTER TABLE {table.sql} ENABLE ROW LEVEL SECURITY;\nALTER TABLE {table.sql} FORCE ROW LEVEL SECURITY;",
                evidence={"key": ground.scope.key, "grants": _grants(ground, table)},
            )


@rule(
    "rls.policies_not_enabled",
    _ERROR,
    what="the table has policies, and row security is off",
    why="policies do nothing until row security is enabled",
    modes=(13,),
)
def policies_not_enabled(ground: Ground) -> Iterator[Hit]:
    """CREATE POLICY without ENABLE."""
    for table in ground.held:
        if table.policies and not table.enabled:
            yield Hit(
                object=table.label,
                fix=f"ALTER TABLE {table.sql} ENABLE ROW LEVEL SECURITY;",
                evidence={"policies": sorted(p.name for p in table.policies)},
            )


@rule(
    "rls.not_forced",
    _ERROR,
    what="row security is not forced",
    why="the table's owner, and every function and view of the owner, sees every tenant's rows",
    modes=(13, 23),
)
def not_forced(ground: Ground) -> Iterator[Hit]:
    """ENABLE without FORCE."""
    for table in ground.held:
        if table.enabled and not table.forced:
            yield Hit(
                object=table.label,
                fix=f"ALTER TABLE {table.sql} FORCE ROW LEVEL SECURITY;",
                evidence={"owner": ground.role_name(table.owner)},
            )


@rule(
    "rls.no_policy",
    _WARNING,
    what="row security is on and the table has no policy for the application",
    why="every query of the application answers no rows, and every write is refused",
    modes=(12,),
)
def no_policy(ground: Ground) -> Iterator[Hit]:
    """Nothing lets the application in, though grants do."""
    for table in ground.guarded:
        if table.enabled and ground.reachable(table) and not any(p.permissive and ground.reaches_app(p) for p in table.policies):
            yield Hit(
                object=table.label,
                fix=f"CREATE POLICY tenant ON {table.sql} TO {ground.app_names()} {_predicate(ground)};",
                evidence={"grants": _grants(ground, table)},
            )


@rule(
    "rls.tenant_nullable",
    _WARNING,
    what="the tenant column may be NULL",
    why="a row of no tenant is a row that nobody is responsible for, and that nobody sees",
    modes=(6, 30),
)
def tenant_nullable(ground: Ground) -> Iterator[Hit]:
    """No NOT NULL on the tenant column."""
    for table in ground.keyed:
        column = table.columns[ground.scope.key or ""]
        if not column.notnull:
            yield Hit(object=f"{table.label}.{column.name}", fix=f"ALTER TABLE {table.sql} ALTER COLUMN {quote(column.name)} SET NOT NULL;")


@rule(
    "rls.tenant_default_fixed",
    _ERROR,
    what="the tenant column has a constant default",
    why="a row that nobody assigned lands in one tenant's hands",
    modes=(6, 30),
)
def tenant_default_fixed(ground: Ground) -> Iterator[Hit]:
    """DEFAULT 1 and the like: left over from adding the column."""
    for table in ground.keyed:
        column = table.columns[ground.scope.key or ""]
        if column.default is not None and "(" not in column.default:
            yield Hit(
                object=f"{table.label}.{column.name}",
                fix=f"ALTER TABLE {table.sql} ALTER COLUMN {quote(column.name)} DROP DEFAULT;",
                evidence={"default": column.default},
            )


@rule(
    "rls.tenant_type_differs",
    _WARNING,
    what="the tenant column has another type here than elsewhere",
    why="a cast stands between the column and the tenant, in keys between the tables and in predicates, and costs the index",
    modes=(5, 14),
)
def tenant_type_differs(ground: Ground) -> Iterator[Hit]:
    """One key, two types."""
    types = Counter(table.columns[ground.scope.key or ""].type for table in ground.keyed)
    if len(types) < 2:
        return
    usual = types.most_common(1)[0][0]
    for table in ground.keyed:
        column = table.columns[ground.scope.key or ""]
        if column.type != usual:
            name = quote(column.name)
            yield Hit(
                object=f"{table.label}.{column.name}",
                fix=f"-- drop the policies that use the column, then:\nALTER TABLE {table.sql} ALTER COLUMN {name} TYPE {usual} USING {name}::{usual};",
                evidence={"type": column.type, "elsewhere": usual},
            )


@rule(
    "rls.no_tenant_index",
    _WARNING,
    what="no index starts with the tenant column",
    why="every query of every tenant reads the whole table, and each foreign key check with it",
    modes=(13,),
)
def no_tenant_index(ground: Ground) -> Iterator[Hit]:
    """The predicate is in every query, so its index is the one that always pays."""
    for table in ground.keyed:
        if not any(i.valid and not i.partial and i.keys and i.keys[0].column == ground.scope.key for i in table.indexes):
            yield Hit(
                object=table.label,
                fix=f"CREATE INDEX ON {table.sql} ({quote(ground.scope.key or '')});",
                evidence={"indexes": [i.name for i in table.indexes]},
            )


@rule(
    "rls.app_owns_table",
    _ERROR,
    what="the application owns the table, or is a member of its owner",
    why="an owner may turn row security off and drop the policies",
    modes=(13, 31),
)
def app_owns_table(ground: Ground) -> Iterator[Hit]:
    """The login of the application made the tables."""
    for table in ground.held:
        if table.owner in ground.app_reach:
            yield Hit(
                object=table.label,
                fix=f"CREATE ROLE table_owner NOLOGIN;\nALTER TABLE {table.sql} OWNER TO table_owner;",
                evidence={"owner": ground.role_name(table.owner)},
            )


@rule(
    "rls.no_system_path",
    _WARNING,
    what="row security is forced and no role sees every tenant",
    why="a data migration or a backup by the owner matches no rows, and says nothing",
    modes=(28, 30),
)
def no_system_path(ground: Ground) -> Iterator[Hit]:
    """FORCE holds for the owner too; cross-tenant work needs a role of its own, with its own policy."""
    if any(r.bypassrls and not r.superuser for r in ground.facts.roles.values()):
        return
    for table in ground.keyed:
        others = [p for p in table.policies if p.permissive and not ground.reaches_app(p)]
        if table.enabled and table.forced and table.policies and not others:
            yield Hit(
                object=table.label,
                fix="-- a login of its own, used with a reason and a record, never by the application:\n"
                f"CREATE ROLE tenant_system LOGIN NOINHERIT;\nGRANT SELECT, INSERT, UPDATE, DELETE ON {table.sql} TO tenant_system;\n"
                f"CREATE POLICY system ON {table.sql} TO tenant_system USING ({quote(ground.scope.key or '')} IS NOT NULL);",
                evidence={"owner": ground.role_name(table.owner)},
            )


@rule(
    "rls.undeclared_table",
    _ERROR,
    what="the application reaches a table that nobody declared",
    why="nobody decided who may see its rows",
    modes=(13, 21),
)
def undeclared_table(ground: Ground) -> Iterator[Hit]:
    """With a declaration: every table in its schemas is protected or open, or out of the application's reach."""
    model = ground.scope.model
    if model is None:
        return
    declared = {d.table.name for d in model.tables}
    schemas = {name[0] for name in declared}
    for table in ground.relations:
        if (
            table.kind in "rpf"
            and table.schema in schemas
            and not table.parents
            and (table.schema, table.name) not in declared
            and ground.reachable(table)
        ):
            yield Hit(
                object=table.label,
                fix=f"REVOKE ALL ON {table.sql} FROM PUBLIC, {ground.app_names()};",
                evidence={"grants": _grants(ground, table)},
            )


@rule(
    "rls.open_table_has_key",
    _WARNING,
    what="a table declared open has the tenant column",
    why="its rows look as if they belonged to tenants, and every tenant reads them all",
    modes=(13,),
)
def open_table_has_key(ground: Ground) -> Iterator[Hit]:
    """Opened by mistake, or the column is not what it seems."""
    if ground.scope.model is None:
        return
    guarded = ground.guarded_ids
    declared = {d.table.name for d in ground.scope.model.tables}
    for table in ground.relations:
        if table.oid not in guarded and (table.schema, table.name) in declared and ground.has_key(table):
            yield Hit(
                object=table.label, fix="-- tenancy.protect(table) instead of tenancy.open(table, …)", evidence={"key": ground.scope.key}
            )


def _grants(ground: Ground, table: Relation) -> list[str]:
    return [f"{what} to {ground.role_name(who)}" for who, what in ground.app_holds(table.grants, "SELECT", "INSERT", "UPDATE", "DELETE")]


def _predicate(ground: Ground) -> str:
    """The predicate that the other tables use, if they agree on one."""
    key = ground.scope.key
    seen = Counter(
        p.using for t in ground.keyed for p in t.policies if p.using and key and mentions(p.using, key) and ground.reaches_app(p)
    )
    return f"USING ({seen.most_common(1)[0][0]})" if seen else f"USING ({quote(key or 'tenant_id')} = (SELECT …))"

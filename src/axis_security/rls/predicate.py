"""The policies of one table, as text. Every call to a getter sits in a scalar sub-select, where the server allows that: evaluated once per statement, and the
index stays usable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from axis_security.core.grants import OwnedByUser
from axis_security.core.ids import KeyType
from axis_security.rls.model import Model, Name, Protected, TableModel, Via, quote

__all__ = ["SELF", "PolicyModel", "own_rows", "policies_of", "tenant_default", "text_literal"]

SELF: Final = "\0self"
"""Stands for the table's own name in the text of a policy, where a sub-select would take a bare column for its own."""
_CAST: Final = {KeyType.UUID: "::uuid", KeyType.INT: "::bigint", KeyType.TEXT: "", None: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyModel:
    """A policy as declared; *using* and *check* are SQL, ``None`` where the command takes none."""

    name: str
    command: str
    permissive: bool
    role: str
    using: str | None
    check: str | None

    def create(self, table: str, own_name: str) -> str:
        """The statement that makes it on *table* (already quoted), whose bare name is *own_name*."""
        kind = "PERMISSIVE" if self.permissive else "RESTRICTIVE"
        clauses = "".join(f" {word} ({text})" for word, text in (("USING", self.using), ("WITH CHECK", self.check)) if text is not None)
        return f"CREATE POLICY {quote(self.name)} ON {table} AS {kind} FOR {self.command} TO {self.role}{clauses.replace(SELF, quote(own_name))}"


def text_literal(value: str) -> str:
    """*value* as an SQL string that does not depend on settings."""
    escaped = value.replace("'", "''")
    return f"'{escaped}'" if "\\" not in value else "E'" + escaped.replace("\\", "\\\\") + "'"


def tenant_default() -> str:
    """The default of the tenant column. A claim, not verified: the floor compares the row with the verified tenant."""
    return "axis.claimed_tenant_id()"


def policies_of(model: Model, table: TableModel, shape: Protected) -> tuple[PolicyModel, ...]:
    """The floor that nothing widens, one permissive policy per command, and the system role's own."""
    app, system = model.roles.app, model.roles.system
    once = model.dialect.once
    verified = once("axis.tenant_id()")

    def allowed(capability: str | None, rows: Callable[[str], str]) -> str:
        if capability is None or model.grants is None:
            return rows(verified)
        name = text_literal(capability)
        parts = []
        conditions = model.conditions(capability)
        if None in conditions or not conditions:
            parts.append(rows(once(f"axis.tenant_for({name})")))
        for condition in conditions:
            if isinstance(condition, OwnedByUser):
                own = _own(model, table, shape, once(f"axis.tenant_for_own({name}, {text_literal(condition.column)})"), "")
                parts.append(f"({own} AND {_is_user(model, table, condition.column, '')})")
        return " OR ".join(parts)

    def own(tenant: str) -> str:
        return _own(model, table, shape, tenant, "")

    def readable(tenant: str) -> str:
        return _readable(model, table, shape, tenant, "")

    # Not `true`: a policy reaches every role that inherits the one it names, and this one is for the system login itself.
    is_system = once("axis.is_system()")
    if shape.via is None:
        is_system = f"{quote(model.key)} IS NOT NULL AND {is_system}"
    access = shape.access
    insert, update = allowed(access.insert, own), allowed(access.update, own)
    writes = own(verified)
    if readable(verified) == writes:
        floors = [PolicyModel(name="axis_floor", command="ALL", permissive=False, role=app, using=writes, check=writes)]
    else:
        floors = [
            PolicyModel(name="axis_floor", command="SELECT", permissive=False, role=app, using=readable(verified), check=None),
            PolicyModel(name="axis_floor_insert", command="INSERT", permissive=False, role=app, using=None, check=writes),
            PolicyModel(name="axis_floor_update", command="UPDATE", permissive=False, role=app, using=writes, check=writes),
            PolicyModel(name="axis_floor_delete", command="DELETE", permissive=False, role=app, using=writes, check=None),
        ]
    return (
        *floors,
        PolicyModel(name="axis_select", command="SELECT", permissive=True, role=app, using=allowed(access.select, readable), check=None),
        PolicyModel(name="axis_insert", command="INSERT", permissive=True, role=app, using=None, check=insert),
        PolicyModel(name="axis_update", command="UPDATE", permissive=True, role=app, using=update, check=update),
        PolicyModel(name="axis_delete", command="DELETE", permissive=True, role=app, using=allowed(access.delete, own), check=None),
        PolicyModel(name="axis_system", command="ALL", permissive=True, role=system, using=is_system, check=is_system),
    )


def own_rows(model: Model, name: Name, alias: str) -> str:
    """The condition, over the protected table *name* under *alias*, that a row is the bound tenant's own and not one that it may only read."""
    declared = model.protected()[name]
    return _own(model, declared.table, declared.shape, model.dialect.once("axis.tenant_id()"), f"{alias}.")


def _own(model: Model, table: TableModel, shape: Protected, tenant: str, at: str) -> str:
    """The rows that belong to *tenant*; *at* prefixes the table's columns."""
    base = f"{at}{quote(model.key)} = {tenant}" if shape.via is None else _through(model, shape.via, tenant, at, _own)
    return _narrowed(model, table, shape, base, at)


def _readable(model: Model, table: TableModel, shape: Protected, tenant: str, at: str) -> str:
    """The rows that *tenant* may read."""
    if shape.via is not None:
        return _narrowed(model, table, shape, _through(model, shape.via, tenant, at, _readable), at)
    parts = [f"{at}{quote(model.key)} = {tenant}"]
    if shape.visible_to is not None:
        parts.append(f"{at}{quote(shape.visible_to)} = {tenant}")
    if (shared := shape.shared) is not None:
        listed = f"SELECT s.{quote(shared.listed)} FROM {quote(*shared.table)} AS s WHERE s.{quote(shared.grantee)} = {tenant}"
        parts.append(f"{at}{quote(shared.column)} = ANY (ARRAY({listed}))")
    if shape.below:
        below = f"{at}{quote(model.key)} = ANY ((SELECT axis.tenants_below())::{model.key_type.value}[])"
        parts.append(f"({tenant} IS NOT NULL AND {below})")
    return _narrowed(model, table, shape, parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})", at)


def _narrowed(model: Model, table: TableModel, shape: Protected, rows: str, at: str) -> str:
    """Of *rows* those of the acting user, where the table is declared so: whatever else may be read, for each tenant stands below itself as well."""
    return rows if shape.owner is None else f"({rows} AND {_is_user(model, table, shape.owner, at)})"


def _through(model: Model, via: Via, tenant: str, at: str, rows: Callable[[Model, TableModel, Protected, str, str], str]) -> str:
    # A name of its own at each depth, for a table may stand under another of the same name: longer than the one that it stands under.
    alias = f"{at.removesuffix('.') or 'axis'}_1"
    target = model.protected()[via.target]
    joined = " AND ".join(f"{alias}.{quote(theirs)} = {at or SELF + '.'}{quote(own)}" for own, theirs in via.pairs)
    held = rows(model, target.table, target.shape, tenant, f"{alias}.")
    return f"EXISTS (SELECT FROM {quote(*via.target)} AS {alias} WHERE {joined} AND {held})"


def _is_user(model: Model, table: TableModel, name: str, at: str) -> str:
    column = table.column(name)
    cast = _CAST[None if column is None else column.key_type]
    return f"{at}{quote(name)} = {model.dialect.once(f'axis.user_id(){cast}')}"

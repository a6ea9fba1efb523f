"""The policies of one table, as text. Every call to a getter sits in a scalar sub-select: evaluated once per statement, and the index stays usable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axis_security.core.grants import OwnedByUser
from axis_security.core.ids import KeyType
from axis_security.rls.model import Model, Protected, TableModel, quote

__all__ = ["PolicyModel", "policies_of", "tenant_default", "text_literal"]

_CAST: Final = {KeyType.UUID: "::uuid", KeyType.INT: "::bigint", KeyType.TEXT: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyModel:
    """A policy as declared; *using* and *check* are SQL, ``None`` where the command takes none."""

    name: str
    command: str
    permissive: bool
    role: str
    using: str | None
    check: str | None

    def create(self, table: str) -> str:
        """The statement that makes it on *table* (already quoted)."""
        kind = "PERMISSIVE" if self.permissive else "RESTRICTIVE"
        clauses = "".join(f" {word} ({text})" for word, text in (("USING", self.using), ("WITH CHECK", self.check)) if text is not None)
        return f"CREATE POLICY {quote(self.name)} ON {table} AS {kind} FOR {self.command} TO {self.role}{clauses}"


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
    tenant = f"{quote(model.key)} = (SELECT axis.tenant_id())"

    def allowed(capability: str | None) -> str:
        if capability is None or model.grants is None:
            return tenant
        name = text_literal(capability)
        parts = []
        conditions = model.conditions(capability)
        if None in conditions or not conditions:
            parts.append(f"{quote(model.key)} = (SELECT axis.tenant_for({name}))")
        for condition in conditions:
            if isinstance(condition, OwnedByUser):
                column = table.column(condition.column)
                cast = "" if column is None or column.key_type is None else _CAST[column.key_type]
                own = f"{quote(model.key)} = (SELECT axis.tenant_for_own({name}, {text_literal(condition.column)}))"
                parts.append(f"({own} AND {quote(condition.column)} = (SELECT axis.user_id(){cast}))")
        return " OR ".join(parts)

    # Not `true`: a policy reaches every role that inherits the one it names, and this one is for the system login itself.
    is_system = f"{quote(model.key)} IS NOT NULL AND (SELECT axis.is_system())"
    access = shape.access
    read, insert, update, delete = allowed(access.select), allowed(access.insert), allowed(access.update), allowed(access.delete)
    return (
        PolicyModel(name="axis_floor", command="ALL", permissive=False, role=app, using=tenant, check=tenant),
        PolicyModel(name="axis_select", command="SELECT", permissive=True, role=app, using=read, check=None),
        PolicyModel(name="axis_insert", command="INSERT", permissive=True, role=app, using=None, check=insert),
        PolicyModel(name="axis_update", command="UPDATE", permissive=True, role=app, using=update, check=update),
        PolicyModel(name="axis_delete", command="DELETE", permissive=True, role=app, using=delete, check=None),
        PolicyModel(name="axis_system", command="ALL", permissive=True, role=system, using=is_system, check=is_system),
    )

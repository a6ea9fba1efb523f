"""Which tenant stands below which: a part of schema ``axis``, for tables that are protected with ``reach="below"``.

A plain table of child and parent, changed by the system login alone, so that injected SQL cannot put a tenant below itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.rls.context import function_statements

__all__ = ["hierarchy_part"]

# UNION, not UNION ALL: a circle, should there ever be one, ends.
_BELOW: Final = """\
CREATE OR REPLACE FUNCTION axis.tenants_below() RETURNS {key}[] LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER RETURN (
  WITH RECURSIVE below (tenant) AS (
    SELECT axis.tenant_id() UNION SELECT p.tenant FROM axis.tenant_parent AS p JOIN below AS b ON p.parent = b.tenant
  ) SELECT pg_catalog.array_agg(b.tenant) FROM below AS b)"""

_SET_PARENT: Final = """\
CREATE OR REPLACE FUNCTION axis.set_parent(child {key}, above {key}) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $axis$
BEGIN
  LOCK TABLE axis.tenant_parent IN SHARE ROW EXCLUSIVE MODE;
  IF above IS NULL THEN
    DELETE FROM axis.tenant_parent AS p WHERE p.tenant = child;
    RETURN FOUND;
  END IF;
  IF EXISTS (WITH RECURSIVE up (tenant) AS (
       SELECT above UNION SELECT p.parent FROM axis.tenant_parent AS p JOIN up AS u ON p.tenant = u.tenant
     ) SELECT FROM up AS u WHERE u.tenant = child) THEN
    RAISE EXCEPTION USING ERRCODE = 'AX004', MESSAGE = 'a tenant cannot stand below itself',
      HINT = 'Take the tenant above out of what stands below this one first.';
  END IF;
  INSERT INTO axis.tenant_parent AS p (tenant, parent) VALUES (child, above) ON CONFLICT (tenant) DO UPDATE SET parent = excluded.parent;
  RETURN true;
END
$axis$"""


def hierarchy_part(key_type: KeyType) -> SchemaPart:
    """``axis.set_parent(child, above)`` for the system login (*above* NULL takes *child* out), and ``axis.tenants_below()`` for policies."""
    key = key_type.value

    def create(roles: DatabaseRoles) -> Sequence[str]:
        return [
            f"CREATE TABLE IF NOT EXISTS axis.tenant_parent (tenant {key} PRIMARY KEY, parent {key} NOT NULL CHECK (parent <> tenant))",
            "CREATE INDEX IF NOT EXISTS tenant_parent_parent_idx ON axis.tenant_parent (parent)",
            f"ALTER TABLE axis.tenant_parent OWNER TO {roles.guard}",
            f"REVOKE ALL ON axis.tenant_parent FROM PUBLIC, {roles.app}, {roles.system}, {roles.owner}",
            *function_statements(roles, "tenants_below()", _BELOW.format(key=key)),
            *function_statements(roles, f"set_parent({key}, {key})", _SET_PARENT.format(key=key), to=roles.system),
        ]

    def drop(_: DatabaseRoles) -> Sequence[str]:
        return [f"DROP FUNCTION IF EXISTS axis.tenants_below(), axis.set_parent({key}, {key})", "DROP TABLE IF EXISTS axis.tenant_parent"]

    return SchemaPart(name="hierarchy", create=create, drop=drop)

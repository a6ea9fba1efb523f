"""The base part of schema ``axis``: seal keys, role capabilities, and the functions that policies ask who is acting.

``axis.context()`` is the one place that checks a seal. It is SECURITY DEFINER (only the guard may read the keys) and PL/pgSQL, whose names
are not bound at definition; so every name *and operator* in it is schema-qualified, which needs no ``SET search_path`` (about 10 us a call).
The getters are SQL with names bound at definition, and the planner inlines them: one function call per check.

STABLE, never IMMUTABLE: they read a setting, and an immutable one would be frozen into a prepared plan. Never LEAKPROOF.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles, SchemaPart

__all__ = ["BASE", "base_part", "function_statements"]

BASE: Final = "base"
"""The name of the base part."""


def base_part(key_type: KeyType) -> SchemaPart:
    """The base part for tenant keys of *key_type*. The roles exist already."""

    def create(roles: DatabaseRoles) -> Sequence[str]:
        return [*_tables(roles), *_functions(roles, key_type)]

    return SchemaPart(
        name=BASE,
        create=create,
        drop=lambda _: ["DROP SCHEMA IF EXISTS axis CASCADE"],
    )


def _tables(roles: DatabaseRoles) -> list[str]:
    guard = roles.guard
    return [
        f"CREATE SCHEMA IF NOT EXISTS axis AUTHORIZATION {guard}",
        f"ALTER SCHEMA axis OWNER TO {guard}",
        f"REVOKE ALL ON SCHEMA axis FROM PUBLIC, {roles.app}, {roles.system}, {roles.owner}",
        f"GRANT USAGE ON SCHEMA axis TO {roles.app}, {roles.system}, {roles.owner}",
        "CREATE TABLE IF NOT EXISTS axis.part (name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT pg_catalog.now())",
        (
            "CREATE TABLE IF NOT EXISTS axis.seal_key (id integer PRIMARY KEY CHECK (id > 0), "
            "inner_block bytea NOT NULL CHECK (octet_length(inner_block) = 64), outer_block bytea NOT NULL CHECK (octet_length(outer_block) = 64))"
        ),
        (
            "CREATE TABLE IF NOT EXISTS axis.role_capability (tenant text NOT NULL DEFAULT '', role text NOT NULL, capability text NOT NULL, "
            "condition text NOT NULL DEFAULT '', PRIMARY KEY (role, capability, condition, tenant), "
            # A tenant's rows add to no role of the product.
            "CHECK ((tenant <> '') = pg_catalog.starts_with(role, 'custom.')))"
        ),
        *(
            statement
            for table in ("part", "seal_key", "role_capability")
            for statement in (
                f"ALTER TABLE axis.{table} OWNER TO {guard}",
                f"REVOKE ALL ON axis.{table} FROM PUBLIC, {roles.app}, {roles.system}, {roles.owner}",
            )
        ),
    ]


# The double hash makes the comparison say nothing about how much of a guessed MAC was right.
_CONTEXT: Final = """\
CREATE OR REPLACE FUNCTION axis.context() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER AS $axis$
DECLARE
  sealed pg_catalog.text := pg_catalog.current_setting('axis.context', true);
  body pg_catalog.text;
  mac pg_catalog.bytea;
BEGIN
  IF sealed IS NULL OR sealed OPERATOR(pg_catalog.=) '' THEN
    RAISE EXCEPTION USING ERRCODE = 'AX001', MESSAGE = 'no tenant is bound to this transaction',
      HINT = 'Bind a principal at BEGIN: tenancy.install(engine), then acting_as(Principal(...)).';
  END IF;
  body := pg_catalog."left"(sealed, -64);
  SELECT pg_catalog.sha256(k.outer_block OPERATOR(pg_catalog.||)
           pg_catalog.sha256(k.inner_block OPERATOR(pg_catalog.||) pg_catalog.convert_to(body, 'UTF8')))
    INTO mac FROM axis.seal_key AS k WHERE k.id::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.split_part(sealed, ' ', 2);
  IF mac IS NULL OR pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.encode(mac, 'hex'), 'UTF8'))
      OPERATOR(pg_catalog.<>) pg_catalog.sha256(pg_catalog.convert_to(pg_catalog."right"(sealed, 64), 'UTF8')) THEN
    RAISE EXCEPTION USING ERRCODE = 'AX002', MESSAGE = 'the sealed context is not genuine',
      HINT = 'Only the application''s sealer can make one; check that the database has its current seal key (plan, apply).';
  END IF;
  IF pg_catalog.to_timestamp(pg_catalog.split_part(body, ' ', 3)::pg_catalog.float8) OPERATOR(pg_catalog.<) pg_catalog.now() THEN
    RAISE EXCEPTION USING ERRCODE = 'AX003', MESSAGE = 'the sealed context had expired when this transaction began',
      HINT = 'Seal at BEGIN; if it was, compare the clocks of application and database.';
  END IF;
  RETURN body;
END
$axis$"""


def _functions(roles: DatabaseRoles, key_type: KeyType) -> list[str]:
    field = "pg_catalog.split_part(axis.context(), ' ', {})"
    tenant = field.format(4) if key_type is KeyType.TEXT else f"({field.format(4)})::{key_type.value}"
    claimed = f"NULLIF({field.format(4)}, '')".replace("axis.context()", "pg_catalog.current_setting('axis.context', true)")
    claimed = claimed if key_type is KeyType.TEXT else f"({claimed})::{key_type.value}"
    getter = "CREATE OR REPLACE FUNCTION axis.{}() RETURNS {} LANGUAGE sql STABLE PARALLEL SAFE RETURN {}"
    # The tenant where the acting role holds the capability, else NULL: a policy compares the key with it, and needs one verification for both.
    tenant_for = (
        "CREATE OR REPLACE FUNCTION axis.{} RETURNS {} LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER AS $axis$\n"
        "DECLARE\n  body pg_catalog.text := axis.context();\nBEGIN\n"
        "  IF EXISTS (SELECT FROM axis.role_capability AS c WHERE c.role OPERATOR(pg_catalog.=) pg_catalog.split_part(body, ' ', 6)\n"
        "    AND c.capability OPERATOR(pg_catalog.=) $1 AND c.condition OPERATOR(pg_catalog.=) {}\n"
        "    AND (c.tenant OPERATOR(pg_catalog.=) '' OR c.tenant OPERATOR(pg_catalog.=) pg_catalog.split_part(body, ' ', 4))) THEN\n"
        "    RETURN pg_catalog.split_part(body, ' ', 4);\n"
        "  END IF;\n  RETURN NULL;\nEND\n$axis$"
    )
    made = {
        "context()": _CONTEXT,
        "tenant_id()": getter.format("tenant_id", key_type.value, tenant),
        "tenant_text()": getter.format("tenant_text", "text", field.format(4)),
        "user_id()": getter.format("user_id", "text", f"NULLIF({field.format(5)}, '')"),
        "role_name()": getter.format("role_name", "text", field.format(6)),
        # The default of the tenant column, once per row: a claim, not verified. INVARIANT: used for nothing else; the floor's WITH CHECK
        # compares every row with the verified tenant, so a forged claim is refused there.
        "claimed_tenant_id()": getter.format("claimed_tenant_id", key_type.value, claimed),
        # Inlined, so CURRENT_USER is whoever runs the statement; a role that merely inherits from the system role is not it.
        "is_system()": getter.format("is_system", "boolean", f"(CURRENT_USER = '{roles.system}')"),
        "tenant_for(text)": tenant_for.format("tenant_for(capability text)", key_type.value, "''"),
        "tenant_for_own(text, text)": tenant_for.format(
            "tenant_for_own(capability text, owner_column text)", key_type.value, "('owned by ' OPERATOR(pg_catalog.||) $2)"
        ),
        "may(text)": "CREATE OR REPLACE FUNCTION axis.may(capability text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE "
        "RETURN (axis.tenant_for(capability) IS NOT NULL)",
    }
    return [statement for signature, sql in made.items() for statement in function_statements(roles, signature, sql)]


def function_statements(roles: DatabaseRoles, signature: str, create: str, *, to: str | None = None) -> list[str]:
    """Make the function *signature* of schema axis by *create*: the guard owns it, and only the role *to*, or the three logins, may call it."""
    return [
        create,
        f"ALTER FUNCTION axis.{signature} OWNER TO {roles.guard}",
        f"REVOKE ALL ON FUNCTION axis.{signature} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION axis.{signature} TO {to or f'{roles.app}, {roles.system}, {roles.owner}'}",
    ]

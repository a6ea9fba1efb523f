"""Who may log in, own and touch what: the four roles, what they may do in the database and its schemas, and the grants of each table.

Policies decide which rows; here is decided which commands. What somebody has beyond it is taken back, and flagged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from axis_security.rls.catalog import LiveRole, LiveTable, Snapshot
from axis_security.rls.dialect import Dialect
from axis_security.rls.model import Declared, Model, Open, quote
from axis_security.rls.step import Step

__all__ = ["grant_steps", "owner_steps", "revoke_steps", "role_steps", "schema_steps", "stray_steps", "temporary_steps"]

_PRIVILEGES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


def role_steps(model: Model, live: Snapshot) -> Iterator[Step]:
    """Make the four roles, or take back what they must not have."""
    roles = model.roles
    wanted = {
        roles.guard: ("NOLOGIN NOINHERIT", "owns schema axis; nobody logs in as it"),
        roles.owner: ("LOGIN INHERIT", "owns the tables and runs migrations; FORCE binds it to the policies as well"),
        roles.app: ("LOGIN NOINHERIT", "what the application connects as; owns nothing, bypasses nothing"),
        roles.system: ("LOGIN NOINHERIT", "another login, for declared cross-tenant work"),
    }
    harmless = "NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION"
    for name, (extra, why) in wanted.items():
        role = live.roles.get(name)
        if role is None:
            yield Step(sql=f"CREATE ROLE {name} {harmless} {extra}", reverse=f"DROP ROLE {name}", why=f"the role {why}")
        elif excess := _excess(role, guard=name == roles.guard, owner=name == roles.owner):
            yield Step(
                sql=f"ALTER ROLE {name} {excess}",
                reverse=None,
                why="the role has attributes that lift row security or let it grow",
                flagged=True,
            )
    for group, member in live.memberships:
        if member in (roles.app, roles.system, roles.guard) or (group == roles.guard and member != live.current_user):
            yield Step(
                sql=f"REVOKE {quote(group)} FROM {quote(member)}",
                reverse=None,
                why=f"`{member}` must not be able to act as `{group}`",
                flagged=True,
            )


def _excess(role: LiveRole, *, guard: bool, owner: bool) -> str:
    found = {
        "NOSUPERUSER": role.superuser,
        "NOBYPASSRLS": role.bypassrls,
        "NOCREATEDB": role.createdb,
        "NOCREATEROLE": role.createrole,
        "NOREPLICATION": role.replication,
        "NOINHERIT": role.inherit and not owner,
        "NOLOGIN": role.login and guard,
    }
    return " ".join(word for word, present in found.items() if present)


def temporary_steps(model: Model, live: Snapshot) -> Iterator[Step]:
    """Keep the application from making temporary objects: they stand before the real ones of their name, and stay when the connection is handed on."""
    if model.dialect is Dialect.COCKROACHDB:
        return  # has no such privilege, and no temporary objects unless the cluster is told to
    roles = model.roles

    def on_database(words: str) -> str:
        # Without the database's name, so that a migration says the same everywhere.
        return f"DO $axis$BEGIN EXECUTE pg_catalog.format('{words}', pg_catalog.current_database()); END$axis$"

    def grant(to: str) -> str:
        return on_database(f"GRANT TEMPORARY ON DATABASE %I TO {to}")

    def revoke(to: str) -> str:
        return on_database(f"REVOKE TEMPORARY ON DATABASE %I FROM {to}")

    for role in (roles.owner, roles.system):
        if role not in live.temporary:
            yield Step(sql=grant(role), reverse=revoke(role), why="migrations and work across tenants may use temporary tables")
    for grantee in ("", roles.app):
        if grantee in live.temporary:
            to = grantee or "PUBLIC"
            yield Step(
                sql=revoke(to),
                reverse=grant(to),
                why="a temporary table takes the place of the real one, also for the next tenant on the same connection",
                flagged=True,
            )


def schema_steps(model: Model, live: Snapshot) -> Iterator[Step]:
    """Nobody but the owner makes objects where the declared tables are, and the logins may name what is there."""
    roles = model.roles
    for schema in sorted({declared.table.name[0] for declared in model.tables}):
        acl = live.schemas.get(schema, set())
        for grantee in ("", roles.app, roles.system):
            if (grantee, "CREATE") in acl:
                to = grantee or "PUBLIC"
                yield Step(
                    sql=f"REVOKE CREATE ON SCHEMA {quote(schema)} FROM {to}",
                    reverse=f"GRANT CREATE ON SCHEMA {quote(schema)} TO {to}",
                    why="whoever can create objects here can shadow those that others use",
                    flagged=True,
                )
        if words := ", ".join(word for word in ("USAGE", "CREATE") if (roles.owner, word) not in acl):
            yield Step(
                sql=f"GRANT {words} ON SCHEMA {quote(schema)} TO {roles.owner}",
                reverse=f"REVOKE {words} ON SCHEMA {quote(schema)} FROM {roles.owner}",
                why="the owner of the tables makes and alters them in migrations",
            )
        if ("", "USAGE") in acl:
            continue
        for grantee in (roles.app, roles.system):
            if (grantee, "USAGE") not in acl:
                yield Step(
                    sql=f"GRANT USAGE ON SCHEMA {quote(schema)} TO {grantee}",
                    reverse=f"REVOKE USAGE ON SCHEMA {quote(schema)} FROM {grantee}",
                    why="the declared tables live here",
                )


def owner_steps(model: Model, live: LiveTable) -> Iterator[Step]:
    """Hand a table to the owner of all."""
    if live.owner != model.roles.owner:
        table = quote(*live.name)
        yield Step(
            sql=f"ALTER TABLE {table} OWNER TO {model.roles.owner}",
            reverse=f"ALTER TABLE {table} OWNER TO {quote(live.owner)}",
            why="the owner can lift row security; it must be neither the application nor a superuser",
        )


def grant_steps(model: Model, declared: Declared, live: LiveTable, snapshot: Snapshot) -> Iterator[Step]:
    """The grants of a declared table and of the sequences that it draws from, no more and no less."""
    roles = model.roles
    if isinstance(declared.shape, Open):
        yield from owner_steps(model, live)
        app = tuple(word for word in _PRIVILEGES if word == "SELECT" or word in declared.shape.writes)
        why = f"open to every tenant: {declared.shape.reason}"
    else:
        app, why = _PRIVILEGES, "the policies decide which rows"
    wanted = {roles.app: app, roles.system: _PRIVILEGES}
    yield from revoke_steps(
        model, live, wanted, "row security does not hold for TRUNCATE, REFERENCES and TRIGGER, and grants go to the declared roles only"
    )
    yield from _grant(live, _acl(model, live), wanted, why)
    for name in live.sequences if "INSERT" in app else ():
        sequence = snapshot.tables[name]
        yield from _grant(sequence, _acl(model, sequence), {roles.app: ("USAGE",), roles.system: ("USAGE",)}, "inserts draw from it")


def _acl(model: Model, live: LiveTable) -> set[tuple[str, str]]:
    # A change of owner hands the old owner's privileges to the new one; what is compared is what is left then.
    return live.acl if live.owner == model.roles.owner else {entry for entry in live.acl if entry[0] != live.owner}


def _grant(live: LiveTable, acl: set[tuple[str, str]], wanted: Mapping[str, Sequence[str]], why: str) -> Iterator[Step]:
    what = f"{'SEQUENCE' if live.kind == 'S' else 'TABLE'} {quote(*live.name)}"
    for grantee, words in wanted.items():
        missing = ", ".join(word for word in words if (grantee, word) not in acl)
        if missing:
            yield Step(sql=f"GRANT {missing} ON {what} TO {grantee}", reverse=f"REVOKE {missing} ON {what} FROM {grantee}", why=why)


def revoke_steps(model: Model, live: LiveTable, wanted: Mapping[str, Sequence[str]], why: str) -> Iterator[Step]:
    """Take back what everybody, the application or the system login holds beyond *wanted*."""
    for grantee in ("", model.roles.app, model.roles.system):
        excess = sorted(word for who, word in _acl(model, live) if who == grantee and word not in wanted.get(grantee, ()))
        if excess:
            words, to = ", ".join(excess), grantee or "PUBLIC"
            table = quote(*live.name)
            yield Step(
                sql=f"REVOKE {words} ON TABLE {table} FROM {to}", reverse=f"GRANT {words} ON TABLE {table} TO {to}", why=why, flagged=True
            )


def stray_steps(model: Model, live: Snapshot) -> Iterator[Step]:
    """Take back the grants on tables that nobody declared, in the schemas of those that somebody did."""
    declared = {table.table.name for table in model.tables}
    known = declared | {child for parent in declared for child in live.descendants(parent)}
    schemas = {name[0] for name in declared}
    for name, table in sorted(live.tables.items()):
        if name not in known and name[0] in schemas and table.kind in "rpf":
            yield from revoke_steps(model, table, {}, "nobody declared this table, so the application has no business with it")

"""Rules about doors beside the policies: views, definer functions, partitions, grants, publications, sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axis_security.core.checks import Severity
from axis_security.rls.audit.facts import PUBLIC, Relation
from axis_security.rls.audit.ground import Ground
from axis_security.rls.audit.rule import Hit, rule
from axis_security.rls.model import quote

__all__ = [
    "child_reachable",
    "default_grant",
    "definer_bypasses",
    "definer_search_path",
    "excess_grant",
    "foreign_table",
    "leakproof_function",
    "matview_readable",
    "public_grant",
    "publication",
    "rule_rewrites",
    "schema_create",
    "sequence_readable",
    "sequence_settable",
    "truncate_granted",
    "view_runs_as_owner",
]

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_INFO: Final = Severity.INFO
_DATA: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


def _to(ground: Ground, who: int) -> str:
    return "PUBLIC" if who == PUBLIC else quote(ground.role_name(who))


def _revokes(ground: Ground, relation: Relation, *privileges: str) -> str:
    held = ground.app_holds(relation.grants, *privileges)
    return "\n".join(f"REVOKE {what} ON {relation.sql} FROM {_to(ground, who)};" for who, what in held)


def _guarded_below(ground: Ground, view: Relation) -> list[Relation]:
    """The guarded tables that a view reads, also through other views."""
    seen, todo, found = {view.oid}, list(view.reads), []
    while todo:
        oid = todo.pop()
        relation = ground.facts.relations.get(oid)
        if relation is None or oid in seen:
            continue
        seen.add(oid)
        if relation.kind in "vm":
            todo += relation.reads
        elif oid in ground.guarded_ids:
            found.append(relation)
    return sorted(found, key=lambda r: r.label)


@rule(
    "rls.view_runs_as_owner",
    _ERROR,
    what="a view reads guarded tables with its owner's rights",
    why="policies are applied for the view's owner, not for whoever asks",
    modes=(23,),
)
def view_runs_as_owner(ground: Ground) -> Iterator[Hit]:
    """No security_invoker."""
    for view in ground.relations:
        if view.kind == "v" and not view.invoker and ground.app_holds(view.grants, *_DATA):
            below = _guarded_below(ground, view)
            if below:
                because = next(filter(None, (ground.sees_all(view.owner, table) for table in below)), None)
                yield Hit(
                    object=view.label,
                    fix=f"ALTER VIEW {view.sql} SET (security_invoker = true);",
                    evidence={"reads": [t.label for t in below], "owner": ground.role_name(view.owner), "sees_all": because},
                    severity=_ERROR if because else _WARNING,
                )


@rule(
    "rls.matview_readable",
    _ERROR,
    what="a materialised view of guarded tables is readable",
    why="it holds what its owner saw when it was filled, and has no policies",
    modes=(23,),
)
def matview_readable(ground: Ground) -> Iterator[Hit]:
    """Policies cannot be put on a materialised view."""
    for view in ground.relations:
        if view.kind == "m" and ground.app_holds(view.grants, "SELECT") and (below := _guarded_below(ground, view)):
            yield Hit(object=view.label, fix=_revokes(ground, view, "SELECT"), evidence={"reads": [t.label for t in below]})


@rule(
    "rls.rule_rewrites",
    _WARNING,
    what="a rewrite rule on the table runs with its owner's rights",
    why="what the rule touches is reached as the table's owner, past the grants and policies of whoever asks",
    modes=(23,),
)
def rule_rewrites(ground: Ground) -> Iterator[Hit]:
    """CREATE RULE on a guarded table."""
    for table in ground.held:
        for name in table.rules:
            yield Hit(
                object=f"{table.label}: rule {name}",
                fix=f"DROP RULE {quote(name)} ON {table.sql};\n-- a trigger does the same as whoever asks",
            )


@rule(
    "rls.definer_bypasses",
    _ERROR,
    what="the application may call a function that runs past row security",
    why="it is SECURITY DEFINER, and its owner sees every tenant",
    modes=(23,),
)
def definer_bypasses(ground: Ground) -> Iterator[Hit]:
    """Owned by a superuser, a BYPASSRLS role, or a role with a policy for all (its memberships count)."""
    for function in ground.functions:
        if not function.definer or not ground.app_executes(function):
            continue
        because = None
        if ground.bypasses(function.owner):
            because = f"`{ground.role_name(function.owner)}` bypasses row security"
        elif function.owner in ground.definer_owners_that_see_all:
            because = ground.definer_owners_that_see_all[function.owner]
        if because:
            yield Hit(
                object=function.label,
                fix=f"ALTER FUNCTION {function.sql} SECURITY INVOKER;\n-- or: ALTER FUNCTION {function.sql} OWNER TO a role that no policy favours;",
                evidence={"owner": ground.role_name(function.owner), "sees_all": because},
            )


@rule(
    "rls.definer_search_path",
    _WARNING,
    what="a SECURITY DEFINER function resolves names by the caller's search path",
    why="whoever may create an object in a schema of that path can have the owner run it",
    modes=(23,),
)
def definer_search_path(ground: Ground) -> Iterator[Hit]:
    """Neither a pinned search_path nor a body whose names were bound at definition."""
    for function in ground.functions:
        pinned = any(setting.startswith("search_path=") for setting in function.settings)
        if (
            function.definer
            and not pinned
            and not function.bound
            and function.language in ("sql", "plpgsql")
            and ground.app_executes(function)
        ):
            yield Hit(
                object=function.label,
                fix=f"ALTER FUNCTION {function.sql} SET search_path = pg_catalog, pg_temp;\n-- and qualify the names in its body",
            )


@rule(
    "rls.leakproof_function",
    _ERROR,
    what="the application may call a LEAKPROOF function of the host's own",
    why="the planner may run it before the policy, on rows that are hidden; what it prints or raises shows them",
    modes=(25,),
)
def leakproof_function(ground: Ground) -> Iterator[Hit]:
    """Only the system's own are proved."""
    for function in ground.functions:
        if function.leakproof and ground.app_executes(function):
            yield Hit(object=function.label, fix=f"ALTER FUNCTION {function.sql} NOT LEAKPROOF;", evidence={"language": function.language})


@rule(
    "rls.child_reachable",
    _ERROR,
    what="a partition or inheritance child can be read directly, without its parent's policies",
    why="policies hold for the table that the query names; asked by its own name, the child answers with its own or with none",
    modes=(21,),
)
def child_reachable(ground: Ground) -> Iterator[Hit]:
    """Granted to the application, and without row security or policies of its own."""
    for root in ground.guarded:
        for child, parent in ground.descendants(root):
            held = ground.app_holds(child.grants, *_DATA)
            if held and not (child.enabled and child.policies):
                yield Hit(
                    object=child.label,
                    fix=_revokes(ground, child, *_DATA),
                    evidence={"parent": parent.label, "enabled": child.enabled, "grants": sorted({what for _, what in held})},
                )


@rule(
    "rls.foreign_table",
    _ERROR,
    what="a foreign table with the tenant column is readable",
    why="foreign tables have no policies: the other server answers with every row that the mapped user sees",
    modes=(21, 28),
)
def foreign_table(ground: Ground) -> Iterator[Hit]:
    """The same rows through another server."""
    for table in ground.relations:
        if table.kind == "f" and not table.parents and ground.has_key(table) and ground.app_holds(table.grants, *_DATA):
            yield Hit(object=table.label, fix=_revokes(ground, table, *_DATA), evidence={"key": ground.scope.key})


@rule(
    "rls.truncate_granted",
    _ERROR,
    what="the application may TRUNCATE the table",
    why="row security does not hold for TRUNCATE: one tenant's request empties every tenant's table",
    modes=(22,),
)
def truncate_granted(ground: Ground) -> Iterator[Hit]:
    """Usually from GRANT ALL."""
    for table in ground.relations:
        if table.oid in ground.guarded_ids and ground.app_holds(table.grants, "TRUNCATE"):
            yield Hit(object=table.label, fix=_revokes(ground, table, "TRUNCATE"))


@rule(
    "rls.excess_grant",
    _WARNING,
    what="the application holds REFERENCES, TRIGGER or MAINTAIN on the table",
    why="a foreign key is an oracle for hidden rows, and a trigger runs as whoever writes next; row security holds for neither",
    modes=(19, 22),
)
def excess_grant(ground: Ground) -> Iterator[Hit]:
    """Rights that only migrations need."""
    for table in ground.relations:
        if table.oid in ground.guarded_ids:
            held = ground.app_holds(table.grants, "REFERENCES", "TRIGGER", "MAINTAIN")
            if held:
                yield Hit(
                    object=table.label,
                    fix=_revokes(ground, table, "REFERENCES", "TRIGGER", "MAINTAIN"),
                    evidence={"grants": sorted({what for _, what in held})},
                )


@rule(
    "rls.public_grant",
    _WARNING,
    what="the table is granted to everybody",
    why="every role that exists or will exist may reach it",
    modes=(13, 22),
)
def public_grant(ground: Ground) -> Iterator[Hit]:
    """GRANT … TO PUBLIC."""
    for table in ground.relations:
        if table.oid in ground.guarded_ids:
            held = sorted({what for who, what in table.grants if who == PUBLIC and what in _DATA})
            if held and not table.parents:
                yield Hit(object=table.label, fix=f"REVOKE {', '.join(held)} ON {table.sql} FROM PUBLIC;", evidence={"grants": held})


@rule(
    "rls.default_grant",
    _WARNING,
    what="tables made later are granted to the application by default",
    why="a table or partition is reachable before anybody has put row security on it",
    modes=(21, 22),
)
def default_grant(ground: Ground) -> Iterator[Hit]:
    """ALTER DEFAULT PRIVILEGES … ON TABLES."""
    for default in ground.facts.default_grants:
        held = [(who, what) for who, what in ground.app_holds(default.grants, *_DATA, "TRUNCATE") if who != default.creator]
        if default.kind == "r" and held and (not ground.scope.schemas or default.schema in ("", *ground.scope.schemas)):
            where = f" IN SCHEMA {quote(default.schema)}" if default.schema else ""
            creator = quote(ground.role_name(default.creator))
            yield Hit(
                object=f"default privileges of {ground.role_name(default.creator)}{' in ' + default.schema if default.schema else ''}",
                fix="\n".join(
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE {creator}{where} REVOKE {what} ON TABLES FROM {_to(ground, who)};"
                    for who, what in held
                ),
                evidence={"grants": sorted({what for _, what in held})},
            )


@rule(
    "rls.schema_create",
    _WARNING,
    what="the application may create objects in the schema",
    why="an object of the right name takes the place of one that others use, and what it creates it owns",
    modes=(22, 23),
)
def schema_create(ground: Ground) -> Iterator[Hit]:
    """CREATE on a schema with guarded tables, for the application or everybody."""
    used = {ground.facts.relations[oid].schema for oid in ground.guarded_ids}
    for name in sorted(used):
        schema = ground.facts.schemas.get(name)
        held = ground.app_holds(schema.grants, "CREATE") if schema else []
        if schema and held:
            yield Hit(
                object=f"schema {name}", fix="\n".join(f"REVOKE CREATE ON SCHEMA {quote(name)} FROM {_to(ground, who)};" for who, _ in held)
            )


@rule(
    "rls.publication",
    _WARNING,
    what="a publication sends the table's rows",
    why="logical replication knows no policies: a subscriber, or whoever reads the slot, gets every tenant's changes",
    modes=(28,),
)
def publication(ground: Ground) -> Iterator[Hit]:
    """A guarded table in a publication without a row filter."""
    for made in ground.facts.publications:
        sent = [ground.facts.relations[oid] for oid, filtered in made.tables.items() if oid in ground.guarded_ids and not filtered]
        if sent:
            name = quote(made.name)
            fix = f"DROP PUBLICATION {name};\n-- publish the tables that hold no tenants' rows, by name" if made.all_tables else ""
            yield Hit(
                object=f"publication {made.name}",
                fix=fix or f"ALTER PUBLICATION {name} DROP TABLE {', '.join(t.sql for t in sent)};",
                evidence={"tables": [t.label for t in sent][:20], "all_tables": made.all_tables},
            )


@rule(
    "rls.sequence_readable",
    _WARNING,
    what="the application may read the sequence",
    why="its last value counts every tenant's rows",
    modes=(29,),
)
def sequence_readable(ground: Ground) -> Iterator[Hit]:
    """SELECT on a sequence; USAGE is enough to draw from it."""
    for sequence in ground.relations:
        if sequence.kind == "S" and ground.app_holds(sequence.grants, "SELECT"):
            yield Hit(object=sequence.label, fix=_revokes(ground, sequence, "SELECT"))


@rule(
    "rls.sequence_settable",
    _WARNING,
    what="the application may set the sequence",
    why="setval moves every tenant's next key: rows collide, or numbers run out",
    modes=(29,),
)
def sequence_settable(ground: Ground) -> Iterator[Hit]:
    """UPDATE on a sequence."""
    for sequence in ground.relations:
        if sequence.kind == "S" and ground.app_holds(sequence.grants, "UPDATE"):
            yield Hit(object=sequence.label, fix=_revokes(ground, sequence, "UPDATE"))

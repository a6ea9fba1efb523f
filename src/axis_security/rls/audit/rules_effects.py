"""Rules about what policies do to statements: commands that fail, that change nothing and say nothing, or that run slowly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from axis_security.core.checks import Severity
from axis_security.rls.audit.expression import correlated_exists, without_literals
from axis_security.rls.audit.ground import Ground
from axis_security.rls.audit.rule import Hit, rule

__all__ = ["exists_per_row", "grant_without_policy", "policy_recursion", "soft_delete_in_select", "write_without_read"]

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_WRITES: Final = ("INSERT", "UPDATE", "DELETE")


@rule(
    "rls.grant_without_policy",
    _WARNING,
    what="the application may run a command that no policy lets reach a row",
    why="UPDATE, DELETE and SELECT … FOR UPDATE report 0 rows and no error, so the write is lost in silence",
    modes=(12, 17),
)
def grant_without_policy(ground: Ground) -> Iterator[Hit]:
    """A grant without its policy. FOR UPDATE needs the UPDATE policy as well."""
    for table in ground.guarded:
        mine = [p for p in table.policies if p.permissive and ground.reaches_app(p)]
        if not table.enabled or not mine:
            continue
        for command in _WRITES:
            if ground.app_holds(table.grants, command) and not any(p.covers(command) for p in mine):
                yield Hit(
                    object=table.label, fix=f"REVOKE {command} ON {table.sql} FROM {ground.app_names()};", evidence={"command": command}
                )


@rule(
    "rls.write_without_read",
    _WARNING,
    what="the application may write rows that it may not read",
    why="INSERT … RETURNING, ON CONFLICT and UPDATE … WHERE need a policy for SELECT too, and fail with 42501; ORMs always return",
    modes=(16, 18),
)
def write_without_read(ground: Ground) -> Iterator[Hit]:
    """Policies for writes, SELECT granted, and no policy for SELECT."""
    for table in ground.guarded:
        mine = [p for p in table.policies if p.permissive and ground.reaches_app(p)]
        writes = [p for p in mine if any(p.covers(command) for command in _WRITES)]
        if table.enabled and writes and not any(p.covers("SELECT") for p in mine) and ground.app_holds(table.grants, "SELECT"):
            using = next((p.using or p.check for p in writes), "true")
            yield Hit(
                object=table.label,
                fix=f"CREATE POLICY tenant_read ON {table.sql} FOR SELECT TO {ground.app_names()} USING ({using});",
                evidence={"policies": [p.name for p in writes]},
            )


_SOFT: Final = re.compile(
    r'\(?"?(\w*(?:deleted|archived|removed|hidden)\w*)"? IS NULL|NOT \(?"?(\w*(?:deleted|archived|removed|hidden)\w*)"?', re.IGNORECASE
)


@rule(
    "rls.soft_delete_in_select",
    _WARNING,
    what="the policy for reading hides rows that are marked as deleted",
    why="marking a row makes it invisible to the command that marks it, so UPDATE … WHERE and RETURNING fail with 42501",
    modes=(16,),
)
def soft_delete_in_select(ground: Ground) -> Iterator[Hit]:
    """`deleted_at IS NULL` belongs into a view, or into the query."""
    for table in ground.held:
        for policy in ground.named_policies(table):
            found = _SOFT.search(without_literals(policy.using or "")) if policy.covers("SELECT") else None
            column = (found.group(1) or found.group(2)) if found else None
            if column in table.columns:
                yield Hit(
                    object=table.label_of(policy),
                    fix=f"-- take `{column}` out of the policy, and filter in a view WITH (security_invoker = true)",
                    evidence={"using": policy.using, "column": column},
                )


@rule(
    "rls.policy_recursion",
    _ERROR,
    what="policies read each other's tables in a circle",
    why="every query on them fails with 42P17, infinite recursion detected in policy",
    modes=(27,),
)
def policy_recursion(ground: Ground) -> Iterator[Hit]:
    """A membership policy that reads its own table, directly, through another table's policy, or through a view of the invoker."""
    edges: dict[int, dict[int, str]] = {}
    relations = ground.facts.relations
    for table in ground.held:
        for policy in table.policies:
            read = set(policy.tables)
            # The server records no dependency on the policy's own table beyond its columns.
            if re.search(
                rf'\b(?:FROM|JOIN)\s+\(*"?{re.escape(table.schema)}"?\."?{re.escape(table.name)}"?(?![\w"])', without_literals(policy.text)
            ):
                read.add(table.oid)
            for oid in list(read):
                read |= _through_views(ground, oid)
            for oid in read:
                if oid in relations and (relations[oid].enabled or oid == table.oid):
                    edges.setdefault(table.oid, {})[oid] = policy.name
    reported: set[frozenset[int]] = set()
    for start in sorted(edges):
        path = _circle(edges, start)
        if path and frozenset(path) not in reported:
            reported.add(frozenset(path))
            names = [relations[oid].label for oid in path]
            yield Hit(
                object=" -> ".join([*names, names[0]]),
                fix="-- ask the membership through a SECURITY DEFINER function whose owner has a policy of its own on the table",
                evidence={"policies": [edges[one][path[(n + 1) % len(path)]] for n, one in enumerate(path)]},
            )


def _through_views(ground: Ground, oid: int) -> set[int]:
    seen: set[int] = set()
    todo = [oid]
    while todo:
        relation = ground.facts.relations.get(todo.pop())
        if relation is not None and relation.kind == "v" and relation.invoker:
            new = set(relation.reads) - seen
            seen |= new
            todo += new
    return seen


def _circle(edges: dict[int, dict[int, str]], start: int) -> list[int]:
    """A shortest way from *start* back to it."""
    ways = [[start]]
    seen: set[int] = set()
    for way in ways:
        for oid in sorted(edges.get(way[-1], ())):
            if oid == start:
                return way
            if oid not in seen:
                seen.add(oid)
                ways.append([*way, oid])
    return []


@rule(
    "rls.exists_per_row",
    _WARNING,
    what="a sub-select of the policy runs for each row",
    why="it names the table's own columns, so the planner cannot evaluate it once and use an index",
    modes=(27,),
)
def exists_per_row(ground: Ground) -> Iterator[Hit]:
    """`EXISTS (SELECT … WHERE m.team = t.team)`; turned around it is one array and an index scan."""
    for table in ground.held:
        if ground.leans(table):
            continue  # declared so: rows belong to the row they point at, and the key's index leads there
        for policy in ground.named_policies(table):
            if correlated_exists(policy.text, table.name):
                yield Hit(
                    object=table.label_of(policy),
                    fix="-- turn it around: column = ANY (ARRAY(SELECT m.column FROM memberships m WHERE m.user_id = (SELECT …)))",
                    evidence={"using": policy.using, "check": policy.check},
                )

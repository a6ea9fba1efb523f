"""Rules about policies: what they let through, to whom, and for which commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from axis_security.core.checks import Severity
from axis_security.rls.audit.expression import column_pattern, compares, correlated_exists, is_true, without_literals
from axis_security.rls.audit.facts import PUBLIC, Policy, Relation
from axis_security.rls.audit.ground import Ground
from axis_security.rls.audit.rule import Hit, rule
from axis_security.rls.model import quote

__all__ = [
    "exists_per_row",
    "grant_without_policy",
    "null_tenant_shared",
    "only_restrictive",
    "permissive_overlap",
    "policy_always_true",
    "policy_ignores_tenant",
    "policy_reaches_through_role",
    "policy_recursion",
    "policy_to_public",
    "restrictive_wide",
    "soft_delete_in_select",
    "tenant_move",
    "write_without_read",
]

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_WRITES: Final = ("INSERT", "UPDATE", "DELETE")


def _on(table: Relation, policy: Policy) -> str:
    return f"{table.label}: policy {policy.name}"


def _drop(table: Relation, policy: Policy) -> str:
    return f"DROP POLICY {quote(policy.name)} ON {table.sql};"


def _app_policies(ground: Ground, table: Relation) -> Iterator[Policy]:
    """Policies that hold for the application by its own name or for everybody; those of groups have a rule of their own."""
    own = {role.oid for role in ground.app} | {PUBLIC}
    for policy in table.policies:
        if not policy.roles.isdisjoint(own):
            yield policy


@rule(
    "rls.policy_to_public",
    _WARNING,
    what="the policy is for everybody",
    why="it holds for every role that exists or will exist, also for those that nobody thought of",
    modes=(13, 24),
)
def policy_to_public(ground: Ground) -> Iterator[Hit]:
    """No TO clause: PUBLIC. A restrictive policy for everybody is harmless."""
    for table in ground.held:
        for policy in table.policies:
            if policy.permissive and PUBLIC in policy.roles:
                yield Hit(
                    object=_on(table, policy),
                    fix=f"ALTER POLICY {quote(policy.name)} ON {table.sql} TO {ground.app_names()};",
                    evidence={"command": policy.command},
                )


@rule(
    "rls.policy_always_true",
    _ERROR,
    what="the policy lets every row through",
    why="permissive policies are joined with OR, so this one decides alone",
    modes=(13, 31),
)
def policy_always_true(ground: Ground) -> Iterator[Hit]:
    """USING (true) or WITH CHECK (true) for the application, and no floor below it."""
    for table in ground.held:
        for policy in _app_policies(ground, table):
            for command in _commands(policy):
                wide = policy.using if command in ("SELECT", "DELETE") else policy.check or policy.using
                if (
                    policy.permissive
                    and (is_true(wide) or (command == "UPDATE" and is_true(policy.using)))
                    and not ground.floor(table, command)
                ):
                    yield Hit(
                        object=_on(table, policy),
                        fix=_drop(table, policy),
                        evidence={"command": command, "using": policy.using, "check": policy.check},
                    )
                    break


@rule(
    "rls.policy_ignores_tenant",
    _ERROR,
    what="the policy does not compare the tenant",
    why="permissive policies are joined with OR: what this one lets through, it lets through for every tenant",
    modes=(13,),
)
def policy_ignores_tenant(ground: Ground) -> Iterator[Hit]:
    """The table has the tenant column, a permissive policy for the application does not use it, and no floor does."""
    key = ground.scope.key
    for table in ground.held:
        if key is None or key not in table.columns:
            continue
        for policy in _app_policies(ground, table):
            if not policy.permissive or compares(policy.text, key) or is_true(policy.using) or is_true(policy.check):
                continue
            bare = [command for command in _commands(policy) if not ground.floor(table, command)]
            if bare:
                yield Hit(
                    object=_on(table, policy),
                    fix=_drop(table, policy),
                    evidence={"commands": bare, "using": policy.using, "check": policy.check},
                )


@rule(
    "rls.restrictive_wide",
    _ERROR,
    what="the restrictive policy restricts nothing",
    why="it reads as a floor, and lets every row through",
    modes=(13, 31),
)
def restrictive_wide(ground: Ground) -> Iterator[Hit]:
    """AS RESTRICTIVE USING (true)."""
    for table in ground.held:
        for policy in table.policies:
            if not policy.permissive and is_true(policy.using or policy.check):
                yield Hit(object=_on(table, policy), fix=_drop(table, policy), evidence={"using": policy.using, "check": policy.check})


@rule(
    "rls.only_restrictive",
    _WARNING,
    what="the table has restrictive policies only",
    why="restrictive policies take away from what permissive ones give, and none gives: nobody sees a row",
    modes=(12,),
)
def only_restrictive(ground: Ground) -> Iterator[Hit]:
    """A floor with nothing on it."""
    for table in ground.held:
        if table.enabled and table.policies and not any(p.permissive for p in table.policies):
            floor = table.policies[0]
            yield Hit(
                object=table.label,
                fix=f"CREATE POLICY tenant ON {table.sql} TO {ground.app_names()} USING ({floor.using or 'true'});",
                evidence={"policies": [p.name for p in table.policies]},
            )


@rule(
    "rls.permissive_overlap",
    _WARNING,
    what="several permissive policies hold for the same command, and no restrictive one",
    why="they are joined with OR: the widest decides, and one added later can only widen",
    modes=(13, 15),
)
def permissive_overlap(ground: Ground) -> Iterator[Hit]:
    """More than one way in; with a floor it does not matter."""
    key = ground.scope.key
    for table in ground.held:
        found = [p for p in _app_policies(ground, table) if p.permissive]
        # Where one of them is wrong by itself, that is the finding.
        if any(
            is_true(p.using) or is_true(p.check) or (key in table.columns and key is not None and not compares(p.text, key)) for p in found
        ):
            continue
        for command in ("SELECT", *_WRITES):
            several = [p for p in found if p.covers(command)]
            if len(several) > 1 and not ground.floor(table, command):
                same = next((p for p in several if p.using), several[0])
                yield Hit(
                    object=table.label,
                    fix=f"CREATE POLICY floor ON {table.sql} AS RESTRICTIVE TO {ground.app_names()} USING ({same.using or same.check});",
                    evidence={"command": command, "policies": [p.name for p in several]},
                )
                break


@rule(
    "rls.tenant_move",
    _ERROR,
    what="an UPDATE may hand a row to another tenant",
    why="USING compares the tenant and WITH CHECK does not, so the row after the change may be anybody's",
    modes=(15,),
)
def tenant_move(ground: Ground) -> Iterator[Hit]:
    """WITH CHECK (true), or on other columns, beside a USING that compares the tenant."""
    key = ground.scope.key
    for table in ground.held:
        if (
            key is None
            or key not in table.columns
            or [p for p in ground.floor(table, "UPDATE") if p.check is None or compares(p.check, key)]
        ):
            continue
        for policy in _app_policies(ground, table):
            checked = policy.check is not None and not compares(policy.check, key) and not is_true(policy.check)
            if policy.permissive and policy.covers("UPDATE") and compares(policy.using, key) and checked:
                yield Hit(
                    object=_on(table, policy),
                    fix=f"ALTER POLICY {quote(policy.name)} ON {table.sql} WITH CHECK ({policy.using});",
                    evidence={"using": policy.using, "check": policy.check},
                )


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
        for policy in _app_policies(ground, table):
            found = _SOFT.search(without_literals(policy.using or "")) if policy.covers("SELECT") else None
            column = (found.group(1) or found.group(2)) if found else None
            if column in table.columns:
                yield Hit(
                    object=_on(table, policy),
                    fix=f"-- take `{column}` out of the policy, and filter in a view WITH (security_invoker = true)",
                    evidence={"using": policy.using, "column": column},
                )


@rule(
    "rls.null_tenant_shared",
    _WARNING,
    what="the policy shows rows of no tenant to every tenant",
    why="a row that lost its tenant, by a bug or an import, is shown to all",
    modes=(6, 13),
)
def null_tenant_shared(ground: Ground) -> Iterator[Hit]:
    """`tenant_id IS NULL OR …`."""
    key = ground.scope.key
    if key is None:
        return
    column = column_pattern(key)
    shared = re.compile(rf"{column} IS NULL\)?\s+OR\b|\bOR\s+\(*{column} IS NULL", re.IGNORECASE)
    for table in ground.held:
        for policy in _app_policies(ground, table):
            if policy.permissive and shared.search(without_literals(policy.text)):
                yield Hit(
                    object=_on(table, policy),
                    fix="-- keep shared rows in a table of their own, or mark them with a column that says so",
                    evidence={"using": policy.using, "check": policy.check},
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
        for policy in _app_policies(ground, table):
            if correlated_exists(policy.text, table.name):
                yield Hit(
                    object=_on(table, policy),
                    fix="-- turn it around: column = ANY (ARRAY(SELECT m.column FROM memberships m WHERE m.user_id = (SELECT …)))",
                    evidence={"using": policy.using, "check": policy.check},
                )


@rule(
    "rls.policy_reaches_through_role",
    _ERROR,
    what="the application inherits a policy that was made for another role",
    why="a permissive policy holds for every role that inherits the one it names, and widens what its own policies allow",
    modes=(24,),
)
def policy_reaches_through_role(ground: Ground) -> Iterator[Hit]:
    """TO a group, and the login inherits the group; the policy does not compare the tenant."""
    direct = {role.oid for role in ground.app} | {PUBLIC}
    key = ground.scope.key
    for table in ground.held:
        for policy in table.policies:
            groups = policy.roles & ground.app_inherits
            wide = key is not None and key in table.columns and (is_true(policy.using) or not compares(policy.using or policy.check, key))
            if policy.permissive and groups and not policy.roles & direct and wide:
                group = min(groups)
                yield Hit(
                    object=_on(table, policy),
                    fix="\n".join(
                        f"REVOKE {quote(ground.role_name(group))} FROM {quote(role.name)};"
                        for role in ground.app
                        if group in ground.inherits(role.oid)
                    ),
                    evidence={"through": ground.role_name(group), "using": policy.using},
                )


def _commands(policy: Policy) -> tuple[str, ...]:
    return ("SELECT", *_WRITES) if policy.command == "ALL" else (policy.command,)

"""Rules about policies: what they let through, and to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from axis_security.core.checks import Severity
from axis_security.rls.audit.expression import column_pattern, compares, is_true, without_literals
from axis_security.rls.audit.facts import PUBLIC, Policy, Relation
from axis_security.rls.audit.ground import Ground
from axis_security.rls.audit.rule import Hit, rule
from axis_security.rls.model import quote

__all__ = [
    "null_tenant_shared",
    "only_restrictive",
    "permissive_overlap",
    "policy_always_true",
    "policy_ignores_tenant",
    "policy_reaches_through_role",
    "policy_to_public",
    "restrictive_wide",
    "tenant_move",
]

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_WRITES: Final = ("INSERT", "UPDATE", "DELETE")


def _drop(table: Relation, policy: Policy) -> str:
    return f"DROP POLICY {quote(policy.name)} ON {table.sql};"


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
                    object=table.label_of(policy),
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
        for policy in ground.named_policies(table):
            for command in _commands(policy):
                wide = policy.using if command in ("SELECT", "DELETE") else policy.check or policy.using
                if (
                    policy.permissive
                    and (is_true(wide) or (command == "UPDATE" and is_true(policy.using)))
                    and not ground.floor(table, command)
                ):
                    yield Hit(
                        object=table.label_of(policy),
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
        for policy in ground.named_policies(table):
            if not policy.permissive or compares(policy.text, key) or is_true(policy.using) or is_true(policy.check):
                continue
            bare = [command for command in _commands(policy) if not ground.floor(table, command)]
            if bare:
                yield Hit(
                    object=table.label_of(policy),
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
                yield Hit(object=table.label_of(policy), fix=_drop(table, policy), evidence={"using": policy.using, "check": policy.check})


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
        found = [p for p in ground.named_policies(table) if p.permissive]
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
        for policy in ground.named_policies(table):
            checked = policy.check is not None and not compares(policy.check, key) and not is_true(policy.check)
            if policy.permissive and policy.covers("UPDATE") and compares(policy.using, key) and checked:
                yield Hit(
                    object=table.label_of(policy),
                    fix=f"ALTER POLICY {quote(policy.name)} ON {table.sql} WITH CHECK ({policy.using});",
                    evidence={"using": policy.using, "check": policy.check},
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
        for policy in ground.named_policies(table):
            if policy.permissive and shared.search(without_literals(policy.text)):
                yield Hit(
                    object=table.label_of(policy),
                    fix="-- keep shared rows in a table of their own, or mark them with a column that says so",
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
                    object=table.label_of(policy),
                    fix="\n".join(
                        f"REVOKE {quote(ground.role_name(group))} FROM {quote(role.name)};"
                        for role in ground.app
                        if group in ground.inherits(role.oid)
                    ),
                    evidence={"through": ground.role_name(group), "using": policy.using},
                )


def _commands(policy: Policy) -> tuple[str, ...]:
    return ("SELECT", *_WRITES) if policy.command == "ALL" else (policy.command,)

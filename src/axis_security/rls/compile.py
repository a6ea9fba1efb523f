"""Declared model and live catalog in, ordered statements out. Pure: no driver, no clock; equal inputs give equal bytes.

The order is that of need: roles, schema ``axis``, keys, capabilities; then each table is closed to everybody, gets its policies, and only
then its grants; keys between tables come last. All of it runs in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from axis_security.core.checks import Finding, Severity
from axis_security.core.schema import SchemaPart
from axis_security.rls.catalog import LivePolicy, LiveTable, Snapshot
from axis_security.rls.keys import compile_keys
from axis_security.rls.model import Model, ProtectedTable, quote
from axis_security.rls.predicate import SELF, PolicyModel, policies_of, tenant_default, text_literal
from axis_security.rls.rights import grant_steps, owner_steps, revoke_steps, role_steps, schema_steps, stray_steps, temporary_steps
from axis_security.rls.sealed import SealKeyring
from axis_security.rls.step import Step

__all__ = ["Deparsed", "compile_steps", "held_tables", "part_step", "shadow_of", "statement_list"]

Shadow = tuple[tuple[PolicyModel, ...], tuple[tuple[str, str], ...], str]
"""What decides the server's wording of a table's policies: the policies, the types of the columns in them, and the table's name where they speak of it."""
Deparsed = Mapping[Shadow, tuple[Mapping[str, LivePolicy], str]]
"""The server's wording of the policies and of the tenant column's default."""


def compile_steps(
    model: Model, live: Snapshot, *, deparsed: Deparsed, stale_parts: Sequence[SchemaPart], keyring: SealKeyring | None
) -> tuple[tuple[Step, ...], tuple[Finding, ...]]:
    """The steps that lead from *live* to *model*, and what no step can mend."""
    findings: list[Finding] = []
    protected = model.protected()
    steps: list[Step] = [*role_steps(model, live), *temporary_steps(model, live)]
    steps += [part_step(part, model, recorded=part.name in live.parts) for part in stale_parts]
    steps += _seal_keys(live, keyring)
    steps += _capabilities(model, live)
    steps += schema_steps(model, live)
    for declared in model.tables:
        table = live.tables[declared.table.name]
        if held := protected.get(table.name):
            steps += _protect(model, held, table, deparsed)
            for child in live.descendants(table.name):
                if child not in protected:
                    steps += _close_child(model, held, live.tables[child], deparsed)
        steps += grant_steps(model, declared, table, live)
    steps += stray_steps(model, live)
    steps += compile_keys(model, live, findings)
    findings += _views(model, live)
    return tuple(steps), tuple(findings)


def statement_list(statements: Sequence[str]) -> str:
    """Several statements as one text."""
    return ";\n".join(statements)


def part_step(part: SchemaPart, model: Model, *, recorded: bool) -> Step:
    """Create or renew one part of schema axis and record its digest."""
    record = (
        f"INSERT INTO axis.part AS p (name, digest) VALUES ({text_literal(part.name)}, {text_literal(part.digest(model.roles))}) "
        "ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, applied_at = pg_catalog.now()"
    )
    why = f"the part `{part.name}` of schema axis " + ("differs from what this release declares" if recorded else "does not exist")
    reverse = None if recorded else statement_list(part.drop(model.roles))
    return Step(sql=statement_list([*part.statements(model.roles), record]), reverse=reverse, why=why, flagged=recorded)


def _seal_keys(live: Snapshot, keyring: SealKeyring | None) -> Iterator[Step]:
    if keyring is None:
        return
    wanted = {key.id: key for key in keyring.keys}
    for number, key in wanted.items():
        if live.seal_keys.get(number) != key.fingerprint():
            yield Step(
                sql=f"INSERT INTO axis.seal_key (id, inner_block, outer_block) VALUES ({number}, %s, %s) "
                "ON CONFLICT (id) DO UPDATE SET inner_block = excluded.inner_block, outer_block = excluded.outer_block",
                reverse=f"DELETE FROM axis.seal_key WHERE id = {number}",
                why="the database checks seals with this key",
                params=key.blocks(),
            )
    for number in sorted(live.seal_keys.keys() - wanted.keys()):
        yield Step(
            sql=f"DELETE FROM axis.seal_key WHERE id = {number}",
            reverse=None,
            why="this key is retired: the keyring does not hold it",
            flagged=True,
        )


def _capabilities(model: Model, live: Snapshot) -> Iterator[Step]:
    wanted = {
        (grant.role, grant.capability, "" if grant.when is None else f"owned by {grant.when.column}")
        for grant in model.grants or ()
        if not hasattr(grant.when, "name")
    }

    def listed(rows: set[tuple[str, str, str]]) -> str:
        return ",\n  ".join(f"({', '.join(text_literal(word) for word in row)})" for row in sorted(rows))

    def insert(rows: set[tuple[str, str, str]]) -> str:
        return f"INSERT INTO axis.role_capability (role, capability, condition) VALUES\n  {listed(rows)}\nON CONFLICT DO NOTHING"

    def delete(rows: set[tuple[str, str, str]]) -> str:
        return f"DELETE FROM axis.role_capability WHERE tenant = '' AND (role, capability, condition) IN (\n  {listed(rows)})"

    if missing := wanted - live.capabilities:
        yield Step(sql=insert(missing), reverse=delete(missing), why="the policy grants these capabilities to these roles")
    if extra := live.capabilities - wanted:
        yield Step(sql=delete(extra), reverse=insert(extra), why="the policy does not grant these", flagged=True)


def held_tables(model: Model, live: Snapshot) -> Iterator[tuple[ProtectedTable, LiveTable]]:
    """Every live table that carries policies: the protected ones and their partitions and inheritance children."""
    protected = model.protected()
    for declared in protected.values():
        yield declared, live.tables[declared.table.name]
        for child in live.descendants(declared.table.name):
            if child not in protected:
                yield declared, live.tables[child]


def shadow_of(model: Model, declared: ProtectedTable, live: LiveTable) -> Shadow:
    """What decides the server's wording of this table's policies."""
    policies = policies_of(model, declared.table, declared.shape)
    named = any(SELF in (policy.using or "") + (policy.check or "") for policy in policies)
    return policies, tuple(sorted((name, kind) for name, (kind, _, _) in live.columns.items())), live.name[1] if named else ""


def _protect(model: Model, declared: ProtectedTable, live: LiveTable, deparsed: Deparsed) -> Iterator[Step]:
    shadow = shadow_of(model, declared, live)
    worded, default = deparsed.get(shadow, ({}, ""))
    yield from owner_steps(model, live)
    if declared.shape.via is None:
        yield from _tenant_column(model, live, default)
    yield from _row_security(live)
    yield from _policies(shadow[0], live, worded)


def _tenant_column(model: Model, live: LiveTable, default: str) -> Iterator[Step]:
    table, key = quote(*live.name), quote(model.key)
    _, notnull, live_default = live.columns[model.key]
    if live_default is None or live_default != default:
        undo = "DROP DEFAULT" if live_default is None else f"SET DEFAULT {live_default}"
        yield Step(
            sql=f"ALTER TABLE {table} ALTER COLUMN {key} SET DEFAULT {tenant_default()}",
            reverse=f"ALTER TABLE {table} ALTER COLUMN {key} {undo}",
            why="rows belong to the acting tenant without anybody passing its id",
        )
    if not notnull:
        yield Step(
            sql=f"ALTER TABLE {table} ALTER COLUMN {key} SET NOT NULL",
            reverse=f"ALTER TABLE {table} ALTER COLUMN {key} DROP NOT NULL",
            why="a row of no tenant is a row that nobody is responsible for",
        )


def _policies(wanted: Sequence[PolicyModel], live: LiveTable, worded: Mapping[str, LivePolicy]) -> Iterator[Step]:
    table = quote(*live.name)
    for policy in wanted:
        found = live.policies.get(policy.name)
        if found is not None and found == worded.get(policy.name):
            continue
        drop = f"DROP POLICY {quote(policy.name)} ON {table}"
        if found is not None:
            yield Step(sql=drop, reverse=_recreate(policy.name, live, found), why="the live policy is not the declared one", flagged=True)
        yield Step(sql=policy.create(table, live.name[1]), reverse=drop, why=_WHY[policy.name])
    for name in sorted(live.policies.keys() - {policy.name for policy in wanted}):
        yield Step(
            sql=f"DROP POLICY {quote(name)} ON {table}",
            reverse=_recreate(name, live, live.policies[name]),
            why="nobody declared this policy",
            flagged=True,
        )


_WHY: Final = {
    "axis_floor": "the floor: restrictive, so that no policy added later can widen it",
    "axis_floor_insert": "the floor of adding: rows of the own tenant, whatever may be read",
    "axis_floor_update": "the floor of changing: rows of the own tenant, whatever may be read",
    "axis_floor_delete": "the floor of removing: rows of the own tenant, whatever may be read",
    "axis_select": "who may read",
    "axis_insert": "who may add",
    "axis_update": "who may change; the row after the change is held to the same",
    "axis_delete": "who may remove",
    "axis_system": "the system login sees all tenants; it needs a reason and writes an audit event",
}


def _row_security(live: LiveTable) -> Iterator[Step]:
    table = quote(*live.name)
    if not live.enabled:
        yield Step(
            sql=f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            reverse=f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
            why="policies do nothing without it",
        )
    if not live.forced:
        yield Step(
            sql=f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            reverse=f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            why="else the owner sees every tenant",
        )


def _recreate(name: str, table: LiveTable, live: LivePolicy) -> str:
    to = ", ".join(quote(role) if role else "PUBLIC" for role in live.roles)
    policy = PolicyModel(name=name, command=live.command, permissive=live.permissive, role=to, using=live.using, check=live.check)
    return policy.create(quote(*table.name), table.name[1])


def _close_child(model: Model, declared: ProtectedTable, child: LiveTable, deparsed: Deparsed) -> Iterator[Step]:
    """A partition or inheritance child: nobody may reach it directly, and if somebody is let in by hand, the same policies hold."""
    yield from owner_steps(model, child)
    yield from _row_security(child)
    shadow = shadow_of(model, declared, child)
    yield from _policies(shadow[0], child, deparsed.get(shadow, ({}, ""))[0])
    yield from revoke_steps(
        model, child, {}, f"rows are reached through {quote(*declared.table.name)}; the parent's policies do not hold for direct access"
    )


def _views(model: Model, live: Snapshot) -> Iterator[Finding]:
    protected = model.protected()
    for view, kind, table in live.views:
        if table in protected:
            matview = kind == "m"
            yield Finding(
                code="rls.view_runs_as_owner",
                severity=Severity.WARNING,
                object=".".join(view),
                what=f"a {'materialized ' if matview else ''}view reads `{'.'.join(table)}` with its owner's rights",
                why="it holds every tenant's rows" if matview else "row security is applied for the view's owner, not for whoever asks",
                fix=f"REVOKE ALL ON {quote(*view)} FROM {model.roles.app}"
                if matview
                else f"ALTER VIEW {quote(*view)} SET (security_invoker = true)",
            )

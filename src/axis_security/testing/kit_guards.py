"""The guards: what must hold of a schema whose rows belong to tenants, each a small experiment in the policy lab.

A guard raises :class:`Broken` where its promise does not hold, and does nothing otherwise. They are also what the policy mutants are
hunted with: a mutant that no guard notices is a hole in the guards.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from axis_security.core.ids import IdValue
from axis_security.rls.audit.facts import Relation
from axis_security.rls.model import quote
from axis_security.testing.kit import Actor, PolicyLab, escaped

__all__ = ["GUARDS", "Broken", "Guard", "check_isolation"]


class Broken(AssertionError):
    """A promise does not hold; says which, of which table."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One promise.

    Args:
        name: short and stable.
        promise: in one sentence.
        check: the experiment.
        needs: whether the schema makes this promise at all: some have no floor, no system role, no seal.
    """

    name: str
    promise: str
    check: Callable[[PolicyLab], None]
    needs: Callable[[PolicyLab], bool] = lambda lab: True


def check_isolation(lab: PolicyLab, guards: tuple[Guard, ...] | None = None) -> list[str]:
    """Run the guards on an opened lab; returns the names of those that the schema promises.

    Raises:
        Broken: a promise does not hold.
    """
    held = []
    for guard in guards or GUARDS:
        if guard.needs(lab):
            guard.check(lab)
            held.append(guard.name)
    return held


# Experiments

_KEYS: Final = (psycopg.errors.ForeignKeyViolation, psycopg.errors.RestrictViolation)
"""What a foreign key says; since PostgreSQL 18 RESTRICT has a code of its own."""


def _ids(lab: PolicyLab, table: Relation, tenant: IdValue) -> set[tuple[Any, ...]]:
    return {tuple(row[name] for name in lab.primary(table)) for row in lab.seeded[table.oid][tenant]}


def _seen(lab: PolicyLab, table: Relation) -> set[tuple[Any, ...]] | None:
    """The rows that the acting role sees, by primary key; ``None`` where the database refuses."""
    try:
        with lab.trial():
            return set(lab.rows(f"SELECT {', '.join(quote(name) for name in lab.primary(table))} FROM {table.sql}"))
    except psycopg.Error:
        return None


def _count(lab: PolicyLab, text: str, params: tuple[Any, ...] = ()) -> int | None:
    """How many rows a command reached; ``None`` where the database refuses."""
    try:
        with lab.trial():
            return lab.execute(text, params)
    except _KEYS:
        return 1  # it reached the row: the key stood in the way, not a policy
    except psycopg.Error:
        return None


def _where(lab: PolicyLab, table: Relation, row: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    names = lab.primary(table)
    return " AND ".join(f"{escaped(quote(name))} = %s" for name in names), tuple(row[name] for name in names)


def _fail(table: Relation, what: str) -> Broken:
    return Broken(f"{table.label}: {what}")


def _set(lab: PolicyLab, table: Relation, tenant: IdValue) -> tuple[str, tuple[Any, ...]]:
    """UPDATE that makes rows those of *tenant*, and reads none of them."""
    pin = lab.pin(table, tenant)
    return f"UPDATE {escaped(table.sql)} SET {', '.join(f'{escaped(quote(name))} = %s' for name in pin)}", tuple(pin.values())


def _touch(lab: PolicyLab, table: Relation) -> str:
    """UPDATE that changes nothing."""
    name = escaped(quote(next(iter(lab.pin(table, lab.tenants[0])))))
    return f"UPDATE {escaped(table.sql)} SET {name} = {name}"


def _first(lab: PolicyLab, tenant: IdValue) -> Actor:
    return Actor(tenant, user=lab.user, role=lab.roles[0])


def _held(lab: PolicyLab, table: Relation, tenant: IdValue, *, own: bool = True) -> None:
    """Every command, as *tenant*: reaches its own rows (where *own*), and no row of the other one."""
    other = lab.others(tenant)
    with lab.acting(_first(lab, tenant)):
        seen = _seen(lab, table) or set()
        if seen & _ids(lab, table, other):
            raise _fail(table, "another tenant's rows were read")
        if own and not _ids(lab, table, tenant) <= seen:
            raise _fail(table, "a tenant's own rows were hidden")
        _held_writes(lab, table, tenant, own=own)
    _held_blind(lab, table, tenant, own=own)


def _held_blind(lab: PolicyLab, table: Relation, tenant: IdValue, *, own: bool) -> None:
    """Commands that read nothing: no WHERE, no column. Policies for SELECT have no say in them, so those for writing stand alone."""
    total = lab.total(table, tenant)
    granted = {what for _, what in lab.ground.app_holds(table.grants, "UPDATE", "DELETE")}
    # Without keys: what counts is the rows that the policies let through, and a child elsewhere must not hide it.
    with lab.acting(_first(lab, tenant), keys=False):
        if "UPDATE" in granted:
            reached = _count(lab, *_set(lab, table, tenant))
            if reached is not None and reached > total:
                raise _fail(table, "an UPDATE without WHERE took another tenant's rows")
            if own and reached != total:
                raise _fail(table, "an UPDATE without WHERE missed a tenant's own rows")
            if _count(lab, *_set(lab, table, lab.others(tenant))):
                raise _fail(table, "an UPDATE without WHERE gave rows to another tenant")
        if "DELETE" in granted:
            reached = _count(lab, f"DELETE FROM {table.sql}")
            if reached is not None and reached > total:
                raise _fail(table, "a DELETE without WHERE reached another tenant's rows")


def _held_writes(lab: PolicyLab, table: Relation, tenant: IdValue, *, own: bool) -> None:
    other = lab.others(tenant)
    mine, theirs = lab.seeded[table.oid][tenant][0], lab.seeded[table.oid][other][0]
    granted = {what for _, what in lab.ground.app_holds(table.grants, "INSERT", "UPDATE", "DELETE")}
    if "INSERT" in granted:
        for owner, allowed in ((tenant, True), (other, False)):
            values = lab.values_for(table, owner)
            reached = _count(lab, lab.insert_text(table, values), tuple(values.values()))
            if not allowed and reached is not None:
                raise _fail(table, "a row was inserted for another tenant")
            if allowed and own and reached != 1:
                raise _fail(table, "a tenant's own insert was refused")
    for command, text in (("UPDATE", _touch(lab, table)), ("DELETE", f"DELETE FROM {escaped(table.sql)}")):
        if command in granted:
            where, params = _where(lab, table, theirs)
            if _count(lab, f"{text} WHERE {where}", params):
                raise _fail(table, f"{command} reached another tenant's row")
            where, params = _where(lab, table, mine)
            if own and _count(lab, f"{text} WHERE {where}", params) != 1:
                raise _fail(table, f"{command} did not reach a tenant's own row")
    if "UPDATE" in granted:
        where, params = _where(lab, table, mine)
        text, given = _set(lab, table, other)
        if _count(lab, f"{text} WHERE {where}", (*given, *params)):
            raise _fail(table, "an UPDATE handed a row to another tenant")


def _each(lab: PolicyLab) -> Iterator[tuple[Relation, IdValue]]:
    for table in lab.tables:
        for tenant in lab.tenants:
            yield table, tenant


def tenants_apart(lab: PolicyLab) -> None:
    """Each command reaches a tenant's own rows and nobody else's."""
    for table, tenant in _each(lab):
        _held(lab, table, tenant)


def unbound_is_nobody(lab: PolicyLab) -> None:
    """With nobody bound, no row is read, added, changed or removed."""
    for table in lab.tables:
        with lab.acting(None):
            if _seen(lab, table):
                raise _fail(table, "rows were read with nobody bound")
            if _count(lab, *_set(lab, table, lab.tenants[0])) or _count(lab, f"DELETE FROM {table.sql}"):
                raise _fail(table, "rows were changed with nobody bound")
            values = lab.values_for(table, lab.tenants[0])
            if _count(lab, lab.insert_text(table, values), tuple(values.values())):
                raise _fail(table, "a row was inserted with nobody bound")


def owner_is_bound_too(lab: PolicyLab) -> None:
    """The tables' owner sees no row without a policy of its own."""
    for table in lab.tables:
        owner = lab.ground.role_name(table.owner)
        with lab.acting(_first(lab, lab.tenants[0]), role=owner):
            if _seen(lab, table):
                raise _fail(table, f"the owner `{owner}` reads rows")


def _has_floor(lab: PolicyLab) -> bool:
    return any(not policy.permissive for table in lab.tables for policy in table.policies)


def floor_holds(lab: PolicyLab) -> None:
    """A permissive policy that somebody adds by hand does not widen anything."""
    for table, tenant in _each(lab):
        if not any(not policy.permissive for policy in table.policies):
            continue
        with lab.trial():
            lab.execute(
                f"CREATE POLICY {quote('kit_' + secrets.token_hex(4))} ON {table.sql} TO {quote(lab.app)} USING (true) WITH CHECK (true)"
            )
            _held(lab, table, tenant, own=False)


def _layered(lab: PolicyLab) -> bool:
    """Whether the permissive policies compare the tenant too, so that the floor could go."""
    from axis_security.rls.audit.expression import compares

    ways = [
        p for t in lab.tables if any(not q.permissive for q in t.policies) for p in t.policies if p.permissive and lab.ground.reaches_app(p)
    ]
    return bool(ways) and all(compares(policy.text, lab.key) for policy in ways)


def ways_in_hold_alone(lab: PolicyLab) -> None:
    """Without the floor, the permissive policies keep tenants apart by themselves."""
    for table, tenant in _each(lab):
        floors = [policy for policy in table.policies if not policy.permissive]
        if not floors:
            continue
        with lab.trial():
            for policy in floors:
                lab.execute(f"DROP POLICY IF EXISTS {quote(policy.name)} ON {table.sql}")
            _held(lab, table, tenant)


@contextmanager
def _stranger(lab: PolicyLab, *, heir: bool = False) -> Iterator[str]:
    """A role that nobody planned for, with every grant on the tables; *heir* inherits the system role's policies."""
    name = f"kit_{secrets.token_hex(6)}"
    with lab.trial():
        lab.execute(f"CREATE ROLE {name} NOLOGIN INHERIT")
        if heir:
            lab.execute(f"GRANT {quote(lab.system or '')} TO {name}")
        for schema in sorted({table.schema for table in lab.ground.guarded}):
            lab.execute(f"GRANT USAGE ON SCHEMA {quote(schema)} TO {name}")
        for table in lab.ground.guarded:
            lab.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table.sql} TO {name}")
        yield name


def strangers_have_no_policy(lab: PolicyLab) -> None:
    """A role with grants and no policy of its own reaches nothing, and no policy is even evaluated for it."""
    for table, tenant in _each(lab):
        with _stranger(lab) as name:
            with lab.acting(_first(lab, tenant), role=name):
                if _seen(lab, table) is None:
                    raise _fail(table, "a policy is evaluated for a role that nobody planned for")
            _may_ask(lab, table, name)
            with lab.acting(_first(lab, tenant), role=name, keys=False):
                values = lab.values_for(table, tenant)
                if (
                    _seen(lab, table)
                    or _count(lab, *_set(lab, table, tenant))
                    or _count(lab, f"DELETE FROM {table.sql}")
                    or _count(lab, lab.insert_text(table, values), tuple(values.values()))
                ):
                    raise _fail(table, "a role that nobody planned for reaches rows")


def _may_ask(lab: PolicyLab, table: Relation, name: str) -> None:
    """Let the stranger call what the policies call, so that a policy made for everybody lets it in."""
    called = [lab.facts.functions[oid] for policy in table.policies for oid in policy.functions if oid in lab.facts.functions]
    for function in called:
        lab.execute(f"GRANT USAGE ON SCHEMA {quote(function.schema)} TO {name}")
    for schema in sorted({function.schema for function in called}):
        lab.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {quote(schema)} TO {name}")
    # A policy that asks another table is asked there under that table's policies, which must not answer for it.
    for other in lab.ground.guarded:
        if other.oid != table.oid:
            lab.execute(f"CREATE POLICY {quote(name)} ON {other.sql} TO {name} USING (true)")


def system_sees_all(lab: PolicyLab) -> None:
    """The system role reaches every tenant's rows, bound to nobody."""
    for table in lab.tables:
        wanted = set().union(*(_ids(lab, table, tenant) for tenant in lab.tenants))
        with lab.acting(None, role=lab.system):
            if not wanted <= (_seen(lab, table) or set()):
                raise _fail(table, "the system role does not see every tenant")
            for tenant in lab.tenants:
                where, params = _where(lab, table, lab.seeded[table.oid][tenant][0])
                if _count(lab, f"{_touch(lab, table)} WHERE {where}", params) != 1:
                    raise _fail(table, "the system role cannot change a tenant's row")
                values = lab.values_for(table, tenant)
                if _count(lab, lab.insert_text(table, values), tuple(values.values())) != 1:
                    raise _fail(table, "the system role cannot add a tenant's row")
                if _count(lab, f"DELETE FROM {escaped(table.sql)} WHERE {where}", params) != 1:
                    raise _fail(table, "the system role cannot remove a tenant's row")


def heirs_are_not_the_system(lab: PolicyLab) -> None:
    """A role that merely inherits the system role's policies sees nothing through them."""
    for table in lab.tables:
        with _stranger(lab, heir=True) as name, lab.acting(None, role=name):
            values = lab.values_for(table, lab.tenants[0])
            if _seen(lab, table) or _count(lab, lab.insert_text(table, values), tuple(values.values())):
                raise _fail(table, "a role that inherits from the system role reaches every tenant")


def _heirs_are_kept_out(lab: PolicyLab) -> bool:
    # Only a policy that asks who runs the statement can promise it.
    return lab.system is not None and any("is_system" in p.text or "CURRENT_USER" in p.text.upper() for t in lab.tables for p in t.policies)


def users_are_apart(lab: PolicyLab) -> None:
    """Where rows are held to a user's own, a colleague of the same tenant reaches none of them."""
    for table in lab.tables:
        if table.label not in lab.owned:
            continue
        tenant = lab.tenants[0]
        mine = _ids(lab, table, tenant)
        with lab.acting(Actor(tenant, user=lab.colleague, role=lab.roles[0]), keys=False):
            if (_seen(lab, table) or set()) & mine:
                raise _fail(table, "a colleague reads a user's own rows")
            if _count(lab, *_set(lab, table, tenant)) or _count(lab, f"DELETE FROM {table.sql}"):
                raise _fail(table, "a colleague changes a user's own rows")


def forged_is_refused(lab: PolicyLab) -> None:
    """A context that is not genuine shows nothing and changes nothing."""
    for table, tenant in _each(lab):
        with lab.acting(_first(lab, tenant), bind=lab.forge):
            if _seen(lab, table) or _count(lab, f"DELETE FROM {table.sql}"):
                raise _fail(table, "a forged context was believed")


_UNKNOWN: Final = "kit_unknown"
"""A role that no policy grants anything."""


def roles_do_what_they_may(lab: PolicyLab) -> None:
    """Each role of the host runs exactly the commands on its tenant's rows that it holds the capability for."""
    tenant = lab.tenants[0]
    for table in lab.tables:
        row = lab.seeded[table.oid][tenant][0]
        where, params = _where(lab, table, row)
        granted = {what for _, what in lab.ground.app_holds(table.grants, "SELECT", "INSERT", "UPDATE", "DELETE")}
        for role in (*lab.roles, _UNKNOWN):
            with lab.acting(Actor(tenant, user=lab.user, role=role)):
                values = lab.values_for(table, tenant)
                reads = lab.may(role, table.label, "SELECT")
                did = {
                    "SELECT": bool(_seen(lab, table)),
                    "INSERT": bool(_count(lab, lab.insert_text(table, values), tuple(values.values()))),
                    "UPDATE": bool(_count(lab, f"{_touch(lab, table)} WHERE {where}", params)),
                    "DELETE": bool(_count(lab, f"DELETE FROM {escaped(table.sql)} WHERE {where}", params)),
                }
            for command, done in did.items():
                # A WHERE reads: a row that may not be read is not found.
                allowed = lab.may(role, table.label, command) and (reads or command == "INSERT")
                if command in granted and done != allowed:
                    raise _fail(table, f"`{role}` {'ran' if done else 'could not run'} {command}")


GUARDS: Final = (
    Guard("tenants apart", "each command reaches a tenant's own rows and nobody else's", tenants_apart),
    Guard("unbound is nobody", "with nobody bound, no row is reached", unbound_is_nobody),
    Guard("owner is bound too", "the tables' owner sees no row", owner_is_bound_too),
    Guard("floor holds", "a permissive policy added by hand widens nothing", floor_holds, _has_floor),
    Guard("ways in hold alone", "the permissive policies keep tenants apart without the floor", ways_in_hold_alone, _layered),
    Guard("strangers have no policy", "a role that nobody planned for sees nothing", strangers_have_no_policy),
    Guard("system sees all", "the system role reaches every tenant", system_sees_all, lambda lab: lab.system is not None),
    Guard("heirs are not the system", "inheriting from the system role is not being it", heirs_are_not_the_system, _heirs_are_kept_out),
    Guard("users are apart", "rows held to a user's own are reached by nobody else", users_are_apart, lambda lab: bool(lab.owned)),
    Guard("forged is refused", "a context that is not genuine shows nothing", forged_is_refused, lambda lab: lab.forge is not None),
    Guard("roles do what they may", "each role runs exactly what it holds the capability for", roles_do_what_they_may),
)
"""Every guard, in the order in which they are asked."""

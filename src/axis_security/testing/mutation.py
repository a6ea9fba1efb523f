"""Policy mutation score: break one policy at a time, and see whether anybody notices.

A suite that passes while a policy is gone tests nothing: it ran as a superuser, on empty tables, or looked at its own rows only. Each
mutant below is a mistake that happens: a policy dropped, a predicate that became ``true``, FORCE forgotten, a policy for everybody, a
cast that folds two tenants into one, a guard function replaced. What survives is a hole in the tests, or a policy that does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from axis_security.rls.audit.expression import column_pattern, compares
from axis_security.rls.audit.facts import PUBLIC, Function, Policy, Relation
from axis_security.rls.audit.ground import Ground
from axis_security.rls.model import quote
from axis_security.testing.kit import KitError, PolicyLab
from axis_security.testing.kit_guards import GUARDS, Guard, check_isolation

__all__ = ["Mutant", "MutationReport", "Verdict", "assert_not_vacuous", "mutants_of", "mutated", "mutation_score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One mistake.

    Args:
        kind: what sort of mistake.
        name: what it does to what.
        apply, undo: statements.
        table: the object id of the one table that it is about; ``None`` for a function.
    """

    kind: str
    name: str
    apply: tuple[str, ...]
    undo: tuple[str, ...]
    table: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant; *by* is the guard that noticed, ``None`` if it survived."""

    mutant: Mutant
    by: str | None
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationReport:
    """The score.

    Args:
        verdicts: one for each mutant.
        guards: what was promised and asked.
    """

    verdicts: tuple[Verdict, ...]
    guards: tuple[str, ...] = field(default=())

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        """The mutants that nobody noticed."""
        return tuple(verdict.mutant for verdict in self.verdicts if verdict.by is None)

    @property
    def score(self) -> float:
        """The share of mutants that were noticed, from 0 to 1; 0 where there were none."""
        return 1 - len(self.survivors) / len(self.verdicts) if self.verdicts else 0.0

    def __str__(self) -> str:
        lines = [f"{len(self.verdicts) - len(self.survivors)} of {len(self.verdicts)} mutants noticed ({self.score:.1%})"]
        lines += [f"  survived: {mutant.name} [{mutant.kind}]" for mutant in self.survivors]
        return "\n".join(lines)


def mutants_of(lab: PolicyLab) -> list[Mutant]:
    """Every mutant of the guarded tables of an opened lab, and of the functions that their policies call."""
    made: list[Mutant] = []
    for table in lab.tables:
        made += _table_mutants(table)
        for policy in table.policies:
            made += _policy_mutants(lab, table, policy)
    made += _function_mutants(lab)
    return made


def _table_mutants(table: Relation) -> Iterator[Mutant]:
    for kind, word, present in (("force off", "FORCE", table.forced), ("row security off", "ENABLE", table.enabled)):
        off = {"FORCE": "NO FORCE", "ENABLE": "DISABLE"}[word]
        if present:
            yield Mutant(
                kind=kind,
                name=f"{off} on {table.label}",
                apply=(f"ALTER TABLE {table.sql} {off} ROW LEVEL SECURITY",),
                undo=(f"ALTER TABLE {table.sql} {word} ROW LEVEL SECURITY",),
                table=table.oid,
            )


def _policy_mutants(lab: PolicyLab, table: Relation, policy: Policy) -> Iterator[Mutant]:
    drop = f"DROP POLICY IF EXISTS {quote(policy.name)} ON {table.sql}"
    whole = _create(lab.ground, table, policy)
    named = f"{policy.name} on {table.label}"

    def changed(kind: str, name: str, **new: Any) -> Mutant:
        return Mutant(kind=kind, name=name, apply=(drop, _create(lab.ground, table, policy, **new)), undo=(drop, whole), table=table.oid)

    yield Mutant(kind="drop", name=f"drop {named}", apply=(drop,), undo=(whole,), table=table.oid)
    if policy.using is not None and not _trivial(policy.using, lab.key):
        yield changed(
            "true",
            f"USING (true) in {named}",
            using="true",
            check=policy.check or (policy.using if policy.command in ("ALL", "UPDATE") else None),
        )
    if (policy.check is not None or policy.command in ("ALL", "UPDATE")) and not _trivial(policy.check or policy.using or "", lab.key):
        yield changed("true", f"WITH CHECK (true) in {named}", check="true")
    if PUBLIC not in policy.roles:
        yield changed("to widened", f"{named} for everybody", to="PUBLIC")
    if not policy.permissive:
        yield changed("permissive", f"{named} made permissive", permissive=True)
    using, check = _folded(policy.using, lab.key), _folded(policy.check, lab.key)
    if (using, check) != (policy.using, policy.check):
        yield changed("cast changed", f"{named} compares the tenant's id cut short", using=using, check=check)
    if "axis.tenant_for" in policy.text and lab.key in table.columns:
        plain = f"{quote(lab.key)} = (SELECT axis.tenant_id())"
        yield changed("capability dropped", f"{named} without its capability", using=policy.using and plain, check=policy.check and plain)


def _trivial(text: str, key: str) -> bool:
    """Whether the predicate is true for every row as it is, so that ``true`` is the same."""
    return re.fullmatch(rf"\(*(?:true|{column_pattern(key)} IS NOT NULL)\)*", text) is not None


def _create(
    ground: Ground, table: Relation, policy: Policy, *, to: str | None = None, permissive: bool | None = None, **new: str | None
) -> str:
    roles = to or ", ".join("PUBLIC" if role == PUBLIC else quote(ground.role_name(role)) for role in sorted(policy.roles))
    kind = "PERMISSIVE" if (policy.permissive if permissive is None else permissive) else "RESTRICTIVE"
    using, check = new.get("using", policy.using), new.get("check", policy.check)
    clauses = "".join(f" {word} ({text})" for word, text in (("USING", using), ("WITH CHECK", check)) if text is not None)
    return f"CREATE POLICY {quote(policy.name)} ON {table.sql} AS {kind} FOR {policy.command} TO {roles}{clauses}"


def _folded(text: str | None, key: str) -> str | None:
    """The predicate with the tenant's id compared as its first characters in one case: what a cast to something shorter does."""
    if text is None or not compares(text, key):
        return text
    column = column_pattern(key)
    found = re.search(rf"(?<!\.)(?:\({column}\)|{column})(?:::\w+)? = ", text)
    if found is None:
        return text
    end = _operand_end(text, found.end())

    def fold(side: str) -> str:
        # Ids of every type end in what tells them apart; an integer is cut to its low 16 bits.
        return f"(CASE WHEN ({side})::text ~ '^[0-9]+$' THEN ((({side})::text)::numeric % 65536)::text ELSE lower(left(({side})::text, 30)) END)"

    left, right = text[found.start() : found.end() - 3], text[found.end() : end]
    return f"{text[: found.start()]}{fold(left)} = {fold(right)}{text[end:]}"


def _operand_end(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth < 0 or (depth == 0 and re.match(r" (?:AND|OR)\b", text[place:])):
            return place
    return len(text)


_FUNCTION: Final = "SELECT pg_catalog.pg_get_functiondef(%s::oid), pg_catalog.pg_get_function_arguments(%s::oid), pg_catalog.format_type(p.prorettype, NULL) FROM pg_catalog.pg_proc p WHERE p.oid = %s"


def _function_mutants(lab: PolicyLab) -> Iterator[Mutant]:
    used = {oid for table in lab.tables for policy in table.policies for oid in policy.functions}
    functions = {oid: function for oid in used if (function := lab.facts.functions.get(oid)) is not None}
    # Behind the getters stands what verifies; it has a mutant of its own where we know what it verifies.
    context = next((f for f in lab.facts.functions.values() if (f.schema, f.name, f.signature) == ("axis", "context", "")), None)
    for function in sorted(functions.values(), key=lambda f: f.label):
        whole, arguments, kind = lab.rows(_FUNCTION, (function.oid,) * 3)[0]
        tenant = next(iter(lab.tenants))
        same = {
            next(table.columns[lab.key].type for table in lab.tables if lab.key in table.columns): f"'{tenant}'",
            "boolean": "true",
            "text": "'kit'",
        }.get(kind)
        if same is None:
            continue
        yield Mutant(
            kind="function replaced",
            name=f"{function.label} always answers {'one tenant' if str(tenant) in same else same}",
            apply=(_replaced(function, arguments, kind, f"SELECT {same}::{kind}"),),
            undo=(whole,),
        )
    if context is not None and functions:
        whole, arguments, kind = lab.rows(_FUNCTION, (context.oid,) * 3)[0]
        body = "SELECT pg_catalog.left(pg_catalog.current_setting('axis.context', true), -64)"
        yield Mutant(
            kind="function replaced",
            name="axis.context() believes without checking the seal",
            apply=(_replaced(context, arguments, kind, body),),
            undo=(whole,),
        )


def _replaced(function: Function, arguments: str, kind: str, body: str) -> str:
    name = quote(function.schema, function.name)
    return f"CREATE OR REPLACE FUNCTION {name}({arguments}) RETURNS {kind} LANGUAGE sql STABLE PARALLEL SAFE AS $kit$ {body} $kit$"


def mutation_score(lab: PolicyLab, *, guards: Sequence[Guard] | None = None, mutants: Sequence[Mutant] | None = None) -> MutationReport:
    """Hunt every mutant with the guards, inside the lab's transaction; nothing stays.

    Args:
        lab: an opened lab.
        guards: what to ask; every guard unless told.
        mutants: what to hunt; every mutant unless told.

    Raises:
        Broken: a guard fails before anything was changed: the schema does not hold its promise.
        KitError: a mutant cannot be applied.
    """
    asked = tuple(guards if guards is not None else GUARDS)
    promised = check_isolation(lab, asked) if asked else []
    mine = tuple(guard for guard in asked if guard.name in promised)
    verdicts = []
    for mutant in mutants if mutants is not None else mutants_of(lab):
        with lab.trial():
            _apply(lab, mutant)
            with lab.focused(mutant.table):
                verdicts.append(_hunt(lab, mutant, mine))
    return MutationReport(verdicts=tuple(verdicts), guards=tuple(promised))


def _apply(lab: PolicyLab, mutant: Mutant) -> None:
    for text in mutant.apply:
        try:
            lab.execute(text)
        except psycopg.Error as error:
            raise KitError(f"{mutant.name}: {error.diag.message_primary}") from None


def _hunt(lab: PolicyLab, mutant: Mutant, guards: Sequence[Guard]) -> Verdict:
    for guard in guards:
        try:
            guard.check(lab)
        except AssertionError as noticed:
            return Verdict(mutant, guard.name, str(noticed))
    return Verdict(mutant, None)


@contextmanager
def mutated(connection: psycopg.Connection[Any], mutant: Mutant) -> Iterator[None]:
    """Apply *mutant* for good, for tests that use connections of their own, and undo it at the end. For a throw-away database only."""
    with connection.transaction():
        for text in mutant.apply:
            connection.execute(text.encode())
    try:
        yield
    finally:
        with connection.transaction():
            for text in mutant.undo:
                connection.execute(text.encode())


def assert_not_vacuous(
    lab: PolicyLab, suite: Callable[[], object] | None = None, *, guards: Sequence[Guard] | None = None, kinds: Sequence[str] = ()
) -> MutationReport:
    """Fail unless every mutant is noticed: by the guards, or by *suite*, a callable that runs the host's own tests and raises where one fails.

    With *suite*, mutants are committed one after another, so *lab* must be of a throw-away database and must not be open.

    Raises:
        AssertionError: mutants survived (all are named), or the suite fails on the unchanged schema.
    """
    if suite is None:
        with lab.opened():
            chosen = [mutant for mutant in mutants_of(lab) if not kinds or mutant.kind in kinds]
            report = mutation_score(lab, guards=guards, mutants=chosen)
    else:
        with lab.opened():
            chosen = [mutant for mutant in mutants_of(lab) if not kinds or mutant.kind in kinds]
        suite()
        report = MutationReport(verdicts=tuple(_suite_verdict(lab, mutant, suite) for mutant in chosen), guards=("the host's suite",))
    if report.survivors or not report.verdicts:
        raise AssertionError(str(report))
    return report


def _suite_verdict(lab: PolicyLab, mutant: Mutant, suite: Callable[[], object]) -> Verdict:
    with mutated(lab.connection, mutant):
        try:
            suite()
        except Exception as noticed:  # noqa: BLE001  # whatever the host's tests raise, they noticed
            return Verdict(mutant, "the host's suite", type(noticed).__name__)
    return Verdict(mutant, None)

"""What the rules stand on: the facts, what is known or assumed about them, and who may reach what."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from axis_security.core.schema import SCHEMA
from axis_security.rls.audit.expression import asks_not_null, compares, is_true
from axis_security.rls.audit.facts import PUBLIC, Facts, Function, Policy, Relation, Role
from axis_security.rls.model import Model, Name, Open, Protected, quote

__all__ = ["TENANT_COLUMNS", "Ground", "Scope", "infer_scope"]

TENANT_COLUMNS: Final = (
    "tenant_id", "org_id", "organization_id", "organisation_id", "workspace_id", "account_id", "company_id", "customer_id", "team_id", "tenant",
)  # fmt: skip
"""Names taken for the tenant column where nobody declared one, the likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is declared, or was assumed.

    Args:
        key: the tenant column's name; ``None`` where nobody knows.
        app: roles that serve tenants.
        system: roles that are meant to see every tenant.
        schemas: the schemas looked at; empty for all but the system's.
        model: the host's declaration, where there is one.
        assumed: in plain words, what was inferred.
    """

    key: str | None
    app: frozenset[str]
    system: frozenset[str] = frozenset()
    schemas: frozenset[str] = frozenset()
    model: Model | None = None
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ground:
    """The facts with their scope, and the questions that many rules ask."""

    facts: Facts
    scope: Scope

    # Roles

    @cached_property
    def app(self) -> list[Role]:
        """The roles that serve tenants."""
        return sorted((role for role in self.facts.roles.values() if role.name in self.scope.app), key=lambda role: role.name)

    @cached_property
    def system(self) -> frozenset[int]:
        """The roles that are meant to see every tenant."""
        return frozenset(role.oid for role in self.facts.roles.values() if role.name in self.scope.system)

    @cached_property
    def _groups(self) -> dict[int, list[tuple[int, bool]]]:
        groups: dict[int, list[tuple[int, bool]]] = defaultdict(list)
        for membership in self.facts.memberships:
            groups[membership.member].append((membership.group, membership.inherit))
        return groups

    def inherits(self, role: int) -> frozenset[int]:
        """*role* and all whose rights (and policies) it has without asking."""
        return self._closure(role, inherit_only=True)

    def becomes(self, role: int) -> frozenset[int]:
        """*role* and all it may act as, by inheriting or by SET ROLE."""
        return self._closure(role, inherit_only=False)

    def _closure(self, role: int, *, inherit_only: bool) -> frozenset[int]:
        seen, todo = {role}, [role]
        while todo:
            for group, inherit in self._groups.get(todo.pop(), ()):
                if group not in seen and (inherit or not inherit_only):
                    seen.add(group)
                    todo.append(group)
        return frozenset(seen)

    @cached_property
    def app_reach(self) -> frozenset[int]:
        """Every role that the application may act as, and PUBLIC."""
        return frozenset({PUBLIC}.union(*(self.becomes(role.oid) for role in self.app)))

    @cached_property
    def app_inherits(self) -> frozenset[int]:
        """The roles whose policies hold for the application as it logs in, and PUBLIC."""
        return frozenset({PUBLIC}.union(*(self.inherits(role.oid) for role in self.app)))

    def bypasses(self, role: int) -> bool:
        """Whether row security does not hold for it at all."""
        found = self.facts.roles.get(role)
        return found is not None and (found.superuser or found.bypassrls)

    def role_name(self, role: int) -> str:
        """Its name; ``PUBLIC`` for everybody."""
        return "PUBLIC" if role == PUBLIC else self.facts.roles[role].name if role in self.facts.roles else f"({role})"

    def app_names(self) -> str:
        """The application's roles, as SQL names them."""
        return ", ".join(quote(role.name) for role in self.app) or "…"

    def app_holds(self, grants: Iterable[tuple[int, str]], *privileges: str) -> list[tuple[int, str]]:
        """The grants of *privileges* that the application holds."""
        return sorted((who, what) for who, what in grants if who in self.app_reach and what in privileges)

    def reachable(self, relation: Relation) -> bool:
        """Whether the application may read or change it, or some column of it."""
        return bool(self.app_holds(relation.grants, "SELECT", "INSERT", "UPDATE", "DELETE")) or relation.owner in self.app_reach

    # Tables

    @cached_property
    def relations(self) -> list[Relation]:
        """Everything in scope, by name."""
        schemas = self.scope.schemas
        return sorted((r for r in self.facts.relations.values() if not schemas or r.schema in schemas), key=lambda r: (r.schema, r.name))

    def _declared(self, relation: Relation) -> Protected | Open | None:
        return self._shapes.get((relation.schema, relation.name))

    @cached_property
    def _shapes(self) -> dict[Name, Protected | Open]:
        model = self.scope.model
        return {} if model is None else {declared.table.name: declared.shape for declared in model.tables}

    def leans(self, relation: Relation) -> bool:
        """Whether it is declared to belong to the tenant of the row that it points at."""
        shape = self._declared(relation)
        return isinstance(shape, Protected) and shape.via is not None

    def has_key(self, relation: Relation) -> bool:
        """Whether it has the tenant column."""
        return self.scope.key is not None and self.scope.key in relation.columns

    @cached_property
    def guarded(self) -> list[Relation]:
        """Tables whose rows belong to tenants, as declared; undeclared, those with the tenant column, row security or a policy. No children."""
        return [r for r in self.relations if r.kind in "rp" and not r.parents and self._is_guarded(r)]

    def _is_guarded(self, relation: Relation) -> bool:
        shape = self._declared(relation)
        if self.scope.model is not None:
            return shape is not None and not isinstance(shape, Open)
        return self.has_key(relation) or relation.enabled or bool(relation.policies)

    @cached_property
    def guarded_ids(self) -> frozenset[int]:
        """The guarded tables and everything below them."""
        return frozenset(child for relation in self.guarded for child in [relation.oid, *(c.oid for c, _ in self.descendants(relation))])

    @cached_property
    def keyed(self) -> list[Relation]:
        """The guarded tables that have the tenant column."""
        return [relation for relation in self.guarded if self.has_key(relation)]

    def descendants(self, relation: Relation) -> Iterator[tuple[Relation, Relation]]:
        """Its partitions and inheritance children, each with its own parent."""
        for oid in relation.children:
            child = self.facts.relations[oid]
            yield child, relation
            yield from self.descendants(child)

    @cached_property
    def held(self) -> list[Relation]:
        """Every table that carries rows of tenants under policies: the guarded ones, and their children with policies of their own."""
        return [*self.guarded, *(c for r in self.guarded for c, _ in self.descendants(r) if c.policies or c.enabled)]

    # Policies

    def reaches_app(self, policy: Policy) -> bool:
        """Whether it holds for the application as it logs in."""
        return not policy.roles.isdisjoint(self.app_inherits)

    def named_policies(self, relation: Relation) -> list[Policy]:
        """Policies that hold for the application by its own name or for everybody; those of groups have a rule of their own."""
        own = {role.oid for role in self.app} | {PUBLIC}
        return [policy for policy in relation.policies if not policy.roles.isdisjoint(own)]

    def floor(self, relation: Relation, command: str) -> list[Policy]:
        """Restrictive policies that compare the tenant and hold for the application in *command*."""
        key = self.scope.key
        return [
            p
            for p in relation.policies
            if not p.permissive
            and p.covers(command)
            and self.reaches_app(p)
            and key is not None
            and not is_true(p.using)
            and compares(p.text, key)
        ]

    @cached_property
    def policy_functions(self) -> dict[int, list[tuple[Relation, Policy]]]:
        """The functions that policies call, each with where."""
        used: dict[int, list[tuple[Relation, Policy]]] = defaultdict(list)
        for relation in self.held:
            for policy in relation.policies:
                for function in policy.functions:
                    used[function].append((relation, policy))
        return dict(used)

    # Functions

    @cached_property
    def functions(self) -> list[Function]:
        """Functions of the host in scope; the library's own, in schema axis, are held to their text by the plan."""
        own = self.facts.schemas.get(SCHEMA)
        return [f for f in self.facts.functions.values() if own is None or f.schema != SCHEMA or f.owner != own.owner]

    @cached_property
    def functions_set(self) -> frozenset[Function]:
        """The same, for asking whether one is among them."""
        return frozenset(self.functions)

    @cached_property
    def definer_owners_that_see_all(self) -> dict[int, str]:
        """Owners of SECURITY DEFINER functions who see every tenant's rows of some guarded table, each with the reason."""
        found: dict[int, str] = {}
        for owner in sorted({f.owner for f in self.functions if f.definer}):
            why = next((why for table in self.held if (why := self.sees_all(owner, table))), None)
            if why is not None:
                found[owner] = why
        return found

    def sees_all(self, role: int, table: Relation) -> str | None:
        """Why *role* sees every tenant's rows of *table*, if it does."""
        name = self.role_name(role)
        if self.bypasses(role):
            return f"`{name}` bypasses row security"
        if role == table.owner and table.enabled and not table.forced:
            return f"`{name}` owns the table, and row security is not forced"
        key = self.scope.key
        if key is None or key not in table.columns:
            return None
        for policy in table.policies:
            reach = policy.roles & self.inherits(role)
            using = policy.using
            wide = is_true(using) or asks_not_null(using, key)
            if policy.permissive and policy.covers("SELECT") and reach and wide:
                return f"`{name}` has the policy `{policy.name}`, made for `{self.role_name(min(reach))}`"
        return None

    def app_executes(self, function: Function) -> bool:
        """Whether the application may call it."""
        return bool(self.app_holds(function.grants, "EXECUTE")) or function.owner in self.app_reach


def infer_scope(
    facts: Facts, *, key: str | None = None, app: Iterable[str] = (), system: Iterable[str] = (), schemas: Iterable[str] = ()
) -> Scope:
    """What can be assumed about a database that nobody declared; what is told stays as told."""
    wanted = frozenset(schemas)
    tables = [r for r in facts.relations.values() if r.kind in "rp" and (not wanted or r.schema in wanted)]
    assumed: list[str] = []
    if key is None:
        counts = Counter(name for r in tables for name in TENANT_COLUMNS if name in r.columns)
        # A column is likelier the tenant's where policies compare it, and then where more tables have it.
        compared = Counter(
            name for r in tables for name in TENANT_COLUMNS if name in r.columns and any(compares(p.text, name) for p in r.policies)
        )
        key = max(counts, key=lambda name: (compared[name], counts[name], -TENANT_COLUMNS.index(name)), default=None)
        if key is not None:
            assumed.append(f"the tenant column is `{key}` (in {counts[key]} of {len(tables)} tables)")
    owners = {r.owner for r in tables}
    named_app, named_system = frozenset(app), frozenset(system)
    if not named_app:
        named_app, guessed = _infer_roles(facts, tables, owners, key, named_system)
        named_system |= guessed
        if named_app:
            assumed.append("the application's roles are " + ", ".join(f"`{name}`" for name in sorted(named_app)))
        if guessed:
            assumed.append("roles meant to see every tenant: " + ", ".join(f"`{name}`" for name in sorted(guessed)))
    return Scope(key=key, app=named_app, system=named_system, schemas=wanted, assumed=tuple(assumed))


def _infer_roles(
    facts: Facts, tables: list[Relation], owners: set[int], key: str | None, system: frozenset[str]
) -> tuple[frozenset[str], frozenset[str]]:
    holders = {who for r in tables for who, _ in r.grants if who != PUBLIC and who not in owners and who in facts.roles}
    holders |= (
        {role.oid for role in facts.roles.values() if role.login and role.oid in owners and not role.superuser} if not holders else set()
    )
    judged: dict[int, set[bool]] = defaultdict(set)
    for relation in tables:
        for policy in relation.policies:
            if policy.permissive and key is not None and key in relation.columns:
                wide = is_true(policy.using) or not compares(policy.text, key)
                for role in policy.roles & holders:
                    judged[role].add(wide)
    # Every policy of its own lets it see all: so it was meant to.
    wide_roles = {role for role, verdicts in judged.items() if verdicts == {True}}
    if wide_roles == holders:
        wide_roles = set()
    app = {facts.roles[role].name for role in holders - wide_roles if not facts.roles[role].superuser} - system
    return frozenset(app), frozenset(facts.roles[role].name for role in wide_roles)

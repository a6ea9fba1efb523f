"""Roles as declared and as compiled: inheritance resolved, each role a bitset and its conditional bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from axis_security.core.errors import ConfigError
from axis_security.core.grants import Condition, Grant, OwnedByUser, PythonOnly
from axis_security.core.principal import Principal
from axis_security.rbac.capability import Capabilities, Capability, UnknownCapability
from axis_security.rbac.conditions import Allow, Predicate

__all__ = [
    "MANAGE_USERS",
    "OWN_ROLE",
    "Holding",
    "Role",
    "UnsoundPolicy",
    "compile_roles",
    "grants_of",
    "own_capability",
    "stored_condition",
    "unsound",
]

MANAGE_USERS: Final = "users.manage"
"""Invitations, role changes and data export need it."""


OWN_ROLE: Final = "custom."
"""Begins the name of every role that a workspace has defined for itself and the database keeps; no role of the product begins with it."""


class UnsoundPolicy(ConfigError):
    """The policy contradicts itself or a rule of the library; it was not built."""

    code = "rbac.unsound_policy"


@dataclass(frozen=True, slots=True)
class Role:
    """A role as declared. Args: name; grants: what it adds; includes: roles whose grants it holds as well."""

    name: str
    grants: Sequence[Capability | Allow] = ()
    includes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Holding:
    """A role as compiled. Args: always: bits held without condition; conditional: bit to the predicates, any of which suffices."""

    always: int
    conditional: Mapping[int, tuple[Predicate, ...]]

    @property
    def reach(self) -> int:
        """Every bit the role may use on some object."""
        mask = self.always
        for bit in self.conditional:
            mask |= bit
        return mask

    def covers(self, other: Holding) -> bool:
        """Whether whoever holds this holds all of *other*: its unconditional bits, and each conditional bit under no stricter condition."""
        if other.always & ~self.always:
            return False
        return all(bit & self.always or set(tests) <= set(self.conditional.get(bit, ())) for bit, tests in other.conditional.items())


def grants_of(caps: Capabilities[str], holdings: Mapping[str, Holding]) -> tuple[Grant, ...]:
    """Every grant of *holdings*, in a stable order."""
    found: list[Grant] = []
    for role in sorted(holdings):
        holding = holdings[role]
        for cap in caps:
            if holding.always & cap.bit:
                found.append(Grant(role, cap.name))
            else:
                found.extend(Grant(role, cap.name, test.compiled) for test in holding.conditional.get(cap.bit, ()))
    return tuple(found)


def stored_condition(condition: Condition | None) -> str:
    """How the table of roles and capabilities writes a condition; the planner writes the same."""
    match condition:
        case None:
            return ""
        case OwnedByUser(column):
            return f"owned by {column}"
        case PythonOnly(name):
            return f"only Python: {name}"


def own_capability(caps: Capabilities[str], cap: Capability) -> Capability:
    """*cap*, if it is of this registry. Raises: UnknownCapability."""
    if cap not in caps:
        raise UnknownCapability(name=getattr(cap, "name", str(cap)), known=(known.name for known in caps))
    return cap


def unsound(what: str, why: str, fix: str) -> UnsoundPolicy:
    """The error, to be raised."""
    return UnsoundPolicy(what=what, why=why, fix=fix)


def compile_roles(caps: Capabilities[str], roles: Sequence[Role], known: Mapping[str, Holding]) -> Mapping[str, Holding]:
    """Compile *roles*, which may include *known* ones. Raises: UnsoundPolicy, UnknownCapability."""
    declared: dict[str, Role] = {}
    for role in roles:
        # The same spelling as Principal.role accepts, so that no declared role is unreachable.
        Principal(tenant="check", role=role.name)
        if role.name in declared or role.name in known:
            raise unsound(f"role `{role.name}` is declared twice", "a role has one meaning", "rename one of them")
        declared[role.name] = role
    done: dict[str, Holding] = {}

    def resolve(name: str, path: tuple[str, ...]) -> Holding:
        if name in path:
            raise unsound("roles include each other in a circle", " > ".join((*path, name)), "break the circle")
        found = known.get(name) or done.get(name)
        if found is not None:
            return found
        role = declared.get(name)
        if role is None:
            raise unsound(f"role `{path[-1]}` includes `{name}`", "no such role is declared", "declare it, or correct the name")
        always, conditional = 0, dict[int, tuple[Predicate, ...]]()
        for part in (resolve(below, (*path, name)) for below in role.includes):
            always |= part.always
            for bit, tests in part.conditional.items():
                conditional[bit] = tuple(dict.fromkeys((*conditional.get(bit, ()), *tests)))
        for grant in role.grants:
            cap = own_capability(caps, grant.capability if isinstance(grant, Allow) else grant)
            when = grant.when if isinstance(grant, Allow) else None
            if when is None:
                always |= cap.bit
            else:
                conditional[cap.bit] = tuple(dict.fromkeys((*conditional.get(cap.bit, ()), when)))
        done[name] = Holding(always, MappingProxyType({bit: tests for bit, tests in conditional.items() if not bit & always}))
        return done[name]

    for name in declared:
        resolve(name, ())
    return MappingProxyType(done)

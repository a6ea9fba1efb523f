"""Conditions on a grant: named predicates that must return True exactly.

A grant with a condition holds only for objects that satisfy it. :func:`owns` compiles to SQL as well, so the database enforces it
too; :func:`predicate` says, at its declaration, that only Python can evaluate it, and the row-level compiler then refuses a table
that would depend on it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from axis_security.core.errors import ConfigError
from axis_security.core.grants import Condition, OwnedByUser, PythonOnly
from axis_security.core.ids import UserId
from axis_security.core.principal import Principal
from axis_security.rbac.capability import Capability

__all__ = ["Allow", "Predicate", "allow", "owns", "predicate"]


@dataclass(frozen=True, slots=True)
class Predicate:
    """A named condition. Args: name: shown in denials; test: must return ``True`` exactly; compiled: what the row-level compiler sees."""

    name: str
    test: Callable[[Principal, Any], bool]
    compiled: Condition

    def __post_init__(self) -> None:
        if not self.name or not self.name.isascii() or not self.name.isprintable() or len(self.name) > 100:
            raise ConfigError(
                what="malformed predicate name",
                why="it must be 1 to 100 printable ASCII characters",
                fix="name what it tests, such as `in_own_team`",
            )


@dataclass(frozen=True, slots=True)
class Allow:
    """A capability that a role is given, on a condition."""

    capability: Capability
    when: Predicate | None = None


def allow(capability: Capability, *, when: Predicate | None = None) -> Allow:
    """Give *capability* for objects that satisfy *when*, in a role's list: ``member=[allow(caps.notes.write, when=owns("owner_id"))]``."""
    return Allow(capability, when)


def owns(column: str) -> Predicate:
    """The object's *column* (attribute or mapping key) holds the acting user's id. Compiles to SQL.

    A missing column, a missing owner and a principal without a user are all no. Ids are compared in their text form, as the
    database does.
    """
    if not column.isidentifier() or not column.isascii():
        raise ConfigError(what="malformed column name", why="owns() takes the plain name of a column", fix='write owns("owner_id")')

    def test(principal: Principal, resource: Any) -> bool:
        owner = resource.get(column) if isinstance(resource, Mapping) else getattr(resource, column, None)
        if principal.user is None or isinstance(owner, bool) or not isinstance(owner, (UserId, uuid.UUID, int, str)):
            return False
        return str(owner) == principal.user.text

    return Predicate(f"owns({column})", test, OwnedByUser(column))


def predicate(name: str) -> Callable[[Callable[[Principal, Any], bool]], Predicate]:
    """Declare a condition that only Python can evaluate: ``@predicate("in_own_team")`` over ``(principal, resource) -> bool``."""

    def declare(test: Callable[[Principal, Any], bool]) -> Predicate:
        return Predicate(name, test, PythonOnly(name))

    return declare

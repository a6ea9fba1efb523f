"""Capabilities: the registry of everything a role may be allowed to do.

A capability is an object, not a string: ``caps.users.manage`` is a typo away from an ``AttributeError`` at import, never from a
check that quietly answers no (or yes). With ``plugins = ["axis_security.rbac.mypy_plugin"]`` mypy refuses the typo before that.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

from axis_security.core.errors import ConfigError

if TYPE_CHECKING:
    from axis_security.rbac.policy import Policy

__all__ = ["Capabilities", "Capability", "Holders", "InForce", "Resource", "UnknownCapability"]

_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,30}", re.ASCII)
Names_co = TypeVar("Names_co", bound=str, covariant=True)


class UnknownCapability(ConfigError, AttributeError, KeyError):
    """A capability that the registry does not declare was named. Also an ``AttributeError`` and a ``KeyError``."""

    code = "rbac.unknown_capability"

    # KeyError would print the repr of its argument.
    __str__ = ConfigError.__str__

    def __init__(self, *, name: str, known: Iterable[str]) -> None:
        names = list(known)
        if name in names:
            super().__init__(
                what=f"the capability `{name}` is of another registry",
                why="capabilities belong to the Capabilities(...) that made them, and this one declares its own of that name",
                fix="make Capabilities(...) once, and import it wherever it is used",
            )
            return
        near = difflib.get_close_matches(name, names, n=1)
        super().__init__(
            what=f"no capability `{name}`",
            why="the registry does not declare it",
            fix=f"did you mean `{near[0]}`?" if near else "declare it where Capabilities(...) is made",
        )


class InForce:
    """The policy in force over one registry; a mutable cell that the registry's capabilities and guards share."""

    __slots__ = ("policy",)

    def __init__(self) -> None:
        self.policy: Policy | None = None


class Holders:
    """The roles of the policy in force that hold one capability without condition: the column of the bit table that a guard tests."""

    __slots__ = ("roles",)

    def __init__(self) -> None:
        self.roles: frozenset[str] = frozenset()


class Capability:
    """One thing that a role may be allowed to do, such as ``users.manage``. Made by :class:`Capabilities` only; compared by identity."""

    __slots__ = ("action", "bit", "holders", "in_force", "name", "resource")
    name: str
    resource: str
    action: str
    bit: int
    in_force: InForce
    holders: Holders

    def __init__(self, *, resource: str, action: str, bit: int, in_force: InForce) -> None:
        put = object.__setattr__
        put(self, "name", f"{resource}.{action}")
        put(self, "resource", resource)
        put(self, "action", action)
        put(self, "bit", bit)
        put(self, "in_force", in_force)
        put(self, "holders", Holders())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Capability is immutable")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Capability belongs to its registry; send its `name` and look it up there")

    def __repr__(self) -> str:
        return f"<Capability {self.name}>"


class Resource(Generic[Names_co]):
    """The capabilities of one resource: ``caps.users``."""

    __slots__ = ("_actions", "name")

    def __init__(self, name: str, actions: Mapping[str, Capability]) -> None:
        self.name: Final = name
        self._actions: Final = actions

    def __getattr__(self, name: str) -> Capability:
        found = None if name.startswith("__") else self._actions.get(name)
        if found is None:
            raise UnknownCapability(name=f"{self.name}.{name}", known=(cap.name for cap in self._actions.values()))
        return found

    def __iter__(self) -> Iterator[Capability]:
        return iter(self._actions.values())

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._actions})


class Capabilities(Generic[Names_co]):
    """Every capability of the product, declared once: ``Capabilities(contacts=("read", "write"), users=("manage",))``.

    ``caps.contacts.read`` is the :class:`Capability`; ``caps["contacts.read"]`` finds one by its wire name; iteration is in the
    order of declaration. The type parameter is filled by the mypy plugin, and is plain ``str`` without it.

    Raises:
        ConfigError: a name is not a plain lower-case word of at most 31 characters, is declared twice, or shadows a method.
        UnknownCapability: (attribute access, ``[...]``) the name is not declared.
    """

    def __init__(self: Capabilities[str], **resources: Sequence[str]) -> None:
        in_force = InForce()
        by_name: dict[str, Capability] = {}
        groups: dict[str, Resource[str]] = {}
        for resource, actions in resources.items():
            if isinstance(actions, str) or not actions:
                raise _bad(resource, 'its actions must be a non-empty tuple of words; a lone string needs a comma: ("read",)')
            if len(set(actions)) != len(actions):
                raise _bad(resource, "an action is declared twice")
            own: dict[str, Capability] = {}
            for word in (resource, *actions):
                if _WORD.fullmatch(str(word)) is None:
                    raise _bad(resource, "each name must be a lower-case ASCII word of at most 31 characters")
            if "name" in actions:
                raise _bad(resource, "`name` is taken: it is an attribute of every resource")
            for action in actions:
                own[action] = Capability(resource=resource, action=action, bit=1 << len(by_name), in_force=in_force)
                by_name[own[action].name] = own[action]
            groups[resource] = Resource(resource, MappingProxyType(own))
        if not by_name:
            raise ConfigError(
                what="no capabilities", why="the registry is empty", fix='declare some: Capabilities(contacts=("read", "write"))'
            )
        self._groups: Final = MappingProxyType(groups)
        self._by_name: Final = MappingProxyType(by_name)
        self._in_force: Final = in_force

    def __getattr__(self, name: str) -> Resource[str]:
        # Dunder and private names are asked for by copy, pickle and IDEs; `_groups` itself must not recurse.
        if name.startswith("_"):
            raise AttributeError(name)
        found = self._groups.get(name)
        if found is None:
            raise UnknownCapability(name=name, known=self._groups)
        return found

    def __getitem__(self, wire_name: str) -> Capability:
        found = self._by_name.get(wire_name)
        if found is None:
            raise UnknownCapability(name=str(wire_name), known=self._by_name)
        return found

    def __contains__(self, item: object) -> bool:
        name = item if isinstance(item, str) else getattr(item, "name", None)
        found = self._by_name.get(name) if isinstance(name, str) else None
        return found is not None and (isinstance(item, str) or found is item)

    def __iter__(self) -> Iterator[Capability]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._groups})

    def __reduce__(self) -> NoReturn:
        raise TypeError("a registry of capabilities is code, not data; import it")


def in_force(caps: Capabilities[str]) -> InForce:
    """The cell that holds the policy in force over *caps*."""
    return caps._in_force  # noqa: SLF001  # underscore only so that no resource's name can collide with it


def _bad(resource: str, why: str) -> ConfigError:
    return ConfigError(
        what=f"capabilities of `{resource}` cannot be declared", why=why, fix='write Capabilities(contacts=("read", "write"))'
    )

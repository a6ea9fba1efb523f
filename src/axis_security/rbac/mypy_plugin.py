"""A mypy plugin that knows what a registry declares: ``plugins = ["axis_security.rbac.mypy_plugin"]``.

``Capabilities(contacts=("read", "write"))`` gets the type ``Capabilities[Literal["contacts.read"] | Literal["contacts.write"]]``, and
attribute access is checked against it; so ``caps.contacts.raed`` is an error where it is written, with no class to declare.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy.nodes import Expression, ListExpr, StrExpr, TupleExpr
from mypy.plugin import AttributeContext, FunctionContext, Plugin
from mypy.types import Instance, LiteralType, Type, UnionType, get_proper_type

__all__ = ["CapabilityPlugin", "plugin"]

_CAPS: Final = "axis_security.rbac.capability.Capabilities"
_RESOURCE: Final = "axis_security.rbac.capability.Resource"


class CapabilityPlugin(Plugin):
    """Hooks the registry's constructor and the attributes of registries and resources."""

    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        """Where a registry is made."""
        return _declared if fullname == _CAPS else None

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """Where ``caps.<resource>`` and ``caps.<resource>.<action>`` are read."""
        owner, _, name = fullname.rpartition(".")
        if owner == _CAPS:
            return lambda ctx: _resource(ctx, name)
        if owner == _RESOURCE:
            return lambda ctx: _action(ctx, name)
        return None


def plugin(version: str) -> type[Plugin]:
    """mypy's entry point."""
    del version
    return CapabilityPlugin


def _union(names: list[str], fallback: Instance) -> Type:
    return UnionType.make_union([LiteralType(name, fallback) for name in names])


def _declared(ctx: FunctionContext) -> Type:
    made = get_proper_type(ctx.default_return_type)
    if not isinstance(made, Instance):
        return ctx.default_return_type
    names: list[str] = []
    for resource, values in zip(
        (name for group in ctx.arg_names for name in group), (arg for group in ctx.args for arg in group), strict=False
    ):
        words = _words(values)
        if resource is None or words is None:
            return made  # built from data: nothing to know before it runs
        names += [f"{resource}.{word}" for word in words]
    return made.copy_modified(args=[_union(names, ctx.api.named_generic_type("builtins.str", []))])


def _words(value: Expression) -> list[str] | None:
    if not isinstance(value, (TupleExpr, ListExpr)):
        return None
    words = [item.value for item in value.items if isinstance(item, StrExpr)]
    return words if len(words) == len(value.items) else None


def _known(owner: Type) -> tuple[Instance, list[str]] | None:
    found = get_proper_type(owner)
    if not isinstance(found, Instance) or not found.args:
        return None
    arg = get_proper_type(found.args[0])
    literals = [get_proper_type(item) for item in arg.items] if isinstance(arg, UnionType) else [arg]
    names = [item.value for item in literals if isinstance(item, LiteralType) and isinstance(item.value, str)]
    return (found, names) if names and len(names) == len(literals) else None


def _resource(ctx: AttributeContext, name: str) -> Type:
    known = _known(ctx.type)
    made = get_proper_type(ctx.default_attr_type)
    if known is None or not isinstance(made, Instance) or made.type.fullname != _RESOURCE:
        return ctx.default_attr_type
    actions = [wire for wire in known[1] if wire.partition(".")[0] == name]
    if not actions:
        ctx.api.fail(f'The registry declares no resource "{name}"', ctx.context)
        return ctx.default_attr_type
    literals = get_proper_type(known[0].args[0])
    first = get_proper_type(literals.items[0] if isinstance(literals, UnionType) else literals)
    return made.copy_modified(args=[_union(actions, first.fallback)]) if isinstance(first, LiteralType) else made


def _action(ctx: AttributeContext, name: str) -> Type:
    known = _known(ctx.type)
    made = get_proper_type(ctx.default_attr_type)
    if (
        known is not None
        and isinstance(made, Instance)
        and made.type.name == "Capability"
        and not any(wire.partition(".")[2] == name for wire in known[1])
    ):
        ctx.api.fail(f'The registry declares no capability "{known[1][0].partition(".")[0]}.{name}"', ctx.context)
    return ctx.default_attr_type

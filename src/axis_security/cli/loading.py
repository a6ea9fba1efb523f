"""What a word on the command line names in the host's own code: ``MODULE:NAME``, found as a server finds an app."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

__all__ = ["HostObject"]


class HostObject(click.ParamType):  # type: ignore[type-arg]  # generic in new releases only
    """An object of the host's, by ``MODULE:NAME``; modules of the working directory are found, too.

    Args:
        name: what usage calls it.
        default: the name, where the word has none.
        kind: the class that it must be of, dotted; loaded when it is needed, so that ``--help`` stays quick.
    """

    def __init__(self, name: str = "MODULE:NAME", *, default: str = "", kind: str = "") -> None:
        self.name, self._default, self._kind = name, default, kind

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The object that *value* names.

        Raises:
            click.BadParameter: there is none of that name, or it is of another class.
        """
        if not isinstance(value, str):
            return value
        module, _, name = value.partition(":")
        name = name or self._default
        if not module or not name:
            self.fail("write it as MODULE:NAME", param, ctx)
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            self.fail(f"cannot load {value}: {error}", param, ctx)
        if self._kind and not isinstance(found, self._class()):
            self.fail(f"{value} is a {type(found).__name__}, not a {self._kind.rpartition('.')[2]}", param, ctx)
        return found

    def _class(self) -> type:
        module, _, name = self._kind.rpartition(".")
        kind: type = getattr(import_module(module), name)
        return kind

"""``axis-security routes``: every route of an app, with its guard or the reason why it has none."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from axis_security.adapters.audit import audit


class _AppAt(click.ParamType):  # type: ignore[type-arg]  # generic in new releases only
    name = "MODULE:APP"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        module, _, name = str(value).partition(":")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            found: Any = import_module(module)
            for part in (name or "app").split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError) as error:
            self.fail(f"cannot load an app from {value!s}: {error}", param, ctx)
        return found


@click.command("routes")
@click.argument("app", type=_AppAt())
@click.option("--factory", is_flag=True, help="Call APP, without arguments, to get the app.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(app: Any, *, factory: bool, as_json: bool) -> None:
    """List every route of APP, which is MODULE:APP as for a server. Exit status 1 if nobody decided about one of them."""
    found = audit(app() if factory else app)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        click.echo(found.text())
        click.echo(f"{len(found.routes)} routes, {len(found.unmarked)} unmarked", err=True)
    sys.exit(1 if found.unmarked else 0)

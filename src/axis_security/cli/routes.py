"""``axis-security routes``: every route of an app, with its guard or the reason why it has none."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from axis_security.adapters.audit import audit
from axis_security.cli.loading import HostObject


@click.command("routes")
@click.argument("app", type=HostObject("MODULE:APP", default="app"))
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

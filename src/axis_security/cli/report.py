"""``axis-security report``: which requirements of a standard are held, and by what."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from axis_security.cli.loading import HostObject

if TYPE_CHECKING:
    from axis_security.auth.service import Auth


@click.command("report")
@click.option("--asvs", is_flag=True, required=True, help="OWASP ASVS 5.0.0: V3.3, V6 and V7.")
@click.option(
    "--auth",
    type=HostObject(default="auth", kind="axis_security.auth.service.Auth"),
    help="Your Auth object; without it, the defaults are reported.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(*, asvs: bool, auth: Auth | None, as_json: bool) -> None:
    """Show each requirement as satisfied (with the test that proves it), configured away, or the host's duty.

    Without --auth the defaults are shown. With it, exit status 1 if a setting gives a requirement up.
    """
    from axis_security.auth.asvs import Standing, assess

    rows = assess(auth)
    counts = Counter(row.standing.value for row in rows)
    if as_json:
        click.echo(json.dumps({"standard": "ASVS 5.0.0", "counts": dict(counts), "rows": [row.as_dict() for row in rows]}, indent=2))
    else:
        _table([row.as_dict() for row in rows], counts)
    if auth is not None and counts[Standing.CONFIGURED_AWAY.value]:
        sys.exit(1)


def _table(rows: list[dict[str, Any]], counts: Counter[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    colours = {"satisfied": "green", "configured away": "red", "host's duty": "yellow"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "level", "standing", "how", "test"):
        table.add_column(column, no_wrap=column in {"id", "standing"}, overflow="fold")
    for row in rows:
        colour = colours[row["standing"]]
        table.add_row(
            row["id"], str(row["level"]), f"[{colour}]{row['standing']}[/]", row["how"], (row["test"] or "").replace("tests/unit/auth/", "")
        )
    console = Console()
    console.print(table)
    console.print(", ".join(f"{count} {standing}" for standing, count in counts.items()))

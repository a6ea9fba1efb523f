"""``axis-security demo``: the attack gallery on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from axis_security.testing.cluster import TestServer
    from axis_security.testing.gallery import Result


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(*, as_json: bool) -> None:
    """Attack one workspace from another, on a real PostgreSQL.

    Every attack is run twice: with all guards, where it must fail, and with its own guard taken away, where it must work; a defence
    that nothing tests is no defence. Exit status 1 on any leak, or on a control that does not bite.
    """
    from axis_security.testing.gallery import run_gallery

    with _server() as server:
        results = list(run_gallery(server)) if as_json else _show(server)
    leaks = sum(not result.blocked for result in results)
    toothless = sum(not result.control_bites for result in results)
    if as_json:
        click.echo(json.dumps({"attacks": [result.as_dict() for result in results], "leaks": leaks}, indent=2))
    sys.exit(1 if leaks or toothless else 0)


@contextmanager
def _server() -> Iterator[TestServer]:
    from axis_security.testing.cluster import Cluster, TestServer

    dsn = os.environ.get("AXIS_TEST_DSN")
    if dsn:
        yield TestServer(dsn)
    else:
        with Cluster() as cluster:
            yield cluster


def _show(server: TestServer) -> list[Result]:
    from rich.console import Console
    from rich.live import Live

    from axis_security.testing.gallery import ATTACKS, run_gallery

    console = Console()
    console.print("[bold]axis-security[/bold]: globex attacks acme, two workspaces in one PostgreSQL database\n")
    results: list[Result] = []
    with Live(_table(results), console=console, refresh_per_second=8, vertical_overflow="visible") as live:
        for result in run_gallery(server):
            results.append(result)
            live.update(_table(results))
    blocked, biting = sum(result.blocked for result in results), sum(result.control_bites for result in results)
    colour = "green" if blocked == biting == len(ATTACKS) else "red"
    console.print(
        f"\n[bold {colour}]{blocked} of {len(ATTACKS)} attacks blocked, {len(results) - blocked} leaks; {biting} of {len(ATTACKS)} controls bite[/]"
    )
    console.print("A control is the same attack with its guard taken away: it must work, or the row above would prove nothing.")
    for result in results:
        if result.trouble:
            console.print(f"[red]{result.attack.name}: {result.trouble}[/red]")
    return results


def _table(results: list[Result]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("attack", no_wrap=True)
    table.add_column("what the attacker tried", ratio=3)
    table.add_column("stopped by", ratio=2)
    table.add_column("verdict", no_wrap=True)
    table.add_column("control", no_wrap=True)
    for result in results:
        layer = str(result.guarded.layer) if result.guarded is not None and result.guarded.layer is not None else "—"
        verdict = (
            "[green]blocked[/green]" if result.blocked else "[bold red]LEAK[/bold red]" if result.guarded else "[bold red]broken[/bold red]"
        )
        control = "[green]bites[/green]" if result.control_bites else "[bold red]toothless[/bold red]"
        table.add_row(escape(result.attack.name), escape(result.attack.attempt), escape(layer), verdict, control)
    return table

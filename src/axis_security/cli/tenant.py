"""``axis-security tenant``: export a workspace's data, erase a workspace, suspend and resume one."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axis_security.cli.loading import HostObject
from axis_security.core.clock import SYSTEM_CLOCK
from axis_security.core.ids import KeyType, TenantId, parse_id

if TYPE_CHECKING:
    from axis_security.ops.export import Exported
    from axis_security.ops.workspaces import Workspaces


_WORKSPACES = click.argument("workspaces", type=HostObject("MODULE:WORKSPACES", kind="axis_security.ops.workspaces.Workspaces"))


@click.group("tenant")
def command() -> None:
    """Export, suspend, resume or erase a workspace."""


@command.command("export")
@click.argument("work", type=HostObject("MODULE:EXPORT"))
@click.argument("tenant")
@click.option("--user", required=True, help="Who exports; must hold users.manage there.")
@click.option("--role", required=True, help="Their role.")
@click.option(
    "--key-type", type=click.Choice([each.value for each in KeyType]), default="text", show_default=True, help="The tenant key's type."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The zip file to write.")
@click.option("--format", "formats", type=click.Choice(["jsonl", "csv"]), multiple=True, default=("jsonl", "csv"), show_default=True)
def export(work: Callable[..., Exported], tenant: str, *, user: str, role: str, key_type: str, out: Path, formats: tuple[str, ...]) -> None:
    """Write TENANT's data to a zip file. MODULE:EXPORT names a callable of the host's that takes `out=`, `formats=`, `progress=` and `export=`,
    as a partial of `axis_security.ops.export.export_workspace` does."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    from axis_security.core.context import acting_as
    from axis_security.core.principal import Principal
    from axis_security.ops.published import published

    principal = Principal(tenant=parse_id(tenant, KeyType(key_type)), user=user, role=role)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,} rows"))
    with Progress(*columns, transient=True) as bar, published(out) as file:
        tasks: dict[str, Any] = {}

        def report(table: str, rows: int) -> None:
            if table not in tasks:
                tasks[table] = bar.add_task(table, total=None)
            bar.update(tasks[table], completed=rows)

        with acting_as(principal):
            done = work(out=file, formats=formats, progress=report, export=str(uuid.uuid4()))
    click.echo(json.dumps({"file": str(out), "rows": dict(done.rows)}, indent=2))


def _switch(name: str, summary: str) -> None:
    @command.command(name, help=summary)
    @_WORKSPACES
    @click.argument("tenant")
    @click.option("--reason", required=True, help="Why; it is kept in the audit log.")
    @click.option(
        "--key-type", type=click.Choice([each.value for each in KeyType]), default="text", show_default=True, help="The tenant key's type."
    )
    def run(workspaces: Workspaces, tenant: str, *, reason: str, key_type: str) -> None:
        changed = getattr(workspaces, name)(TenantId(parse_id(tenant, KeyType(key_type))), reason=reason)
        click.echo(f"{name}: {'done' if changed else 'nothing to change'}")
        sys.exit(0 if changed else 1)


_switch("suspend", "Shut TENANT out, from its next request on. MODULE:WORKSPACES names an ops.workspaces.Workspaces.")
_switch("resume", "Let TENANT in again.")


@command.command("erase")
@_WORKSPACES
@click.argument("tenant")
@click.option("--reason", required=True, help="Why; it is kept in the audit log.")
@click.option(
    "--key-type", type=click.Choice([each.value for each in KeyType]), default="text", show_default=True, help="The tenant key's type."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(workspaces: Workspaces, tenant: str, *, reason: str, key_type: str, yes: bool) -> None:
    """Delete every row of TENANT, prove that none is left, and print what went. Its deletion must have been asked for, and the grace be over."""
    from rich.progress import Progress

    if not yes:
        click.confirm(f"Delete everything of {tenant}, for good?", abort=True)
    with Progress(transient=True) as bar:
        task = bar.add_task("erasing", total=None)
        erased = workspaces.erase(
            TenantId(parse_id(tenant, KeyType(key_type))),
            reason=reason,
            progress=lambda table, rows: bar.update(task, description=f"{table}: {rows} rows"),
        )
    click.echo(json.dumps({"erased_at": SYSTEM_CLOCK.now().isoformat(), "rows": dict(erased.rows), "total": erased.total}, indent=2))

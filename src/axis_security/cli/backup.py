"""``axis-security backup``: plan, run, check, drill, restore; and what PostgreSQL calls for each WAL segment."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axis_security.cli.loading import HostObject
from axis_security.core.errors import AxisError

if TYPE_CHECKING:
    from axis_security.ops.backup.drill import Invariant
    from axis_security.ops.backup.driver import Progress
    from axis_security.ops.backup.service import Backups

_ABORT = 200
"""Exit status of ``wal-get`` when a segment could not be brought, for any reason but that the archive has none: above 125, PostgreSQL ends the recovery instead of
taking the archive's end for reached, and opening without what was committed later."""


class _InvariantAt(HostObject):
    def __init__(self) -> None:
        super().__init__("MODULE:CALLABLE")

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Invariant]:
        found = super().convert(value, param, ctx)
        if not callable(found):
            self.fail(f"{value!s} is a {type(found).__name__}, and cannot be called", param, ctx)
        return str(value), found


@click.group("backup")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("/etc/axis-security/backup.toml"),
    show_default=True,
    help="The settings, TOML.",
)
@click.pass_context
def command(context: click.Context, *, config: Path) -> None:
    """Encrypted backups with point-in-time recovery: take them, check them, drill them."""
    context.obj = config


def _backups(context: click.Context) -> Backups:
    from axis_security.ops.backup.service import Backups

    return Backups.from_file(context.obj)


@command.command("plan")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def plan(context: click.Context, *, as_json: bool) -> None:
    """Print what to put where: server settings, pgBackRest's configuration, timers for systemd and Kubernetes."""
    from axis_security.ops.backup.schedule import rendered

    backups = _backups(context)
    files = rendered(backups.settings, backups.driver, config=context.obj)
    if as_json:
        click.echo(json.dumps(files, indent=2))
        return
    for name, text in files.items():
        click.echo(click.style(f"### {name}", bold=True))
        click.echo(text)


@command.command("run")
@click.option("--kind", type=click.Choice(["full", "diff", "incr"]), help="Full when one is due, else incremental, unless told.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def run(context: click.Context, *, kind: str | None, as_json: bool) -> None:
    """Take a backup now."""
    from axis_security.ops.backup.driver import BackupKind

    with _progress(show=not as_json) as progress:
        backup = _backups(context).run(BackupKind(kind) if kind else None, progress)
    seconds = (backup.finished - backup.started).total_seconds()
    if as_json:
        click.echo(
            json.dumps(
                {
                    "label": backup.label,
                    "kind": str(backup.kind),
                    "generation": backup.generation,
                    "bytes": backup.database_bytes,
                    "seconds": seconds,
                }
            )
        )
    else:
        click.echo(
            f"{backup.kind} backup {backup.label}: {backup.database_bytes / 1e6:.0f} MB in {seconds:.1f} s, key generation {backup.generation}"
        )


@command.command("check")
@click.option("--verify", is_flag=True, help="Read every stored byte, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def check(context: click.Context, *, verify: bool, as_json: bool) -> None:
    """Check age, WAL gaps, window, archiver and encryption. Exit status 1 if a promise does not hold."""
    with _progress(show=verify and not as_json) as progress:
        results = _backups(context).check(verify=verify, progress=progress)
    if as_json:
        click.echo(json.dumps([result.as_dict() for result in results], indent=2))
    else:
        _show(results)
    sys.exit(0 if all(result.ok for result in results) else 1)


@command.command("drill")
@click.option(
    "--target",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"]),
    help="The moment; a random one in the window unless told.",
)
@click.option(
    "--invariant", "invariants", multiple=True, type=_InvariantAt(), help="What must hold on the restored server; may be given again."
)
@click.option(
    "--evidence", type=click.Path(path_type=Path), help="Append the record to this file, one JSON document a line, chained by hashes."
)
@click.option("--json", "as_json", is_flag=True, help="Print the record.")
@click.pass_context
def drill(
    context: click.Context, *, target: datetime | None, invariants: tuple[tuple[str, Invariant], ...], evidence: Path | None, as_json: bool
) -> None:
    """Restore to a random moment beside the live server, and look. Exit status 1 if anything does not hold."""
    from axis_security.ops.backup.records import append_record
    from axis_security.ops.records import refuse_broken

    if evidence is not None:
        refuse_broken(evidence)  # before a drill of an hour, and not only after it
    with _progress(show=not as_json) as progress:
        report = _backups(context).drill(invariants=dict(invariants), target=target, progress=progress)
    record = report.evidence if evidence is None else append_record(evidence, report.evidence)
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        click.echo(
            f"restored {report.label} to {report.target.isoformat()}: RPO {report.rpo_seconds:.0f} s, RTO {report.rto_seconds:.1f} s"
        )
        _show(report.checks)
    sys.exit(0 if report.ok else 1)


@command.command("restore")
@click.argument("into", type=click.Path(path_type=Path))
@click.option(
    "--target",
    type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"]),
    help="The moment, with its zone; the newest unless told.",
)
@click.pass_context
def restore(context: click.Context, *, into: Path, target: datetime | None) -> None:
    """Restore into the new or empty directory INTO. PostgreSQL, started on it, recovers to the moment and opens."""
    with _progress(show=True) as progress:
        backup = _backups(context).restore(into.resolve(), target=target, progress=progress)
    click.echo(f"restored {backup.label} into {into}; start PostgreSQL on it, and it recovers by itself")


@command.command("wal-push", hidden=True)
@click.option("--driver", help="Refuse to archive with another driver than this.")
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def wal_push(context: click.Context, *, path: Path, driver: str | None) -> None:
    """Archive one WAL file; PostgreSQL's archive_command."""
    from axis_security.core.errors import ConfigError

    backups = _backups(context)
    if driver is not None and driver != backups.driver.name:
        why, fix = f"archive_command names `{driver}`, the configuration `{backups.driver.name}`", "set archive_command as `plan` prints it"
        raise ConfigError(what="the WAL would go to another driver's repository", why=why, fix=fix)
    backups.driver.push_wal(Path.cwd() / path)


@command.command("wal-get", hidden=True)
@click.argument("name")
@click.argument("into", type=click.Path(path_type=Path))
@click.pass_context
def wal_get(context: click.Context, *, name: str, into: Path) -> None:
    """Bring one WAL file back; PostgreSQL's restore_command."""
    try:
        found = _backups(context).driver.fetch_wal(name, Path.cwd() / into)
    except AxisError as error:
        click.echo(f"{error.what}: {error.why} [{error.code}]", err=True)
        sys.exit(_ABORT)
    except Exception as error:  # noqa: BLE001  # a full disk, a fault of ours: Python's own status for it is 1, which means "no such segment"
        click.echo(f"WAL {name} could not be brought: {getattr(error, 'strerror', None) or type(error).__name__}", err=True)
        sys.exit(_ABORT)
    if not found:
        click.echo(f"WAL {name} is not in the archive", err=True)
        sys.exit(1)


@contextmanager
def _progress(*, show: bool) -> Iterator[Progress]:
    if not show or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bars.update(task, completed=1, total=1)
                tasks[stage] = bars.add_task(stage, total=None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield tell
        for task in tasks.values():
            bars.update(task, completed=1, total=1)


def _show(results: Any) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    for result in results:
        word = "[green]ok  [/green]" if result.ok else "[bold red]FAIL[/bold red]"
        console.print(f"{word} {escape(result.name)}: {escape(result.seen)}", highlight=False, soft_wrap=True)
        for finding in result.findings:
            text = f"     {finding.what}: {finding.why} [{finding.code}]\n     fix: {finding.fix}"
            console.print(escape(text), highlight=False, soft_wrap=True)

"""``axis-security audit``: verify, export, anchor and prune the audit log."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axis_security.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    import psycopg

    from axis_security.core.checks import CheckResult


@click.group("audit")
@click.option(
    "--dsn-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the system login's connection string. Without it, libpq's own settings count (PGSERVICE, PGHOST, PGPASSFILE, …).",
)
@click.pass_context
def command(context: click.Context, *, dsn_file: Path | None) -> None:
    """The hash-chained audit log: verify it, export it, keep its anchors elsewhere, let old entries go."""
    context.obj = "" if dsn_file is None else dsn_file.read_text(encoding="utf-8").strip()


@contextmanager
def _connected(context: click.Context) -> Iterator[psycopg.Connection[Any]]:
    import psycopg

    from axis_security.core.errors import Unavailable

    try:
        with psycopg.connect(context.obj, autocommit=True, connect_timeout=10, application_name="axis-security audit") as connection:
            yield connection
    except psycopg.Error as error:
        raise Unavailable(
            what="the audit log could not be read",
            why=f"the database refused it ({type(error).__name__}, SQLSTATE {error.sqlstate or 'none'})",
            fix="connect as the system login, to a database where the audit part of schema axis is applied",
        ) from None


@command.command("verify")
@click.option(
    "--export", "exported", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Verify this export, without a database."
)
@click.option(
    "--anchors", "anchored", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Heads kept elsewhere; each must be met."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def verify(context: click.Context, *, exported: Path | None, anchored: Path | None, as_json: bool) -> None:
    """Hold every tenant's entries against their chain. Exit status 1 if one is changed, missing or cut off."""
    from axis_security.ops.audit_files import read_anchors, verify_export

    kept = read_anchors(anchored) if anchored is not None else []
    if exported is not None:
        with exported.open(encoding="utf-8", errors="replace") as file:  # what is no text is damage, and named as such
            results = list(verify_export(file, kept=kept))
    else:
        from axis_security.ops.audit_postgres import verify_log

        with _connected(context) as connection:
            results = list(verify_log(connection, kept=kept))
    _show(results, as_json=as_json)
    sys.exit(0 if all(result.ok for result in results) else 1)


@command.command("export")
@click.option("--tenant", help="One tenant's chain; all unless told. An empty text: events outside any tenant.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write, JSON Lines.")
@click.pass_context
def export(context: click.Context, *, tenant: str | None, out: Path) -> None:
    """Write the log to a file that verifies by itself."""
    from axis_security.ops.audit_files import export_log
    from axis_security.ops.audit_postgres import read_log
    from axis_security.ops.published import published

    with _connected(context) as connection, published(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8")
        count = export_log(read_log(connection, tenant=tenant), text)
        text.detach()  # and what it still holds is written
    click.echo(json.dumps({"file": str(out), "entries": count}))


@command.command("anchors")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to add to, on storage that the database's owner cannot write.",
)
@click.pass_context
def anchor(context: click.Context, *, out: Path) -> None:
    """Add the heads of all chains to a file. Daily, after a backup, is a good time."""
    from axis_security.ops.audit_files import write_anchors
    from axis_security.ops.audit_postgres import anchors

    with _connected(context) as connection:
        count = write_anchors(out, anchors(connection), at=SYSTEM_CLOCK.now().isoformat())
    click.echo(json.dumps({"file": str(out), "anchors": count}))


class _Days(click.ParamType):  # type: ignore[type-arg]  # generic in new releases only
    name = "DAYS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        match = re.fullmatch(r"(\d{1,5}) ?d?", str(value), re.ASCII)
        if match is None:
            self.fail(f"{value!s} is no number of days", param, ctx)
        return timedelta(days=int(match[1]))


@command.command("prune")
@click.option("--keep", type=_Days(), required=True, help="How many days of entries stay.")
@click.option("--tenant", help="One tenant's; all unless told.")
@click.pass_context
def prune_command(context: click.Context, *, keep: timedelta, tenant: str | None) -> None:
    """Let entries go that are older than the retention. Their chain goes on from a checkpoint, and says that they went."""
    from axis_security.ops.audit_postgres import anchors, prune

    with _connected(context) as connection:
        tenants = [tenant] if tenant is not None else [each.tenant for each in anchors(connection)]
        removed = {each: prune(connection, each, keep=keep, now=SYSTEM_CLOCK.now()) for each in tenants}
    click.echo(json.dumps({"removed": {name: count for name, count in removed.items() if count}, "total": sum(removed.values())}))


def _show(results: list[CheckResult], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([result.as_dict() for result in results], indent=2))
        return
    for result in results:
        click.echo(f"{'ok  ' if result.ok else 'FAIL'} {result.seen}")
        for finding in result.findings:
            click.echo(f"     {finding.object}: {finding.why} [{finding.code}]\n     fix: {finding.fix}")
    if not results:
        click.echo("no chain: nothing was ever written")

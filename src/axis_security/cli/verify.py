"""``axis-security verify``: measure every promise on the running system."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axis_security.cli.loading import HostObject

if TYPE_CHECKING:
    from axis_security.ops.promises.table import Promises
    from axis_security.ops.verify.report import Regression, Report
    from axis_security.ops.verify.run import Progress

_FILE = click.Path(dir_okay=False, path_type=Path)


class PromisesAt(HostObject):
    """The host's Promises, or what a callable of the host's makes."""

    def __init__(self) -> None:
        super().__init__("MODULE:OBJECT", default="promises")

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Promises:
        """See :class:`HostObject`."""
        from axis_security.ops.promises.table import Promises

        found = super().convert(value, param, ctx)
        made = found() if callable(found) and not isinstance(found, Promises) else found
        if not isinstance(made, Promises):
            self.fail(f"{value!s} is a {type(made).__name__}, not a Promises", param, ctx)
        return made


@click.command("verify")
@click.argument("promises", type=PromisesAt())
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--save", type=_FILE, help="Write the report as JSON to this file, to be a baseline.")
@click.option("--junit", type=_FILE, help="Write JUnit XML to this file.")
@click.option("--html", type=_FILE, help="Write the security page, one self-contained HTML file.")
@click.option("--evidence", type=_FILE, help="Add one hash-chained record for each check to this file.")
@click.option("--baseline", type=_FILE, help="Fail only on what is worse than in this report.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Seconds for one measurement.")
def command(
    promises: Promises,
    *,
    as_json: bool,
    save: Path | None,
    junit: Path | None,
    html: Path | None,
    evidence: Path | None,
    baseline: Path | None,
    timeout: float,
) -> None:
    """Measure every promise that MODULE:OBJECT, a Promises or a callable that makes one, declares.

    Exit status 1 if a promise does not hold (with --baseline: if something is worse), 2 if the command itself failed.
    """
    from axis_security.ops.evidence.records import record_report
    from axis_security.ops.verify import read_baseline, to_html, to_json, to_junit, verify

    before = None if baseline is None else read_baseline(baseline)
    with _progress(show=not as_json) as progress:
        report = verify(promises, timeout=timedelta(seconds=timeout), progress=progress)
    for path, text in ((save, to_json), (junit, to_junit), (html, to_html)):
        if path is not None:
            path.write_text(text(report), encoding="utf-8")
    if evidence is not None:
        record_report(evidence, report)
    worse = None if before is None else report.regressions(before)
    if as_json:
        click.echo(to_json(report), nl=False)
    else:
        _table(report, worse)
    sys.exit(1 if (worse if worse is not None else not report.ok) else 0)


@contextmanager
def _progress(*, show: bool) -> Iterator[Progress | None]:
    if not show or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("measuring") as status:
        yield lambda promise, done, total: status.update(f"{done + 1}/{total} {promise.text}")


def _table(report: Report, worse: list[Regression] | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold", title=escape(report.product), title_justify="left")
    for column, fixed in (("", True), ("", True), ("promise", False), ("seen", False)):
        table.add_column(column, no_wrap=fixed, overflow="fold")
    for row in report.rows:
        mark = "[dim]-[/]" if row.declined is not None else "[green]ok[/]" if row.ok else "[bold red]NO[/]"
        table.add_row(str(row.promise.id), mark, escape(row.promise.text), escape(row.seen))
    console.print(table)
    for row in report.rows:
        for check in row.checks:
            for finding in check.findings:
                head = f"{row.promise.id}. {check.name}: {finding.object}: {finding.what}"
                console.print(f"\n[bold]{escape(head)}[/]", highlight=False, soft_wrap=True)
                console.print(escape(f"   {finding.why} [{finding.code}]\n   fix: {finding.fix}"), highlight=False, soft_wrap=True)
    console.print(
        f"\n{report.held} of {sum(row.declined is None for row in report.rows)} promises hold ({report.seconds:.1f} s)", highlight=False
    )
    for each in worse or ():
        console.print(f"[bold red]worse[/] {each.promise}. {escape(each.check)}: {escape(each.why)}", highlight=False)
    if worse is not None and not worse:
        console.print("nothing is worse than in the baseline", highlight=False)

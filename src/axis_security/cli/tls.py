"""``axis-security tls``: probe an endpoint, check and harden a DSN."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from axis_security.core.checks import CheckResult


@click.group("tls")
def command() -> None:
    """Probe endpoints and check connection strings for TLS 1.3."""


@command.command("probe")
@click.argument("endpoint", metavar="HOST:PORT")
@click.option("--ca", type=click.Path(exists=True, path_type=Path), help="Trust only these authorities (PEM).")
@click.option("--name", help="The host name to ask for and verify, if it is not HOST.")
@click.option("--postgres", is_flag=True, help="Speak PostgreSQL before the handshake.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def probe_command(endpoint: str, *, ca: Path | None, name: str | None, postgres: bool, as_json: bool) -> None:
    """Measure the TLS of HOST:PORT. Exit status 1 if a promise does not hold."""
    from axis_security.ops.tls import StartTls, probe

    host, separator, port = endpoint.rpartition(":")
    if not separator or not port.isdecimal() or not 0 < int(port) < 65_536 or not host:
        raise click.BadParameter("write it as HOST:PORT", param_hint="HOST:PORT")
    report = probe(host.strip("[]"), int(port), server_name=name, cafile=ca, start=StartTls.POSTGRES if postgres else StartTls.NONE)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report.as_check())
    sys.exit(0 if report.ok else 1)


@command.command("dsn")
@click.option("--pooled", is_flag=True, help="The address is a pooler's: no channel binding.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def dsn(*, pooled: bool, as_json: bool) -> None:
    """Check the DSN on standard input (never an argument: those show in process lists)."""
    from axis_security.ops.tls import check_dsn

    result = check_dsn(sys.stdin.readline().strip(), pooled=pooled)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
    else:
        _show(result)
    sys.exit(0 if result.ok else 1)


def _show(result: CheckResult) -> None:
    click.echo(f"{'ok  ' if result.ok else 'FAIL'} {result.seen}")
    for finding in result.findings:
        click.echo(f"  {finding.what}: {finding.why} [{finding.code}]\n    fix: {finding.fix}")

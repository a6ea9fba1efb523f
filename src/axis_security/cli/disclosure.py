"""``axis-security disclosure``: write and check security.txt."""

from __future__ import annotations

import json
import sys
from datetime import date, timedelta
from pathlib import Path

import click

from axis_security.core.clock import SYSTEM_CLOCK
from axis_security.ops.disclosure import SecurityTxt, check_security_txt


@click.group("disclosure")
def command() -> None:
    """Write and check security.txt (RFC 9116)."""


@command.command("write")
@click.option("--contact", multiple=True, required=True, help="mailto:, tel: or https:// address; repeat for more, best first.")
@click.option(
    "--reviewed-on", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The day a person checked that these addresses are read."
)
@click.option("--canonical", multiple=True, help="https:// address the file is served at.")
@click.option("--policy", multiple=True, help="https:// address of the disclosure policy.")
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 364), help="How far ahead Expires lies.")
def write(contact: tuple[str, ...], reviewed_on: date, canonical: tuple[str, ...], policy: tuple[str, ...], days: int) -> None:
    """Print the file as it would be served now."""
    day = date(reviewed_on.year, reviewed_on.month, reviewed_on.day)
    text = SecurityTxt(contact=contact, reviewed_on=day, canonical=canonical, policy=policy, lasting=timedelta(days=days))
    click.echo(text.render(SYSTEM_CLOCK.now()), nl=False)


@command.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check(file: Path, *, as_json: bool) -> None:
    """Check FILE (or - for standard input). Exit status 1 if it breaks a rule."""
    data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    result = check_security_txt(data, now=SYSTEM_CLOCK.now())
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
    else:
        click.echo(f"security.txt: {result.seen}")
        for finding in result.findings:
            click.echo(f"  {finding.why} [{finding.code}]\n    {finding.fix}")
    sys.exit(0 if result.ok else 1)

"""``axis-security secrets``: mint keys, and find the ones that got into source."""

from __future__ import annotations

import json
import secrets as randomness
import sys
from pathlib import Path

import click

from axis_security.core.minted import MINTED_BYTES, minted_text
from axis_security.ops.secrets.scan import scan_files, tracked_files


@click.group("secrets")
def command() -> None:
    """Mint keys, and find secrets in source."""


@command.command("scan")
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON.")
def scan(paths: tuple[Path, ...], *, as_json: bool) -> None:
    """Look for secrets in PATHS, or in everything git tracks here. Exit status 1 if there is any."""
    root = Path.cwd()
    files = [file for path in paths for file in (tracked_files(path) if path.is_dir() else [path])] if paths else tracked_files(root)
    findings = list(scan_files(files, root=None if paths else root))
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.object}: {finding.what} [{finding.code}]\n    {finding.fix}")
        click.echo(f"{len(files)} files scanned, {len(findings)} findings", err=True)
    sys.exit(1 if findings else 0)


@command.command("mint")
@click.argument("kind")
def mint(kind: str) -> None:
    """Print a fresh 256-bit key of KIND (seal, pepper, cookie, …) for the secrets manager."""
    try:
        click.echo(minted_text(kind, randomness.token_bytes(MINTED_BYTES)).reveal())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="KIND") from None

"""``axis-security evidence``: the control map, signed bundles, OSCAL and CSV."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axis_security.cli.verify import PromisesAt

if TYPE_CHECKING:
    from axis_security.ops.evidence.bundle import EvidenceKey
    from axis_security.ops.promises.table import Promises

_OUT = click.Path(dir_okay=False, path_type=Path)
_IN = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("evidence")
def command() -> None:
    """Evidence for an examination of controls. A library supports an attestation; it does not confer one."""


@command.command("controls")
@click.option("--json", "as_json", is_flag=True, help="Print the map as JSON.")
def controls(*, as_json: bool) -> None:
    """Print which promise supports which control of SOC 2 (TSC) and ASVS 5.0."""
    from axis_security.ops.evidence.controls import CONTROLS

    if as_json:
        fields = [{"framework": each.framework, "id": each.id, "title": each.title, "promises": each.promises} for each in CONTROLS]
        click.echo(json.dumps(fields, indent=2))
        return
    for each in CONTROLS:
        click.echo(f"{each.short:<14} {each.title} (promises {', '.join(map(str, each.promises))})")


@command.command("bundle")
@click.argument("promises", type=PromisesAt())
@click.option(
    "--key-file", type=_IN, required=True, help="The signing key (axis-security secrets mint evidence), as the secrets manager mounts it."
)
@click.option("--out", type=_OUT, required=True, help="The zip file to write.")
@click.option("--with", "more", type=_IN, multiple=True, help="Put this file in too: evidence records, drill records, audit anchors.")
def bundle(promises: Promises, *, key_file: Path, out: Path, more: tuple[Path, ...]) -> None:
    """Measure every promise now, and write a signed bundle of the results. Exit status 1 if a promise does not hold; the bundle says so as well."""
    from axis_security.ops.evidence.bundle import write_bundle
    from axis_security.ops.verify import verify

    names = [path.name for path in more]
    if len(set(names)) != len(names):
        raise click.BadParameter("two files have one name, and a bundle holds one of each", param_hint="--with")
    key = _key(key_file)
    report = verify(promises)
    manifest = write_bundle(out, report, key, files={path.name: path.read_bytes() for path in more})
    click.echo(json.dumps({"file": str(out), "ok": report.ok, "files": len(manifest["files"]), "public_key": key.public}))
    sys.exit(0 if report.ok else 1)


@command.command("check")
@click.argument("file", type=_IN)
@click.option("--public-key", required=True, help="The signer's public key, from another channel than the bundle.")
def check(file: Path, *, public_key: str) -> None:
    """Check a bundle's signature and every file in it. Exit status 1 if it is not what was signed."""
    from axis_security.ops.evidence.bundle import check_bundle

    result = check_bundle(file, public_key)
    click.echo(f"{'ok  ' if result.ok else 'FAIL'} {result.seen}")
    sys.exit(0 if result.ok else 1)


@command.command("public-key")
@click.option("--key-file", type=_IN, required=True, help="The signing key.")
def public_key(*, key_file: Path) -> None:
    """Print the public key of a signing key."""
    click.echo(_key(key_file).public)


def _key(path: Path) -> EvidenceKey:
    from axis_security.core.secret import Secret
    from axis_security.ops.evidence.bundle import EvidenceKey

    return EvidenceKey(Secret(path.read_text(encoding="utf-8")))

"""``axis-security passwords``: choose a cost for this machine, and build the offline breach filter."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import click

from axis_security.auth import kdf
from axis_security.auth.breach import build_filter, read_ordered

_PRESETS = ("RFC9106_LOW_MEMORY", "OWASP_46_MIB", "OWASP_19_MIB", "OWASP_12_MIB")


@click.group("passwords")
def command() -> None:
    """Choose a hash cost, and build the breach filter."""


@command.command("calibrate")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="Hashes for each preset.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def calibrate(rounds: int, *, as_json: bool) -> None:
    """Measure each cost preset on this machine: milliseconds for a hash, and memory."""
    rows = []
    for name in _PRESETS:
        cost: kdf.Argon2Cost = getattr(kdf, name)
        call = kdf.Argon2Call(salt=b"\0" * 16, memory_kib=cost.memory_kib, passes=cost.passes, lanes=cost.lanes)
        taken = []
        for _ in range(rounds):
            begun = time.perf_counter()
            kdf.SystemKdf().derive(call, b"calibration")
            taken.append((time.perf_counter() - begun) * 1000)
        rows.append(
            {
                "preset": name,
                "ms": round(statistics.median(taken), 1),
                "memory_mib": cost.memory_kib // 1024,
                "default": cost == kdf.DEFAULT_COST,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(f"{row['preset']:20} {row['ms']:8.1f} ms {row['memory_mib']:5} MiB{'  (default)' if row['default'] else ''}")
    click.echo("Take the first preset that stays under 250 ms and whose memory fits your budget; all of them meet ASVS 11.4.2.")


@command.group("breach-filter")
def breach_filter() -> None:
    """The offline list of breached passwords."""


@breach_filter.command("build")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--minimum-count", default=1, show_default=True, type=click.IntRange(1), help="Leave out passwords seen less often.")
@click.option("--fingerprint-bytes", default=4, show_default=True, type=click.IntRange(2, 8), help="Bytes for each entry.")
def build(source: Path, target: Path, minimum_count: int, fingerprint_bytes: int) -> None:
    """Build TARGET from SOURCE: the public download, as one file ordered by hash or a folder of range files."""
    count = build_filter(_shown(read_ordered(source, minimum_count=minimum_count)), target, fingerprint_bytes=fingerprint_bytes)
    click.echo(f"{count} entries, {target.stat().st_size} bytes, false alarms {count / 2 ** (16 + 8 * fingerprint_bytes):.2g}")


def _shown(hashes: Iterator[bytes]) -> Iterator[bytes]:
    from rich.console import Console
    from rich.progress import Progress

    # The hashes ascend evenly from 0 to 2**160, so the first bytes of each say how far along the build is.
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Building the filter", total=65_536)
        shown = -1
        for digest in hashes:
            bucket = digest[0] << 8 | digest[1]
            if bucket != shown:
                shown = bucket
                progress.update(task, completed=bucket)
            yield digest
        progress.update(task, completed=65_536)

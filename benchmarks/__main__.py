"""``python -m benchmarks [NAME…] [--json] [--quick]``: run benchmarks and print their rows."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, Settings, machine

_NOT_BENCHMARKS = {"__init__", "__main__", "harness"}


def names() -> list[str]:
    """Every benchmark there is."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_BENCHMARKS)


def main() -> int:
    """Run what was asked for; exit status 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios against peers and limits, interleaved, with medians.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; all of them if none is named")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; not for quoting")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    rows: list[Row] = []
    for name in options.names or names():
        print(f"measuring {name} …", file=sys.stderr)
        rows += import_module(f"benchmarks.{name}").run(Settings(quick=options.quick))
    if options.json:
        print(json.dumps({"machine": machine(), "rows": [row.as_dict() for row in rows]}, indent=2))
    else:
        _table([row.as_dict() for row in rows])
    return 0 if all(row.met for row in rows) else 1


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("bench", "case", "ours", "limit", "to limit", "peers", "to best", "spread", "target"):
        table.add_column(column)
    for row in rows:
        peers = ", ".join(f"{name} {value:g}" for name, value in row["peers"].items())
        colour = "green" if row["met"] else "red"
        table.add_row(
            row["bench"],
            row["case"],
            f"{row['ours']:g} {row['unit']}",
            "" if row["limit"] is None else f"{row['limit']:g}",
            "" if row["ratio_to_limit"] is None else f"{row['ratio_to_limit']:g}",
            peers,
            "" if row["ratio_to_best_peer"] is None else f"{row['ratio_to_best_peer']:g}",
            f"{row['spread'][0]:g}…{row['spread'][1]:g}",
            f"[{colour}]{row['target']}[/]",
        )
    console = Console()
    console.print(table)
    console.print(" ".join(f"{key}={value}" for key, value in machine().items()), style="dim")


if __name__ == "__main__":
    sys.exit(main())

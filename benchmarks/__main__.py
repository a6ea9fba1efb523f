"""``python -m benchmarks [NAME…] [--json] [--quick]``: run benchmarks and print their rows."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, Settings, machine

_NOT_BENCHMARKS = {"__init__", "__main__", "harness", "charts"}


def names() -> list[str]:
    """Every benchmark there is."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_BENCHMARKS)


def main() -> int:
    """Run what was asked for; exit status 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios against peers and limits, interleaved, with medians.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; all of them if none is named")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; not for quoting")
    parser.add_argument("--full", action="store_true", help="the large sizes: a 1 GB database in `backup`")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the JSON here as well, after every row")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    rows: list[Row] = []
    broken: list[str] = []
    for name in options.names or names():
        print(f"measuring {name} …", file=sys.stderr)
        try:
            for row in import_module(f"benchmarks.{name}").run(Settings(quick=options.quick, full=options.full)):
                rows.append(row)
                print(f"  {row.case}: {row.ours:.4g} {row.unit} ({'met' if row.met else 'MISSED'}: {row.target})", file=sys.stderr)
                if options.out is not None:
                    options.out.write_text(_document(rows), encoding="utf-8")
        except Exception:  # one that breaks must not take the figures of the others with it
            if len(options.names) == 1:
                raise
            broken.append(name)
            traceback.print_exc()
    if options.json:
        print(_document(rows))
    else:
        _table([row.as_dict() for row in rows])
    for name in broken:
        print(f"BROKEN: {name} did not finish; see above", file=sys.stderr)
    return 0 if not broken and all(row.met for row in rows) else 1


def _document(rows: list[Row]) -> str:
    return json.dumps({"machine": machine(), "rows": [row.as_dict() for row in rows]}, indent=2)


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
    console = Console(width=None if sys.stdout.isatty() else 240)
    console.print(table)
    console.print(" ".join(f"{key}={value}" for key, value in machine().items()), style="dim")


if __name__ == "__main__":
    sys.exit(main())

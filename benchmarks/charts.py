"""``python -m benchmarks.charts``: the pictures of docs/explanation/performance.md, from the rows of the last quoted run (``results/rows.json``, by ``--out``).

Each picture carries the digest of the rows that it was drawn from, so that a test can tell whether it is of this run.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROWS = HERE / "results" / "rows.json"
IMAGES = HERE.parent / "docs" / "images"

INK, OURS, MISSED = "#6b7280", "#0f766e", "#b45309"
"""Grey that reads on white and on black; two colours that differ in lightness, too."""


def digest() -> str:
    """Of the rows."""
    return hashlib.sha256(ROWS.read_bytes()).hexdigest()[:16]


def held(row: dict[str, Any]) -> tuple[float, float] | None:
    """The row's ratio to its limit, and the highest that was promised; ``None`` where the target is not such a ratio."""
    promised = re.search(r"at most (\d+(?:\.\d+)?) (?:of|x)", row["target"])
    return (row["ratio_to_limit"], float(promised[1])) if promised and row["ratio_to_limit"] else None


def main() -> None:
    """Draw both."""
    import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]  # of the extra `bench`

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "axis", "svg.fonttype": "none", "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK})  # fmt: skip
    from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]  # as above

    rows = json.loads(ROWS.read_text(encoding="utf-8"))["rows"]
    ratios = [(f"{row['bench']}: {row['case']}", *pair) for row in rows if (pair := held(row))]
    figure, axes = plt.subplots(figsize=(10, 0.32 * len(ratios) + 1))
    names = [name for name, _, _ in ratios]
    axes.barh(names, [ratio for _, ratio, _ in ratios], color=[OURS if ratio <= most else MISSED for _, ratio, most in ratios], height=0.6)
    for place, (_, _, most) in enumerate(ratios):
        axes.plot([most, most], [place - 0.4, place + 0.4], color=INK, linewidth=1.5)
    axes.axvline(1, color=INK, linewidth=0.5, linestyle=":")
    axes.invert_yaxis()
    axes.set_xlabel("times the bare thing; the mark is what was promised")
    _save(figure, "costs", "What each measured thing costs, as a multiple of the same work without this library")

    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4))
    for axes, (word, label) in zip(panels, (("point read", "rows"), ("audit of", "tables"), ("resolve one", "sessions")), strict=True):
        found = [(_size(row["case"]), row) for row in rows if row["bench"] == "scaling" and word in row["case"]]
        axes.plot([size for size, _ in found], [row["ours"] for _, row in found], color=OURS, marker="o", label="ours")
        if word == "point read":
            axes.plot([size for size, _ in found], [row["limit"] for _, row in found], color=INK, marker="o", label="literal query")
            axes.legend(frameon=False)
        axes.set_xscale("log")
        if word == "audit of":
            axes.set_yscale("log")  # it grows with its tables: a straight line here
        else:
            axes.set_ylim(bottom=0)
        axes.margins(y=0.15)
        axes.set_xlabel(label)
        axes.set_ylabel(found[0][1]["unit"] if found else "")
    figure.tight_layout()
    _save(figure, "growth", "How a point read grows with rows, an audit with tables and finding a session with sessions")


def _size(case: str) -> int:
    """The first number of *case*."""
    return int(re.findall(r"[\d,]+\d|\d", case)[0].replace(",", ""))


def _save(figure: Any, name: str, title: str) -> None:
    path = IMAGES / f"{name}.svg"
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None, "Title": title, "Description": f"rows {digest()}"})
    print(path)


if __name__ == "__main__":
    main()

"""The figures that pages quote are those of the committed run: AXIS_WRITE_DOCS=1 writes the tables of the README and of *What it costs*."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from benchmarks import charts

ROOT = charts.HERE.parent
ROWS: dict[tuple[str, str], dict[str, Any]] = {
    (row["bench"], row["case"]): row for row in json.loads(charts.ROWS.read_text(encoding="utf-8"))["rows"]
}

FIGURES = (
    ("import_time", "import axis_security", "`import axis_security`, over a bare interpreter", "{ours:.1f} ms", "{limit:.0f} ms"),
    ("roundtrips", "psycopg", "Round trips of a transaction, psycopg (four ways of using it)", "{more:.0f} more", "the bare driver"),
    ("roundtrips", "asyncpg", "Round trips of a transaction, asyncpg", "1 more", "the bare driver"),
    ("rbac", "bit test over a bare call", "A capability check, over a bare call", "{ours:.2f} us", "{limit:g} us"),
    ("rbac", "decorator over the bare call", "`@requires`, over the bare call", "{ours:.2f} us", "{limit:g} us"),
    ("rbac", "denial with public, audit and explanation", "A denial with its explanation", "{ours:.1f} us", "{limit:g} us"),
    ("sessions", "cookie filter, five cookies: read the header, check the signature", "The cookie filter, five cookies", "{ratio:.2f} times", "bare itsdangerous `unsign`"),
    ("sessions", "resolution on PostgreSQL", "A session with its membership", "{ours:.0f} round trip", "1"),
    ("request", "authenticated, guarded, bound request over the bare app: the gate's own CPU (cookie, session, guard, binding, headers)", "The gate's own CPU for a guarded request", "{ours:.0f} us", "{limit:.0f} us"),
    ("request", "the same with the store asked: CPU with the driver's; the limit is the one statement through bare psycopg", "The same, with the store asked", "{ours:.0f} us", "{limit:.0f} us for the one statement through bare psycopg"),
    ("login_storm", "200 logins at once", "200 logins at once on two cores", "{ours:.1f} a second, {percent:.0f} %", "bare argon2-cffi"),
    ("login_storm", "event loop lag, p99", "Lag of the event loop meanwhile, p99", "{ours:.1f} ms", "{limit:.0f} ms"),
    ("fields", "seal 32 B", "Sealing a field of 32 bytes", "{ratio:.2f} times", "a cached AES-GCM object"),
    ("fields", "open 32 B", "Opening it", "{ratio:.2f} times", "a cached AES-GCM object"),
    ("fields", "ORM load, added per encrypted column read", "Loading a sealed field through the ORM", "{ours:.1f} us a column", "{limit:g} us"),
    ("rls", "seal and check the context, over a plain set_config", "Sealing and checking a transaction's context", "{ours:.0f} us", "{limit:.0f} us"),
)  # fmt: skip
"""Bench, case, what it is called on the page, how ours and the limit are written."""

RLS = {
    "point read": "point read",
    "page of 50": "page of 50",
    "page of 50, 40 % tenant": "page of 50 of the tenant with 40 %",
    "count": "count",
    "count, 40 % tenant": "count of 800,000 rows",
    "join of two tables": "join of two tables",
    "full scan, 40 % tenant": "full scan",
    "insert of 100 rows": "insert of 100 rows",
}
"""Case, and what it is called on the page."""


def figures(*, short: bool) -> str:
    """The table of single figures; *short* for the README, which leaves out how to run it."""
    lines = ["| what | ours | held against |" + ("" if short else " command |"), "|---|---|---|" + ("" if short else "---|")]
    for bench, case, what, ours, limit in FIGURES:
        row = next(row for (of, name), row in ROWS.items() if of == bench and name.startswith(case))
        ratio = row["ratio_to_limit"] or 0.0
        said = {**row, "ratio": ratio, "percent": 100 * ratio, "more": row["ours"] - (row["limit"] or 0)}
        line = f"| {what} | {ours.format(**said)} | {limit.format(**said)} |"
        lines.append(line if short else f"{line} `python -m benchmarks {bench}` |")
    if short:
        kept = (
            "import",
            "Round trips of a transaction, psycopg",
            "`@requires`",
            "The gate's own",
            "200 logins",
            "Loading a sealed",
            "Sealing and",
        )
        lines = [line for line in lines if not line.startswith("| ") or any(word in line for word in ("what |", *kept))]
        lines.append(
            f"| A point read among 2,000,000 rows, on a local socket | {held('point read')} times | the literal query without policies |"
        )
    return "\n".join(lines)


def held(case: str) -> str:
    """A statement under policies, as a multiple of the literal query."""
    return f"{ROWS['rls', f'{case} (2,000,000 rows)']['ratio_to_limit']:.2f}"


def isolation() -> str:
    """The table of statements under policies."""
    lines = ["| statement, prepared, on a local socket | ours to the literal query | an unchecked setting |", "|---|---|---|"]
    for case, what in RLS.items():
        bare = ROWS["rls", f"{case}: an unchecked setting in place of ours"]["ratio_to_limit"]
        lines.append(f"| {what} | {held(case)} | {bare:.2f} |")
    return "\n".join(lines)


def missed() -> str:
    """What a target of ours asked for and did not get."""
    lines = ["| target missed | asked for | seen |", "|---|---|---|"]
    for (bench, case), row in ROWS.items():
        if not row["met"]:
            ratios = (("the limit", row["ratio_to_limit"]), ("the best peer", row["ratio_to_best_peer"]))
            seen = ", ".join(f"{ratio:.2f} of {what}" for what, ratio in ratios if ratio)
            lines.append(f"| {bench}: {case} | {row['target']} | {seen} |")
    return "\n".join(lines)


TABLES = (
    ("README.md", "| what | ours |", lambda: figures(short=True)),
    ("docs/explanation/performance.md", "| what | ours |", lambda: figures(short=False)),
    ("docs/explanation/performance.md", "| statement, prepared", isolation),
    ("docs/explanation/performance.md", "| target missed |", missed),
)


@pytest.mark.parametrize(("page", "head", "written"), TABLES, ids=["readme", "figures", "isolation", "missed"])
def test_a_table_has_the_figures_of_the_run(page: str, head: str, written: Any) -> None:
    """No figure is quoted that the committed rows do not have (a reference that `AXIS_WRITE_DOCS=1` writes)."""
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(head)}.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    if os.environ.get("AXIS_WRITE_DOCS"):
        path.write_text(text.replace(found[0], written()), encoding="utf-8")
        return
    assert found[0] == written()

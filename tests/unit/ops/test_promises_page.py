"""The reference of promises says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from axis_security.ops import promises
from axis_security.ops.evidence import CONTROLS

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "promises.md").read_text(encoding="utf-8")
NOT_LOOKS = {"PROMISES", "Look", "Promise", "Promises", "findings_of", "write_policy_lock"}


def cells(heading: str) -> list[list[str]]:
    """The rows of the first table under *heading*, without its head."""
    table = PAGE.split(heading, 1)[1].split("|---", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table if line.startswith("|")]


def test_the_page_lists_exactly_the_promises_and_their_controls() -> None:
    """Number, field, words and controls of every promise."""
    listed = {(row[0].strip("| "), row[1].strip("`"), row[2], row[4], row[5].strip("| ")) for row in cells("# Promises")}

    def ids(number: int, framework: str) -> str:
        return ", ".join(control.id for control in CONTROLS if control.framework == framework and number in control.promises)

    assert listed == {(str(each.id), each.key, each.text, ids(each.id, "SOC 2"), ids(each.id, "ASVS")) for each in promises.PROMISES}


def test_the_page_lists_exactly_the_looks() -> None:
    """Every ready-made look stands in both tables, and no other."""
    looks = set(promises.__all__) - NOT_LOOKS
    assert {row[0].strip("|` ") for row in cells("## Looks")} == looks
    assert {name for row in cells("# Promises") for name in re.findall(r"`(\w+)`", row[3])} == looks

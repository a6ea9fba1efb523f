"""The threat model claims nothing that no test would break."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8")
CLAIMS = re.findall(r"^\| (.+?) \| `([\w/.]+\.py)::(test_\w+)` \|$", PAGE, re.MULTILINE)


def test_every_row_of_the_table_names_a_test() -> None:
    """No claim stands without one."""
    table = PAGE.partition("## What each control stops")[2].partition("## What is out of scope")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(CLAIMS) >= 25


@pytest.mark.parametrize(("claim", "file", "name"), CLAIMS, ids=[name for _, _, name in CLAIMS])
def test_each_claim_has_its_test(claim: str, file: str, name: str) -> None:
    """The test exists under that name."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}, claim

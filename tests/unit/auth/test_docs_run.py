"""The code on the pages about passwords and TOTP runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["how-to/passwords.md", "how-to/totp.md"])
def test_code_blocks_run_in_order(page: str) -> None:
    """Every Python block of the page, one after the other, in one namespace."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)  # our own pages

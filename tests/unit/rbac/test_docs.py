"""The page about roles runs."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "roles.md"


def test_the_page_about_roles_runs_and_prints_what_it_says() -> None:
    """The page's Python runs as it stands, and prints the line that its comment shows."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(found[1], str(PAGE), "exec"), {"__name__": "page"})
    said = re.search(r"explain\(\)\)  # (.*)", found[1])
    assert said is not None
    assert out.getvalue().strip() == said[1]

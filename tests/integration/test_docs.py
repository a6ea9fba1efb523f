"""Every code block of the documentation runs, page by page, from top to bottom."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.integration.surroundings import SURROUNDINGS

from axis_security.testing.cluster import Cluster

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python(?P<mark>[^\n]*)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page share one namespace; a block that cannot run says why behind `no-run`. What a page starts it ends."""
    monkeypatch.chdir(tmp_path)
    servers: list[Cluster] = []
    start = Cluster.start

    def noted(server: Cluster) -> Cluster:
        servers.append(server)
        return start(server)

    monkeypatch.setattr(Cluster, "start", noted)
    text = page.read_text(encoding="utf-8")
    surroundings = SURROUNDINGS.get(str(page.relative_to(ROOT)), lambda: nullcontext({}))
    try:
        with surroundings() as names:
            namespace: dict[str, Any] = {"__name__": "__page__", **names}
            for match in BLOCK.finditer(text):
                mark = match["mark"].strip()
                if mark.startswith("no-run"):
                    assert re.fullmatch(r"no-run\s+# .{10,}", mark), f"{page.name}: `no-run` needs a reason"
                    continue
                assert mark == "", f"{page.name}: unknown mark {mark!r}"
                line = text[: match.start()].count("\n") + 1
                exec(compile("\n" * line + match["code"], str(page), "exec", dont_inherit=True), namespace)  # our own pages
        assert [server for server in servers if server._home is not None] == []
    finally:
        for server in servers:
            server.close()


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link of the documentation names a file that is there."""
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert broken == []

"""The documentation as it is built: strict, whole, and readable without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.conftest import needs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once, with warnings as errors: a dead link, a page outside the navigation and a missing anchor are warnings."""
    needs("material", "mkdocstrings", install="pip install 'axis-security[docs]'")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


class Loads(HTMLParser):
    """What a browser would fetch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in {"script", "img", "iframe", "source", "video"} and named.get("src"):
            self.found.append(str(named["src"]))
        if tag == "link" and named.get("rel") in {"stylesheet", "preconnect", "preload", "icon", "dns-prefetch"}:
            self.found.append(str(named["href"]))


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    """No font, script, picture or style from another host: it is read offline, and tells nobody who reads it."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    foreign = set()
    for page in pages:
        parser = Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        foreign |= {(page.name, url) for url in parser.found if re.match(r"(?:https?:)?//", url)}
    assert foreign == set()
    assert not [
        url for sheet in site.rglob("*.css") for url in re.findall(r"url\(\s*['\"]?(https?://[^)]+)", sheet.read_text(encoding="utf-8"))
    ]


def test_every_page_is_built_and_found(site: Path) -> None:
    """Each source is a page of the site, and the search knows words of every shelf."""
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {path for path in sources if not (site / path).exists()} == set()
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for word in ("TenantNotBound", "rls.not_forced", "isolate-your-tables"):
        assert word in index, word


@pytest.mark.parametrize(
    ("page", "names"),
    [("rls", ["Tenancy", "protect", "UndeclaredTable"]), ("crypto", ["KeyRing", "rewrap"]), ("auth", ["PasswordService"])],
)
def test_the_api_is_drawn_from_docstrings(site: Path, page: str, names: list[str]) -> None:
    """Names, arguments and errors stand on the page of their package."""
    text = (site / "reference" / "api" / f"{page}.html").read_text(encoding="utf-8")
    for name in names:
        assert re.search(rf'id="axis_security\.{page}\.[\w.]*\b{name}"', text), name
    assert "Raises" in text
    assert re.findall(r":(?:attr|class|data|exc|func|meth|mod|obj):", text) == []

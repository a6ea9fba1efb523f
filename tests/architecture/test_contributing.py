"""CONTRIBUTING.md is what a newcomer types: every command it names is there, and nothing that measures or checks is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.__main__ import names
from tests.fuzz.targets import TARGETS as FUZZED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FIGURES = PAGE.partition("## Figures")[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = dict(re.findall(r"^([a-z]+):.*?##\s*(.+)$", MAKEFILE, re.MULTILINE))


def test_every_benchmark_has_its_line_under_figures() -> None:
    """A benchmark that is not listed is one that nobody runs; a line without a benchmark is one that does not run."""
    listed = [name for words in re.findall(r"`python -m benchmarks ([a-z_ ]+?)(?: --[a-z ]+)*`", FIGURES) for name in words.split()]
    assert sorted(listed) == names()


def test_every_target_of_make_is_described() -> None:
    """What `make` offers stands in the table of commands or of figures, and what they name is offered."""
    named = set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z]+)", PAGE))
    assert named == set(TARGETS) - {"help"}


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_no_page_names_a_target_that_is_not_there(page: str) -> None:
    """`make x` works wherever a page says so."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:^\$ |`)make ([a-z]+)", text, re.MULTILINE)) - set(TARGETS) == set()


def test_the_files_that_it_names_are_there() -> None:
    """Each path in backticks leads to a file or folder of this checkout, or of the package."""
    paths = {each for each in re.findall(r"`([\w./]+)`", PAGE) if "/" in each and not each.startswith("/")}
    made = {"site/", "dist/", ".venv/bin/python"}
    missing = {
        each for each in paths - made if not ((ROOT / each).exists() or (ROOT / "src" / "axis_security" / each).exists() or each == "docs/")
    }
    assert missing == set()


def test_the_folders_that_it_draws_are_the_folders() -> None:
    """The picture of the source tree has every package, and no other."""
    drawn = set(re.findall(r"^  ([a-z]+)/ ", PAGE, re.MULTILINE))
    assert drawn == {path.name for path in (ROOT / "src" / "axis_security").iterdir() if (path / "__init__.py").exists()}


def test_the_fuzz_targets_of_make_are_all_there_are() -> None:
    """A target that the loop leaves out is never run for ten minutes."""
    loop = re.search(r"for target in ([a-z_ ]+);", MAKEFILE)
    assert loop is not None
    assert set(loop[1].split()) == set(FUZZED)


def test_the_changelog_is_in_order() -> None:
    """Security comes first in every release, and the bullets of a section are one list."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for release in text.split("\n## ")[1:]:
        assert re.findall(r"^### (\w+)", release, re.MULTILINE)[0] == "Security"
    assert re.findall(r"^(?:- |  ).*\n\n- ", text, re.MULTILINE) == []

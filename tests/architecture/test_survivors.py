"""The register of what mutation testing does not notice, held to the code."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

RUNNER = Path(__file__).parents[1] / "mutation" / "run.py"


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    """The mutation runner, as a module."""
    spec = importlib.util.spec_from_file_location("axis_mutation_run", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and named tuples look themselves up
    spec.loader.exec_module(module)
    return module


def test_each_listed_survivor_is_a_change_that_can_be_made_and_has_a_reason(runner: ModuleType) -> None:
    """An entry whose line is gone, that stands twice, or that says nothing is none: it would hide a mutant that somebody should look at."""
    files = sorted(runner.SURVIVORS.glob("*.json"))
    assert {path.stem for path in files} <= set(runner.MODULES)
    for path in files:
        listed = runner.known(path.stem)
        assert len(listed) == len(json.loads(path.read_text())), f"{path.name} lists a change twice"
        gone = listed.keys() - {place for place, _ in runner.changes(path.stem)}
        assert not gone, f"{path.name}: {gone}"
        assert all(isinstance(each.equivalent, bool) and len(each.reason.split()) > 3 for each in listed.values()), path.name


def test_changes_are_told_apart(runner: ModuleType) -> None:
    """No two changes of a module have one place, so that a reason excuses one change only."""
    for module in runner.MODULES:
        counted = Counter(place for place, _ in runner.changes(module))
        assert counted
        assert max(counted.values()) == 1, module

"""The benchmark harness: the machine-readable answer has the promised shape, and its arithmetic is right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.__main__ import names
from benchmarks.harness import Row, Settings, interleaved, measured

ROOT = Path(__file__).parents[3]


def row(**changes: object) -> Row:
    """A row in seconds, against one peer and a limit of 1."""
    fields: dict[str, object] = {
        "bench": "b", "case": "c", "unit": "ms", "ours": 2.0, "target": "t", "met": True, "spread": (1.0, 3.0), "limit": 1.0, "peers": {"p": 4.0, "q": 8.0}
    }  # fmt: skip
    return Row(**{**fields, **changes})  # type: ignore[arg-type]  # checked by the test


def test_ratios_are_to_the_limit_and_to_the_best_peer() -> None:
    """The best peer is the smallest figure, or the largest where the unit is per second; without any there is no ratio."""
    assert (row().ratio_to_limit, row().ratio_to_best_peer) == (2.0, 0.5)
    assert row(unit="rows/s").ratio_to_best_peer == 0.25
    assert (row(limit=None).ratio_to_limit, row(peers={}).ratio_to_best_peer) == (None, None)


def test_cases_take_turns() -> None:
    """A B, B A, A B, after one round of each that is thrown away; a measured row holds the median and the spread."""
    order: list[str] = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b", *("a", "b"), *("b", "a"), *("a", "b")]
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    made = measured("b", "c", "ms", [5.0, 1.0, 3.0], target="t", met=True, peers={"p": [9.0, 7.0, 8.0]})
    assert (made.ours, made.spread, made.peers) == (3.0, (1.0, 5.0), {"p": 8.0})
    assert (Settings().rounds(40), Settings(quick=True).rounds(40), Settings(quick=True).rounds(5)) == (40, 8, 3)


def test_json_has_the_promised_keys_and_the_status_says_whether_targets_were_met() -> None:
    """`python -m benchmarks NAME --quick --json` prints one JSON document and nothing else on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "import_time", "--quick", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    answer = json.loads(done.stdout)
    assert set(answer) == {"machine", "rows"}
    keys = {"bench", "case", "unit", "ours", "limit", "peers", "ratio_to_limit", "ratio_to_best_peer", "target", "met", "spread"}
    assert answer["rows"]
    assert all(set(each) == keys for each in answer["rows"])
    assert done.returncode == (0 if all(each["met"] for each in answer["rows"]) else 1)


@pytest.mark.parametrize("name", ["nonsense", "harness", "__main__", "../secrets"])
def test_only_benchmarks_can_be_named(name: str) -> None:
    """Anything else is a usage error before anything runs."""
    done = subprocess.run([sys.executable, "-m", "benchmarks", name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such benchmark" in done.stderr


def test_every_benchmark_can_be_run() -> None:
    """Each module of the folder has `run`."""
    for name in names():
        assert "\ndef run(settings: Settings)" in (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8"), name

"""The pictures of what things cost are of the rows that are committed beside them."""

from __future__ import annotations

import json

import pytest
from benchmarks import charts
from benchmarks.__main__ import names


@pytest.mark.parametrize("name", ["costs", "growth"])
def test_a_picture_is_of_the_committed_rows(name: str) -> None:
    """Drawn again whenever the rows change: `python -m benchmarks.charts`; with a title for whoever hears the page."""
    text = (charts.IMAGES / f"{name}.svg").read_text(encoding="utf-8")
    assert f"rows {charts.digest()}" in text
    assert "<dc:title>" in text
    assert "<script" not in text


def test_the_rows_are_of_one_whole_run() -> None:
    """Every benchmark that there is has rows in it, and each says what it was held against."""
    rows = json.loads(charts.ROWS.read_text(encoding="utf-8"))["rows"]
    assert {row["bench"] for row in rows} == set(names())
    assert all(row["target"] for row in rows)


def test_a_ratio_is_read_from_the_target() -> None:
    """The control: what is promised as a multiple is drawn with its mark, and what is not is left out."""
    row = {"target": "at most 1.15 of the literal query", "ratio_to_limit": 0.8}
    assert charts.held(row) == (0.8, 1.15)
    assert charts.held({"target": "one round trip", "ratio_to_limit": 1.0}) is None

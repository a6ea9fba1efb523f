"""Records in a chain: added one at a time, each after the one before, and none to a chain that was changed."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.errors import ConfigError
from axis_security.ops.backup.records import append_record, verify_records
from axis_security.ops.promises import drills
from axis_security.ops.records import adding, broken_at, chained, read_records
from axis_security.testing.clock import ManualClock

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def test_two_drills_that_end_together_make_one_chain(tmp_path: Path) -> None:
    """Both began after the same record and name it; each is written after the other, and the chain holds."""
    path = tmp_path / "drills.jsonl"
    first = append_record(path, {"n": 0})
    begun = [chained({"n": n}, str(first["sha256"])) for n in range(1, 9)]
    threads = [threading.Thread(target=append_record, args=(path, record)) for record in begun]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify_records(path).ok
    assert sorted(record["n"] for record in read_records(path)) == list(range(9))


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), min_size=1, max_size=5), st.data())
def test_any_record_that_is_changed_moved_or_taken_out_shows(bodies: list[dict[str, int | str]], data: st.DataObject) -> None:
    """By its number, or by the next one's; only a cut at the end needs a copy elsewhere."""
    records, previous = [], ""
    for body in bodies:
        records.append(chained(body, previous))
        previous = records[-1]["sha256"]
    assert broken_at(records) == 0
    at = data.draw(st.integers(0, len(records) - 1))
    assert broken_at([*records[:at], {**records[at], "added": 1}, *records[at + 1 :]]) == at + 1
    if at < len(records) - 1:
        assert broken_at(records[:at] + records[at + 1 :]) == at + 1


@pytest.mark.parametrize("line", ["{", "[]", "null", "[" * 100_000, '{"n": 1}'])
def test_nothing_is_added_to_what_was_changed(tmp_path: Path, line: str) -> None:
    """A torn or foreign line is told as one, with a fix, and the file stays as it is."""
    path = tmp_path / "drills.jsonl"
    append_record(path, {"n": 0})
    path.write_text(path.read_text() + line + "\n")
    before = path.read_text()
    with pytest.raises(ConfigError), adding(path):
        pytest.fail("it was let in")
    assert path.read_text() == before


def test_the_age_of_drills_is_told_from_records_that_hold(tmp_path: Path) -> None:
    """A forged record at the end shows, and does not make old drills young."""
    path = tmp_path / "drills.jsonl"
    record = {"at": NOON.isoformat(), "ok": True, "checks": [], "backup": "b", "rpo_seconds": 1.0, "rto_seconds": 2.0}
    look = drills(path, clock=ManualClock(NOON + timedelta(days=8)))
    append_record(path, record)
    assert [each.ok for each in look()] == [True, False]  # type: ignore[union-attr]  # two checks
    forged = {**record, "at": (NOON + timedelta(days=8)).isoformat(), "sha256": "", "previous": ""}
    path.write_text(path.read_text() + json.dumps(forged) + "\n")
    assert [each.ok for each in look()] == [False, False]  # type: ignore[union-attr]

"""The run, its report and its forms: what is not shown to hold is red, and nothing that a check saw can break a form."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from axis_security.cli.verify import command
from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import ConfigError
from axis_security.ops.promises import PROMISES, Look, Promises, findings_of
from axis_security.ops.promises.answer import answer, finding
from axis_security.ops.verify import Report, read_baseline, to_html, to_json, to_junit, verify
from axis_security.testing.clock import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def good(name: str = "x.good", seen: str = "well") -> Look:
    """A look that finds nothing wrong."""
    return lambda: answer(name, seen)


def bad(code: str = "x.broken", about: str = "thing", name: str = "x.bad", seen: str = "ill") -> Look:
    """A look that finds something."""
    return lambda: answer(name, seen, [finding(code, about, "it is broken", "it was dropped", "mend it")])


def promises(declined: dict[str, str] | None = None, product: str = "Example", **looks: Any) -> Promises:
    """Every promise measured and held, but for *looks*."""
    every: dict[str, Any] = {each.key: [good(f"{each.key}.look")] for each in PROMISES if each.key not in (declined or {})}
    return Promises(product=product, declined=declined or {}, **{**every, **looks})


def run(made: Promises, **settings: Any) -> Report:
    """Verified at noon."""
    return verify(made, clock=ManualClock(NOON), **settings)


def red(report: Report) -> list[str]:
    """The promises that do not hold."""
    return [row.promise.key for row in report.rows if not row.ok]


def test_every_promise_has_one_field_and_one_number() -> None:
    """The table is the design's: fourteen promises, numbered from 1, each with a field of its own to be measured by."""
    assert [each.id for each in PROMISES] == list(range(1, 15))
    assert len({each.key for each in PROMISES}) == 14
    assert all(Promises(product="x").looks(each.key) == () for each in PROMISES)


def test_what_is_measured_and_well_holds() -> None:
    """All green: the report is ok, in the table's order, with what was seen."""
    report = run(promises())
    assert report.ok
    assert (report.held, red(report)) == (14, [])
    document = json.loads(to_json(report))
    assert [each["id"] for each in document["promises"]] == list(range(1, 15))
    assert {"promise", "ok", "seen", "checks"} <= document["promises"][0].keys()
    assert (document["time"], document["promises"][0]["seen"]) == (NOON.isoformat(), "well")


def test_a_promise_that_nothing_measures_does_not_hold() -> None:
    """Silence is not assurance: no look, an empty answer, or a sequence without a result is red."""
    assert red(run(promises(transport=[], roles=[lambda: ()]))) == ["transport", "roles"]


def raising(error: Exception) -> Look:
    """A look that raises."""

    def look() -> CheckResult:
        raise error

    return look


def test_a_look_that_crashes_is_red_with_its_reason_and_without_its_text() -> None:
    """The name of the exception is told; its text, which may hold a password or a row, never; the looks after it still run."""
    foreign = raising(RuntimeError("password=hunter2"))
    ours = raising(ConfigError(what="no key", why="the file is missing", fix="mint one"))
    report = run(promises(backups=[foreign, good()], secrets=[ours]))
    assert red(report) == ["backups", "secrets"]
    assert [check.ok for check in report.rows[9].checks] == [False, True]
    assert "RuntimeError" in report.rows[9].checks[0].findings[0].why
    assert "hunter2" not in to_json(report) + to_html(report) + to_junit(report)
    assert report.rows[11].checks[0].findings[0].why == "the file is missing"


def test_a_look_that_hangs_is_red_within_its_time() -> None:
    """One that never answers costs its limit and no more, and the rest is measured."""
    release = threading.Event()

    def hangs() -> CheckResult:
        release.wait(30)
        return answer("late", "late")

    report = run(promises(health=[hangs]), timeout=timedelta(milliseconds=100))
    release.set()
    assert red(report) == ["health"]
    assert report.rows[10].checks[0].findings[0].code == "verify.timeout"
    assert report.seconds < 10


def test_a_declined_promise_is_neither_held_nor_broken() -> None:
    """Declined with a reason: shown as such everywhere, not counted as held, and no failure."""
    report = run(promises(declined={"second_factor": "single sign-on only: the provider asks for it"}))
    assert report.ok
    assert report.held == 13
    assert red(report) == ["second_factor"]
    assert "not promised" in to_html(report)
    assert "<skipped" in to_junit(report)


@pytest.mark.parametrize(
    "wrong",
    [
        {"declined": {"second_factor": "no"}},
        {"declined": {"no_such": "a long enough reason"}},
        {"declined": {"health": "a long enough reason"}, "health": [good()]},
        {"product": " "},
        {"health": ["not a look"]},
    ],
)
def test_unusable_promises_are_refused(wrong: dict[str, Any]) -> None:
    """A promise can't be declined without a reason, nor declined and measured; what can't be called is no look."""
    with pytest.raises(ConfigError):
        Promises(**{"product": "x", **wrong})


def test_findings_of_warnings_do_not_break_a_promise() -> None:
    """A warning is shown and does not turn the row red; an error does."""

    def of(severity: Severity) -> Look:
        found = Finding(code="x.y", severity=severity, object="o", what="w", why="y", fix="f")
        return findings_of("x", lambda: [found])

    assert red(run(promises(requests=[of(Severity.WARNING)]))) == []
    assert red(run(promises(requests=[of(Severity.ERROR)]))) == ["requests"]
    assert 'class="finding warning"' in to_html(run(promises(requests=[of(Severity.WARNING)])))


BASE: dict[str, Any] = {"roles": [bad("roles.changed", "member: users.manage")]}
CHANGES: dict[str, tuple[dict[str, Any], list[tuple[int, str]]]] = {
    "the same finding in other words": ({"roles": [bad("roles.changed", "member: users.manage", seen="other figures")]}, []),
    "nothing is broken any more": ({}, []),
    "another object": ({"roles": [*BASE["roles"], bad("roles.changed", "viewer: users.manage")]}, [(7, "x.bad")]),
    "another code": ({"roles": [bad("roles.missing", "admin")]}, [(7, "x.bad")]),
    "another promise": ({**BASE, "health": [bad()]}, [(11, "x.bad")]),
    "a look taken out": ({**BASE, "health": [good("health.other")]}, [(11, "health.look")]),
    "a promise without looks": ({**BASE, "health": []}, [(11, "health")]),
    "a look that crashes": ({**BASE, "health": [raising(KeyError("x"))]}, [(11, "health.1")]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_is_worse_than_the_baseline_counts(change: str, tmp_path: Path) -> None:
    """What was red stays forgiven, whatever its figures; anything new, or no longer measured, is a regression."""
    path = tmp_path / "before.json"
    path.write_text(to_json(run(promises(**BASE))))
    looks, worse = CHANGES[change]
    found = run(promises(**looks)).regressions(read_baseline(path))
    assert [(each.promise, each.check) for each in found] == worse


def test_a_known_fault_does_not_hide_that_its_neighbour_is_no_longer_measured(tmp_path: Path) -> None:
    """A promise that was red in the baseline is still looked at: taking out the look beside the known fault is worse than before."""
    path = tmp_path / "before.json"
    path.write_text(to_json(run(promises(at_rest=[bad(), good("at_rest.objects")]))))
    found = run(promises(at_rest=[bad()])).regressions(read_baseline(path))
    assert [(each.promise, each.check, each.why) for each in found] == [(2, "at_rest.objects", "no longer measured")]


def test_declining_what_was_promised_is_a_regression(tmp_path: Path) -> None:
    """A promise can't leave the page unseen."""
    path = tmp_path / "before.json"
    path.write_text(to_json(run(promises())))
    found = run(promises(declined={"health": "somebody else's business now"})).regressions(read_baseline(path))
    assert [(each.promise, each.why) for each in found] == [(11, "no longer promised")]
    path.write_text("{}")
    with pytest.raises(ConfigError):
        read_baseline(path)


class Strict(HTMLParser):
    """Collects tags, and holds that they close in order."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in {"src", "href"}], "nothing runs, nothing is loaded"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@given(text=st.text(max_size=80))
def test_nothing_that_was_seen_breaks_a_form(text: str) -> None:
    """Names and values from a database, whatever they are, stay text: in HTML, in XML, in JSON."""
    nasty = "<script>alert(1)</script>\"'&]]>" + text
    found = finding("x.y", nasty, nasty, nasty, nasty)
    report = run(promises(product=nasty, roles=[lambda: answer(nasty, nasty, [found])]))
    page = Strict()
    page.feed(to_html(report))
    assert page.open == []
    assert "script" not in page.seen
    assert "<script>alert(1)</script>" in page.text
    suites = ET.fromstring(to_junit(report).encode())
    assert suites.attrib["failures"] == "1"
    assert json.loads(to_json(report))["product"] == nasty


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No script, no address: it can be mailed, printed and opened from a disk; it is made for light, dark and paper; it confers nothing."""
    page = to_html(run(promises(backups=[bad()])))
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page
    assert "13 of 14" in page
    assert "mend it" in page
    assert "confers an attestation" in " ".join(page.split())


CONFIG = """
from axis_security.ops.promises import PROMISES, Promises
from axis_security.ops.promises.answer import answer, finding

def good(): return answer("x", "well")
def bad(): return answer("y", "ill", [finding("y.z", "o", "w", "y", "f")])

looks = {each.key: [good] for each in PROMISES}
green = Promises(product="Example", **looks)
def red(): return Promises(product="Example", **{**looks, "health": [bad]})
nothing = 7
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the command in a directory with two configurations."""
    (tmp_path / "promises_of_a_test.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda name, *words: CliRunner().invoke(command, [f"promises_of_a_test:{name}", *words])


def test_the_command_is_a_gate(cli: Callable[..., Any], tmp_path: Path) -> None:
    """Status 0 when all holds, 1 when not, 2 for what is no configuration; a baseline forgives what was red before and nothing else."""
    assert cli("green").exit_code == 0
    result = cli("red")
    assert result.exit_code == 1
    assert "13 of 14 promises hold" in result.output
    assert "fix: f" in result.output
    assert cli("nothing").exit_code == cli("missing").exit_code == 2
    assert cli("red", "--save", "red.json", "--junit", "red.xml", "--html", "red.html", "--evidence", "evidence.jsonl").exit_code == 1
    assert cli("red", "--baseline", "red.json").exit_code == 0
    assert cli("green", "--save", "green.json").exit_code == 0
    assert cli("red", "--baseline", "green.json").exit_code == 1
    assert json.loads(cli("red", "--json").output)["ok"] is False
    assert (tmp_path / "red.html").read_text().startswith("<!doctype html>")
    assert ET.parse(tmp_path / "red.xml").getroot().attrib["failures"] == "1"
    assert len((tmp_path / "evidence.jsonl").read_text().splitlines()) == 14

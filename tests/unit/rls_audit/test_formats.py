"""The forms of a report: each says everything, in the words of the place that reads it."""

from __future__ import annotations

import json
import string
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.checks import Finding, Severity
from axis_security.rls.audit.engine import judge
from axis_security.rls.audit.facts import Facts, Relation
from axis_security.rls.audit.formats import FORMATS, as_github, as_json, as_junit, as_sarif, as_table
from axis_security.rls.audit.ground import Scope
from axis_security.rls.audit.report import AuditReport
from axis_security.rls.audit.rule import RULES

HARD = 'odd "name", <b> & 100%\n::error::x'


def finding(**changes: object) -> Finding:
    """A finding with hard characters in it."""
    values: dict[str, object] = {
        "code": "rls.not_forced",
        "severity": Severity.ERROR,
        "object": HARD,
        "what": "row security is not forced",
        "why": "the owner sees all",
        "fix": f"ALTER TABLE {HARD};",
        "evidence": {"owner": "x"},
    }
    return Finding(**(values | changes))  # type: ignore[arg-type]


def report(*findings: Finding, accepted: tuple[tuple[Finding, str], ...] = ()) -> AuditReport:
    """A report with these findings."""
    return AuditReport(
        findings=findings, accepted=accepted, unknown=("the weather",), scope=Scope(key="tenant_id", app=frozenset({"app"})), database="db"
    )


def test_table_says_why_and_how_to_fix() -> None:
    """The worst is loud, and what is not known is said."""
    text = as_table(report(finding(object="public.task", fix="ALTER TABLE task FORCE ROW LEVEL SECURITY;")))
    assert "ERROR   public.task" in text
    assert "ALTER TABLE task FORCE ROW LEVEL SECURITY;" in text
    assert "not known: the weather" in text


def test_json_is_the_contract() -> None:
    """Each finding has the seven fields that every machine-readable answer has."""
    answer = json.loads(as_json(report(finding())))
    assert set(answer["findings"][0]) == {"code", "severity", "object", "what", "why", "fix", "evidence"}
    assert answer["ok"] is False


def test_sarif_points_to_its_rules_and_tells_what_is_suppressed() -> None:
    """Rule indexes are right, fingerprints do not depend on evidence, accepted findings carry their reason."""
    log = json.loads(
        as_sarif(report(finding(), finding(code="rls.counted_key", severity=Severity.INFO), accepted=((finding(object="x"), "known"),)))
    )
    run = log["runs"][0]
    assert log["version"] == "2.1.0"
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"error", "warning", "note"}
    assert run["results"][2]["suppressions"] == [{"kind": "external", "justification": "known"}]
    again = json.loads(as_sarif(report(finding(evidence={"owner": "y"}))))["runs"][0]["results"][0]
    assert again["partialFingerprints"] == run["results"][0]["partialFingerprints"]


@given(text=st.text(alphabet=st.sampled_from(string.printable + "é:,%"), max_size=40))
def test_github_commands_cannot_be_injected(text: str) -> None:
    """One finding is one line, whatever an object is called."""
    lines = as_github(report(finding(object=text, fix=text, what=text))).split("\n")
    assert len(lines) == 2
    assert lines[0].startswith("::error title=")
    assert "\r" not in lines[0]


def test_junit_has_a_case_for_each_rule() -> None:
    """A rule without findings passes; one with findings fails; information alone does not."""
    suite = ET.fromstring(as_junit(report(finding(), finding(code="rls.counted_key", severity=Severity.INFO))))
    assert int(suite.attrib["tests"]) == len(RULES)
    failed = [case.attrib["name"] for case in suite if case.find("failure") is not None]
    assert failed == ["rls.not_forced"]
    assert suite.attrib["failures"] == "1"


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_form_takes_an_empty_report(form: str) -> None:
    """Nothing found is an answer as well."""
    assert isinstance(FORMATS[form](report()), str)


def test_codes_are_dotted_and_words_are_plain() -> None:
    """Every rule has a code of this package, a sentence without a full stop, and the kinds of failure it closes."""
    for code, rule in RULES.items():
        assert code.startswith("rls.")
        assert rule.modes
        assert set(rule.modes) <= set(range(1, 33))
        assert rule.what[-1] not in ".;"
        assert rule.why[-1] not in ".;"


@pytest.mark.parametrize(
    ("version", "old"), [(130022, True), (140018, True), (140019, False), (170005, True), (170006, False), (180000, False), (190000, False)]
)
def test_servers_below_the_floor_are_named(version: int, old: bool) -> None:
    """The minor releases that fixed policies of the wrong role and statistics of hidden rows."""
    found = judge(Facts(version=version), Scope(key=None, app=frozenset()))
    assert ("rls.server_too_old" in found.codes) is old


def test_what_cannot_be_known_is_said() -> None:
    """No tenant column, no application role, no declaration: the report names all three."""
    found = judge(Facts(version=180000), Scope(key=None, app=frozenset()))
    assert len(found.unknown) == 4
    assert found.ok


def test_an_unknown_tenant_column_is_never_a_crash() -> None:
    """Rules about keys keep silent where nobody knows the tenant column."""
    table = Relation(1, "public", "t", "r", 10, True, True, False, frozenset())
    assert judge(Facts(version=180000, relations={1: table}), Scope(key=None, app=frozenset({"app"}))).codes == set()

"""A report for people, for programs, and for the places where reviews happen: table, JSON, SARIF 2.1.0, GitHub annotations, JUnit."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Final
from xml.etree import ElementTree as ET  # written, never read

from axis_security.core.checks import Finding, Severity
from axis_security.rls.audit.report import AuditReport
from axis_security.rls.audit.rule import RULES

__all__ = ["FORMATS", "as_github", "as_json", "as_junit", "as_sarif", "as_table"]

_WIDTH: Final = 110
_SARIF_LEVEL: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_GITHUB: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def as_table(report: AuditReport) -> str:
    """For a terminal: the worst first, each with why and the SQL that fixes it."""
    counts = ", ".join(f"{report.counts.get(severity, 0)} {severity}" for severity in Severity)
    lines = [f"{report.database}: {report.tables} tables, {counts}" + (f", {len(report.accepted)} accepted" if report.accepted else "")]
    lines += [f"assumed: {one}" for one in report.scope.assumed]
    for finding in report.findings:
        lines += ["", f"{finding.severity.upper():<8}{finding.object}", f"        {finding.what} [{finding.code}]"]
        lines += textwrap.wrap(f"why: {finding.why}", _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 13)
        fix = finding.fix.splitlines()
        lines += [f"        {'fix:' if n == 0 else '    '} {line}" for n, line in enumerate(fix)]
    lines += [""] + [f"not known: {one}" for one in report.unknown]
    return "\n".join(lines) + "\n"


def as_json(report: AuditReport) -> str:
    """For programs."""
    return json.dumps(report.as_dict(), indent=2) + "\n"


def _fingerprint(finding: Finding) -> str:
    # Stable while the finding is the same one: neither the order of findings nor evidence that moves counts.
    return hashlib.sha256(f"{finding.code}\0{finding.object}".encode()).hexdigest()[:32]


def as_sarif(report: AuditReport) -> str:
    """For code scanning. Places are logical ones: a catalog has no files and lines."""
    codes = sorted(report.codes | {finding.code for finding, _ in report.accepted})
    rules: list[dict[str, Any]] = []
    for code in codes:
        known = RULES.get(code)
        words = {"shortDescription": {"text": known.what}, "fullDescription": {"text": known.why}} if known else {}
        level = {"defaultConfiguration": {"level": _SARIF_LEVEL[known.severity]}} if known else {}
        rules.append({"id": code, **words, **level})

    def result(finding: Finding) -> dict[str, Any]:
        return {
            "ruleId": finding.code,
            "ruleIndex": codes.index(finding.code),
            "level": _SARIF_LEVEL[finding.severity],
            "message": {"text": f"{finding.object}: {finding.what}. {finding.why}. Fix: {finding.fix}"},
            "locations": [
                {
                    "physicalLocation": {"artifactLocation": {"uri": f"database/{report.database}"}, "region": {"startLine": 1}},
                    "logicalLocations": [{"fullyQualifiedName": finding.object, "kind": "member"}],
                }
            ],
            "partialFingerprints": {"axisSecurity/v1": _fingerprint(finding)},
            "properties": {"evidence": dict(finding.evidence), "fix": finding.fix},
        }

    results = [result(finding) for finding in report.findings]
    results += [{**result(finding), "suppressions": [{"kind": "external", "justification": reason}]} for finding, reason in report.accepted]
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": {"name": "axis-security rls audit", "rules": rules}}, "results": results}],
    }
    return json.dumps(log, indent=2) + "\n"


def as_github(report: AuditReport) -> str:
    """Workflow commands: each finding becomes an annotation of the run."""

    def data(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def title(text: str) -> str:
        return data(text).replace(":", "%3A").replace(",", "%2C")

    return "".join(
        f"::{_GITHUB[finding.severity]} title={title(f'{finding.code} {finding.object}')}::{data(f'{finding.what}: {finding.why}.{chr(10)}{finding.fix}')}\n"
        for finding in report.findings
    )


def as_junit(report: AuditReport) -> str:
    """For test reports: one case for each rule; a finding that is not mere information fails its case."""
    suite = ET.Element("testsuite", name="axis-security rls audit")
    failures = 0
    for code in sorted({*RULES, *report.codes}):
        case = ET.SubElement(suite, "testcase", classname="rls", name=code)
        found = [finding for finding in report.findings if finding.code == code]
        bad = [finding for finding in found if finding.severity is not Severity.INFO]
        failures += bool(bad)
        text = "\n\n".join(f"{finding.object}: {finding.what}\n{finding.fix}" for finding in found)
        if bad:
            ET.SubElement(case, "failure", message=f"{len(bad)} finding(s): {bad[0].what}", type=str(bad[0].severity)).text = text
        elif found:
            ET.SubElement(case, "system-out").text = text
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


FORMATS: Final[Mapping[str, Callable[[AuditReport], str]]] = {
    "table": as_table,
    "json": as_json,
    "sarif": as_sarif,
    "github": as_github,
    "junit": as_junit,
}
"""Every form by its name on the command line."""

"""A report as JSON, and as JUnit XML for what shows test results."""

from __future__ import annotations

import json
import re
from typing import Final
from xml.etree import ElementTree as ET

from axis_security.core.checks import CheckResult
from axis_security.ops.verify.report import Report

__all__ = ["to_json", "to_junit"]

_NOT_XML: Final = re.compile("[^\\t\\n\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""XML 1.0 section 2.2: these cannot stand in a document, escaped or not."""


def to_json(report: Report) -> str:
    """Indented, with a stable order."""
    return json.dumps(report.as_dict(), indent=2) + "\n"


def to_junit(report: Report) -> str:
    """One suite for each promise, one case for each check; a declined promise is skipped."""
    root = ET.Element("testsuites", name=f"axis-security verify: {report.product}", time=f"{report.seconds:.3f}")
    failures = 0
    for row in report.rows:
        bad = sum(not check.ok for check in row.checks)
        failures += bad
        declined = row.declined is not None
        suite = ET.SubElement(
            root,
            "testsuite",
            name=f"{row.promise.id}. {row.promise.text}",
            tests=str(len(row.checks) + declined),
            failures=str(bad),
            skipped=str(int(declined)),
            time=f"{row.seconds:.3f}",
            timestamp=report.at.isoformat(),
        )
        if declined:
            case = ET.SubElement(suite, "testcase", classname=row.promise.key, name="promised", time="0")
            ET.SubElement(case, "skipped", message=row.declined or "")
        for check in row.checks:
            case = ET.SubElement(suite, "testcase", classname=row.promise.key, name=check.name, time="0")
            if not check.ok:
                ET.SubElement(case, "failure", message=check.seen, type=_code(check)).text = _text(check)
            else:
                ET.SubElement(case, "system-out").text = check.seen
    root.set("failures", str(failures))
    root.set("tests", str(sum(len(row.checks) for row in report.rows)))
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + _NOT_XML.sub("", text) + "\n"


def _code(check: CheckResult) -> str:
    return check.findings[0].code if check.findings else "not_ok"


def _text(check: CheckResult) -> str:
    return "\n".join(f"{each.object}: {each.what}: {each.why}\nfix: {each.fix} [{each.code}]" for each in check.findings)

"""A report as OSCAL assessment results (NIST OSCAL 1.0.6, JSON): what GRC tools read. The same report gives the same bytes: every id is a UUIDv5 over what it names."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from axis_security.ops.evidence.controls import CONTROLS, STATEMENT, Control
from axis_security.ops.verify.report import Report, Row

__all__ = ["OSCAL_VERSION", "to_oscal"]

OSCAL_VERSION: Final = "1.0.6"
"""The version of OSCAL that is written."""
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:axis-security:oscal:v1")
_PROPERTIES: Final = "urn:axis-security:ns:oscal"


def _id(*parts: object) -> str:
    return str(uuid.uuid5(_NAMESPACE, json.dumps([str(part) for part in parts])))


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _text(text: str, otherwise: str = "none") -> str:
    return " ".join(text.split()) or otherwise  # the schema refuses empty strings and white space at the ends


def to_oscal(report: Report) -> str:
    """The document, as JSON text. One observation for each check, one finding for each control that a made promise supports."""
    at = _moment(report.at)
    made = {row.promise.id: row for row in report.rows if row.declined is None}
    controls = [control for control in CONTROLS if set(control.promises) & made.keys()]
    key = (report.product, at)
    document = {
        "assessment-results": {
            "uuid": _id("results", *key),
            "metadata": {
                "title": _text(f"{report.product}: promises measured"),
                "last-modified": at,
                "version": _text(report.version),
                "oscal-version": OSCAL_VERSION,
                "remarks": STATEMENT,
            },
            "import-ap": {"href": f"#{_id('plan', report.product)}"},
            "results": [
                {
                    "uuid": _id("result", *key),
                    "title": "axis-security verify",
                    "description": "Each promise of the product's security page, measured on the running system.",
                    "start": at,
                    "end": at,
                    "reviewed-controls": {
                        "control-selections": [{"include-controls": [{"control-id": control.token} for control in controls]}]
                    },
                    "observations": [each for row in made.values() for each in _observations(row, key, at)],
                    "findings": [_finding(control, made, key) for control in controls],
                }
            ],
            "back-matter": {
                "resources": [
                    {
                        "uuid": _id("plan", report.product),
                        "title": "The promise table of axis-security",
                        "description": "The plan of the assessment: the fourteen promises of docs/reference/promises.md, and the looks that measure each.",
                    }
                ]
            },
        }
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _observations(row: Row, key: tuple[str, str], at: str) -> list[dict[str, Any]]:
    return [
        {
            "uuid": _id("observation", *key, row.promise.id, number, check.name),
            "title": _text(check.name),
            "description": _text(check.seen, "nothing was seen"),
            "props": [
                {"name": "promise", "ns": _PROPERTIES, "value": str(row.promise.id)},
                {"name": "result", "ns": _PROPERTIES, "value": "holds" if check.ok else "does-not-hold"},
            ],
            "methods": ["TEST"],
            "types": ["control-objective"],
            "collected": at,
            **(
                {"remarks": _text("; ".join(f"{each.what}: {each.why} [{each.code}]" for each in check.findings))} if check.findings else {}
            ),
        }
        for number, check in enumerate(row.checks)
    ]


def _finding(control: Control, made: dict[int, Row], key: tuple[str, str]) -> dict[str, Any]:
    rows = [made[number] for number in control.promises if number in made]
    ok = all(row.ok for row in rows)
    seen = [
        {"observation-uuid": _id("observation", *key, row.promise.id, n, check.name)} for row in rows for n, check in enumerate(row.checks)
    ]
    promised = ", ".join(f"{row.promise.id} ({'holds' if row.ok else 'does not hold'})" for row in rows)
    return {
        "uuid": _id("finding", *key, control.short),
        "title": control.short,
        "description": _text(f"{control.title}: supported by the promises {promised}"),
        "target": {
            "type": "objective-id",
            "target-id": control.token,
            "title": _text(control.title),
            "status": {"state": "satisfied" if ok else "not-satisfied"},
        },
        **({"related-observations": seen} if seen else {}),
    }

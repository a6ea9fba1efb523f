"""Evidence: which controls a measurement supports, records that cannot be changed unnoticed, signed bundles, OSCAL and CSV.

A library supports an attestation and does not confer one; every export says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.ops.evidence.bundle import EvidenceKey as EvidenceKey
    from axis_security.ops.evidence.bundle import check_bundle as check_bundle
    from axis_security.ops.evidence.bundle import to_csv as to_csv
    from axis_security.ops.evidence.bundle import write_bundle as write_bundle
    from axis_security.ops.evidence.controls import CONTROLS as CONTROLS
    from axis_security.ops.evidence.controls import STATEMENT as STATEMENT
    from axis_security.ops.evidence.controls import Control as Control
    from axis_security.ops.evidence.oscal import to_oscal as to_oscal
    from axis_security.ops.evidence.records import check_records as check_records
    from axis_security.ops.evidence.records import record_report as record_report

_HOME: Final = {
    "CONTROLS": "axis_security.ops.evidence.controls",
    "Control": "axis_security.ops.evidence.controls",
    "EvidenceKey": "axis_security.ops.evidence.bundle",
    "STATEMENT": "axis_security.ops.evidence.controls",
    "check_bundle": "axis_security.ops.evidence.bundle",
    "check_records": "axis_security.ops.evidence.records",
    "record_report": "axis_security.ops.evidence.records",
    "to_csv": "axis_security.ops.evidence.bundle",
    "to_oscal": "axis_security.ops.evidence.oscal",
    "write_bundle": "axis_security.ops.evidence.bundle",
}

__all__ = [
    "CONTROLS",
    "STATEMENT",
    "Control",
    "EvidenceKey",
    "check_bundle",
    "check_records",
    "record_report",
    "to_csv",
    "to_oscal",
    "write_bundle",
]

__getattr__, __dir__ = front_door(__name__, _HOME)

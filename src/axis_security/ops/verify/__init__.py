"""``axis-security verify``: every promise measured on the running system, in the form that a person, a pipeline or an auditor reads."""

from axis_security.ops.verify.forms import to_json as to_json
from axis_security.ops.verify.forms import to_junit as to_junit
from axis_security.ops.verify.page import to_html as to_html
from axis_security.ops.verify.report import Report as Report
from axis_security.ops.verify.report import Row as Row
from axis_security.ops.verify.report import read_baseline as read_baseline
from axis_security.ops.verify.run import verify as verify

__all__ = ["Report", "Row", "read_baseline", "to_html", "to_json", "to_junit", "verify"]

"""The audit of row-level security: rules over catalog facts. Needs no declaration; knows more with one."""

from __future__ import annotations

from axis_security.rls.audit.engine import audit_schema as audit_schema
from axis_security.rls.audit.report import AuditReport as AuditReport
from axis_security.rls.audit.rule import RULES as RULES
from axis_security.rls.audit.rule import Rule as Rule

__all__ = ["RULES", "AuditReport", "Rule", "audit_schema"]

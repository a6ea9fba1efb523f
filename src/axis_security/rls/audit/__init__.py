"""The audit of row-level security: rules over catalog facts. Needs no declaration; knows more with one."""

from __future__ import annotations

from axis_security.rls.audit.engine import audit_schema as audit_schema
from axis_security.rls.audit.report import AuditReport as AuditReport
from axis_security.rls.audit.rule import RULES as RULES
from axis_security.rls.audit.rule import Rule as Rule
from axis_security.rls.audit.show import AccessMatrix as AccessMatrix
from axis_security.rls.audit.show import show_table as show_table

__all__ = ["RULES", "AccessMatrix", "AuditReport", "Rule", "audit_schema", "show_table"]

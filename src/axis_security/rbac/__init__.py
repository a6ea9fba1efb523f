"""Roles and capabilities: one policy, enforced in Python here and in PostgreSQL by the rows' policies."""

from __future__ import annotations

from axis_security.rbac.capability import Capabilities as Capabilities
from axis_security.rbac.capability import Capability as Capability
from axis_security.rbac.capability import UnknownCapability as UnknownCapability
from axis_security.rbac.conditions import allow as allow
from axis_security.rbac.conditions import owns as owns
from axis_security.rbac.conditions import predicate as predicate
from axis_security.rbac.decision import Decision as Decision
from axis_security.rbac.decision import DecisionCode as DecisionCode
from axis_security.rbac.decision import PermissionDenied as PermissionDenied
from axis_security.rbac.decision import StepUp as StepUp
from axis_security.rbac.guard import decide as decide
from axis_security.rbac.guard import public as public
from axis_security.rbac.guard import requires as requires
from axis_security.rbac.policy import Policy as Policy
from axis_security.rbac.policy import Role as Role
from axis_security.rbac.policy import UnsoundPolicy as UnsoundPolicy
from axis_security.rbac.policy import standard_policy as standard_policy

__all__ = [
    "Capabilities",
    "Capability",
    "Decision",
    "DecisionCode",
    "PermissionDenied",
    "Policy",
    "Role",
    "StepUp",
    "UnknownCapability",
    "UnsoundPolicy",
    "allow",
    "decide",
    "owns",
    "predicate",
    "public",
    "requires",
    "standard_policy",
]

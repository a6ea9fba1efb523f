"""A decision that explains itself: what was asked, the answer, the rule behind it, and what would change it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from axis_security.core.errors import Denied
from axis_security.core.principal import Assurance, Principal

__all__ = ["Decision", "DecisionCode", "PermissionDenied", "StepUp"]


class DecisionCode(enum.StrEnum):
    """Why the answer is what it is. Stable, part of the public contract."""

    ALLOWED = "rbac.allowed"
    NO_PRINCIPAL = "rbac.no_principal"
    NO_POLICY = "rbac.no_policy"
    UNKNOWN_CAPABILITY = "rbac.unknown_capability"
    UNKNOWN_ROLE = "rbac.unknown_role"
    MISSING_CAPABILITY = "rbac.missing_capability"
    RESOURCE_REQUIRED = "rbac.resource_required"
    CONDITION_FAILED = "rbac.condition_failed"
    CONDITION_ERROR = "rbac.condition_error"
    STEP_UP_REQUIRED = "rbac.step_up_required"


@dataclass(frozen=True, slots=True)
class StepUp:
    """What the person would have to prove again: ``aal`` factors, and no longer than ``fresh`` ago. ``None``: not asked for."""

    aal: Assurance | None = None
    fresh: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to *may this principal do this*. True in a boolean context exactly when allowed.

    Args:
        allowed: the answer.
        code: why, in one stable word.
        capability: the wire name that was asked for.
        principal: who asked, or ``None``.
        rule: the grant behind a yes (``member`` or ``member when owns(owner_id)``), or the condition that failed.
        missing: capabilities the role lacks.
        roles: roles of the policy that would allow it, lowest first; on a condition, where one is attached.
        needs: the step-up that would turn this no into a yes.
    """

    allowed: bool
    code: DecisionCode
    capability: str
    principal: Principal | None = None
    rule: str | None = None
    missing: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    needs: StepUp | None = None

    def __bool__(self) -> bool:
        return self.allowed

    def public(self) -> dict[str, Any]:
        """For the client: the answer, and how to step up if that helps. Names no role, rule or capability (ASVS 16.5.1)."""
        answer: dict[str, Any] = {"allowed": self.allowed}
        if self.needs is not None:
            answer |= {
                "code": str(DecisionCode.STEP_UP_REQUIRED),
                "message": "Please confirm that it is you.",
                "step_up": _step_up(self.needs),
            }
        elif not self.allowed:
            signed_out = self.code is DecisionCode.NO_PRINCIPAL
            answer |= {
                "code": "axis.principal_required" if signed_out else "rbac.denied",
                "message": "Please sign in." if signed_out else Denied.public_text,
            }
        return answer

    def audit(self) -> dict[str, Any]:
        """For the log and the administrator: everything, JSON-ready, no row value."""
        who = self.principal
        return {
            "allowed": self.allowed,
            "code": str(self.code),
            "capability": self.capability,
            "tenant": None if who is None else who.tenant.text,
            "user": None if who is None or who.user is None else who.user.text,
            "role": None if who is None else who.role,
            "rule": self.rule,
            "missing": list(self.missing),
            "roles_that_would_allow": list(self.roles),
            "step_up": None if self.needs is None else _step_up(self.needs),
        }

    def explain(self) -> str:
        """One line for a person: the answer, the reason, and what would change it."""
        role = "nobody" if self.principal is None else f"role `{self.principal.role}`"
        would = f"; allowed for: {', '.join(self.roles)}" if self.roles else "; no role allows it"
        match self.code:
            case DecisionCode.ALLOWED:
                return f"yes: `{self.capability}` through {self.rule}"
            case DecisionCode.NO_PRINCIPAL:
                return f"no: nobody is signed in, and `{self.capability}` is not public"
            case DecisionCode.NO_POLICY:
                return f"no: no policy is in force for `{self.capability}`"
            case DecisionCode.UNKNOWN_CAPABILITY:
                return f"no: the policy knows no capability `{self.capability}`"
            case DecisionCode.UNKNOWN_ROLE:
                return f"no: the policy knows no {role}{would}"
            case DecisionCode.MISSING_CAPABILITY:
                return f"no: {role} lacks `{self.capability}`{would}"
            case DecisionCode.RESOURCE_REQUIRED:
                return f"no: {role} holds `{self.capability}` only when {self.rule}, and no object was given{would}"
            case DecisionCode.CONDITION_FAILED:
                return f"no: {role} holds `{self.capability}` only when {self.rule}, which is not so{would}"
            case DecisionCode.CONDITION_ERROR:
                return f"no: {self.rule} did not answer True or False, so `{self.capability}` is refused{would}"
            case DecisionCode.STEP_UP_REQUIRED:
                return f"no: {role} holds `{self.capability}`, but the person must sign in again first"

    def to_authzen(self) -> dict[str, Any]:
        """The OpenID AuthZEN Authorization API 1.0 evaluation response: ``decision``, and reasons in ``context``."""
        context: dict[str, Any] = {"code": str(self.code)}
        if not self.allowed:
            context |= {"reason_user": {"en": self.public()["message"]}, "reason_admin": {"en": self.explain()}}
        if self.needs is not None:
            context["step_up"] = _step_up(self.needs)
        return {"decision": self.allowed, "context": context}


def _step_up(needs: StepUp) -> dict[str, Any]:
    return {
        "aal": None if needs.aal is None else int(needs.aal),
        "fresh_seconds": None if needs.fresh is None else int(needs.fresh.total_seconds()),
    }


class PermissionDenied(Denied):
    """A guard said no. ``decision`` is the whole story; ``public()`` tells the client only whether stepping up would help."""

    code = "rbac.denied"
    http_status: ClassVar[int] = 403
    decision: Decision | None = None
    """The decision; ``None`` only after the error crossed a process boundary (``facts`` still holds its audit form)."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(
            what=f"`{decision.capability}` is denied",
            why=decision.explain().removeprefix("no: "),
            fix="sign in again (step up)" if decision.needs else "act in a role that allows it, or change the policy",
            facts=decision.audit(),
        )
        self.decision = decision

    def public(self) -> dict[str, Any]:
        """The answer for a stranger, without rule, role or capability."""
        answer = {"code": self.code, "message": self.public_text} if self.decision is None else self.decision.public()
        answer.pop("allowed", None)
        return answer

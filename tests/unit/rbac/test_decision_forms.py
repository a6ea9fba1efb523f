"""A decision in its forms: one line for a person, all of it for the log, next to nothing for a stranger, and AuthZEN's own."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta

import pytest

from axis_security import Assurance, Principal
from axis_security.rbac.decision import Decision, DecisionCode, PermissionDenied, StepUp

WHO = Principal(tenant="acme", user="ann", role="viewer")
SYSTEM = Principal(tenant="acme", role="viewer")
CAP = "contacts.write"
NEEDS = StepUp(aal=Assurance.AAL2, fresh=timedelta(minutes=5))
NOBODY = "; no role allows it"

LINES = {
    DecisionCode.ALLOWED: "yes: `contacts.write` through member",
    DecisionCode.NO_PRINCIPAL: "no: nobody is signed in, and `contacts.write` is not public",
    DecisionCode.NO_POLICY: "no: no policy is in force for `contacts.write`",
    DecisionCode.UNKNOWN_CAPABILITY: "no: the policy knows no capability `contacts.write`",
    DecisionCode.UNKNOWN_ROLE: "no: the policy knows no role `viewer`" + NOBODY,
    DecisionCode.MISSING_CAPABILITY: "no: role `viewer` lacks `contacts.write`" + NOBODY,
    DecisionCode.RESOURCE_REQUIRED: "no: role `viewer` holds `contacts.write` only when member, and no object was given" + NOBODY,
    DecisionCode.CONDITION_FAILED: "no: role `viewer` holds `contacts.write` only when member, which is not so" + NOBODY,
    DecisionCode.CONDITION_ERROR: "no: member did not answer True or False, so `contacts.write` is refused" + NOBODY,
    DecisionCode.STEP_UP_REQUIRED: "no: role `viewer` holds `contacts.write`, but the person must sign in again first",
}


@pytest.mark.parametrize("code", DecisionCode)
def test_each_reason_has_its_line(code: DecisionCode) -> None:
    """The sentence that an administrator reads, word for word."""
    made = Decision(code is DecisionCode.ALLOWED, code, CAP, WHO, rule="member")
    assert made.explain() == LINES[code]
    assert bool(made) is (code is DecisionCode.ALLOWED)


def test_roles_that_would_allow_it_are_named_lowest_first() -> None:
    """What would change the answer; and nobody is nobody, not a role."""
    made = Decision(False, DecisionCode.MISSING_CAPABILITY, CAP, WHO, roles=("member", "owner"))
    assert made.explain() == "no: role `viewer` lacks `contacts.write`; allowed for: member, owner"
    assert Decision(False, DecisionCode.UNKNOWN_ROLE, CAP, None).explain().startswith("no: the policy knows no nobody")


def test_the_log_gets_everything() -> None:
    """Every field, JSON-ready, for a person, for a principal without a user, and for nobody."""
    made = Decision(False, DecisionCode.STEP_UP_REQUIRED, CAP, WHO, rule="member", missing=("a.b",), roles=("owner",), needs=NEEDS)
    assert made.audit() == {
        "allowed": False, "code": "rbac.step_up_required", "capability": CAP, "tenant": "acme", "user": "ann", "role": "viewer", "rule": "member",
        "missing": ["a.b"], "roles_that_would_allow": ["owner"], "step_up": {"aal": 2, "fresh_seconds": 300},
    }  # fmt: skip
    json.dumps(made.audit())
    assert [Decision(True, DecisionCode.ALLOWED, CAP, who).audit()["user"] for who in (WHO, SYSTEM, None)] == ["ann", None, None]
    nobody = Decision(False, DecisionCode.NO_PRINCIPAL, CAP).audit()
    assert (nobody["tenant"], nobody["role"], nobody["step_up"]) == (None, None, None)


def test_a_stranger_learns_the_answer_and_no_reason() -> None:
    """Signed out, denied, or asked to step up; no role, rule or capability among it."""
    assert Decision(True, DecisionCode.ALLOWED, CAP, WHO).public() == {"allowed": True}
    assert Decision(False, DecisionCode.NO_PRINCIPAL, CAP).public() == {
        "allowed": False,
        "code": "axis.principal_required",
        "message": "Please sign in.",
    }
    denied = Decision(False, DecisionCode.MISSING_CAPABILITY, CAP, WHO, rule="member", roles=("owner",)).public()
    assert denied["code"] == "rbac.denied"
    assert not any(word in json.dumps(denied) for word in ("viewer", "owner", "member", "contacts"))
    step = Decision(False, DecisionCode.STEP_UP_REQUIRED, CAP, WHO, needs=StepUp(fresh=timedelta(seconds=30))).public()
    assert step == {
        "allowed": False, "code": "rbac.step_up_required", "message": "Please confirm that it is you.", "step_up": {"aal": None, "fresh_seconds": 30},
    }  # fmt: skip


def test_authzen() -> None:
    """The evaluation response, with its reasons for the person and for the administrator."""
    allowed = Decision(True, DecisionCode.ALLOWED, CAP, WHO, rule="member")
    assert allowed.to_authzen() == {"decision": True, "context": {"code": "rbac.allowed"}}
    refused = Decision(False, DecisionCode.STEP_UP_REQUIRED, CAP, WHO, needs=NEEDS).to_authzen()
    assert refused["context"]["reason_user"] == {"en": "Please confirm that it is you."}
    assert refused["context"]["reason_admin"]["en"].startswith("no: role `viewer`")
    assert refused["context"]["step_up"] == {"aal": 2, "fresh_seconds": 300}


def test_the_error_says_what_helps() -> None:
    """Stepping up where that would do, another role where not; through a queue it keeps the log's form and loses nothing that a stranger saw."""
    step = PermissionDenied(Decision(False, DecisionCode.STEP_UP_REQUIRED, CAP, WHO, needs=NEEDS))
    plain = PermissionDenied(Decision(False, DecisionCode.MISSING_CAPABILITY, CAP, WHO))
    assert "sign in again" in step.fix
    assert plain.fix == "act in a role that allows it, or change the policy"
    assert plain.why == "role `viewer` lacks `contacts.write`; no role allows it"
    assert "allowed" not in step.public()
    assert step.public()["step_up"] == {"aal": 2, "fresh_seconds": 300}
    again = pickle.loads(pickle.dumps(plain))
    assert (again.decision, again.facts["capability"]) == (None, CAP)
    assert again.public() == {"code": "rbac.denied", "message": plain.public_text}

"""The registry, roles and the policy: what is refused when built, and what a check answers."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta

import pytest

from axis_security import Assurance, Principal
from axis_security.core.errors import ConfigError
from axis_security.core.events import NullSink
from axis_security.core.grants import Grant, OwnedByUser, PythonOnly
from axis_security.rbac import (
    Capabilities,
    DecisionCode,
    Policy,
    Role,
    UnknownCapability,
    UnsoundPolicy,
    allow,
    owns,
    predicate,
    standard_policy,
)
from axis_security.rbac.conditions import Predicate

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class At:
    """A clock that stands still."""

    def now(self) -> datetime:
        """The one moment."""
        return NOW


def registry() -> Capabilities[str]:
    """A fresh registry."""
    return Capabilities(contacts=("read", "write"), users=("manage",))


def standard(caps: Capabilities[str], **more: object) -> Policy:
    """The README's policy."""
    return standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write], events=NullSink(), clock=At(), **more)  # type: ignore[arg-type]


def who(role: str, user: str | None = "u", **more: object) -> Principal:
    """Somebody in tenant ``t``."""
    return Principal(tenant="t", user=user, role=role, **more)  # type: ignore[arg-type]


def test_capabilities_are_objects_with_wire_names() -> None:
    """Attribute, wire name and iteration lead to the same object, in the order of declaration."""
    caps = registry()
    assert caps.users.manage is caps["users.manage"]
    assert [cap.name for cap in caps] == ["contacts.read", "contacts.write", "users.manage"]
    assert caps.users.manage in caps
    assert "users.manage" in caps
    assert registry().users.manage not in caps
    assert len({cap.bit for cap in caps}) == 3


@pytest.mark.parametrize("typo", [lambda c: c.user, lambda c: c.users.manag, lambda c: c["users.manag"]])
def test_a_typo_is_an_attribute_error_with_a_suggestion(typo: object) -> None:
    """A misspelt capability fails where it is written, and says what was meant."""
    with pytest.raises(UnknownCapability, match="did you mean `users") as caught:
        typo(registry())  # type: ignore[operator]
    assert isinstance(caught.value, AttributeError)


def test_a_capability_of_another_registry_is_told_as_such() -> None:
    """Two registries that declare the same name do not share it, and the error does not offer the name that was given."""
    ours, theirs = (Capabilities(contacts=("read",), users=("manage",)) for _ in range(2))
    with pytest.raises(UnknownCapability, match=r"`contacts\.read` is of another registry"):
        standard_policy(ours, viewer=[theirs.contacts.read])


@pytest.mark.parametrize(
    "bad", [{"Users": ("a",)}, {"users": ("a", "a")}, {"users": ()}, {"users": "manage"}, {"users": ("a.b",)}, {"users": ("name",)}, {}]
)
def test_malformed_registries_are_refused(bad: dict[str, tuple[str, ...]]) -> None:
    """Every name has one spelling, and no declaration is ambiguous."""
    with pytest.raises(ConfigError):
        Capabilities(**bad)


def test_a_capability_cannot_be_changed_copied_or_pickled() -> None:
    """A capability is the object its registry made, nothing else."""
    cap = registry().users.manage
    with pytest.raises(AttributeError):
        cap.bit = 0
    for attempt in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(cap)


def test_the_standard_roles_nest_and_only_owner_and_admin_manage_users() -> None:
    """Owner ⊇ admin ⊇ member ⊇ viewer; users.manage: owner and admin; the owner holds everything."""
    caps = Capabilities(contacts=("read", "write"), users=("manage",), billing=("pay",))
    policy = standard(caps)
    table = {role: {cap.name for cap in caps if policy.decide(who(role), cap)} for role in policy.roles}
    assert table["viewer"] == {"contacts.read"}
    assert table["member"] == {"contacts.read", "contacts.write"}
    assert table["admin"] == table["member"] | {"users.manage"}
    assert table["owner"] == {cap.name for cap in caps}
    assert policy.roles == ("viewer", "member", "admin", "owner")


def test_users_manage_below_admin_is_refused() -> None:
    """No list and no further role of the standard policy can hand out users.manage, directly or by inclusion."""
    caps = registry()
    for extra in (
        {"viewer": [caps.users.manage]},
        {"member": [allow(caps.users.manage, when=owns("owner_id"))]},
        {"roles": [Role("helper", [], ["admin"])]},
    ):
        with pytest.raises(UnsoundPolicy, match=r"users\.manage"):
            standard_policy(caps, **extra)
    with pytest.raises(UnsoundPolicy, match=r"users\.manage"):
        standard_policy(Capabilities(contacts=("read",)))


def test_unsound_policies_are_refused() -> None:
    """Cycles, unknown and doubled roles, a foreign capability and an order that loses a capability never become a policy."""
    caps = registry()
    read, write = caps.contacts.read, caps.contacts.write
    bad: list[dict[str, object]] = [
        {"roles": [Role("a", [], ["b"]), Role("b", [], ["a"])]},
        {"roles": [Role("a", [], ["a"])]},
        {"roles": [Role("a", [], ["ghost"])]},
        {"roles": [Role("a"), Role("a")]},
        {"roles": [Role("a")], "order": ["ghost"]},
        {"roles": [Role("a", [read]), Role("b", [write])], "order": ["a", "b"]},
        {"roles": [Role("a", [read]), Role("b", [allow(read, when=owns("owner_id"))])], "order": ["a", "b"]},
        {"roles": [Role("a", [registry().contacts.read])]},
        {"roles": [Role("Admin")]},
    ]
    for arguments in bad:
        with pytest.raises(ConfigError):
            Policy(caps, **arguments)  # type: ignore[arg-type]
    Policy(caps, roles=[Role("a", [allow(read, when=owns("owner_id"))]), Role("b", [read])], order=["a", "b"])


def test_unknown_names_are_denied_at_the_check() -> None:
    """A role or capability that the policy does not know is no, and says so."""
    caps = registry()
    policy = standard(caps)
    assert policy.decide(who("ghost"), caps.contacts.read).code is DecisionCode.UNKNOWN_ROLE
    assert policy.decide(who("owner"), "contacts.raed").code is DecisionCode.UNKNOWN_CAPABILITY
    assert policy.decide(who("owner"), registry().contacts.read).code is DecisionCode.UNKNOWN_CAPABILITY
    assert policy.decide(None, caps.contacts.read).code is DecisionCode.NO_PRINCIPAL


def _raises(_: Principal, __: object) -> bool:
    raise RuntimeError


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (True, DecisionCode.ALLOWED),
        (False, DecisionCode.CONDITION_FAILED),
        (None, DecisionCode.CONDITION_ERROR),
        (1, DecisionCode.CONDITION_ERROR),
        ("yes", DecisionCode.CONDITION_ERROR),
        ("raise", DecisionCode.CONDITION_ERROR),
    ],
)
def test_only_true_is_yes(answer: object, code: DecisionCode) -> None:
    """A predicate must return True exactly; None, truthy values and exceptions deny."""
    caps = registry()
    test = Predicate("odd", _raises if answer == "raise" else lambda _p, _r: answer, PythonOnly("odd"))  # type: ignore[arg-type,return-value]
    policy = Policy(caps, roles=[Role("a", [allow(caps.contacts.read, when=test)])])
    assert policy.decide(who("a"), caps.contacts.read, object()).code is code


def test_owns_compares_text_and_denies_what_is_missing() -> None:
    """The owner alone passes; no owner, no user, no object and another type are no."""
    caps = registry()
    policy = Policy(caps, roles=[Role("a", [allow(caps.contacts.write, when=owns("owner_id"))])])
    yes = [{"owner_id": "7"}, {"owner_id": 7}]
    no = [{"owner_id": "8"}, {"owner_id": None}, {}, {"owner_id": True}, {"owner_id": 7.0}, object(), None]
    assert all(policy.decide(who("a", "7"), caps.contacts.write, row) for row in yes)
    assert not any(policy.decide(who("a", "7"), caps.contacts.write, row) for row in no)
    assert not any(policy.decide(who("a", None), caps.contacts.write, row) for row in (*yes, {"owner_id": None}))
    assert policy.decide(who("a", "7"), caps.contacts.write).code is DecisionCode.RESOURCE_REQUIRED


def test_grants_say_what_compiles_and_what_only_python_can_evaluate() -> None:
    """The row-level compiler sees every grant, with inheritance resolved, in a stable order."""
    caps = registry()

    @predicate("in_own_team")
    def in_own_team(_p: Principal, _r: object) -> bool:
        return True

    policy = Policy(
        caps,
        roles=[
            Role("b", [allow(caps.contacts.write, when=in_own_team)], ["a"]),
            Role("a", [caps.contacts.read, allow(caps.contacts.write, when=owns("owner_id"))]),
        ],
    )
    assert list(policy.grants()) == [
        Grant("a", "contacts.read"),
        Grant("a", "contacts.write", OwnedByUser("owner_id")),
        Grant("b", "contacts.read"),
        Grant("b", "contacts.write", OwnedByUser("owner_id")),
        Grant("b", "contacts.write", PythonOnly("in_own_team")),
    ]


def test_step_up_helps_only_where_the_capability_is_held() -> None:
    """A stale or weak sign-in asks for a step-up; a missing capability never does; a sign-in in the future is not fresh."""
    caps = registry()
    policy = standard(caps)
    minute = timedelta(minutes=1)
    fresh = who("admin", assurance=Assurance.AAL2, auth_time=NOW - minute)
    assert policy.decide(fresh, caps.users.manage, fresh=minute, aal=Assurance.AAL2)
    for stale in (NOW - minute - timedelta(microseconds=1), NOW + timedelta(seconds=1), None):
        decision = policy.decide(who("admin", auth_time=stale), caps.users.manage, fresh=minute, aal=Assurance.AAL2)
        assert decision.code is DecisionCode.STEP_UP_REQUIRED
        assert decision.needs is not None
        assert (decision.needs.fresh, decision.needs.aal) == (minute, Assurance.AAL2)
        assert decision.public()["step_up"] == {"aal": 2, "fresh_seconds": 60}
    assert policy.decide(who("viewer"), caps.users.manage, fresh=minute).needs is None


def test_a_denial_explains_itself_to_the_right_reader() -> None:
    """The client learns nothing about roles; the log learns all; the AuthZEN form carries both readers' reasons."""
    caps = registry()
    decision = standard(caps).decide(who("viewer"), caps.users.manage)
    assert decision.public() == {"allowed": False, "code": "rbac.denied", "message": "You do not have permission to do this."}
    audit = decision.audit()
    assert (audit["missing"], audit["roles_that_would_allow"], audit["role"]) == (["users.manage"], ["admin", "owner"], "viewer")
    wire = decision.to_authzen()
    assert wire["decision"] is False
    assert "admin, owner" in wire["context"]["reason_admin"]["en"]
    assert "admin" not in wire["context"]["reason_user"]["en"]


def test_tenant_roles_stay_inside_their_tenant_and_the_hosts_limit() -> None:
    """A tenant's own role works in that tenant only, includes host roles, and can neither redefine one nor hold users.manage."""
    caps = registry()
    policy = standard(caps)
    policy.set_tenant_roles("t", [Role("clerk", [caps.contacts.write], ["viewer"])])
    assert policy.decide(who("clerk"), caps.contacts.read)
    assert not policy.decide(who("clerk"), caps.users.manage)
    assert policy.decide(Principal(tenant="other", role="clerk"), caps.contacts.read).code is DecisionCode.UNKNOWN_ROLE
    for bad in (Role("boss", [caps.users.manage]), Role("boss", [], ["admin"]), Role("admin", []), Role("viewer", [caps.contacts.write])):
        with pytest.raises(UnsoundPolicy):
            policy.set_tenant_roles("t", [bad])
    assert policy.decide(who("clerk"), caps.contacts.read), "a refused change leaves the old roles"
    policy.set_tenant_roles("t", [])
    assert not policy.decide(who("clerk"), caps.contacts.read)


def test_the_host_may_widen_the_limit_on_purpose() -> None:
    """tenant_limit= is the one way to let a tenant's role hold users.manage."""
    caps = registry()
    policy = standard(caps, tenant_limit=list(caps))
    policy.set_tenant_roles("t", [Role("boss", [caps.users.manage])])
    assert policy.decide(who("boss"), caps.users.manage)

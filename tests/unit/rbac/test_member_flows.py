"""The membership flows without a database: what each asks first, what it says, and what it makes of the answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from axis_security import Principal, acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, Outcome
from axis_security.core.flow import Statement
from axis_security.rbac import Capabilities, PermissionDenied, Policy, Role, decide, standard_policy
from axis_security.rbac.capability import Capability
from axis_security.rbac.members import (
    Invitation,
    LastOwner,
    MalformedText,
    Member,
    MemberFlow,
    MemberFlows,
    MemberRefused,
    Membership,
    OwnRole,
    Workspace,
)

CAPS = Capabilities(notes=("read",), users=("manage",))
POLICY = standard_policy(CAPS, viewer=[CAPS.notes.read])
FLOWS = MemberFlows(POLICY)
HANDLE = uuid.UUID(int=7, version=4)
JOINED = datetime(2026, 1, 2, tzinfo=UTC)


def act(role: str) -> Any:
    """User ``u`` in tenant ``t`` of *role*."""
    return acting_as(Principal(tenant="t", user="u", role=role))


def run(flow: MemberFlow[Any], *answers: tuple[Any, ...]) -> tuple[Any, list[Statement], list[AuditEvent]]:
    """Drive *flow* with the rows *answers*; what it returned or raised, what it asked, and what it told."""
    asked, told = list[Statement](), list[AuditEvent]()
    send: list[tuple[Any, ...]] | None = None
    while True:
        try:
            step = flow.send(send)  # type: ignore[arg-type]  # the first is None, as for every generator
        except StopIteration as done:
            return done.value, asked, told
        except MemberRefused as refused:
            return refused, asked, told
        if isinstance(step, Statement):
            asked.append(step)
            send = list(answers)
        else:
            told.append(step)
            send = None


MANAGED: dict[str, tuple[Callable[[], MemberFlow[Any]], tuple[Any, ...], EventKind, dict[str, Any]]] = {
    "invite": (
        lambda: FLOWS.invite(digest=b"d", email="a@b.example", role="viewer"),
        ("ok", HANDLE),
        EventKind.MEMBER_INVITED,
        {"role": "viewer", "invitation": str(HANDLE)},
    ),
    "revoke": (lambda: FLOWS.revoke_invitation(HANDLE), ("ok",), EventKind.INVITATION_REVOKED, {"invitation": str(HANDLE)}),
    "change role": (
        lambda: FLOWS.change_role("v", "admin"),
        ("ok", "viewer"),
        EventKind.ROLE_CHANGED,
        {"role_from": "viewer", "role_to": "admin"},
    ),
    "remove": (lambda: FLOWS.remove("v"), ("ok", "viewer"), EventKind.MEMBER_REMOVED, {"role": "viewer", "cause": "removed"}),
    "transfer": (lambda: FLOWS.transfer("v", keep="admin"), ("ok",), EventKind.OWNERSHIP_TRANSFERRED, {"role_kept": "admin"}),
    "delete": (FLOWS.delete_workspace, ("ok",), EventKind.WORKSPACE_DELETED, {"grace_seconds": 30 * 86_400}),
    "undelete": (FLOWS.undelete_workspace, ("ok",), EventKind.WORKSPACE_RESUMED, {}),
    "define role": (
        lambda: FLOWS.define_role(Role("custom.reader", grants=[CAPS.notes.read])),
        ("ok",),
        EventKind.ROLE_DEFINED,
        {"defined": "custom.reader", "grants": "notes.read"},
    ),
    "drop role": (lambda: FLOWS.drop_role("custom.reader"), ("ok",), EventKind.ROLE_DROPPED, {"defined": "custom.reader"}),
}


@pytest.mark.parametrize("operation", MANAGED)
def test_managing_is_denied_before_the_database_is_asked(operation: str) -> None:
    """Who lacks `users.manage` gets the guard's explanation, and no statement is sent; who has it gets one statement."""
    make, *_ = MANAGED[operation]
    with act("viewer"), pytest.raises(PermissionDenied) as caught:
        next(make())
    assert caught.value.decision is not None
    assert caught.value.decision.capability == "users.manage"
    with act("admin"):
        assert isinstance(next(make()), Statement)


@pytest.mark.parametrize("operation", MANAGED)
def test_what_was_done_is_told_and_what_was_refused_is_told_and_raised(operation: str) -> None:
    """One event with what changed; the database's refusal is the same event, denied, and an error that names the rule."""
    make, answer, kind, detail = MANAGED[operation]
    with act("admin"):
        returned, asked, told = run(make(), answer)
        refused, _, told_of_it = run(make(), ("not_allowed", *(None for _ in answer[1:])))
    assert len(asked) == 1
    assert returned == (HANDLE if operation == "invite" else None)
    assert [(event.kind, event.outcome, dict(event.detail)) for event in told] == [(kind, Outcome.ALLOWED, detail)]
    assert [(event.kind, event.outcome) for event in told_of_it] == [(kind, Outcome.DENIED)]
    assert isinstance(refused, MemberRefused)
    assert refused.reason == "not_allowed"


def test_the_owner_who_would_be_missed_is_a_conflict() -> None:
    """`last_owner` has its own error, told as HTTP 409: the request was allowed, the state forbids it."""
    with act("admin"):
        refused, _, _ = run(FLOWS.remove("v"), ("last_owner", None))
    assert type(refused) is LastOwner
    assert refused.http_status == 409


def test_joining_leaving_and_creating_ask_for_no_capability() -> None:
    """A viewer may take an invitation, leave, and create a workspace of its own; each is told."""
    with act("viewer"):
        joined = run(FLOWS.accept(digest=b"d", email="a@b.example"), ("ok", "viewer", HANDLE))
        nothing = run(FLOWS.accept(digest=b"d", email="a@b.example"), ("no_invitation", None, None))
        left = run(FLOWS.leave(), ("ok", "viewer"))
        created = run(FLOWS.create_workspace("Acme"), ("ok",))
    assert joined[0] == "viewer"
    assert dict(joined[2][0].detail) == {"role": "viewer", "invitation": str(HANDLE)}
    assert dict(nothing[2][0].detail) == {"role": None, "invitation": None}
    assert isinstance(nothing[0], MemberRefused)
    assert dict(left[2][0].detail) == {"role": "viewer", "cause": "left"}
    assert (created[2][0].kind, dict(created[2][0].detail)) == (EventKind.WORKSPACE_CREATED, {"name": "Acme"})


def test_reading_gives_typed_rows() -> None:
    """Lists come as tuples of typed rows, in the database's order."""
    assert run(FLOWS.members(), ("u", "owner", JOINED))[0] == (Member("u", "owner", JOINED),)
    assert run(FLOWS.own_roles(), ("custom.reader", ["notes.read"]))[0] == (OwnRole("custom.reader", ("notes.read",)),)
    assert run(FLOWS.workspaces("u"), ("t", "Acme", "owner", "active"))[0] == (Workspace("t", "Acme", "owner", "active"),)
    assert run(FLOWS.peek(digest=b"d"), ("t", "a@b.example", "viewer", "u"))[0] == Invitation("t", "a@b.example", "viewer", "u")
    assert run(FLOWS.peek(digest=b"d"))[0] is None


def test_resolving_a_role_of_the_workspaces_own_teaches_the_policy_what_it_holds() -> None:
    """After it a principal of that role and tenant may do what the role grants, and nobody of another tenant may."""
    assert run(FLOWS.resolve("t2", "u"))[0] is None
    assert run(FLOWS.resolve("t2", "u"), ("viewer", "active", None))[0] == Membership("viewer", "active")
    reader = Principal(tenant="t2", user="u", role="custom.reader")
    assert not decide(reader, CAPS.notes.read).allowed
    found = run(FLOWS.resolve("t2", "u"), ("custom.reader", "active", ["notes.read "]))[0]
    assert found == Membership("custom.reader", "active", ("notes.read ",))
    assert decide(reader, CAPS.notes.read).allowed
    assert not decide(Principal(tenant="t3", user="u", role="custom.reader"), CAPS.notes.read).allowed


def test_terms_unless_told_otherwise() -> None:
    """An invitation lasts a week, a deleted workspace can be taken back for thirty days; the statements carry it."""
    with act("admin"):
        assert next(FLOWS.invite(digest=b"d", email="a@b.example", role="viewer")) == Statement(
            "SELECT outcome, invitation FROM axis.member_invite(%s, %s, %s, %s)", (b"d", "a@b.example", "viewer", timedelta(days=7))
        )
        assert next(FLOWS.delete_workspace()) == Statement("SELECT axis.workspace_delete(%s)", (timedelta(days=30),))


TEXTS: dict[str, tuple[Callable[[str], MemberFlow[Any]], int, int]] = {
    "name of a workspace": (FLOWS.create_workspace, 1, 200),
    "address invited": (lambda text: FLOWS.invite(digest=b"d", email=text, role="viewer"), 3, 320),
    "role invited to": (lambda text: FLOWS.invite(digest=b"d", email="a@b.example", role=text), 1, 63),
    "address that accepts": (lambda text: FLOWS.accept(digest=b"d", email=text), 3, 320),
    "new role": (lambda text: FLOWS.change_role("v", text), 1, 63),
    "role kept": (lambda text: FLOWS.transfer("v", keep=text), 1, 63),
    "role dropped": (FLOWS.drop_role, 1, 63),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_text_that_the_database_would_not_keep_is_one_typed_error(what: str) -> None:
    """Too short, too long, NUL, half a surrogate pair: the same error for each, a client's and not the server's, and the database is not asked."""
    make, least, most = TEXTS[what]
    wrong = ["x" * (least - 1), "x" * (most + 1), "a\0bc", "abc\ud800", "\udfff" * 3]
    with act("admin"):
        for text in wrong:
            with pytest.raises(MalformedText) as caught:
                next(make(text))
            assert (caught.value.reason, caught.value.http_status) == ("malformed", 400)
            assert text == "" or text not in str(caught.value), "an address is nobody's business in a log"
        for text in ("x" * least, "\ud7ff\ue000\U0010ffff"[:most].ljust(most, "x")):
            assert isinstance(next(make(text)), Statement)


def test_a_text_that_cannot_be_kept_tells_nothing_to_whoever_may_not_manage() -> None:
    """The guard is asked first."""
    with act("viewer"), pytest.raises(PermissionDenied):
        next(FLOWS.invite(digest=b"d", email="\0", role="viewer"))


def test_a_role_with_many_grants_can_be_defined() -> None:
    """The log's field takes 512 characters. What does not fit is counted, with a digest of all: no two definitions look alike."""
    caps = Capabilities(**{f"things{number:02}": ("read", "write", "remove") for number in range(20)}, users=("manage",))
    every = [cap for cap in caps if cap.name != "users.manage"]
    flows = MemberFlows(standard_policy(caps, viewer=every))

    def logged(grants: list[Capability]) -> str:
        with act("admin"):
            _, _, told = run(flows.define_role(Role("custom.x", grants)), ("ok",))
        return str(told[0].detail["grants"])

    assert logged(every[:3]) == "things00.read, things00.write, things00.remove"
    whole, other = logged(every), logged(every[:-1])
    listed, _, rest = whole.partition(" and ")
    assert [cap.name for cap in every[: len(listed.split(", "))]] == listed.split(", ")
    assert rest.startswith(f"{60 - len(listed.split(', '))} more, sha256 ")
    assert len(whole) <= 512
    assert whole != other
    exactly = [caps[f"things{n:02}.{name}"] for n in range(10) for name in ("read", "write", "remove")] + [
        caps.things10.remove,
        caps.things11.remove,
    ]
    assert len(", ".join(cap.name for cap in exactly)) == 512
    assert logged(exactly) == ", ".join(cap.name for cap in exactly)
    # As many whole grants as leave a hundred characters to the count and the digest.
    first = [caps[f"things{n:02}.{name}"] for n in range(12) for name in ("write", "remove")] + [caps.things12.write]
    assert len(", ".join(cap.name for cap in first)) == 512 - 100 - 2
    assert logged([*first, *every[39:]]).startswith(", ".join(cap.name for cap in first) + " and 21 more, ")


def test_members_need_a_capability_that_manages_them() -> None:
    """A registry without `users.manage` is refused when the flows are made, not at the first call."""
    caps = Capabilities(notes=("read",))
    with pytest.raises(ConfigError, match=r"members need `users\.manage`"):
        MemberFlows(Policy(caps, roles=[Role("viewer", grants=[caps.notes.read])]))

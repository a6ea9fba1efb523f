"""Membership: the rule table, held by the API and by SQL; races; invitations; the workspace's life."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from axis_security import Principal, acting_as
from axis_security.core.errors import AxisError, PrincipalRequired
from axis_security.core.events import EventKind, Outcome
from axis_security.rbac import PermissionDenied
from axis_security.rbac.members import LastOwner, MalformedText, MemberRefused
from axis_security.rbac.store_postgres import AsyncPostgresMembers
from axis_security.rbac.transitions import MemberAction, rules_of

from .conftest import ROLES, World


def who(tenant: str, user: str, role: str) -> Principal:
    """A principal, as the gate would make it."""
    return Principal(tenant=tenant, user=user, role=role)


def rule(world: World, action: MemberAction, actor: str, target: str = "") -> bool:
    """What the table says."""
    (found,) = (r for r in rules_of(world.policy) if (r.action, r.actor, r.target) == (action, actor, target))
    return found.allowed


def test_the_rule_table_is_the_intended_one(world: World) -> None:
    """Written out by hand: managers touch roles up to their own, owners own, everybody may leave; nothing else is allowed."""
    rank = {role: i for i, role in enumerate(ROLES)}
    for r in rules_of(world.policy):
        manager = r.actor in ("admin", "owner")
        expected = {
            MemberAction.LEAVE: True,
            MemberAction.OWN: r.actor == "owner",
            MemberAction.DELETE: r.actor == "owner",
            MemberAction.TRANSFER: r.actor == "owner",
        }.get(r.action, manager and rank.get(r.target, 0) <= rank[r.actor])
        assert r.allowed is expected, r


def test_every_combination_through_the_api_and_through_raw_sql(world: World) -> None:
    """Actor's role x target's role x action (x new role): both ways in do exactly what the table says, and change nothing otherwise.

    In raw SQL the attacker also claims the role of owner in a genuine seal: the database looks at the membership, not at the claim.
    """
    members = world.members()

    def api(actor: str, act: Callable[[], object]) -> Callable[[str], object]:
        def run(tenant: str) -> object:
            with acting_as(who(tenant, "actor", actor)):
                return act()

        return run

    def raw(sql: str, *params: object) -> Callable[[str], object]:
        def run(tenant: str) -> object:
            with world.connect(world.roles.app) as conn:
                world.bind(conn, who(tenant, "actor", "owner"))
                row = conn.execute(sql, params).fetchone()
                assert row is not None
                if row[0] != "ok":
                    raise MemberRefused(row[0], action="raw")
                return row

        return run

    tried = 0
    for actor, target in itertools.product(ROLES, ROLES):
        cases: list[tuple[bool, dict[str, str], Callable[[str], object], Callable[[str], object]]] = []
        digest, digest2 = secrets.token_bytes(32), secrets.token_bytes(32)
        unchanged = {"actor": actor, "target": target, "other": "owner"}
        cases.append(
            (
                rule(world, MemberAction.REMOVE, actor, target),
                {"actor": actor, "other": "owner"},
                api(actor, lambda: members.remove("target")),
                raw("SELECT outcome FROM axis.member_remove('target')"),
            )
        )
        cases.append(
            (
                rule(world, MemberAction.INVITE, actor, target),
                unchanged,
                api(actor, partial(members.invite, digest=digest, email="a@b.example", role=target)),
                raw("SELECT outcome FROM axis.member_invite(%s, 'a@b.example', %s, '1 day')", digest2, target),
            )
        )
        cases.append(
            (True, {"target": target, "other": "owner"}, api(actor, members.leave), raw("SELECT outcome FROM axis.member_leave()"))
        )
        for new in ROLES:
            allowed = rule(world, MemberAction.CHANGE_FROM, actor, target) and rule(world, MemberAction.CHANGE_TO, actor, new)
            cases.append(
                (
                    allowed,
                    unchanged | {"target": new},
                    api(actor, partial(members.change_role, "target", new)),
                    raw("SELECT outcome FROM axis.member_change_role('target', %s)", new),
                )
            )
            allowed = rule(world, MemberAction.TRANSFER, actor, target) and rule(world, MemberAction.CHANGE_TO, actor, new)
            cases.append(
                (
                    allowed,
                    {"actor": new, "target": "owner", "other": "owner"},
                    api(actor, partial(members.transfer, "target", keep=new)),
                    raw("SELECT axis.member_transfer('target', %s)", new),
                )
            )
        for allowed, after, *ways in cases:
            for way in ways:
                tenant = world.workspace(actor=actor, target=target, other="owner")
                if allowed:
                    way(tenant)
                    assert world.people(tenant) == after
                else:
                    with pytest.raises((PermissionDenied, MemberRefused)):
                        way(tenant)
                    assert world.people(tenant) == unchanged
                tried += 1
    assert tried == 16 * 11 * 2


def test_the_app_role_cannot_reach_the_tables(world: World) -> None:
    """No table right, no internal function, no operator's function: whatever SQL is injected, only the rule-checked functions run."""
    tenant = world.workspace(actor="viewer", boss="owner")
    attempts = [
        "SELECT * FROM axis.membership",
        "INSERT INTO axis.membership VALUES ('x', 'y', 'owner')",
        "UPDATE axis.membership SET role = 'owner'",
        "DELETE FROM axis.tenant",
        "INSERT INTO axis.member_rule VALUES ('own', 'viewer', '')",
        "SELECT digest FROM axis.invitation",
        "SELECT axis.member_actor('active')",
        "SELECT axis.member_may('own', 'viewer', '')",
        f"SELECT axis.workspace_suspend('{tenant}', true)",
        f"SELECT axis.workspace_purge('{tenant}')",
    ]
    for sql in attempts:
        with world.connect(world.roles.app) as conn:
            world.bind(conn, who(tenant, "actor", "owner"))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(sql)
            conn.rollback()


def test_a_stranger_and_nobody_change_nothing(world: World) -> None:
    """Another workspace's owner, and a call without a bound principal, get nowhere."""
    tenant = world.workspace(boss="owner", second="owner")
    members = world.members()
    with acting_as(who(tenant, "stranger", "owner")):
        acts: list[Callable[[], object]] = [
            partial(members.remove, "boss"),
            members.leave,
            partial(members.change_role, "boss", "viewer"),
            members.delete_workspace,
        ]
        for act in acts:
            with pytest.raises(MemberRefused):
                act()
        assert members.members() == ()
    with pytest.raises(PrincipalRequired):
        members.leave()
    with world.connect(world.roles.app) as conn, pytest.raises(psycopg.Error) as caught:
        conn.execute("SELECT axis.member_leave()")
    assert caught.value.sqlstate == "AX001"
    assert world.people(tenant) == {"boss": "owner", "second": "owner"}


def test_the_last_owner_cannot_go(world: World) -> None:
    """Not by leaving, nor by removing or demoting oneself; with a second owner each of them works."""
    members = world.members()
    acts: list[Callable[[], object]] = [members.leave, lambda: members.remove("boss"), lambda: members.change_role("boss", "admin")]
    for act in acts:
        tenant = world.workspace(boss="owner", clerk="member")
        with acting_as(who(tenant, "boss", "owner")):
            with pytest.raises(LastOwner):
                act()
            assert world.people(tenant)["boss"] == "owner"
            members.change_role("clerk", "owner")
            act()
        assert world.people(tenant).get("boss") != "owner"


def _race(world: World, rounds: int) -> None:
    for _ in range(rounds):
        tenant = world.workspace(a="owner", b="owner", c="admin")
        acts = [
            "SELECT outcome FROM axis.member_leave()",
            "SELECT outcome FROM axis.member_change_role('a', 'viewer')",
            "SELECT outcome FROM axis.member_change_role('b', 'viewer')",
            "SELECT outcome FROM axis.member_remove('b')",
            "SELECT axis.member_transfer('b', 'member')",
        ]

        def attempt(n: int, tenant: str = tenant, acts: list[str] = acts) -> str:
            with contextlib.suppress(psycopg.errors.SerializationFailure), world.connect(world.roles.app) as conn:
                # A third of them where a plain row lock would decide on a stale snapshot.
                conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ if n % 3 == 0 else psycopg.IsolationLevel.READ_COMMITTED
                world.bind(conn, who(tenant, "ab"[n % 2], "owner"))
                conn.execute("SELECT 1")
                row = conn.execute(acts[n % len(acts)]).fetchone()
                return str(row and row[0])
            return "serialization"

        with ThreadPoolExecutor(10) as pool:
            outcomes = list(pool.map(attempt, range(50)))
        assert "ok" in outcomes
        assert "owner" in world.people(tenant).values(), outcomes


def test_fifty_parallel_demotions_leave_an_owner(world: World) -> None:
    """Leaves, demotions, removals and transfers of the last two owners at once, at two isolation levels: one owner or more, always."""
    _race(world, 4)


@pytest.mark.nightly
def test_fifty_parallel_demotions_leave_an_owner_200_rounds(world: World) -> None:
    """The same, 200 times."""
    _race(world, 200)


def test_the_race_test_can_fail(world: World) -> None:
    """Negative control: counting first and writing later, without the lock, loses the last owner."""
    tenant = world.workspace(a="owner", b="owner")
    connections = [world.cluster.dsn(world.name), world.cluster.dsn(world.name)]
    with psycopg.connect(connections[0]) as one, psycopg.connect(connections[1]) as two:
        for conn in (one, two):
            row = conn.execute("SELECT count(*) FROM axis.membership WHERE tenant = %s AND role = 'owner'", (tenant,)).fetchone()
            assert row == (2,)
        one.execute("DELETE FROM axis.membership WHERE tenant = %s AND user_id = 'a'", (tenant,))
        two.execute("DELETE FROM axis.membership WHERE tenant = %s AND user_id = 'b'", (tenant,))
    assert world.people(tenant) == {}


def test_an_invitation_makes_one_membership(world: World) -> None:
    """Accepted many times at once, by one person and by several with the same token: one membership."""
    members = world.members()
    for people in (["new"] * 12, [f"new{n}" for n in range(12)]):
        tenant = world.workspace(boss="owner")
        digest = secrets.token_bytes(32)
        with acting_as(who(tenant, "boss", "owner")):
            members.invite(digest=digest, email="New@Example.org", role="member")

        def attempt(user: str, tenant: str = tenant, digest: bytes = digest) -> str:
            with acting_as(who(tenant, user, "invitee")):
                try:
                    return members.accept(digest=digest, email="new@example.org")
                except MemberRefused as refused:
                    return refused.reason

        with ThreadPoolExecutor(12) as pool:
            outcomes = list(pool.map(attempt, people))
        assert sorted(outcomes) == sorted(["member", *["no_invitation"] * 11])
        assert sorted(world.people(tenant).values()) == ["member", "owner"]


def test_an_invitation_is_bound_to_address_workspace_time_and_inviter(world: World) -> None:
    """Wrong address, wrong workspace, expired, revoked, used, or sent by somebody who lost the right: no membership."""
    members = world.members()
    tenant, elsewhere = world.workspace(boss="owner", aide="admin"), world.workspace(boss="owner")

    def invite(role: str = "member", lasting: timedelta = timedelta(days=1)) -> tuple[bytes, Any]:
        digest = secrets.token_bytes(32)
        with acting_as(who(tenant, "aide", "admin")):
            return digest, members.invite(digest=digest, email="new@example.org", role=role, lasting=lasting)

    def accept(digest: bytes, where: str = tenant, email: str = "new@example.org") -> str:
        with acting_as(who(where, "new", "invitee")):
            try:
                return members.accept(digest=digest, email=email)
            except MemberRefused as refused:
                return refused.reason

    good, _ = invite()
    assert members.peek(digest=good) is not None
    assert accept(good, email="other@example.org") == "no_invitation"
    assert accept(good, where=elsewhere) == "no_invitation"
    assert accept(secrets.token_bytes(32)) == "no_invitation"
    expired, _ = invite(lasting=timedelta(0))
    assert (accept(expired), members.peek(digest=expired)) == ("no_invitation", None)
    revoked, handle = invite()
    with acting_as(who(tenant, "boss", "owner")):
        members.revoke_invitation(handle)
    assert accept(revoked) == "no_invitation"
    to_admin, _ = invite("admin")
    with acting_as(who(tenant, "boss", "owner")):
        members.change_role("aide", "member")
    assert accept(to_admin) == "inviter_lost_rights"
    assert accept(good) == "inviter_lost_rights"
    with acting_as(who(tenant, "boss", "owner")):
        members.change_role("aide", "admin")
    assert accept(good) == "member"
    assert accept(good) == "no_invitation"
    assert accept(to_admin) == "already_member"


def test_a_role_change_counts_at_once_whatever_the_seal_claims(world: World) -> None:
    """A demoted admin whose principal still says admin is refused by the database on the next call."""
    members = world.members()
    tenant = world.workspace(boss="owner", aide="admin", clerk="viewer")
    with acting_as(who(tenant, "boss", "owner")):
        members.change_role("aide", "viewer")
    with acting_as(who(tenant, "aide", "admin")), pytest.raises(MemberRefused) as caught:
        members.remove("clerk")
    assert caught.value.reason == "not_allowed"
    found = members.resolve(tenant, "aide")
    assert found is not None
    assert (found.role, found.state) == ("viewer", "active")
    assert members.resolve(tenant, "ghost") is None


def test_the_life_of_a_workspace(world: World) -> None:
    """Created with its first owner, once; closed to changes while suspended or deleting; purged only after its grace."""
    members = world.members()
    tenant = "t" + secrets.token_hex(6)
    with acting_as(who(tenant, "founder", "owner")):
        members.create_workspace("Acme")
        with pytest.raises(MemberRefused):
            members.create_workspace("Acme again")
        assert [(m.user, m.role) for m in members.members()] == [("founder", "owner")]
    assert [(w.tenant, w.name, w.role) for w in members.workspaces("founder")] == [(tenant, "Acme", "owner")]

    def operator(sql: str) -> str:
        with world.connect(world.roles.system) as conn:
            row = conn.execute(sql, (tenant,)).fetchone()
            return str(row and row[0])

    assert operator("SELECT axis.workspace_suspend(%s, true)") == "ok"
    with acting_as(who(tenant, "founder", "owner")):
        with pytest.raises(MemberRefused):
            members.invite(digest=secrets.token_bytes(32), email="a@b.example", role="viewer")
        with pytest.raises(MemberRefused):
            members.undelete_workspace()
        assert operator("SELECT axis.workspace_suspend(%s, false)") == "ok"
        members.delete_workspace(grace=timedelta(seconds=1))
        assert operator("SELECT axis.workspace_purge(%s)") == "not_due", "the grace is at least a day"
        members.undelete_workspace()
        members.delete_workspace()
    found = members.resolve(tenant, "founder")
    assert found is not None
    assert found.state == "deleting"
    with world.superuser() as conn:
        conn.execute("UPDATE axis.tenant SET delete_after = now() WHERE tenant = %s", (tenant,))
    assert operator("SELECT axis.workspace_purge(%s)") == "ok"
    assert members.resolve(tenant, "founder") is None


def test_changes_are_written_to_the_log_with_both_roles(world: World) -> None:
    """A change names actor, target and both roles; a refusal is written as denied."""
    members = world.members()
    tenant = world.workspace(boss="owner", clerk="viewer")
    with acting_as(who(tenant, "boss", "owner")):
        members.change_role("clerk", "member")
        with pytest.raises(LastOwner):
            members.leave()
    mine = [event for event in world.sink.events if event.tenant is not None and event.tenant.text == tenant]
    assert [(event.kind, event.outcome, event.target) for event in mine] == [
        (EventKind.ROLE_CHANGED, Outcome.ALLOWED, "user:clerk"),
        (EventKind.MEMBER_REMOVED, Outcome.DENIED, None),
    ]
    assert dict(mine[0].detail) == {"role_from": "viewer", "role_to": "member"}


def test_database_errors_are_translated(world: World) -> None:
    """A malformed argument surfaces as our error, without the driver's."""
    members = world.members()
    tenant = world.workspace(boss="owner")
    with acting_as(who(tenant, "boss", "owner")), pytest.raises(AxisError) as caught:
        members.invite(digest=b"short", email="a@b.example", role="viewer")
    assert caught.value.code == "axis.check_failed"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "a\0b@c.example", "\ud800@c.example", "x" * 400])
def test_a_text_that_cannot_be_kept_changes_nothing(world: World, text: str) -> None:
    """One error of ours for each, whatever the driver or the tables' own checks would have said."""
    members = world.members()
    tenant = world.workspace(boss="owner", clerk="viewer")
    fresh, digest = "t" + secrets.token_hex(6), secrets.token_bytes(32)
    before = len(world.sink.events)
    acts: list[Callable[[], object]] = [
        lambda: members.invite(digest=digest, email=text, role="viewer"),
        lambda: members.invite(digest=digest, email="a@b.example", role=text),
        lambda: members.change_role("clerk", text),
        lambda: members.transfer("clerk", keep=text),
        lambda: members.drop_role(text),
    ]
    with acting_as(who(tenant, "boss", "owner")):
        for act in acts:
            with pytest.raises(MalformedText):
                act()
    with acting_as(who(fresh, "boss", "owner")), pytest.raises(MalformedText):
        members.create_workspace(text)
    assert world.people(tenant) == {"boss": "owner", "clerk": "viewer"}
    assert world.people(fresh) == {}
    assert members.peek(digest=digest) is None
    assert len(world.sink.events) == before


def test_every_length_that_is_let_through_is_one_that_the_tables_keep(world: World) -> None:
    """The longest and the shortest, in characters of four bytes: what the flows allow is no error of the database."""
    members, tenant = world.members(), world.workspace(boss="owner")
    with acting_as(who(tenant, "boss", "owner")):
        for email in ("abc", "\U0001f600" * 320):
            members.invite(digest=secrets.token_bytes(32), email=email, role="viewer")
        with pytest.raises(MemberRefused) as caught:
            members.invite(digest=secrets.token_bytes(32), email="abc", role="r" * 63)
    assert caught.value.reason == "not_allowed"
    for name in ("x", "\U0001f600" * 200):
        with acting_as(who("t" + secrets.token_hex(6), "boss", "owner")):
            members.create_workspace(name)


def test_async_store_gives_the_same_answers(world: World) -> None:
    """Every async method is there, and the flow is the same one."""
    import asyncio

    from axis_security.core.context import current_principal
    from axis_security.rbac.store_postgres import PostgresMembers

    class Source:
        def __init__(self, *, bound: bool) -> None:
            self.bound = bound

        @contextlib.asynccontextmanager
        async def connection(self) -> Any:
            async with await psycopg.AsyncConnection.connect(world.cluster.dsn(world.name, user=world.roles.app)) as conn:
                if self.bound:
                    from datetime import UTC, datetime

                    from axis_security.rls.sealed import seal

                    sealed = seal(current_principal(), keyring=world.keyring, now=datetime.now(UTC))
                    await conn.execute("SELECT set_config('axis.context', %s, true)", (sealed,))
                yield conn

    assert {n for n in vars(PostgresMembers) if not n.startswith("_")} == {n for n in vars(AsyncPostgresMembers) if not n.startswith("_")}
    tenant = world.workspace(boss="owner", clerk="viewer")

    async def use() -> None:
        members = AsyncPostgresMembers(world.policy, bound=Source(bound=True), unbound=Source(bound=False))
        with acting_as(who(tenant, "boss", "owner")):
            await members.change_role("clerk", "member")
            with pytest.raises(LastOwner):
                await members.leave()
        found = await members.resolve(tenant, "clerk")
        assert found is not None
        assert found.role == "member"

    asyncio.run(use())

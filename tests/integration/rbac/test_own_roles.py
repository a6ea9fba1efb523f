"""Roles that a workspace defines for itself: kept in the database, held to the same rules by guard and rows, never more than their author holds."""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa

from axis_security import Principal, acting_as
from axis_security.core.context import current_principal
from axis_security.core.errors import AxisError
from axis_security.core.events import EventKind
from axis_security.core.schema import DatabaseRoles
from axis_security.rbac import Capabilities, PermissionDenied, Policy, Role, UnsoundPolicy, allow, owns, predicate
from axis_security.rbac.members import MemberRefused, OwnRole
from axis_security.rbac.members_sql import members_part
from axis_security.rbac.store_postgres import PostgresMembers
from axis_security.rbac.transitions import MemberAction, rules_of
from axis_security.rls.sealed import SealKey, SealKeyring, seal
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

from .conftest import Kept

COMMANDS: Final = ("select", "insert", "update", "delete")
OWNERS: Final = ("u1", "u2", None)


def standing(*, limit: tuple[str, ...] | None = None, guest: tuple[str, ...] = ()) -> Policy:
    """Five roles over notes, deals and billing: members change their own notes, billing is the owner's. *guest*: what guests hold besides."""
    caps = Capabilities(notes=COMMANDS, deals=("write",), billing=("manage",), files=("read",), users=("manage",))
    own = owns("owner_id")
    deals = predicate("in_own_team")(lambda _principal, _row: True)
    roles = [
        Role("guest", [allow(caps.notes.select, when=own), *(caps[name] for name in guest)]),
        Role("viewer", [caps.notes.select], ["guest"]),
        Role("member", [*(allow(caps[f"notes.{name}"], when=own) for name in COMMANDS), allow(caps.deals.write, when=deals)], ["viewer"]),
        Role("admin", [*caps.notes, caps.users.manage, allow(caps.files.read, when=own), allow(caps.deals.write, when=deals)], ["member"]),
        Role("owner", list(caps), ["admin"]),
    ]
    order = ("guest", "viewer", "member", "admin", "owner")
    return Policy(caps, roles=roles, order=order, tenant_limit=None if limit is None else [caps[n] for n in limit], events=Kept())


@dataclass
class Office:
    """A database with the members' part and one table, under a policy that may be replaced."""

    cluster: Cluster
    name: str
    roles: DatabaseRoles
    keyring: SealKeyring
    metadata: sa.MetaData
    policy: Policy = field(default_factory=standing)

    def tenancy(self) -> Tenancy:
        """The table and the members under the policy of the moment."""
        parts = [members_part(self.policy)]
        tenancy = Tenancy(self.metadata, key="tenant_id", policy=self.policy, roles=self.roles, seal=self.keyring, parts=parts)
        read, insert, update, delete = (self.policy.caps[f"notes.{name}"] for name in COMMANDS)
        tenancy.protect(self.metadata.tables["notes"], read=read, insert=insert, update=update, delete=delete)
        return tenancy

    def apply(self) -> None:
        """Bring the database in step."""
        with psycopg.connect(self.cluster.dsn(self.name)) as conn:
            self.tenancy().plan(conn).apply(conn)

    @contextlib.contextmanager
    def as_app(self, principal: Principal | None = None) -> Iterator[psycopg.Connection[Any]]:
        """One transaction of the application's login, bound to *principal*, rolled back unless it is committed."""
        with psycopg.connect(self.cluster.dsn(self.name, user=self.roles.app)) as conn:
            if principal is not None:
                sealed = seal(principal, keyring=self.keyring, now=datetime.now(UTC))
                conn.execute("SELECT set_config('axis.context', %s, true)", (sealed,))
            yield conn

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """For the store: bound to whoever acts, if anybody does."""
        try:
            principal = current_principal()
        except AxisError:
            principal = None
        with self.as_app(principal) as conn:
            yield conn

    def members(self) -> PostgresMembers:
        """The store."""
        return PostgresMembers(self.policy, bound=self, unbound=self)

    def superuser(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        """Run *sql* from above."""
        with psycopg.connect(self.cluster.dsn(self.name), autocommit=True) as conn:
            cursor = conn.execute(sql, params)
            return cursor.fetchall() if cursor.description else []

    def workspace(self, **people: str) -> str:
        """A workspace with *people* and a row for each owner of rows."""
        tenant = "t" + secrets.token_hex(6)
        self.superuser("INSERT INTO axis.tenant (tenant, name) VALUES (%s, 'W')", tenant)
        for user, role in people.items():
            self.superuser("INSERT INTO axis.membership (tenant, user_id, role) VALUES (%s, %s, %s)", tenant, user, role)
        for owner in OWNERS:
            self.superuser("INSERT INTO notes (tenant_id, owner_id, body) VALUES (%s, %s, '')", tenant, owner)
        return tenant

    def acting(self, tenant: str, user: str) -> Principal:
        """*user* as the gate makes them: with the role of this moment, whose meaning the policy learns on the way."""
        found = self.members().resolve(tenant, user)
        assert found is not None
        return Principal(tenant=tenant, user=user, role=found.role)

    def define(self, tenant: str, author: str, role: Role) -> None:
        """*author* defines *role*."""
        with acting_as(self.acting(tenant, author)):
            self.members().define_role(role)

    def let_through(self, principal: Principal) -> dict[tuple[str | None, str], bool]:
        """What PostgreSQL lets *principal* do to each row of the workspace."""
        seen: dict[tuple[str | None, str], bool] = {}
        with self.as_app(principal) as conn:
            for command, sql in (
                ("select", "SELECT owner_id FROM notes"),
                ("update", "UPDATE notes SET body = 'x' WHERE id > 0 RETURNING owner_id"),
                ("delete", "DELETE FROM notes WHERE id > 0 RETURNING owner_id"),
            ):
                conn.execute("SAVEPOINT s")
                found = {row[0] for row in conn.execute(sql).fetchall()}
                conn.execute("ROLLBACK TO SAVEPOINT s")
                seen |= {(owner, command): owner in found for owner in OWNERS}
            for owner in OWNERS:
                conn.execute("SAVEPOINT s")
                try:
                    conn.execute("INSERT INTO notes (owner_id, body) VALUES (%s, 'x')", (owner,))
                    seen[owner, "insert"] = True
                except psycopg.errors.InsufficientPrivilege:
                    seen[owner, "insert"] = False
                conn.execute("ROLLBACK TO SAVEPOINT s")
            conn.rollback()
        return seen

    def differing(self, principal: Principal) -> list[tuple[str | None, str]]:
        """Where the guard and the database differ for *principal*."""
        wrong = []
        for (owner, command), through in self.let_through(principal).items():
            needed = [command] if command in ("select", "insert") else [command, "select"]
            says = all(self.policy.decide(principal, f"notes.{name}", {"owner_id": owner}).allowed for name in needed)
            if says is not through:
                wrong.append((owner, command))
        return wrong


@pytest.fixture(scope="module")
def office(cluster: Cluster) -> Iterator[Office]:
    """The database, made once; tests use workspaces of their own in it."""
    metadata = sa.MetaData()
    sa.Table(
        "notes",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text),
        sa.Column("body", sa.Text),
    )
    roles = DatabaseRoles.prefixed("own_" + secrets.token_hex(4))
    with cluster.database("own") as name:
        engine = sa.create_engine(cluster.url(name))
        metadata.create_all(engine)
        engine.dispose()
        made = Office(cluster, name, roles, SealKeyring(current=SealKey.generate(1)), metadata)
        made.apply()
        yield made
    with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
        for role in (roles.owner, roles.app, roles.system, roles.guard):
            conn.execute(f"DROP ROLE {role}")


def random_role(rng: random.Random, policy: Policy, name: str) -> Role:
    """Any mix of the capabilities of notes, outright or for own rows, and of the roles below the managers."""
    caps = policy.caps
    grants = [
        g for c in COMMANDS if (g := rng.choice([None, caps[f"notes.{c}"], allow(caps[f"notes.{c}"], when=owns("owner_id"))])) is not None
    ]
    return Role(name, grants, ["viewer"] if rng.random() < 0.3 else ())


@pytest.mark.parametrize("seed", range(6))
def test_guard_and_rows_agree_on_own_roles(office: Office, seed: int) -> None:
    """Random roles of two workspaces under the same names: what each member may do is the same in Python and in PostgreSQL, row by row."""
    rng = random.Random(seed)
    names = [f"custom.r{n}" for n in range(4)]
    tenants = [office.workspace(boss="owner") for _ in range(2)]
    for tenant, name in itertools.product(tenants, names):
        office.define(tenant, "boss", random_role(rng, office.policy, name))
    tried = 0
    for tenant, name, user in itertools.product(tenants, names, ("u1", "u2")):
        office.superuser(
            "INSERT INTO axis.membership VALUES (%s, %s, %s) ON CONFLICT (tenant, user_id) DO UPDATE SET role = excluded.role",
            tenant,
            user,
            name,
        )
        who = office.acting(tenant, user)
        assert who.role == name
        assert office.differing(who) == []
        tried += len(OWNERS) * len(COMMANDS)
    assert tried == 2 * 4 * 2 * 12


def test_a_planted_row_is_found_by_the_comparison(office: Office) -> None:
    """Negative control: a capability slipped to an own role behind the policy's back makes the two enforcers differ, until the next request."""
    tenant = office.workspace(boss="owner", u1="viewer")
    office.define(tenant, "boss", Role("custom.reader", [office.policy.caps["notes.select"]]))
    office.superuser("UPDATE axis.membership SET role = 'custom.reader' WHERE tenant = %s AND user_id = 'u1'", tenant)
    who = office.acting(tenant, "u1")
    assert office.differing(who) == []
    office.superuser("INSERT INTO axis.role_capability (tenant, role, capability) VALUES (%s, 'custom.reader', 'notes.delete')", tenant)
    assert {command for _, command in office.differing(who)} == {"delete"}
    assert office.differing(office.acting(tenant, "u1")) == [], "the next request learns what the database holds"


def test_a_tenants_rows_add_to_no_role_of_the_product(office: Office) -> None:
    """Not even a superuser's slip widens `viewer` for one workspace, or puts an own role among the product's."""
    for tenant, role in (("acme", "viewer"), ("", "custom.x")):
        with pytest.raises(psycopg.errors.CheckViolation):
            office.superuser("INSERT INTO axis.role_capability (tenant, role, capability) VALUES (%s, %s, 'notes.delete')", tenant, role)


def test_a_changed_definition_counts_from_the_next_request(office: Office) -> None:
    """Defined anew, a role holds the new set at once in the database, and in the guard from the next request; a list shows it."""
    caps = office.policy.caps
    tenant = office.workspace(boss="owner", u1="viewer")
    office.define(tenant, "boss", Role("custom.editor", [caps["notes.update"]], ["viewer"]))
    with acting_as(office.acting(tenant, "boss")):
        office.members().change_role("u1", "custom.editor")
        assert office.members().own_roles() == (OwnRole("custom.editor", ("notes.select ", "notes.update ")),)
    assert office.policy.allows(office.acting(tenant, "u1"), caps["notes.update"])
    office.define(tenant, "boss", Role("custom.editor", [allow(caps["notes.update"], when=owns("owner_id"))], ["viewer"]))
    who = office.acting(tenant, "u1")
    assert not office.policy.allows(who, caps["notes.update"])
    assert office.policy.decide(who, "notes.update", {"owner_id": "u1"}).allowed
    assert office.differing(who) == []
    other = office.workspace(u1="viewer")
    assert office.policy.holding("custom.editor", office.acting(other, "u1").tenant) is None, "another workspace knows no such role"


def test_an_own_role_does_not_grow_with_what_it_included(office: Office) -> None:
    """Kept is what it held when it was defined: a release that gives `guest` more gives it to guests, and to the own role once it is defined anew."""
    tenant = office.workspace(boss="owner", u1="guest")
    role = Role("custom.visitor", [], ["guest"])
    office.define(tenant, "boss", role)
    with acting_as(office.acting(tenant, "boss")):
        office.members().change_role("u1", "custom.visitor")
    before = office.policy
    try:
        office.policy = standing(guest=("files.read",))
        office.apply()
        assert office.policy.allows(Principal(tenant=tenant, user="u2", role="guest"), office.policy.caps["files.read"])
        assert not office.policy.allows(office.acting(tenant, "u1"), office.policy.caps["files.read"])
        office.define(tenant, "boss", role)
        assert office.policy.allows(office.acting(tenant, "u1"), office.policy.caps["files.read"])
    finally:
        office.policy = before
        office.apply()


def test_only_up_to_own_rights(office: Office) -> None:
    """Whoever defines a role must hold all of it: an admin cannot hand out the owner's billing, nor touch a role that holds it."""
    caps = office.policy.caps
    tenant = office.workspace(boss="owner", head="admin", clerk="member")
    members = office.members()
    billing = Role("custom.books", [caps["billing.manage"]])
    with acting_as(office.acting(tenant, "head")), pytest.raises(MemberRefused) as refused:
        members.define_role(billing)
    assert refused.value.reason == "not_allowed"
    office.define(tenant, "boss", billing)
    with acting_as(office.acting(tenant, "head")):
        for act in (
            lambda: members.define_role(Role("custom.books", [])),
            lambda: members.drop_role("custom.books"),
            lambda: members.change_role("clerk", "custom.books"),
            lambda: members.invite(digest=secrets.token_bytes(32), email="a@b.example", role="custom.books"),
        ):
            with pytest.raises(MemberRefused) as refused:
                act()
            assert refused.value.reason == "not_allowed"
        members.define_role(Role("custom.notes", [caps["notes.delete"]]))
    with acting_as(office.acting(tenant, "clerk")), pytest.raises(PermissionDenied):
        members.define_role(Role("custom.mine", []))
    assert isinstance(office.policy.events, Kept)
    mine = [e for e in office.policy.events.events if e.tenant is not None and e.tenant.text == tenant and e.kind is EventKind.ROLE_DEFINED]
    assert [(str(e.outcome), e.detail["grants"]) for e in mine] == [
        ("denied", "billing.manage"),
        ("allowed", "billing.manage"),
        ("denied", ""),
        ("allowed", "notes.delete"),
    ]


def test_a_right_on_a_condition_is_given_on_at_least_that_condition(office: Office) -> None:
    """An admin who may read own files only cannot define a role that reads all of them; the owner can."""
    files = office.policy.caps["files.read"]
    tenant = office.workspace(boss="owner", head="admin")
    office.define(tenant, "head", Role("custom.own", [allow(files, when=owns("owner_id"))]))
    with pytest.raises(MemberRefused) as refused:
        office.define(tenant, "head", Role("custom.all", [files]))
    assert refused.value.reason == "not_allowed"
    office.define(tenant, "boss", Role("custom.all", [files]))


def test_the_guard_refuses_before_the_database_is_asked(office: Office) -> None:
    """`users.manage`, a product's name, and a condition that only Python knows: refused with the reason."""
    caps = office.policy.caps
    python = predicate("python_only")(lambda _p, _r: True)
    for role in (
        Role("custom.boss", [caps["users.manage"]]),
        Role("custom.boss", [], ["admin"]),
        Role("custom.more", [], ["custom.less"]),
        Role("clerk", [caps["notes.select"]]),
        Role("viewer", [caps["notes.delete"]]),
        Role("custom.team", [allow(caps["notes.select"], when=python)]),
        Role("custom.other", [allow(caps["notes.select"], when=owns("body"))]),
    ):
        with pytest.raises(UnsoundPolicy):
            office.policy.flatten(role)
    with pytest.raises(UnsoundPolicy):
        Policy(caps, roles=[Role("custom.mine", [])], events=Kept())
    with pytest.raises(UnsoundPolicy):
        office.policy.admit("acme", "viewer", ["notes.delete "])


def test_injected_sql_defines_nothing_more(office: Office) -> None:
    """Through raw SQL as the app role, with a seal that claims to be the owner's: the membership decides, and the limits hold."""
    tenant = office.workspace(boss="owner", head="admin", clerk="member", reader="viewer")
    other = office.workspace(boss2="owner")

    def call(user: str, name: str | None, capabilities: list[str | None] | None, conditions: list[str | None] | None) -> str:
        with office.as_app(Principal(tenant=tenant, user=user, role="owner")) as conn:
            row = conn.execute("SELECT axis.role_define(%s, %s::text[], %s::text[])", (name, capabilities, conditions)).fetchone()
            assert row is not None
            return str(row[0])

    for user in ("clerk", "reader"):
        assert call(user, "custom.x", ["notes.select"], [""]) == "not_allowed"
    assert call("stranger", "custom.x", [], []) == "not_a_member"
    for name in (
        None,
        "",
        "viewer",
        "owner",
        "CUSTOM.x",
        "custom.",
        "custom.X",
        "custom.x\n",
        "custom. x",
        "custom." + "x" * 80,
        "customx",
    ):
        assert call("boss", name, ["notes.select"], [""]) == "bad_role", name
    pairs: list[tuple[list[str | None] | None, list[str | None] | None]] = [
        (None, []),
        ([], None),
        (["notes.select"], []),
        (["notes.select"], ["", ""]),
    ]
    for pair in pairs:
        assert call("boss", "custom.x", *pair) == "bad_role"
    for capability, condition in (
        ("users.manage", ""),
        ("nothing.there", ""),
        (None, ""),
        ("notes.select", None),
        ("notes.select", "owned by body"),
        ("notes.select", "true"),
        ("deals.write", "only Python: in_own_team"),
    ):
        assert call("boss", "custom.x", ["notes.select", capability], ["", condition]) == "beyond_limit", (capability, condition)
    assert call("head", "custom.x", ["deals.write"], [""]) == "not_allowed", "an admin holds it on a condition of Python's only"
    assert office.superuser("SELECT count(*) FROM axis.tenant_role WHERE tenant = ANY(%s)", [tenant, other]) == [(0,)]
    for sql in (
        "INSERT INTO axis.tenant_role VALUES ('x', 'custom.x')",
        "INSERT INTO axis.role_capability VALUES ('x', 'custom.x', 'notes.select')",
        "INSERT INTO axis.tenant_limit VALUES ('users.manage')",
        "SELECT axis.role_grants('x', 'custom.x')",
        "SELECT axis.role_holds('owner', 'notes.select', '')",
    ):
        with (
            office.as_app(Principal(tenant=tenant, user="boss", role="owner")) as conn,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            conn.execute(sql)


def test_every_combination_with_own_roles(office: Office) -> None:
    """The rule table with two own roles in it, and SQL: the same answer for every actor, target and action."""
    caps = office.policy.caps
    tenant = office.workspace(boss="owner")
    office.define(tenant, "boss", Role("custom.low", [allow(caps["notes.update"], when=owns("owner_id"))], ["viewer"]))
    office.define(tenant, "boss", Role("custom.books", [caps["billing.manage"]]))
    for role in ("custom.low", "custom.books"):
        office.policy.admit(tenant, role, office.superuser("SELECT axis.role_grants(%s, %s)", tenant, role)[0][0])
    names = (*office.policy.roles, "custom.low", "custom.books")
    boss = office.acting(tenant, "boss")
    own = {name: holding for name in names[5:] if (holding := office.policy.holding(name, boss.tenant)) is not None}
    rules = rules_of(office.policy, own=own)
    assert len(rules) == len(names) * (3 + len(names) * 6)
    sealed = seal(boss, keyring=office.keyring, now=datetime.now(UTC))
    with psycopg.connect(office.cluster.dsn(office.name)) as conn:
        conn.execute("SELECT set_config('axis.context', %s, true)", (sealed,))
        for rule in rules:
            row = conn.execute("SELECT axis.member_may(%s, %s, %s)", (str(rule.action), rule.actor, rule.target)).fetchone()
            assert row == (rule.allowed,), rule
    allowed = {(r.actor, r.action, r.target) for r in rules if r.allowed}
    assert ("admin", MemberAction.CHANGE_TO, "custom.low") in allowed
    assert ("admin", MemberAction.CHANGE_TO, "custom.books") not in allowed
    assert ("owner", MemberAction.CHANGE_TO, "custom.books") in allowed
    assert not {entry for entry in allowed if entry[0].startswith("custom.") and entry[1] is not MemberAction.LEAVE}


def test_a_role_in_use_stays_and_goes_with_its_workspace(office: Office) -> None:
    """Dropping waits for members and open invitations; erasing the workspace takes its roles along."""
    caps = office.policy.caps
    tenant = office.workspace(boss="owner", u1="viewer")
    members = office.members()
    office.define(tenant, "boss", Role("custom.temp", [caps["notes.select"]]))
    digest = secrets.token_bytes(32)
    with acting_as(office.acting(tenant, "boss")):
        members.change_role("u1", "custom.temp")
        with pytest.raises(MemberRefused, match="refused"):
            members.drop_role("custom.temp")
        members.change_role("u1", "viewer")
        handle = members.invite(digest=digest, email="a@b.example", role="custom.temp")
        with pytest.raises(MemberRefused, match="refused"):
            members.drop_role("custom.temp")
        members.revoke_invitation(handle)
        members.drop_role("custom.temp")
        with pytest.raises(MemberRefused) as refused:
            members.drop_role("custom.temp")
        assert refused.value.reason == "no_such_role"
        members.define_role(Role("custom.temp", [caps["notes.select"]]))
        invited = secrets.token_bytes(32)
        members.invite(digest=invited, email="new@b.example", role="custom.temp")
    with acting_as(Principal(tenant=tenant, user="new", role="invitee")):
        assert members.accept(digest=invited, email="new@b.example") == "custom.temp"
    assert office.differing(office.acting(tenant, "new")) == []
    with acting_as(office.acting(tenant, "new")):
        members.leave()
    office.superuser("UPDATE axis.tenant SET state = 'deleting', delete_after = now() WHERE tenant = %s", tenant)
    assert office.superuser("SELECT axis.workspace_purge(%s)", tenant) == [("ok",)]
    assert office.superuser("SELECT count(*) FROM axis.role_capability WHERE tenant = %s", tenant) == [(0,)]
    assert office.superuser("SELECT count(*) FROM axis.tenant_role WHERE tenant = %s", tenant) == [(0,)]


def test_a_capability_taken_back_by_the_host_is_taken_back_everywhere(office: Office) -> None:
    """Lowering the limit shows in the plan, and applying it takes the capability from every own role; the guard leaves it out even before."""
    caps = office.policy.caps
    tenant = office.workspace(boss="owner", u1="viewer")
    office.define(tenant, "boss", Role("custom.wide", [caps["notes.select"], caps["notes.delete"]]))
    with acting_as(office.acting(tenant, "boss")):
        office.members().change_role("u1", "custom.wide")
    before = office.policy
    try:
        office.policy = standing(limit=("notes.select", "users.manage"))
        assert office.policy.own_role_limit == ("notes.select",)
        assert not office.policy.decide(office.acting(tenant, "u1"), "notes.delete").allowed
        office.apply()
        assert office.superuser("SELECT capability FROM axis.role_capability WHERE tenant = %s", tenant) == [("notes.select",)]
        assert office.differing(office.acting(tenant, "u1")) == []
    finally:
        office.policy = before
        office.apply()
    with psycopg.connect(office.cluster.dsn(office.name)) as conn:
        assert not office.tenancy().plan(conn), "own roles are no drift"

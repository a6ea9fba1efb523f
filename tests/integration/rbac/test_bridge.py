"""One policy, two enforcers: the guard says yes exactly when PostgreSQL lets the row through."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa

from axis_security import Principal
from axis_security.core.events import NullSink
from axis_security.core.schema import DatabaseRoles
from axis_security.rbac import Capabilities, Policy, Role, allow, owns
from axis_security.rls.sealed import SealKey, SealKeyring, seal
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

TENANTS: Final = ("t1", "t2")
OWNERS: Final = ("u1", "u2", None)
USERS: Final = ("u1", "u2", None)
COMMANDS: Final = ("select", "insert", "update", "delete")
ROLES: Final = ("r0", "r1", "r2", "r3")
CI_POLICIES: Final = 8
CASES_EACH: Final = len(TENANTS) * len(OWNERS) * len(TENANTS) * len(USERS) * (len(ROLES) + 1) * len(COMMANDS)

Row = tuple[str, str | None]
Case = tuple[Principal, Row, str]


def random_policy(rng: random.Random) -> Policy:
    """Roles that hold each command outright, for own rows, or not at all; some include others."""
    caps = Capabilities(notes=COMMANDS, users=("manage",))
    roles = []
    for n, name in enumerate(ROLES):
        grants = [g for cap in caps if (g := rng.choice([None, cap, allow(cap, when=owns("owner_id"))])) is not None]
        roles.append(Role(name, grants, rng.sample(ROLES[:n], rng.randint(0, n)) if rng.random() < 0.5 else ()))
    return Policy(caps, roles=roles, events=NullSink())


def guard_says(policy: Policy, principal: Principal, row: Row, command: str) -> bool:
    """The application's answer. A row must be in the acting tenant, and to change or remove one, one must be able to read it."""
    needed = [command] if command in ("select", "insert") else [command, "select"]
    resource = {"owner_id": row[1]}
    return row[0] == principal.tenant.text and all(policy.decide(principal, f"notes.{name}", resource).allowed for name in needed)


@dataclass
class Bridge:
    """A database with one table."""

    cluster: Cluster
    name: str
    roles: DatabaseRoles
    keyring: SealKeyring
    metadata: sa.MetaData
    table: sa.Table

    def tenancy(self, policy: Policy) -> Tenancy:
        """The table under *policy*."""
        tenancy = Tenancy(self.metadata, key="tenant_id", policy=policy, roles=self.roles, seal=self.keyring)
        read, insert, update, delete = (policy.caps[f"notes.{name}"] for name in ("select", "insert", "update", "delete"))
        tenancy.protect(self.table, read=read, insert=insert, update=update, delete=delete)
        return tenancy

    def apply(self, policy: Policy) -> None:
        """Bring the database in step with *policy*."""
        with psycopg.connect(self.cluster.dsn(self.name)) as conn:
            self.tenancy(policy).plan(conn).apply(conn)
            conn.commit()

    def database_says(self, conn: psycopg.Connection[Any], principal: Principal) -> dict[tuple[Row, str], bool]:
        """What PostgreSQL lets *principal* do to each row, in one rolled-back transaction, all rows of a command at once."""
        conn.execute("SELECT set_config('axis.context', %s, true)", (seal(principal, keyring=self.keyring, now=datetime.now(UTC)),))
        rows = [(tenant, owner) for tenant in TENANTS for owner in OWNERS]
        seen: dict[tuple[Row, str], bool] = {}
        for command, sql in (
            ("select", "SELECT tenant_id, owner_id FROM notes"),
            ("update", "UPDATE notes SET body = 'x' WHERE id > 0 RETURNING tenant_id, owner_id"),
            ("delete", "DELETE FROM notes WHERE id > 0 RETURNING tenant_id, owner_id"),
        ):
            conn.execute("SAVEPOINT s")
            found = set(conn.execute(sql).fetchall())
            conn.execute("ROLLBACK TO SAVEPOINT s")
            seen |= {(row, command): row in found for row in rows}
        for row in rows:
            conn.execute("SAVEPOINT s")
            try:
                conn.execute("INSERT INTO notes (id, tenant_id, owner_id, body) VALUES (100, %s, %s, 'x')", row)
                seen[row, "insert"] = True
            except psycopg.errors.InsufficientPrivilege:
                seen[row, "insert"] = False
            conn.execute("ROLLBACK TO SAVEPOINT s")
        conn.rollback()
        return seen

    def compare(self, policy: Policy) -> tuple[int, list[Case]]:
        """How many cases were tried, and those where the two enforcers differ."""
        tried, differing = 0, []
        with psycopg.connect(self.cluster.dsn(self.name, user=self.roles.app)) as conn:
            for tenant in TENANTS:
                for user in USERS:
                    for role in (*ROLES, "ghost"):
                        principal = Principal(tenant=tenant, user=user, role=role)
                        for (row, command), let_through in self.database_says(conn, principal).items():
                            tried += 1
                            if guard_says(policy, principal, row, command) is not let_through:
                                differing.append((principal, row, command))
        return tried, differing


@pytest.fixture(scope="module")
def bridge(cluster: Cluster) -> Iterator[Bridge]:
    """The database, with one row for each tenant and owner."""
    metadata = sa.MetaData()
    table = sa.Table(
        "notes",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text),
        sa.Column("body", sa.Text),
    )
    roles = DatabaseRoles.prefixed("bridge_" + secrets.token_hex(4))
    with cluster.database("bridge") as name:
        engine = sa.create_engine(cluster.url(name))
        metadata.create_all(engine)
        with engine.begin() as conn:
            rows = [(tenant, owner) for tenant in TENANTS for owner in OWNERS]
            conn.execute(table.insert(), [{"id": n, "tenant_id": t, "owner_id": o, "body": ""} for n, (t, o) in enumerate(rows, 1)])
        engine.dispose()
        yield Bridge(cluster, name, roles, SealKeyring(current=SealKey.generate(1)), metadata, table)
    with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
        for role in (roles.owner, roles.app, roles.system, roles.guard):
            conn.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("seed", range(CI_POLICIES))
def test_guard_and_database_agree(bridge: Bridge, seed: int) -> None:
    """Every user x role x tenant x row x command under a random policy: 5,760 cases over all seeds."""
    policy = random_policy(random.Random(seed))
    bridge.apply(policy)
    tried, differing = bridge.compare(policy)
    assert tried == CASES_EACH
    assert tried * CI_POLICIES >= 5_000
    assert differing == []


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_guard_and_database_agree_on_a_hundred_policies(bridge: Bridge, seed: int) -> None:
    """The same, over a hundred policies more."""
    test_guard_and_database_agree(bridge, seed)


def test_a_planted_mismatch_is_found(bridge: Bridge) -> None:
    """Negative control: one capability slipped to one role in the database is seen by the comparison, and by the plan as drift."""
    caps = Capabilities(notes=COMMANDS, users=("manage",))
    policy = Policy(caps, roles=[Role(name, [caps.notes.select]) for name in ROLES])
    bridge.apply(policy)
    assert bridge.compare(policy)[1] == []
    with psycopg.connect(bridge.cluster.dsn(bridge.name)) as conn:
        assert not bridge.tenancy(policy).plan(conn)
        conn.execute("INSERT INTO axis.role_capability (role, capability) VALUES ('r2', 'notes.select_'), ('r2', 'notes.delete')")
        conn.commit()
        assert bridge.tenancy(policy).plan(conn), "the plan reports the drift"
        conn.rollback()
    tried, differing = bridge.compare(policy)
    # The plan's policies for delete name the capability, so r2 can now delete its tenant's three rows, as each of three users, twice over.
    assert {(p.role, command) for p, _, command in differing} == {("r2", "delete")}
    assert len(differing) == len(OWNERS) * len(USERS) * len(TENANTS)
    assert tried == CASES_EACH
    bridge.apply(policy)
    assert bridge.compare(policy)[1] == []


def test_injected_sql_as_viewer_writes_nothing(bridge: Bridge) -> None:
    """A viewer's transaction can neither write a row, nor become another role or tenant by setting what it can set."""
    caps = Capabilities(notes=COMMANDS, users=("manage",))
    policy = Policy(caps, roles=[Role("r0", [caps.notes.select]), Role("r1", list(caps))])
    bridge.apply(policy)
    viewer = Principal(tenant="t1", user="u1", role="r0")
    forged = seal(Principal(tenant="t1", user="u1", role="r1"), keyring=SealKeyring(current=SealKey.generate(1)), now=datetime.now(UTC))
    writes = [
        "INSERT INTO notes (id, tenant_id, body) VALUES (200, 't1', 'x')",
        "INSERT INTO notes SELECT 201, tenant_id, owner_id, body FROM notes LIMIT 1",
        "UPDATE notes SET body = 'x'",
        "UPDATE notes SET tenant_id = 't2'",
        "DELETE FROM notes",
        "WITH gone AS (DELETE FROM notes RETURNING 1) SELECT count(*) FROM gone",
        "MERGE INTO notes n USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
        "INSERT INTO notes (id, tenant_id) VALUES (1, 't1') ON CONFLICT (id) DO UPDATE SET body = 'x'",
        "TRUNCATE notes",
        "COPY notes FROM PROGRAM 'echo'",
        f"SELECT set_config('axis.context', '{forged}', true)",
        "SELECT set_config('axis.context', '', true)",
        f"SET ROLE {bridge.roles.guard}",
        f"SET ROLE {bridge.roles.system}",
        "SET row_security = off",
    ]

    def rows() -> list[Any]:
        with psycopg.connect(bridge.cluster.dsn(bridge.name)) as conn:
            return conn.execute("SELECT * FROM notes ORDER BY id").fetchall()

    before = rows()
    for sql in writes:
        with psycopg.connect(bridge.cluster.dsn(bridge.name, user=bridge.roles.app)) as conn:
            conn.execute("SELECT set_config('axis.context', %s, true)", (seal(viewer, keyring=bridge.keyring, now=datetime.now(UTC)),))
            try:
                conn.execute(sql)
                conn.execute("DELETE FROM notes")
                conn.execute("UPDATE notes SET body = 'x'")
                conn.commit()
            except psycopg.Error:
                conn.rollback()
        assert rows() == before, sql

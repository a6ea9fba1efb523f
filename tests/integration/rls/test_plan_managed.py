"""Managed servers give nobody a superuser: a role with CREATEROLE that owns the database plans, applies and undoes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
import sqlalchemy as sa

from axis_security.auth import VAULT
from axis_security.core.schema import DatabaseRoles
from axis_security.rls import SealKey, SealKeyring, Tenancy
from axis_security.rls.plan import RightsMissing
from axis_security.testing.cluster import Cluster


@dataclass
class Managed:
    """A database whose owner is *master*, who may make roles and is no superuser."""

    cluster: Cluster
    name: str
    tenancy: Tenancy
    master: str
    stranger: str

    def connect(self, user: str) -> psycopg.Connection:
        return psycopg.connect(self.cluster.dsn(self.name, user=user), autocommit=True)


@pytest.fixture
def managed(cluster: Cluster) -> Iterator[Managed]:
    token = secrets.token_hex(4)
    roles = DatabaseRoles.prefixed(f"managed_{token}")
    metadata = sa.MetaData()
    doc = sa.Table("doc", metadata, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("tenant_id", sa.BigInteger, nullable=False))
    tenancy = Tenancy(metadata, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(doc)
    with cluster.database("managed") as name:
        master, stranger = f"master_{token}", f"stranger_{token}"
        with psycopg.connect(cluster.dsn(name), autocommit=True) as admin:
            admin.execute(f"CREATE ROLE {master} LOGIN CREATEROLE; CREATE ROLE {stranger} LOGIN".encode())
            admin.execute(f"ALTER DATABASE {name} OWNER TO {master}; ALTER SCHEMA public OWNER TO {master}".encode())
        world = Managed(cluster, name, tenancy, master, stranger)
        with world.connect(master) as conn:
            conn.execute("CREATE TABLE doc (id bigint PRIMARY KEY, tenant_id bigint NOT NULL)")
        yield world


def test_the_owner_of_the_database_plans_and_applies(managed: Managed) -> None:
    """Every step runs, the second plan is empty, and a superuser finds nothing to add."""
    with managed.connect(managed.master) as conn:
        assert managed.tenancy.plan(conn, parts=[VAULT]).apply(conn)
        assert not managed.tenancy.plan(conn, parts=[VAULT])
    with psycopg.connect(managed.cluster.dsn(managed.name)) as admin:
        assert not managed.tenancy.plan(admin, parts=[VAULT])


def test_outside_of_a_plan_the_rights_are_not_held(managed: Managed) -> None:
    """After applying, the same login reads no seal key and no row: what it borrowed, it gave back. While it plans, it may (the control)."""
    with managed.connect(managed.master) as conn:
        managed.tenancy.plan(conn).apply(conn)
        for secret in ("axis.seal_key", "doc"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"SELECT * FROM {secret}".encode())
        options = " WITH INHERIT TRUE, SET TRUE" if conn.info.server_version >= 160_000 else ""  # before, a membership had no options
        conn.execute(f"GRANT {managed.tenancy.roles.guard} TO CURRENT_USER{options}".encode())
        assert conn.execute("SELECT count(*) FROM axis.seal_key").fetchone() == (1,)


def test_a_plan_leaves_no_membership_behind(managed: Managed) -> None:
    """Planning alone changes nothing: not the memberships either."""

    def memberships() -> object:
        with psycopg.connect(managed.cluster.dsn(managed.name)) as admin:
            return admin.execute("SELECT roleid, member, grantor FROM pg_auth_members ORDER BY 1, 2, 3").fetchall()

    with managed.connect(managed.master) as conn:
        managed.tenancy.plan(conn).apply(conn)
        before = memberships()
        managed.tenancy.plan(conn)
        assert memberships() == before


def test_undo_works_with_borrowed_rights(managed: Managed) -> None:
    """The owner of the database takes everything back, roles included, and reads its table again."""
    with managed.connect(managed.master) as conn:
        applied = managed.tenancy.plan(conn).apply(conn)
        applied.undo(conn)
        assert conn.execute("SELECT count(*) FROM doc").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", [managed.tenancy.roles.guard]).fetchone() == (0,)


def test_who_may_make_no_role_is_told_what_is_missing(managed: Managed) -> None:
    """One error says what the role lacks; nothing was changed."""
    with managed.connect(managed.stranger) as conn:
        with pytest.raises(RightsMissing, match="CREATEROLE"):
            managed.tenancy.plan(conn)
        assert conn.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", [managed.tenancy.roles.guard]).fetchone() == (0,)

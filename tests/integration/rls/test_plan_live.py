"""A plan beside a live application: it waits for no open transaction, and none waits behind it."""

from __future__ import annotations

import secrets

import psycopg
import pytest
import sqlalchemy as sa

from axis_security.auth import VAULT
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.crypto import KEYSTORE_PART
from axis_security.ops.audit_postgres import AUDIT_PART
from axis_security.rbac import Capabilities, standard_policy
from axis_security.rbac.members_sql import members_part
from axis_security.rls import SealKey, SealKeyring, Tenancy
from axis_security.testing.cluster import Cluster


@pytest.fixture(scope="module")
def live(cluster: Cluster) -> tuple[Tenancy, str, list[SchemaPart]]:
    """A database with every part of ours and one protected table, and its connection string."""
    metadata = sa.MetaData()
    doc = sa.Table("doc", metadata, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("tenant_id", sa.BigInteger, nullable=False))
    caps = Capabilities(docs=("read",), users=("manage",))
    parts = [VAULT, members_part(standard_policy(caps)), AUDIT_PART, KEYSTORE_PART]
    tenancy = Tenancy(metadata, roles=DatabaseRoles.prefixed(f"live_{secrets.token_hex(4)}"), seal=SealKeyring(current=SealKey.generate(1)))
    tenancy.protect(doc, reach="below")
    dsn = cluster.dsn(cluster.create_database("live"))
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE doc (id bigint PRIMARY KEY, tenant_id bigint NOT NULL)")
        tenancy.plan(admin, parts=parts).apply(admin)
    return tenancy, dsn, parts


def held(connection: psycopg.Connection[object]) -> None:
    """The locks of a busy application: every table of ours and the host's is being written to, in a transaction that stays open."""
    rows = connection.execute(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace IN ('axis'::regnamespace, 'public'::regnamespace)"
    )
    tables = [str(row[0]) for row in rows.fetchall()]  # type: ignore[index]
    assert len(tables) > 15
    connection.execute(f"LOCK TABLE {', '.join(tables)} IN ROW EXCLUSIVE MODE".encode())


@pytest.mark.parametrize("apply", [False, True])
def test_a_plan_that_changes_nothing_waits_for_nobody(live: tuple[Tenancy, str, list[SchemaPart]], apply: bool) -> None:
    """With every table in use, planning and applying again finish at once."""
    tenancy, dsn, parts = live
    with psycopg.connect(dsn) as busy, psycopg.connect(dsn) as admin:
        held(busy)
        admin.execute("SET lock_timeout = '1s'")
        plan = tenancy.plan(admin, parts=parts)
        assert not plan
        if apply:
            assert not plan.apply(admin)


def test_asking_for_the_owner_again_would_wait(live: tuple[Tenancy, str, list[SchemaPart]]) -> None:
    """The control: the bare statement, which changes nothing either, runs into the lock."""
    tenancy, dsn, _ = live
    with psycopg.connect(dsn) as busy, psycopg.connect(dsn) as admin:
        held(busy)
        admin.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            admin.execute(f"ALTER TABLE axis.seal_key OWNER TO {tenancy.roles.guard}".encode())


def test_an_owner_changed_by_hand_is_still_set_back(live: tuple[Tenancy, str, list[SchemaPart]]) -> None:
    """Asking first hides no drift: another owner, or a dropped index, is seen and mended."""
    tenancy, dsn, parts = live
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(b"ALTER TABLE axis.audit_event OWNER TO CURRENT_USER; DROP INDEX axis.membership_user_id")
        plan = tenancy.plan(admin, parts=parts)
        assert plan
        plan.apply(admin)
        assert not tenancy.plan(admin, parts=parts)
        found = admin.execute("SELECT tableowner FROM pg_tables WHERE schemaname = 'axis' AND tablename = 'audit_event'").fetchone()
        assert found == (tenancy.roles.guard,)

"""The scripts against a real server: PostgreSQL's own as it is; that for Citus with its three functions played by one node, which shows what its policies do."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from axis_security import Principal, acting_as
from axis_security.core.schema import DatabaseRoles
from axis_security.rls import Dialect, SealKey, SealKeyring, Tenancy
from axis_security.testing.cluster import TestServer

ACME, GLOBEX = uuid.uuid4(), uuid.uuid4()

_ONE_NODE = """
CREATE FUNCTION run_command_on_all_nodes(command text) RETURNS TABLE (nodeid int, success bool, result text) LANGUAGE plpgsql AS $$
BEGIN EXECUTE command; RETURN QUERY SELECT 1, true, 'ok'; EXCEPTION WHEN OTHERS THEN RETURN QUERY SELECT 1, false, SQLERRM; END $$;
CREATE FUNCTION create_distributed_table(name text, key text, colocate_with text DEFAULT '') RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION create_reference_table(name text) RETURNS void LANGUAGE sql AS 'SELECT';
"""


class World:
    """Two tables in a database of their own."""

    def __init__(self, server: TestServer, name: str) -> None:
        self.server, self.name = server, name
        metadata = sa.MetaData()
        for table, more in (("project", list[sa.Column[uuid.UUID]]()), ("task", [sa.Column("project_id", sa.Uuid)])):
            key = [sa.Column("tenant_id", sa.Uuid, primary_key=True), sa.Column("id", sa.Uuid, primary_key=True)]
            sa.Table(table, metadata, *key, *more)
        with psycopg.connect(server.dsn(name), autocommit=True) as admin:
            admin.execute(b"CREATE TABLE project (tenant_id uuid, id uuid, PRIMARY KEY (tenant_id, id))")
            admin.execute(b"CREATE TABLE task (tenant_id uuid, id uuid, project_id uuid, PRIMARY KEY (tenant_id, id))")
        metadata.tables["task"].append_constraint(
            sa.ForeignKeyConstraint(["tenant_id", "project_id"], ["project.tenant_id", "project.id"], ondelete="CASCADE")
        )
        self.key = SealKey.generate(1)
        self.roles = DatabaseRoles.prefixed("script_" + secrets.token_hex(3))
        self.tenancy = Tenancy(metadata, roles=self.roles, seal=SealKeyring(current=self.key))
        for found in metadata.tables.values():
            self.tenancy.protect(found)

    def run(self, dialect: Dialect) -> None:
        text = self.tenancy.script(dialect)
        (insert,) = (line for line in text.splitlines() if "INSERT INTO axis.seal_key" in line)
        first, second = (f"'\\x{block.reveal().hex()}'::bytea" for block in self.key.blocks())
        text = text.replace(insert, insert.replace("$1", first).replace("$2", second))
        with psycopg.connect(self.server.dsn(self.name), autocommit=True) as admin:
            admin.execute(_ONE_NODE.encode())
            admin.execute(text.encode())


@pytest.fixture
def world(cluster: TestServer) -> Iterator[World]:
    """A fresh database."""
    with cluster.database("script_" + secrets.token_hex(2)) as name:
        yield World(cluster, name)


def test_the_script_leaves_a_plan_with_nothing_to_do(world: World) -> None:
    """What the script makes from bare tables is what the live planner wants, to the last grant."""
    world.run(Dialect.POSTGRESQL)
    with psycopg.connect(world.server.dsn(world.name)) as admin:
        plan = world.tenancy.plan(admin)
    assert not plan, plan.text


@pytest.mark.parametrize("dialect", [Dialect.POSTGRESQL, Dialect.CITUS])
def test_policies_with_and_without_sub_selects_isolate_alike(world: World, dialect: Dialect) -> None:
    """Each tenant sees its own rows; the other's cannot be read, written, pointed at or claimed; unbound, nothing answers."""
    world.run(dialect)
    engine = sa.create_engine(world.server.url(world.name, user=world.roles.app))
    world.tenancy.install(engine)
    theirs = uuid.uuid4()
    for tenant, project in ((GLOBEX, theirs), (ACME, uuid.uuid4())):
        with acting_as(Principal(tenant=tenant, user=1, role="member")), engine.begin() as conn:
            conn.execute(sa.text("INSERT INTO project (id) VALUES (:id)"), {"id": project})
            conn.execute(sa.text("INSERT INTO task (id, project_id) VALUES (gen_random_uuid(), :id)"), {"id": project})
    with acting_as(Principal(tenant=ACME, user=1, role="member")):
        with engine.begin() as conn:
            assert conn.execute(sa.text("SELECT tenant_id FROM task")).scalars().all() == [ACME]
            assert conn.execute(sa.text("UPDATE task SET project_id = NULL WHERE tenant_id = :t"), {"t": GLOBEX}).rowcount == 0
            assert conn.execute(sa.text("DELETE FROM project WHERE id = :id"), {"id": theirs}).rowcount == 0
        for attack in (
            f"INSERT INTO project VALUES ('{GLOBEX}', gen_random_uuid())",
            f"INSERT INTO task (id, project_id) VALUES (gen_random_uuid(), '{theirs}')",
            f"UPDATE project SET tenant_id = '{GLOBEX}'",
        ):
            with pytest.raises(sa.exc.DBAPIError), engine.begin() as conn:
                conn.execute(sa.text(attack))
    engine.dispose()
    with psycopg.connect(world.server.dsn(world.name, user=world.roles.app)) as bare, pytest.raises(psycopg.Error) as caught:
        bare.execute("SELECT count(*) FROM project")
    assert caught.value.sqlstate == "AX001"

"""A streaming replica of a protected database: reads there are bound and isolated, and the system login is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, insert, select
from sqlalchemy.exc import DBAPIError

from axis_security.core.context import acting_as
from axis_security.core.events import NullSink
from axis_security.core.principal import Principal
from axis_security.rls.bind import TenantNotBound
from axis_security.rls.install import install
from axis_security.rls.posture import SystemOnReplica
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster, give_to_server
from axis_security.testing.notes import NOTE, Notes, notes_database


@pytest.fixture(scope="module")
def primary() -> Iterator[Notes]:
    """A server that sends its log, with the protected table."""
    with (
        Cluster(settings={"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on", "synchronous_commit": "on"}) as server,
        notes_database(server) as notes,
    ):
        yield notes


@pytest.fixture(scope="module")
def replica(primary: Notes) -> Iterator[Cluster]:
    """Another server that follows it."""
    # Not below pytest's own folder: another run closes that one to the account that the servers run as.
    with tempfile.TemporaryDirectory(prefix="axis-replica-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        data = home / "data"
        data.mkdir(mode=0o700)
        give_to_server(data)
        assert isinstance(primary.server, Cluster)
        primary.server.run("pg_basebackup", "-d", primary.server.dsn(), "-D", str(data), "-R", "-X", "stream", "-c", "fast")
        with Cluster(data_dir=data, settings={"hot_standby": "on", "max_wal_senders": "4"}) as server:
            yield server


def caught_up(primary: Notes, replica: Cluster) -> None:
    """Returns when the replica has replayed everything that the primary has written; asks the replica, and the test's timeout ends it."""
    with psycopg.connect(primary.server.dsn(), autocommit=True) as there, psycopg.connect(replica.dsn(), autocommit=True) as here:
        [(position,)] = there.execute("SELECT pg_current_wal_lsn()::text").fetchall()
        while here.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchall() != [(True,)]:
            pass


def test_reads_on_a_replica_are_bound_and_isolated(primary: Notes, replica: Cluster) -> None:
    """What is written on the primary is read on the replica by its tenant and by nobody else; writes and unbound reads are refused."""
    people = [Principal(tenant=primary.new_tenant(), user="u", role="member") for _ in range(2)]
    writer = install(create_engine(primary.url()), binder=primary.binder, posture=primary.posture)
    reader = install(create_engine(replica.url(primary.dbname, user=primary.roles.app)), binder=primary.binder, posture=primary.posture)
    try:
        for number, who in enumerate(people):
            with acting_as(who), writer.begin() as connection:
                connection.execute(insert(NOTE).values(id=who.tenant.value, body=f"of {number}"))
        caught_up(primary, replica)
        with reader.connect() as connection:
            for number, who in enumerate(people):
                with acting_as(who):
                    assert [row.body for row in connection.execute(select(NOTE))] == [f"of {number}"]
                    connection.rollback()
        with pytest.raises(TenantNotBound), reader.connect() as connection:
            connection.execute(select(NOTE))
        with acting_as(people[0]), reader.connect() as connection, pytest.raises(DBAPIError, match="read-only"):
            connection.execute(insert(NOTE).values(id=1, body="x"))
    finally:
        writer.dispose()
        reader.dispose()
    # The database's own check, for a client that binds nothing.
    with psycopg.connect(replica.dsn(primary.dbname, user=primary.roles.app)) as bare, pytest.raises(psycopg.Error) as refused:
        bare.execute("SELECT * FROM note")
    assert refused.value.sqlstate == "AX001"


def test_the_system_login_is_refused_on_a_replica(primary: Notes, replica: Cluster) -> None:
    """A system scope on the replica's engine is refused before a row is read; the same scope on the primary's works."""
    for server, refused in ((replica, True), (primary.server, False)):
        tenancy = Tenancy(NOTE.metadata, roles=primary.roles, seal=primary.keyring)
        tenancy.protect(NOTE)
        engine = create_engine(server.url(primary.dbname, user=primary.roles.app))
        system = create_engine(server.url(primary.dbname, user=primary.roles.system))
        try:
            tenancy.install(engine, system=system, sink=NullSink())
            if refused:
                with pytest.raises(SystemOnReplica), tenancy.system(reason="count", lasting=timedelta(minutes=1)) as connection:
                    connection.execute(select(NOTE))
            else:
                with tenancy.system(reason="count", lasting=timedelta(minutes=1)) as connection:
                    tenant = primary.new_tenant()
                    connection.execute(insert(NOTE).values(id=tenant, tenant_id=tenant, body="by the system"))
                    assert [row.body for row in connection.execute(select(NOTE).where(NOTE.c.id == tenant))] == ["by the system"]
        finally:
            engine.dispose()
            system.dispose()

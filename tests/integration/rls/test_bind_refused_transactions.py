"""A `transaction()` that the guard refuses leaves the connection as it was: whoever gets it next from a pool is served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from axis_security.core.context import acting_as
from axis_security.core.principal import Principal
from axis_security.rls.bind import TenantNotBound
from axis_security.rls.bind_psycopg import guard
from axis_security.testing.cluster import Cluster
from axis_security.testing.notes import Notes, notes_database

TENANT = "SELECT axis.tenant_id()"


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> Iterator[Notes]:
    """One database for all."""
    with notes_database(cluster) as made:
        yield made


def test_a_refused_transaction_leaves_the_connection_usable(notes: Notes) -> None:
    """Nobody is bound, so BEGIN is not sent; psycopg before 3.3 would go on counting a transaction that never was."""
    person = Principal(tenant=notes.new_tenant(), role="member")
    with psycopg.connect(notes.dsn()) as connection:
        guard(connection, notes.binder, notes.posture)
        for _ in range(2):
            with pytest.raises(TenantNotBound), connection.transaction():
                pass
        with acting_as(person), connection.transaction(), connection.transaction():
            assert connection.execute(TENANT).fetchone() == (person.tenant.value,)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_refused_transaction_leaves_an_async_connection_usable(notes: Notes) -> None:
    """As the sync one."""
    person = Principal(tenant=notes.new_tenant(), role="member")

    async def work() -> tuple[object, ...] | None:
        async with await psycopg.AsyncConnection.connect(notes.dsn()) as connection:
            guard(connection, notes.binder, notes.posture)
            with pytest.raises(TenantNotBound):
                async with connection.transaction():
                    pass
            with acting_as(person):
                async with connection.transaction():
                    return await (await connection.execute(TENANT)).fetchone()

    assert asyncio.run(work()) == (person.tenant.value,)

"""asyncpg without SQLAlchemy: connections and pools."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest

from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.principal import Principal
from axis_security.rls.bind import AutocommitRefused, PrincipalChanged, TenantNotBound
from axis_security.rls.install import install
from axis_security.testing.cluster import Cluster
from axis_security.testing.notes import Notes, notes_database

CONTEXT = "SELECT split_part(current_setting('axis.context', true), ' ', 4)"


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> Iterator[Notes]:
    """One database for all."""
    with notes_database(cluster) as made:
        yield made


def test_connections(notes: Notes) -> None:
    """Bound in a transaction; outside one, unbound, or as somebody else: refused, prepared statements included."""
    one, other = (Principal(tenant=notes.new_tenant(), role="member") for _ in range(2))

    async def run() -> None:
        connection: Any = await asyncpg.connect(notes.dsn_for_asyncpg())
        assert await connection.fetchval(CONTEXT) is None  # the control: unguarded, it just runs
        install(connection, binder=notes.binder, posture=notes.posture)
        for person in (one, other):
            with acting_as(person):
                with pytest.raises(AutocommitRefused):
                    await connection.fetchval(CONTEXT)
                async with connection.transaction():
                    assert await connection.fetchval(CONTEXT) == person.tenant.text
                    prepared = await connection.prepare(CONTEXT)
                    with acting_as(other if person is one else one), pytest.raises(PrincipalChanged):
                        await prepared.fetchval()
                    assert await prepared.fetchval() == person.tenant.text
                    async with connection.transaction():
                        assert await connection.fetchval(CONTEXT) == person.tenant.text
            for _ in range(2):
                with pytest.raises(TenantNotBound):
                    async with connection.transaction():
                        pytest.fail("the transaction began")
        await connection.close()

    asyncio.run(run())


def test_pools(notes: Notes) -> None:
    """A pool of one hands out bound connections to one principal after the other, and resets them unbound."""

    async def run() -> None:
        async with asyncpg.create_pool(notes.dsn_for_asyncpg(), min_size=1, max_size=1) as pool:
            install(pool, binder=notes.binder, posture=notes.posture)
            for _ in range(3):
                person = Principal(tenant=notes.new_tenant(), role="member")
                with acting_as(person):
                    async with pool.acquire() as connection, connection.transaction():
                        assert await connection.fetchval(CONTEXT) == person.tenant.text
            with pytest.raises(TenantNotBound):
                await pool.fetchval(CONTEXT)

    asyncio.run(run())


def test_a_pool_s_own_callbacks_need_no_principal(notes: Notes) -> None:
    """`setup=` runs at every acquire and `reset=` at every release, on a connection that nobody has been given: before it is guarded and ever after."""
    calls: list[str] = []

    async def setup(connection: Any) -> None:
        calls.append("setup")
        await connection.execute("SET statement_timeout = 60000")

    async def reset(connection: Any) -> None:
        calls.append("reset")
        await connection.execute("SET statement_timeout = 50000")

    binder = notes.binder

    async def run() -> None:
        for early in (True, False):
            calls.clear()
            pool = asyncpg.create_pool(notes.dsn_for_asyncpg(), min_size=1, max_size=1, setup=setup, reset=reset)
            if early:
                install(pool, binder=binder, posture=notes.posture)
            async with pool:
                install(pool, binder=binder, posture=notes.posture)  # again, where it was early
                with pytest.raises(ConfigError, match="another tenancy"):
                    install(pool, binder=notes.binder, posture=notes.posture)
                for _ in range(2):
                    with acting_as(Principal(tenant=notes.new_tenant(), role="member")):
                        async with pool.acquire() as connection, connection.transaction():
                            assert await connection.fetchval("SHOW statement_timeout") == "1min"
                            with acting_as(Principal(tenant=notes.new_tenant(), role="member")), pytest.raises(PrincipalChanged):
                                await connection.fetchval(CONTEXT)
                assert calls == ["setup", "reset", "setup", "reset"]
                async with pool.acquire() as connection:
                    with pytest.raises(TenantNotBound):
                        await connection.fetchval(CONTEXT)

    asyncio.run(run())

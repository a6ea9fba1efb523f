"""Ending a transaction works for whoever cleans up, savepoints included; nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from axis_security import Principal, acting_as
from axis_security.rls import TenantNotBound
from axis_security.rls.install import install
from axis_security.testing.cluster import Cluster
from axis_security.testing.notes import NOTE, Notes, notes_database


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> Iterator[Notes]:
    with notes_database(cluster) as made:
        yield made


def _work(engine: sa.Engine, who: Principal) -> None:
    session = Session(engine)
    with acting_as(who):
        session.execute(sa.insert(NOTE).values(id=who.tenant.value, body="kept by nobody"))
        session.begin_nested()
        session.begin_nested()
        session.execute(sa.select(NOTE)).all()
    with pytest.raises(TenantNotBound):
        session.execute(sa.select(NOTE)).all()
    session.rollback()
    with acting_as(who):
        assert session.execute(sa.select(NOTE)).all() == []
    session.rollback()
    session.close()


def _sync(notes: Notes, driver: str) -> None:
    engine = install(sa.create_engine(notes.url(driver), pool_size=1, max_overflow=0), binder=notes.binder, posture=notes.posture)
    _work(engine, Principal(tenant=notes.new_tenant(), user=1, role="member"))
    engine.dispose()


def _async(notes: Notes, driver: str) -> None:
    async def run() -> None:
        url = notes.url(driver.removesuffix("_async"))
        engine = install(create_async_engine(url, pool_size=1, max_overflow=0), binder=notes.binder, posture=notes.posture)
        await greenlet_spawn(_work, engine.sync_engine, Principal(tenant=notes.new_tenant(), user=1, role="member"))
        await engine.dispose()

    asyncio.run(run())


@pytest.mark.parametrize(("driver", "run"), [("psycopg", _sync), ("psycopg_async", _async), ("asyncpg", _async)])
def test_a_session_with_open_savepoints_is_rolled_back_by_nobody(notes: Notes, driver: str, run: Callable[[Notes, str], None]) -> None:
    """An exception leaves `acting_as`, and the session is closed outside of it: its savepoints and its transaction end, and nothing is read."""
    run(notes, driver)

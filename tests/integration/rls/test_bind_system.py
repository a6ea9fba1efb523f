"""System scopes on a real server: another login, an event first, an end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, Outcome
from axis_security.core.principal import Principal
from axis_security.rls.bind import TenantNotBound
from axis_security.rls.posture import UnsafeRole
from axis_security.rls.system import SystemScopeEnded, SystemScopeRequired
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster
from axis_security.testing.notes import Notes, notes_database

MINUTE = timedelta(minutes=1)


class Kept(list[AuditEvent]):
    """A sink that keeps events, or cannot."""

    broken = False

    def emit(self, event: AuditEvent) -> None:
        """Keep it."""
        if self.broken:
            raise OSError("the log is full")
        self.append(event)


class Hand:
    """A clock moved by hand."""

    at = datetime.now(UTC)

    def now(self) -> datetime:
        """As set."""
        return self.at


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> Iterator[Notes]:
    """Two tenants, one note each."""
    with notes_database(cluster) as made:
        yield made


def tenancy(notes: Notes) -> Tenancy:
    """The declaration of the one table."""
    metadata = MetaData()
    table = Table(
        "note", metadata, Column("id", BigInteger, primary_key=True), Column("tenant_id", BigInteger, nullable=False), Column("body", Text)
    )
    made = Tenancy(metadata, roles=notes.roles, seal=notes.keyring)
    made.protect(table)
    return made


def test_a_scope_sees_all_tenants_and_is_on_record_before_anything_is_done(notes: Notes) -> None:
    """The event comes first, names reason, time and login; the application's engine keeps its rule inside."""
    made, kept = tenancy(notes), Kept()
    app, system = create_engine(notes.url(), poolclass=NullPool), create_engine(notes.url(user=notes.roles.system), poolclass=NullPool)
    made.install(app, system=system, sink=kept)
    first, second = notes.new_tenant(), notes.new_tenant()
    for tenant in (first, second):
        with acting_as(Principal(tenant=tenant, role="member")), app.begin() as connection:
            connection.execute(text("INSERT INTO note (id, body) VALUES (:id, 'x')"), {"id": tenant})
    with made.system(reason="INC-214 backfill", lasting=MINUTE) as connection:
        assert [event.kind for event in kept] == [EventKind.SYSTEM_SCOPE_OPENED]
        count = connection.scalar(text("SELECT count(*) FROM note WHERE tenant_id IN (:a, :b)"), {"a": first, "b": second})
        assert count == 2
        with pytest.raises(TenantNotBound), app.connect() as other:
            other.execute(text("SELECT 1"))
    opened, closed = kept
    assert (opened.reason, opened.detail["lasting_seconds"], opened.detail["login"]) == ("INC-214 backfill", 60, notes.roles.system)
    assert (closed.kind, closed.outcome, closed.detail["statements"]) == (EventKind.SYSTEM_SCOPE_CLOSED, Outcome.ALLOWED, 1)


def test_no_event_no_access(notes: Notes) -> None:
    """If the event cannot be kept, nothing is opened."""
    made, kept = tenancy(notes), Kept()
    system = create_engine(notes.url(user=notes.roles.system), poolclass=NullPool)
    made.install(create_engine(notes.url(), poolclass=NullPool), system=system, sink=kept)
    kept.broken = True
    with pytest.raises(OSError, match="full"), made.system(reason="INC-214 backfill", lasting=MINUTE):
        pytest.fail("the scope opened")


def test_the_system_login_is_of_no_use_outside_a_scope(notes: Notes) -> None:
    """The engine given as `system` refuses statements outside a declared scope, also while somebody is acting."""
    made = tenancy(notes)
    system = create_engine(notes.url(user=notes.roles.system), poolclass=NullPool)
    made.install(create_engine(notes.url(), poolclass=NullPool), system=system)
    with acting_as(Principal(tenant=1, role="owner")), pytest.raises(SystemScopeRequired), system.connect() as connection:
        connection.execute(text("SELECT 1"))


def test_a_scope_ends_by_itself(notes: Notes) -> None:
    """After its time statements are refused here, and a clean end no longer commits."""
    made, clock = tenancy(notes), Hand()
    system = create_engine(notes.url(user=notes.roles.system), poolclass=NullPool)
    made.install(create_engine(notes.url(), poolclass=NullPool), system=system, clock=clock)
    key = notes.new_tenant()
    with pytest.raises(SystemScopeEnded), made.system(reason="INC-214 backfill", lasting=MINUTE) as connection:
        connection.execute(text("INSERT INTO note VALUES (:id, :id, 'x')"), {"id": key})
        clock.at += 2 * MINUTE
        with pytest.raises(SystemScopeEnded):
            connection.execute(text("SELECT 1"))
    clock.at = datetime.now(UTC)
    with made.system(reason="look again", lasting=MINUTE) as connection:
        assert connection.scalar(text("SELECT count(*) FROM note WHERE id = :id"), {"id": key}) == 0


def test_the_server_ends_what_outlasts_the_scope(notes: Notes) -> None:
    """A statement that is running at the deadline is ended by the server."""
    made = tenancy(notes)
    system = create_engine(notes.url(user=notes.roles.system), poolclass=NullPool)
    made.install(create_engine(notes.url(), poolclass=NullPool), system=system)
    with pytest.raises(DBAPIError), made.system(reason="INC-214 backfill", lasting=timedelta(milliseconds=300)) as connection:
        connection.execute(text("SELECT pg_sleep(5)"))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_async_scopes(notes: Notes, driver: str) -> None:
    """`async with` gives the same with psycopg and asyncpg."""

    async def run() -> None:
        made, kept = tenancy(notes), Kept()
        app, system = create_async_engine(notes.url(driver)), create_async_engine(notes.url(driver, user=notes.roles.system))
        made.install(app, system=system, sink=kept)
        async with made.system(reason="INC-214 backfill", lasting=MINUTE) as connection:
            assert await connection.scalar(text("SELECT count(*) >= 0 FROM note"))
        assert [event.outcome for event in kept] == [Outcome.ALLOWED, Outcome.ALLOWED]
        with pytest.raises(SystemScopeRequired):
            async with system.connect() as connection:
                await connection.execute(text("SELECT 1"))
        await app.dispose()
        await system.dispose()

    asyncio.run(run())


def test_a_scope_needs_words_an_end_and_a_safe_login(notes: Notes) -> None:
    """No reason, no end, no system engine, or a superuser as the system login: refused."""
    made = tenancy(notes)
    with pytest.raises(ConfigError):
        made.system(reason="INC-214", lasting=MINUTE)
    kept = Kept()
    made.install(
        create_engine(notes.url(), poolclass=NullPool), system=create_engine(notes.url(user="postgres"), poolclass=NullPool), sink=kept
    )
    for reason, lasting in (("  ", MINUTE), ("INC-214", timedelta(0)), ("INC-214", timedelta(days=2))):
        with pytest.raises(ConfigError):
            made.system(reason=reason, lasting=lasting)
    with pytest.raises(UnsafeRole), made.system(reason="INC-214", lasting=MINUTE) as connection:
        connection.execute(text("SELECT 1"))
    assert [event.kind for event in kept] == [EventKind.SYSTEM_SCOPE_OPENED, EventKind.POSTURE_REFUSED, EventKind.SYSTEM_SCOPE_CLOSED]

"""The live server as backups need it: a few questions over its socket, and the canaries that prove a restore."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from axis_security.ops.backup.errors import BackupError, ServerUnreachable

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "ArchiverState",
    "Canary",
    "ServerFacts",
    "connected",
    "facts",
    "newest_canaries",
    "plant_canary",
    "server_time",
    "switch_and_wait",
]

_TABLE: Final = (
    "CREATE SCHEMA IF NOT EXISTS axis_backup",
    "CREATE TABLE IF NOT EXISTS axis_backup.canary ( number bigint PRIMARY KEY, token text NOT NULL, begun_at timestamptz NOT NULL)",
    "REVOKE ALL ON SCHEMA axis_backup FROM PUBLIC",
    "REVOKE ALL ON axis_backup.canary FROM PUBLIC",
)
_LOCK: Final = 0x61786973626B7570  # "axisbkup"
_KEPT: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A row whose presence after a restore is known beforehand: it was being written at *begun_at*, and was there before the next one began."""

    number: int
    token: str
    begun_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiverState:
    """``pg_stat_archiver``."""

    archived_at: datetime | None
    failed_at: datetime | None
    failed_wal: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What stays the same while the server runs."""

    system_id: int
    segment_bytes: int
    database_bytes: int
    archive_mode: str
    archiver: ArchiverState


@contextmanager
def connected(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit.

    Raises:
        ServerUnreachable: there is none to be had.
        BackupError: a statement in the block failed.
    """
    import psycopg  # here, not above: PostgreSQL starts us for each WAL segment, which needs no driver

    try:
        connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=5, application_name="axis-security backup")
    except psycopg.Error as error:
        raise ServerUnreachable(why=type(error).__name__) from None
    with connection:
        try:
            connection.execute("SET search_path = pg_catalog, pg_temp")
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        except psycopg.Error as error:
            raise BackupError(
                what="the server refused a statement of the backup",
                why=f"SQLSTATE {error.sqlstate or 'none'}",
                fix="the backup's login needs pg_monitor, REPLICATION, EXECUTE on pg_switch_wal and CREATE on its database; a superuser has them",
            ) from None


def facts(connection: psycopg.Connection[Any]) -> ServerFacts:
    """Ask the server who it is."""
    row = connection.execute(
        "SELECT (SELECT system_identifier FROM pg_control_system()), (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),"
        " (SELECT sum(pg_database_size(oid))::bigint FROM pg_database),"
        " current_setting('archive_mode'), a.last_archived_time, a.last_failed_time, a.last_failed_wal FROM pg_stat_archiver a"
    ).fetchone()
    if row is None:
        raise ServerUnreachable(why="it gave no answer about itself")
    return ServerFacts(
        system_id=int(row[0]) & 0xFFFF_FFFF_FFFF_FFFF,
        segment_bytes=row[1],
        database_bytes=row[2],
        archive_mode=row[3],
        archiver=ArchiverState(archived_at=row[4], failed_at=row[5], failed_wal=row[6]),
    )


def server_time(connection: psycopg.Connection[Any]) -> datetime:
    """The server's clock: commit times, and so recovery targets, are told by it."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    if row is None:
        raise ServerUnreachable(why="it does not tell the time")
    moment: datetime = row[0]
    return moment


def plant_canary(connection: psycopg.Connection[Any]) -> Canary:
    """Write one canary row: 64 random hex digits. One writer at a time, so that each begins after the one before was committed."""
    token = secrets.token_hex(32)
    connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        row = connection.execute("SELECT to_regclass('axis_backup.canary') IS NOT NULL").fetchone()
        if row is None or not row[0]:
            for statement in _TABLE:
                connection.execute(statement)
        row = connection.execute(
            "INSERT INTO axis_backup.canary SELECT coalesce(max(number), 0) + 1, %s, clock_timestamp() FROM axis_backup.canary"
            " RETURNING number, begun_at",
            (token,),
        ).fetchone()
        if row is None:
            raise ServerUnreachable(why="it did not take a canary row")
        connection.execute("DELETE FROM axis_backup.canary WHERE number <= %s", (row[0] - _KEPT,))
        return Canary(number=row[0], token=token, begun_at=row[1])
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def newest_canaries(connection: psycopg.Connection[Any], *, limit: int = _KEPT) -> Sequence[Canary]:
    """The newest canaries, in order; none where none was ever planted."""
    row = connection.execute("SELECT to_regclass('axis_backup.canary') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return []
    rows = connection.execute("SELECT number, token, begun_at FROM axis_backup.canary ORDER BY number DESC LIMIT %s", (limit,)).fetchall()
    return [Canary(number=number, token=token, begun_at=begun) for number, token, begun in reversed(rows)]


def switch_and_wait(connection: psycopg.Connection[Any], *, seconds: float = 60.0) -> str:
    """Close the current WAL segment and wait until it is archived; returns its name. A backlog is waited for as long as it shrinks.

    Args:
        seconds: how long the archiver may go without archiving a segment.

    Raises:
        BackupError: it archived none for that long.
    """
    row = connection.execute("SELECT pg_walfile_name(pg_switch_wal() - 1)").fetchone()
    segment = str(row[0]) if row else ""
    archived, deadline = "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        row = connection.execute("SELECT last_archived_wal FROM pg_stat_archiver").fetchone()
        newest = str(row[0] or "") if row else ""
        if newest[:24] >= segment:
            return segment
        if newest != archived:
            archived, deadline = newest, time.monotonic() + seconds
        time.sleep(0.05)
    raise BackupError(
        what=f"WAL segment {segment} was not archived, and no other in {seconds:.0f} s",
        why="archive_command fails, or is not set",
        fix="look at the server's log and at pg_stat_archiver, and apply the settings that `axis-security backup plan` prints",
        facts={"segment": segment},
    )

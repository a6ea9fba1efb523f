"""Ready-made looks at the things an app depends on; each is a callable for :class:`~axis_security.ops.health.HealthCheck`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from axis_security.core.checks import CheckResult, Finding, Severity

__all__ = ["Cursorless", "Executes", "certificate", "database", "disk", "replica_lag", "round_trip"]


class Cursorless(Protocol):
    """Runs a statement and gives its rows: a psycopg connection fits."""

    def execute(self, query: Any, /) -> Any:
        """Run *query*; the answer has ``fetchone()``."""
        ...


class Executes(Protocol):
    """Gives connections: ``psycopg_pool.ConnectionPool`` fits."""

    def connection(self) -> AbstractContextManager[Cursorless]:
        """A connection for the length of a block."""
        ...


def _failed(name: str, code: str, what: str, why: str, fix: str, *, seen: str) -> CheckResult:
    finding = Finding(code=code, severity=Severity.ERROR, object=name, what=what, why=why, fix=fix)
    return CheckResult(name=name, ok=False, seen=seen, findings=(finding,))


def database(source: Executes, *, name: str = "database") -> Callable[[], CheckResult]:
    """The database answers a statement on a connection of the app's own pool."""

    def look() -> CheckResult:
        began = time.perf_counter()
        try:
            with source.connection() as connection:
                row = connection.execute("SELECT pg_catalog.current_setting('server_version')").fetchone()
        except Exception as error:  # noqa: BLE001  # any failure to answer is the same answer: no
            return _failed(
                name,
                "database.unreachable",
                "the database does not answer",
                type(error).__name__,
                "check the server and the network",
                seen="no answer",
            )
        return CheckResult(name=name, ok=True, seen=f"PostgreSQL {row[0]}, {(time.perf_counter() - began) * 1000:.1f} ms")

    return look


def replica_lag(source: Executes, *, limit: timedelta = timedelta(seconds=30), name: str = "replica_lag") -> Callable[[], CheckResult]:
    """A streaming replica is no further behind its primary than *limit*; on a primary there is no lag.

    An idle primary writes nothing to replay, so a replica that has replayed all it received counts as caught up.
    """

    def look() -> CheckResult:
        try:
            with source.connection() as connection:
                row = connection.execute(
                    "SELECT pg_catalog.pg_is_in_recovery(),"
                    " pg_catalog.pg_last_wal_receive_lsn() IS NOT DISTINCT FROM pg_catalog.pg_last_wal_replay_lsn(),"
                    " EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())"
                ).fetchone()
        except Exception as error:  # noqa: BLE001  # any failure to answer is the same answer: no
            return _failed(
                name,
                "replica.unreachable",
                "the replica does not answer",
                type(error).__name__,
                "check the server and the network",
                seen="no answer",
            )
        in_recovery, caught_up, seconds = row
        if not in_recovery:
            return CheckResult(name=name, ok=True, seen="a primary")
        if caught_up:
            return CheckResult(name=name, ok=True, seen="caught up")
        if seconds is None or seconds > limit.total_seconds():
            shown = "unknown" if seconds is None else f"{seconds:.0f} s"
            return _failed(
                name,
                "replica.lag",
                "the replica is too far behind",
                f"{shown} against a limit of {limit}",
                "look at its WAL receiver and its disk",
                seen=f"{shown} behind",
            )
        return CheckResult(name=name, ok=True, seen=f"{seconds:.1f} s behind")

    return look


def disk(path: Path, *, min_free: float = 0.1, name: str = "disk") -> Callable[[], CheckResult]:
    """At least *min_free* (a part of 1) of the file system that holds *path* is free."""

    def look() -> CheckResult:
        try:
            usage = shutil.disk_usage(path)
        except OSError as error:
            return _failed(
                name,
                "disk.unreadable",
                "the file system could not be measured",
                error.strerror or "unreadable",
                "check the path",
                seen="unreadable",
            )
        free = usage.free / usage.total
        seen = f"{free:.0%} free"
        if free < min_free:
            return _failed(
                name,
                "disk.full",
                "the file system is nearly full",
                f"{seen}, at least {min_free:.0%} is wanted",
                "free or add space",
                seen=seen,
            )
        return CheckResult(name=name, ok=True, seen=seen)

    return look


def certificate(host: str, port: int, *, cafile: Path | None = None, name: str = "certificate") -> Callable[[], CheckResult]:
    """The endpoint speaks TLS 1.3 only and its certificate holds; give it a long ttl, it makes five handshakes."""

    def look() -> CheckResult:
        from axis_security.ops.tls import probe

        result = probe(host, port, cafile=cafile).as_check()
        return CheckResult(name=name, ok=result.ok, seen=result.seen, findings=result.findings)

    return look


def round_trip(write_and_read: Callable[[], bool], *, name: str) -> Callable[[], CheckResult]:
    """Something written comes back the same: a session store, a key service, an object store.

    Args:
        write_and_read: does both with a canary value; ``True`` exactly if what came back is what went in.
    """

    def look() -> CheckResult:
        began = time.perf_counter()
        try:
            same = write_and_read()
        except Exception as error:  # noqa: BLE001  # any failure to answer is the same answer: no
            return _failed(
                name,
                f"{name}.unreachable",
                f"{name} does not answer",
                type(error).__name__,
                "check that it runs and that we may use it",
                seen="no answer",
            )
        if same is not True:
            return _failed(
                name,
                f"{name}.wrong_answer",
                f"{name} does not give back what was put in",
                "the canary differs",
                "take it out of service",
                seen="wrong answer",
            )
        return CheckResult(name=name, ok=True, seen=f"{(time.perf_counter() - began) * 1000:.1f} ms")

    return look

"""Waiting for WAL to be archived: by progress, not by the clock."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from axis_security.ops.backup.errors import BackupError
from axis_security.ops.backup.server import switch_and_wait
from axis_security.testing.cluster import Cluster


def test_a_backlog_is_waited_for_as_long_as_it_shrinks() -> None:
    """Eight segments behind an archiver that takes its time: longer than the limit in sum, never without progress. Then it stops, and the limit holds."""
    limit = 3.0
    with tempfile.TemporaryDirectory(prefix="axis-wal-") as folder:
        Path(folder).chmod(0o755)
        stop = Path(folder) / "stop"
        settings = {"archive_mode": "on", "archive_command": f"test ! -e {stop} && sleep 0.6"}
        with Cluster(settings=settings) as cluster, psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE t (x int)")
            for number in range(8):
                connection.execute("INSERT INTO t VALUES (%s)", (number,))
                connection.execute("SELECT pg_switch_wal()")
            connection.execute("INSERT INTO t VALUES (9)")
            began = time.monotonic()
            segment = switch_and_wait(connection, seconds=limit)
            assert time.monotonic() - began > limit, "control: the whole took longer than the limit"
            stop.touch()
            connection.execute("INSERT INTO t VALUES (10)")
            with pytest.raises(BackupError) as refused:
                switch_and_wait(connection, seconds=1.0)
            assert refused.value.facts["segment"] > segment

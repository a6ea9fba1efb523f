"""The ready-made looks, on real things."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from axis_security.core.events import NullSink
from axis_security.ops.health import HealthCheck, HealthMonitor
from axis_security.ops.metrics import observe_with_opentelemetry, register_prometheus
from axis_security.ops.probes import database, disk, replica_lag, round_trip
from axis_security.testing.cluster import Cluster, TestServer


class Source:
    """Connects anew each time."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        return psycopg.connect(self._dsn, connect_timeout=2)


def test_a_running_database_is_ok_and_a_stopped_one_is_not(cluster: TestServer) -> None:
    """The look says the version while the server runs, and no when nobody listens."""
    assert "PostgreSQL" in database(Source(cluster.dsn()))().seen
    down = database(Source("host=127.0.0.1 port=1 dbname=x user=x"))()
    assert (down.ok, down.findings[0].code) == (False, "database.unreachable")


def test_a_paused_replica_is_found_to_lag() -> None:
    """A standby that replays is ok; paused behind new writes it is not; a primary has no lag."""
    with Cluster(settings={"wal_level": "replica", "max_wal_senders": "4"}) as primary:
        standby_data = primary.home / "standby"
        primary.run("pg_basebackup", "-d", primary.dsn(), "-D", str(standby_data), "-R", "-X", "stream")
        standby = Cluster(data_dir=standby_data)
        with standby:
            limit = timedelta(seconds=0)
            assert replica_lag(Source(primary.dsn()), limit=limit)().seen == "a primary"
            with psycopg.connect(standby.dsn(), autocommit=True) as there, psycopg.connect(primary.dsn(), autocommit=True) as here:
                here.execute("CREATE TABLE t (x int)")
                _wait_until(lambda: replica_lag(Source(standby.dsn()), limit=timedelta(seconds=60))().ok)
                there.execute("SELECT pg_wal_replay_pause()")
                here.execute("INSERT INTO t SELECT generate_series(1, 1000)")
                _wait_until(lambda: not replica_lag(Source(standby.dsn()), limit=limit)().ok)
                there.execute("SELECT pg_wal_replay_resume()")
                _wait_until(lambda: replica_lag(Source(standby.dsn()), limit=limit)().ok)


def test_disk_and_round_trip_answer_both_ways(tmp_path: Path) -> None:
    """Each of the two says yes and no, and an exception's text never shows."""
    assert disk(tmp_path, min_free=0.0)().ok
    assert disk(tmp_path, min_free=1.1)().findings[0].code == "disk.full"
    assert disk(tmp_path / "absent")().findings[0].code == "disk.unreadable"
    assert round_trip(lambda: True, name="kms")().ok
    assert round_trip(lambda: False, name="kms")().findings[0].code == "kms.wrong_answer"

    def broken() -> bool:
        raise RuntimeError("token=hunter2")

    result = round_trip(broken, name="kms")()
    assert (result.ok, "hunter2" in repr(result)) == (False, False)


def test_metrics_show_the_latest_answers_without_running_checks(tmp_path: Path) -> None:
    """A scrape, in either system, shows each check and runs none."""
    runs: list[int] = []
    look = disk(tmp_path, min_free=0.0)

    def counted() -> Any:
        runs.append(1)
        return look()

    monitor = HealthMonitor([HealthCheck(name="disk", run=counted)], sink=NullSink())
    registry = CollectorRegistry()
    register_prometheus(monitor, registry)
    reader = InMemoryMetricReader()
    observe_with_opentelemetry(monitor, MeterProvider([reader]).get_meter("test"))
    assert b'axis_check_ok{check="disk",code="not_run"} 0.0' in generate_latest(registry)
    monitor.ready()
    assert b'axis_check_ok{check="disk",code="ok"} 1.0' in generate_latest(registry)
    data = reader.get_metrics_data()
    assert data is not None
    names = {metric.name for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics}
    assert names == {"axis.check.ok", "axis.check.duration", "axis.check.age"}
    assert runs == [1]


def _wait_until(holds: Any, seconds: float = 15.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)

"""Readiness over a database that hangs: the answer comes in time, says nothing secret, and recovers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from datetime import timedelta

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from axis_security.core.events import NullSink
from axis_security.ops.health import Detail, HealthAnswer, HealthCheck, HealthMonitor
from axis_security.ops.probes import database
from axis_security.testing.cluster import Cluster

PASSWORD = "hunter2-in-the-dsn"


def test_a_thousand_probes_of_a_hung_database_are_answered_in_time(cluster: Cluster) -> None:
    """The server's process is stopped in the middle: 1,000 probes from threads and an event loop all hear 503 within the limit, one thread waits, and no
    answer holds a connection string; when the process goes on, so does readiness."""
    with ConnectionPool(cluster.dsn(password=PASSWORD), min_size=1, max_size=1, open=True) as pool:
        check = HealthCheck(name="database", run=database(pool), ttl=timedelta(milliseconds=50), timeout=timedelta(milliseconds=500))
        health = HealthMonitor([check], sink=NullSink())
        assert health.ready().status == 200
        with pool.connection() as connection:
            pid = connection.info.backend_pid
        try:
            os.kill(pid, signal.SIGSTOP)
        except PermissionError:
            pytest.skip("the server runs as another account")
        try:
            time.sleep(0.06)  # the good answer has lapsed
            began = time.monotonic()
            answers: list[HealthAnswer] = []
            threads = [threading.Thread(target=lambda: answers.append(health.ready(Detail.FULL))) for _ in range(100)]
            for thread in threads:
                thread.start()

            async def many() -> list[HealthAnswer]:
                return list(await asyncio.gather(*(health.aready() for _ in range(900))))

            answers += asyncio.run(many())
            for thread in threads:
                thread.join()
            took = time.monotonic() - began
            waiting = [thread.name for thread in threading.enumerate() if thread.name.startswith("axis-health-")]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {answer.status for answer in answers} == {503}
        assert len(answers) == 1000
        assert took < 10, "the limit is half a second; the rest is a busy machine"
        assert waiting == ["axis-health-database"]
        text = json.dumps([answer.body for answer in answers])
        assert PASSWORD not in text
        assert "timeout" in text
        deadline = time.monotonic() + 30
        while health.ready().status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_refused_login_is_a_code_and_nothing_more(cluster: Cluster) -> None:
    """What the driver says of a failed login (user, host, password) is in no answer, not even the full one."""

    class Source:
        def connection(self) -> psycopg.Connection[object]:
            return psycopg.connect(cluster.dsn("no_such_database", password=PASSWORD))

    health = HealthMonitor([HealthCheck(name="database", run=database(Source()))], sink=NullSink())
    answer = health.ready(Detail.FULL)
    assert answer.status == 503
    assert answer.body["checks"]["database"]["code"] == "database.unreachable"
    assert not {word for word in (PASSWORD, "no_such_database") if word in json.dumps(answer.body)}

"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from axis_security.testing.cluster import Cluster
from axis_security.testing.servers import OpenBao, Process, ServiceMissing, TlsCluster, Valkey

settings.register_profile("ci", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=False)
settings.register_profile("nightly", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("AXIS_TEST_PROFILE", "ci"))


@pytest.fixture(scope="session")
def cluster(axis_cluster: Cluster) -> Cluster:
    """A PostgreSQL server for this test process."""
    return axis_cluster


S = TypeVar("S", bound=Process | Cluster)


def _started(make: Callable[[], S]) -> Iterator[S]:
    try:
        server = make()
    except ServiceMissing as missing:
        # In CI everything is installed: a skip there would be a hole that nobody sees.
        if os.environ.get("AXIS_REQUIRE_SERVICES"):
            pytest.fail(str(missing))
        pytest.skip(f"{missing.what}; {missing.fix}")
    with server:
        yield server


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    """An OpenBao server for this test process."""
    yield from _started(OpenBao)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey server for this test process."""
    yield from _started(Valkey)


@pytest.fixture(scope="session")
def tls_cluster() -> Iterator[TlsCluster]:
    """A PostgreSQL 17 with TLS for this test process."""
    yield from _started(TlsCluster)

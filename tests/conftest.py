"""Fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NoReturn, Protocol, TypeVar

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

from axis_security.testing.cluster import Cluster
from axis_security.testing.servers import OpenBao, PgBouncer, Process, ServiceMissing, TlsCluster, Valkey
from axis_security.testing.valkey_cluster import ValkeyCluster

settings.register_profile("ci", max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=False)
settings.register_profile("nightly", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
settings.load_profile(os.environ.get("AXIS_TEST_PROFILE", "ci"))


@pytest.fixture(scope="session")
def cluster(axis_cluster: Cluster) -> Cluster:
    """A PostgreSQL server for this test process."""
    return axis_cluster


S = TypeVar("S", bound=Process | Cluster | ValkeyCluster)


def service_missing(missing: ServiceMissing) -> NoReturn:
    """Skip the test, with the line that installs what it lacks; in CI, fail it."""
    # In CI everything is installed: a skip there would be a hole that nobody sees.
    if os.environ.get("AXIS_REQUIRE_SERVICES"):
        pytest.fail(str(missing))
    pytest.skip(f"{missing.what}; {missing.fix}")


def needs(*modules: str, install: str) -> None:
    """Return if the Python packages *modules* are installed; else as :func:`service_missing`."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            service_missing(ServiceMissing(program=name, install=install))


def _started(make: Callable[[], S]) -> Iterator[S]:
    try:
        server = make()
    except ServiceMissing as missing:
        service_missing(missing)
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


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[ValkeyCluster]:
    """Three Valkey servers in one cluster, for this test process."""
    yield from _started(ValkeyCluster)


class StartPgBouncer(Protocol):
    """Starts a PgBouncer in front of the session's PostgreSQL, for *users*."""

    def __call__(self, *users: str, pool_size: int = 4, mode: str = "transaction") -> PgBouncer:
        """A running one, stopped when the test ends."""
        ...


@pytest.fixture
def pgbouncer(cluster: Cluster) -> Iterator[StartPgBouncer]:
    """Starts poolers in front of this process's PostgreSQL."""
    if not isinstance(cluster, Cluster):
        pytest.skip("the server that AXIS_TEST_DSN names may not trust a pooler; unset it")
    with ExitStack() as started:

        def start(*users: str, pool_size: int = 4, mode: str = "transaction") -> PgBouncer:
            try:
                pooler = PgBouncer(cluster, users=users, pool_size=pool_size, mode=mode)
            except ServiceMissing as missing:
                service_missing(missing)
            return started.enter_context(pooler)

        yield start


@pytest.fixture
def command_line() -> Callable[..., Result]:
    """Runs ``axis-security`` with these words in this process: status, stdout and stderr as a shell would see them."""
    from axis_security.cli import _root

    def run(*words: object, **options: Any) -> Result:
        return CliRunner().invoke(_root(), [str(word) for word in words], prog_name="axis-security", **options)

    return run

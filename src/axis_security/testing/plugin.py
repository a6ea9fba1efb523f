"""The pytest plugin: a real PostgreSQL for a host's own tests. Imports nothing until a fixture is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from axis_security.testing.cluster import TestServer

__all__ = ["axis_cluster"]


@pytest.fixture(scope="session")
def axis_cluster() -> Iterator[TestServer]:
    """A PostgreSQL server for this test process: our own, or the one that ``AXIS_TEST_DSN`` names (a superuser's DSN)."""
    from axis_security.testing.cluster import Cluster, TestServer

    dsn = os.environ.get("AXIS_TEST_DSN")
    if dsn:
        yield TestServer(dsn)
    else:
        with Cluster() as server:
            yield server

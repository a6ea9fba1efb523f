"""The pytest plugin: a real PostgreSQL, and the policy lab, for a host's own tests. Imports nothing until a fixture is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from axis_security.rls.tenancy import Tenancy
    from axis_security.testing.cluster import TestServer
    from axis_security.testing.kit import PolicyLab

__all__ = ["MakePolicyLab", "axis_cluster", "axis_policy_lab"]


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


class MakePolicyLab(Protocol):
    """Makes a policy lab for a declaration."""

    def __call__(self, tenancy: Tenancy, dsn: str, **told: Any) -> PolicyLab:
        """A lab (not yet open) on an administrator's connection to *dsn*; *told* goes to :meth:`PolicyLab.of`."""
        ...


@pytest.fixture
def axis_policy_lab() -> Iterator[MakePolicyLab]:
    """Makes policy labs whose connections are closed when the test ends: ``assert_not_vacuous(axis_policy_lab(tenancy, dsn))``."""
    import psycopg

    from axis_security.testing.kit import PolicyLab

    with ExitStack() as opened:

        def make(tenancy: Tenancy, dsn: str, **told: Any) -> PolicyLab:
            return PolicyLab.of(tenancy, opened.enter_context(psycopg.connect(dsn)), **told)

        yield make

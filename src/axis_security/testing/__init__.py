"""What a host's own tests can use: real servers, the isolation machine, the attack gallery, conformance suites, fakes for faults.

The names below load on first use: pytest imports this package in every host that has it installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.testing.clock import ManualClock as ManualClock
    from axis_security.testing.cluster import Cluster as Cluster
    from axis_security.testing.cluster import TestServer as TestServer
    from axis_security.testing.kit import PolicyLab as PolicyLab
    from axis_security.testing.kit_guards import check_isolation as check_isolation
    from axis_security.testing.mutation import assert_not_vacuous as assert_not_vacuous
    from axis_security.testing.mutation import mutation_score as mutation_score
    from axis_security.testing.pooler import check_pooler as check_pooler
    from axis_security.testing.servers import OpenBao as OpenBao
    from axis_security.testing.servers import PgBouncer as PgBouncer
    from axis_security.testing.servers import ServiceMissing as ServiceMissing
    from axis_security.testing.servers import TlsCluster as TlsCluster
    from axis_security.testing.servers import Valkey as Valkey
    from axis_security.testing.sink import MemorySink as MemorySink
    from axis_security.testing.strategies import isolation_test as isolation_test
    from axis_security.testing.valkey_cluster import ValkeyCluster as ValkeyCluster

_HOME: Final = {
    "isolation_test": "axis_security.testing.strategies",
    "check_pooler": "axis_security.testing.pooler",
    "check_isolation": "axis_security.testing.kit_guards",
    "mutation_score": "axis_security.testing.mutation",
    "assert_not_vacuous": "axis_security.testing.mutation",
    "PolicyLab": "axis_security.testing.kit",
    "Cluster": "axis_security.testing.cluster",
    "ManualClock": "axis_security.testing.clock",
    "MemorySink": "axis_security.testing.sink",
    "OpenBao": "axis_security.testing.servers",
    "PgBouncer": "axis_security.testing.servers",
    "ServiceMissing": "axis_security.testing.servers",
    "TestServer": "axis_security.testing.cluster",
    "TlsCluster": "axis_security.testing.servers",
    "Valkey": "axis_security.testing.servers",
    "ValkeyCluster": "axis_security.testing.valkey_cluster",
}

__all__ = [
    "Cluster",
    "ManualClock",
    "MemorySink",
    "OpenBao",
    "PgBouncer",
    "PolicyLab",
    "ServiceMissing",
    "TestServer",
    "TlsCluster",
    "Valkey",
    "ValkeyCluster",
    "assert_not_vacuous",
    "check_isolation",
    "check_pooler",
    "isolation_test",
    "mutation_score",
]


__getattr__, __dir__ = front_door(__name__, _HOME)

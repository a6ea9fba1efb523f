"""TLS 1.3 measured on real servers: uvicorn, the standard library's, and plain sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
import uvicorn
from psycopg.conninfo import make_conninfo

from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret
from axis_security.ops.tls import (
    LIVE_QUERY,
    StartTls,
    check_live,
    client_context,
    probe,
    secure_dsn,
    server_context,
    tls13_factory,
)
from axis_security.testing.cluster import TestServer
from axis_security.testing.servers import TlsCluster


class Files:
    """A test authority and one certificate of its, as PEM files."""

    def __init__(self, folder: Path, *names: str, not_after: datetime | None = None) -> None:
        self.authority = trustme.CA()
        leaf = self.authority.issue_cert(*(names or ("localhost", "127.0.0.1")), not_after=not_after)
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        leaf.cert_chain_pems[0].write_to_path(self.cert)
        leaf.private_key_pem.write_to_path(self.key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Certificate for localhost."""
    return Files(tmp_path)


@contextlib.contextmanager
def tcp_server(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A loopback server that hands each connection to *handle* in turn."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connection.settimeout(2)
                with connection, contextlib.suppress(OSError):
                    handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """A loopback server that completes handshakes of *context*."""

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)

    with tcp_server(handle) as port:
        yield port


@contextlib.contextmanager
def uvicorn_server(files: Files, **options: Any) -> Iterator[int]:
    """A real uvicorn on loopback with *files*' certificate."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        ssl_certfile=str(files.cert),
        ssl_keyfile=str(files.key),
        lifespan="off",
        log_level="critical",
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def codes(report: Any) -> set[str]:
    """The codes of a report's findings."""
    return {finding.code for finding in report.findings}


def test_uvicorn_with_our_factory_speaks_only_tls13(files: Files) -> None:
    """A uvicorn that uses tls13_factory completes no handshake below TLS 1.3."""
    with uvicorn_server(files, ssl_context_factory=tls13_factory) as port:
        report = probe("localhost", port, cafile=files.ca)
        assert (report.ok, report.version, report.old_versions, report.verified) == (True, "TLSv1.3", (), True)
        old = ssl.create_default_context(cafile=str(files.ca))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionResetError)), socket.create_connection(("localhost", port)) as raw:
            old.wrap_socket(raw, server_hostname="localhost")


def test_uvicorn_without_the_factory_is_found_out(files: Files) -> None:
    """Negative control: the same server with its own defaults still takes TLS 1.2, and the probe says so."""
    with uvicorn_server(files) as port:
        report = probe("localhost", port, cafile=files.ca)
        assert not report.ok
        assert "tls.old_version_accepted" in codes(report)
        assert "TLSv1.2" in report.old_versions


def test_server_context_has_the_floor(files: Files) -> None:
    """server_context() refuses a 1.2 client and serves a 1.3 client."""
    with tls_server(server_context(certfile=files.cert, keyfile=files.key)) as port:
        report = probe("localhost", port, cafile=files.ca)
        assert report.ok, report.findings
        assert report.cipher is not None
        assert report.cipher.startswith("TLS_")


def test_client_context_refuses_a_tls12_server(files: Files) -> None:
    """client_context() talks to no server that stops at TLS 1.2."""
    weak = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    weak.load_cert_chain(files.cert, files.key)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_server(weak) as port:
        with socket.create_connection(("localhost", port)) as raw, pytest.raises(ssl.SSLError):
            client_context(cafile=files.ca).wrap_socket(raw, server_hostname="localhost")
        report = probe("localhost", port, cafile=files.ca)
        assert {"tls.no_tls13", "tls.old_version_accepted"} <= codes(report)


def test_client_context_verifies_name_and_chain(files: Files, tmp_path: Path) -> None:
    """client_context() refuses a wrong host name and an unknown authority; neither check can be argued away."""
    other = Files(_folder(tmp_path, "other"))
    with tls_server(server_context(certfile=files.cert, keyfile=files.key)) as port:
        for ca, name in ((files.ca, "elsewhere.test"), (other.ca, "localhost")):
            with socket.create_connection(("localhost", port)) as raw, pytest.raises(ssl.SSLCertVerificationError):
                client_context(cafile=ca).wrap_socket(raw, server_hostname=name)


def test_probe_tells_wrong_host_from_wrong_authority_from_plaintext(files: Files, tmp_path: Path) -> None:
    """Each way to be wrong has its own code."""
    other = Files(_folder(tmp_path, "other"))
    with tls_server(server_context(certfile=files.cert, keyfile=files.key)) as port:
        assert codes(probe("localhost", port, cafile=files.ca, server_name="elsewhere.test")) == {"tls.wrong_host"}
        assert codes(probe("localhost", port, cafile=other.ca)) == {"tls.untrusted"}
    with tcp_server(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        report = probe("localhost", port)
        assert (report.version, codes(report)) == (None, {"tls.plaintext"})
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert codes(probe("127.0.0.1", port)) == {"tls.unreachable"}


@pytest.mark.parametrize(("days", "code"), [(5, "tls.expires_soon"), (-3, "tls.expired")])
def test_probe_counts_the_days_left(tmp_path: Path, days: int, code: str) -> None:
    """A certificate near or past its end is a finding; an expired one is also untrusted."""
    files = Files(tmp_path, not_after=datetime.now(UTC) + timedelta(days=days, hours=1))
    with tls_server(server_context(certfile=files.cert, keyfile=files.key)) as port:
        report = probe("localhost", port, cafile=files.ca)
        assert code in codes(report)
        assert report.ok is (days > 0)


def test_bad_certificate_files_are_a_config_error_without_the_password(files: Files, tmp_path: Path) -> None:
    """Missing, foreign and garbled files give a ConfigError that names the file and shows no secret."""
    other = Files(_folder(tmp_path, "other"))
    for cert, key in ((files.cert, tmp_path / "absent.pem"), (files.cert, other.key), (tmp_path / "absent.pem", files.key)):
        with pytest.raises(ConfigError) as caught:
            server_context(certfile=cert, keyfile=key, password=Secret("hunter2"))
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError):
        client_context(cafile=tmp_path / "absent.pem")


def test_mutual_tls_refuses_a_client_without_certificate(files: Files) -> None:
    """With client_ca, a client that shows nothing is refused and one with a certificate is served."""
    with tls_server(server_context(certfile=files.cert, keyfile=files.key, client_ca=files.ca)) as port:
        for context, served in (
            (client_context(cafile=files.ca), False),
            (client_context(cafile=files.ca, certfile=files.cert, keyfile=files.key), True),
        ):
            with socket.create_connection(("localhost", port)) as raw:
                raw.settimeout(2)
                try:
                    with context.wrap_socket(raw, server_hostname="localhost") as tls:
                        tls.sendall(b"x")
                        answered = tls.recv(1) == b""
                except (ssl.SSLError, ConnectionResetError):  # the alert, or, where the server was faster, the end
                    answered = False
                assert answered is served


def test_probe_finds_a_postgres_without_tls(cluster: TestServer) -> None:
    """A PostgreSQL that answers SSLRequest with N is found to be plaintext."""
    from psycopg.conninfo import conninfo_to_dict

    port = int(str(conninfo_to_dict(cluster.dsn())["port"]))
    assert codes(probe("127.0.0.1", port, start=StartTls.POSTGRES)) == {"tls.plaintext"}


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def test_postgres_with_tls_takes_the_secured_dsn_and_nothing_weaker(tls_cluster: TlsCluster) -> None:
    """The policy's DSN connects at TLS 1.3; a 1.2-only client, a wrong host, a wrong authority and plaintext are each refused."""
    secured = secure_dsn(tls_cluster.tls_dsn(), root_certificate=str(tls_cluster.root_certificate))
    with psycopg.connect(secured) as connection:
        row = connection.execute(LIVE_QUERY).fetchone()
    assert check_live(row).ok
    assert row is not None
    assert row[1] == "TLSv1.3"
    report = probe("localhost", tls_cluster.port, cafile=tls_cluster.root_certificate, start=StartTls.POSTGRES)
    assert (report.ok, report.old_versions, report.verified) == (True, (), True), report.findings
    for change, message in (
        ({"ssl_min_protocol_version": "TLSv1.2", "ssl_max_protocol_version": "TLSv1.2"}, "protocol version|alert"),
        ({"host": "elsewhere.test"}, "does not match host name"),
        ({"sslrootcert": "system"}, "certificate verify failed"),
        ({"sslmode": "disable", "channel_binding": "disable", "require_auth": ""}, "pg_hba.conf rejects|no encryption"),
    ):
        with pytest.raises(psycopg.OperationalError, match=message):
            psycopg.connect(make_conninfo(secured, **change))


def test_a_postgres_that_allows_tls12_is_found_and_refused_by_the_policy(tmp_path: Path) -> None:
    """Against a server that stops at TLS 1.2 the probe has findings, and the secured DSN does not connect."""
    with TlsCluster(min_version="TLSv1.2", max_version="TLSv1.2") as weak:
        report = probe("localhost", weak.port, cafile=weak.root_certificate, start=StartTls.POSTGRES)
        assert {"tls.no_tls13", "tls.old_version_accepted"} <= codes(report)
        with pytest.raises(psycopg.OperationalError, match=r"protocol version|alert|SSL"):
            psycopg.connect(secure_dsn(weak.tls_dsn(), root_certificate=str(weak.root_certificate)))
        with psycopg.connect(weak.tls_dsn(sslmode="require")) as connection:
            assert not check_live(connection.execute(LIVE_QUERY).fetchone()).ok


def test_a_plaintext_connection_is_not_tls(cluster: TestServer) -> None:
    """A connection over loopback TCP without TLS is judged as what it is."""
    with psycopg.connect(cluster.dsn()) as connection:
        assert not check_live(connection.execute(LIVE_QUERY).fetchone()).ok

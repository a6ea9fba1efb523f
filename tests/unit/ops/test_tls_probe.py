"""The probe's judgement, on handshakes that the test makes up: what no server of ours would show."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from axis_security.ops.tls import TlsReport, probe
from axis_security.testing.clock import ManualClock

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MODULE = import_module("axis_security.ops.tls.probe")


def certificate(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | dsa.DSAPrivateKey,
    at: datetime = NOW,
) -> bytes:
    """Self-signed, for ninety days."""
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, at - timedelta(days=1), at + timedelta(days=90))
    plain = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if plain else hashes.SHA256()).public_bytes(Encoding.DER)


def seen(monkeypatch: pytest.MonkeyPatch, der: bytes, version: str = "TLSv1.3") -> TlsReport:
    """A probe of a server that shows *der* and refuses old versions."""

    def handshake(*arguments: object) -> object:
        context = arguments[3]
        assert isinstance(context, ssl.SSLContext)
        if context.maximum_version in {ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2}:
            raise ssl.SSLError(1, "refused")
        return MODULE._Seen(version=version, cipher="TLS_AES_256_GCM_SHA384", der=der)

    monkeypatch.setattr(MODULE, "_handshake", handshake)
    return probe("localhost", 443, clock=ManualClock(NOW))


@pytest.mark.parametrize(
    ("make", "said", "ok"),
    [
        (lambda: rsa.generate_private_key(65_537, 1024), "RSA 1024", False),
        (lambda: rsa.generate_private_key(65_537, 2048), "RSA 2048", True),
        (lambda: ec.generate_private_key(ec.SECP256R1()), "EC secp256r1", True),
        (lambda: ec.generate_private_key(ec.SECP192R1()), "EC secp192r1", False),
        (ed25519.Ed25519PrivateKey.generate, "Ed25519", True),
        (ed448.Ed448PrivateKey.generate, "Ed448", True),
        (lambda: dsa.generate_private_key(2048), "DSAPublicKey", False),
    ],
)
def test_a_weak_key_is_found_and_named(monkeypatch: pytest.MonkeyPatch, make: Callable[[], rsa.RSAPrivateKey], said: str, ok: bool) -> None:
    """Below the floor, or of a kind that nobody should use: red, with the key's kind; the others are green."""
    report = seen(monkeypatch, certificate(make()))
    assert report.key is not None
    assert said in report.key
    assert report.ok is ok
    assert [finding.code for finding in report.findings] == ([] if ok else ["tls.weak_key"])


@pytest.mark.parametrize("der", [b"", b"junk", b"\x30\x03\x02\x01\x01"])
def test_a_certificate_that_cannot_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch, der: bytes) -> None:
    """Whatever a server shows: a report, not an exception, and it is not ok."""
    report = seen(monkeypatch, der)
    assert [finding.code for finding in report.findings] == ["tls.bad_certificate"]
    assert not report.ok
    assert (report.not_after, report.days_left) == (None, None)


def test_an_old_version_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negotiated with a client that offers 1.3."""
    report = seen(monkeypatch, certificate(ec.generate_private_key(ec.SECP256R1())), "TLSv1.2")
    assert [finding.code for finding in report.findings] == ["tls.no_tls13"]


@pytest.mark.parametrize("host", ["", ".", "a..b", "x" * 64 + ".test", ".example.test"])
def test_a_name_that_is_none_is_a_finding(host: str) -> None:
    """No host of that name can be: said as that, not raised."""
    report = probe(host, 1, timeout_seconds=1)
    assert [finding.code for finding in report.findings] == ["tls.unreachable"]


def test_the_command_line_probes_and_checks(monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Result]) -> None:
    """Status 1 where a promise does not hold, 2 where the words are no endpoint; the DSN comes by standard input and its password goes nowhere."""
    seen(monkeypatch, certificate(ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)))
    good = command_line("tls", "probe", "localhost:443", "--json")
    assert (good.exit_code, json.loads(good.stdout)["version"]) == (0, "TLSv1.3")
    seen(monkeypatch, b"")
    bad = command_line("tls", "probe", "[::1]:443", "--postgres")
    assert bad.exit_code == 1
    assert "[tls.bad_certificate]" in bad.stdout
    for word in ("localhost", ":443", "localhost:x", "localhost:0", "localhost:65536"):
        assert command_line("tls", "probe", word).exit_code == 2
    dsn = "postgresql://app:hunter2@db.example.org/crm"  # axis-security: not-a-secret a made-up password for this test
    told = command_line("tls", "dsn", input=dsn + "\n")
    assert told.exit_code == 1
    assert "tls.dsn_sslmode" in told.stdout
    assert "hunter2" not in told.output
    assert json.loads(command_line("tls", "dsn", "--json", input="dbname=crm\n").stdout)["ok"] is True

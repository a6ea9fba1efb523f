"""Look at a TLS endpoint from outside: what it speaks, what it still accepts, and how long its certificate lasts.

A probe, not a declaration: every answer comes from a handshake made now. It tries one handshake per protocol version, so a
server that prefers 1.3 and still accepts 1.2 is told apart from one that refuses it.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import ssl
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.clock import SYSTEM_CLOCK, Clock

__all__ = ["StartTls", "TlsReport", "probe"]

MIN_DAYS_LEFT: Final = 14
"""A certificate nearer to its end than this many days is a finding: renewal at two thirds of 90 days leaves 30."""
MIN_RSA_BITS: Final = 2048
"""NIST SP 800-131A."""

_OLD_VERSIONS: Final = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2)
_NAMES: Final = {ssl.TLSVersion.TLSv1: "TLSv1", ssl.TLSVersion.TLSv1_1: "TLSv1.1", ssl.TLSVersion.TLSv1_2: "TLSv1.2"}
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)  # PostgreSQL's SSLRequest message


class StartTls(enum.Enum):
    """What is spoken before the handshake."""

    NONE = "none"
    POSTGRES = "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsReport:
    """What a probe saw.

    Args:
        endpoint: ``host:port``.
        version: negotiated by a client that offers all versions, such as ``TLSv1.3``; ``None`` if there was no handshake.
        cipher: the negotiated suite.
        old_versions: versions below 1.3 that the server completed a handshake with.
        verified: whether the certificate chain and the host name hold for the given trust store.
        not_after: the end of the certificate's life.
        days_left: whole days until then, at the time of the probe.
        key: the certificate's key, such as ``EC secp256r1`` or ``RSA 2048``.
        findings: what is wrong.
    """

    endpoint: str
    version: str | None
    cipher: str | None
    old_versions: tuple[str, ...]
    verified: bool
    not_after: datetime | None
    days_left: int | None
    key: str | None
    findings: tuple[Finding, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def as_check(self) -> CheckResult:
        """The report as a check's answer."""
        seen = "no TLS handshake" if self.version is None else f"{self.version} {self.cipher}, {self.key}, {self.days_left} days left"
        return CheckResult(name="tls.endpoint", ok=self.ok, seen=f"{self.endpoint}: {seen}", findings=self.findings)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "endpoint": self.endpoint,
            "ok": self.ok,
            "version": self.version,
            "cipher": self.cipher,
            "old_versions": list(self.old_versions),
            "verified": self.verified,
            "not_after": self.not_after.isoformat() if self.not_after else None,
            "days_left": self.days_left,
            "key": self.key,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def probe(
    host: str,
    port: int,
    *,
    server_name: str | None = None,
    cafile: str | PathLike[str] | None = None,
    start: StartTls = StartTls.NONE,
    timeout_seconds: float = 5.0,
    clock: Clock = SYSTEM_CLOCK,
) -> TlsReport:
    """Measure the TLS of *host*:*port* with up to five handshakes.

    Args:
        server_name: the name to ask for and to verify, if it is not *host*.
        cafile: trust only these authorities; the system's store if ``None``.
        start: how the connection becomes TLS.
        timeout_seconds: of each connection.

    A server that can't be reached, speaks no TLS, or fails verification is a report with findings, not an exception.
    """
    name = server_name or host
    endpoint = f"{host}:{port}"
    try:
        seen = _handshake(host, port, name, _lenient(), start, timeout_seconds)
    except (OSError, ValueError) as error:
        return TlsReport(
            endpoint=endpoint,
            version=None,
            cipher=None,
            old_versions=(),
            verified=False,
            not_after=None,
            days_left=None,
            key=None,
            findings=(_no_handshake(endpoint, error),),
        )
    accepted = tuple(_NAMES[version] for version in _OLD_VERSIONS if _accepts(host, port, name, version, start, timeout_seconds))
    findings = list(_of_versions(endpoint, seen.version, accepted))
    try:
        _handshake(host, port, name, ssl.create_default_context(cafile=cafile), start, timeout_seconds)
        verified = True
    except OSError as error:
        verified = False
        findings.append(_unverified(endpoint, name, error))
    not_after, days_left, key = None, None, None
    try:
        certificate = x509.load_der_x509_certificate(seen.der)
        not_after = certificate.not_valid_after_utc
        days_left = (not_after - clock.now().astimezone(UTC)).days
        key, weak = _key(certificate)
        findings += _of_certificate(endpoint, days_left, key, weak=weak)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        why, fix = (
            f"it is malformed, or of a kind that nobody uses ({type(error).__name__})",
            "issue it again, by an authority that clients trust",
        )
        findings.append(_finding(endpoint, "bad_certificate", "the certificate cannot be read", why, fix))
    return TlsReport(
        endpoint=endpoint,
        version=seen.version,
        cipher=seen.cipher,
        old_versions=accepted,
        verified=verified,
        not_after=not_after,
        days_left=days_left,
        key=key,
        findings=tuple(findings),
    )


def _finding(endpoint: str, code: str, what: str, why: str, fix: str, *, severity: Severity = Severity.ERROR, **evidence: Any) -> Finding:
    return Finding(code=f"tls.{code}", severity=severity, object=endpoint, what=what, why=why, fix=fix, evidence=evidence)


def _no_handshake(endpoint: str, error: Exception) -> Finding:
    plain = isinstance(error, ssl.SSLError) and error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
    if plain or isinstance(error, _PlaintextServer | ConnectionResetError):
        why, fix = "it answered the handshake with something else", "give it a certificate and turn TLS on"
        return _finding(endpoint, "plaintext", "the server does not speak TLS", why, fix)
    fix = "check the address, the firewall and that the server runs"
    return _finding(endpoint, "unreachable", "no TLS handshake was possible", _reason(error), fix)


def _of_versions(endpoint: str, version: str, accepted: tuple[str, ...]) -> Iterator[Finding]:
    if version != "TLSv1.3":
        why = f"it negotiated {version} with a client that offers 1.3"
        yield _finding(endpoint, "no_tls13", "the server does not speak TLS 1.3", why, "set its minimum version to TLS 1.3")
    if accepted:
        why = f"a client that speaks only {', '.join(accepted)} completed a handshake"
        fix = "set the server's minimum version to TLS 1.3 (axis_security.ops.tls.tls13_factory; PostgreSQL: ssl_min_protocol_version)"
        yield _finding(endpoint, "old_version_accepted", "the server still accepts an older protocol", why, fix, accepted=list(accepted))


def _unverified(endpoint: str, name: str, error: OSError) -> Finding:
    if not isinstance(error, ssl.SSLCertVerificationError):
        fix = "run the probe again; the answer counts as no until it runs"
        return _finding(endpoint, "check_failed", "the certificate could not be verified", _reason(error), fix)
    if error.verify_code in {62, 64}:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        fix = "issue a certificate whose subjectAltName holds this name"
        return _finding(endpoint, "wrong_host", "the certificate is for another name", f"it does not cover `{name}`", fix)
    fix = "serve the full chain of an authority the clients trust"
    return _finding(endpoint, "untrusted", "the certificate chain is not trusted", error.verify_message, fix)


def _of_certificate(endpoint: str, days_left: int, key: str, *, weak: bool) -> Iterator[Finding]:
    if weak:
        fix = f"use ECDSA P-256 or RSA of at least {MIN_RSA_BITS} bits"
        yield _finding(endpoint, "weak_key", "the certificate's key is too weak", f"{key} is below the floor", fix, key=key)
    if days_left < 0:
        why, fix = f"it ended {-days_left} days ago", "renew it, and find out why renewal did not run"
        yield _finding(endpoint, "expired", "the certificate has expired", why, fix, days_left=days_left)
    elif days_left < MIN_DAYS_LEFT:
        what, why = "the certificate is about to expire", f"{days_left} days are left"
        yield _finding(endpoint, "expires_soon", what, why, "renew it now", severity=Severity.WARNING, days_left=days_left)


@dataclass(frozen=True, slots=True)
class _Seen:
    version: str
    cipher: str
    der: bytes


class _PlaintextServer(OSError):
    pass


def _handshake(host: str, port: int, name: str, context: ssl.SSLContext, start: StartTls, timeout_seconds: float) -> _Seen:
    with socket.create_connection((host, port), timeout=timeout_seconds) as raw:
        if start is StartTls.POSTGRES:
            raw.sendall(_SSL_REQUEST)
            if raw.recv(1) != b"S":
                raise _PlaintextServer("the server refused SSLRequest")
        with context.wrap_socket(raw, server_hostname=name) as tls:
            suite = tls.cipher()
            return _Seen(version=tls.version() or "", cipher=suite[0] if suite else "", der=tls.getpeercert(binary_form=True) or b"")


def _accepts(host: str, port: int, name: str, version: ssl.TLSVersion, start: StartTls, timeout_seconds: float) -> bool:
    context = _lenient()
    with _old_versions_allowed():
        context.minimum_version = version
        context.maximum_version = version
    # OpenSSL 3 refuses TLS 1.0 and 1.1 at its default level on *our* side; a probe must be able to offer them.
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        _handshake(host, port, name, context, start, timeout_seconds)
    except OSError:
        return False
    return True


def _lenient() -> ssl.SSLContext:
    # Only here: a probe must complete a handshake with a server whose certificate is wrong, in order to say what is wrong with it.
    # Nothing is sent over this connection, and the verdict on the certificate comes from a second, strict handshake.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def _old_versions_allowed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python deprecates naming TLS 1.0 and 1.1; naming them is this file's job
        yield


def _key(certificate: x509.Certificate) -> tuple[str, bool]:
    match certificate.public_key():
        case rsa.RSAPublicKey() as key:
            return f"RSA {key.key_size}", key.key_size < MIN_RSA_BITS
        case ec.EllipticCurvePublicKey() as key:
            return f"EC {key.curve.name}", key.key_size < 224
        case ed25519.Ed25519PublicKey():
            return "Ed25519", False
        case ed448.Ed448PublicKey():
            return "Ed448", False
        case other:
            return type(other).__name__, True


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):  # of the socket and ssl modules, for a name that DNS could not hold
        return "the host or its name is no name"
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS failure"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return error.strerror or type(error).__name__

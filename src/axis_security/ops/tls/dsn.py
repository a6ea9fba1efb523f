"""The connection policy between app and database: what a libpq DSN must say for TLS 1.3 to be true and verified.

Measured facts behind the rules: ``prefer`` and ``require`` without a root certificate accept *any* certificate; ``verify-ca``
accepts a wrong host name; a server may offer 1.2 unless the client sets a floor; and without ``require_auth`` a server in the
middle can ask for the password in clear. ``channel_binding=require`` ties SCRAM to the TLS channel, but no pooler can pass it on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ProgrammingError

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import ConfigError

__all__ = ["LIVE_QUERY", "check_dsn", "check_live", "secure_dsn"]

_REQUIRED: Final[Mapping[str, tuple[str, str]]] = {
    "sslmode": ("verify-full", "anything less accepts a certificate of somebody else's"),
    "ssl_min_protocol_version": ("TLSv1.3", "libpq's own floor is TLS 1.2"),
    "channel_binding": ("require", "without it a man in the middle with a valid certificate can relay SCRAM"),
    "gssencmode": ("disable", "libpq otherwise tries GSSAPI encryption first, and TLS is then not used at all"),
    "require_auth": ("scram-sha-256", "a false server could otherwise ask for the password in clear"),
}

LIVE_QUERY: Final = "SELECT s.ssl, s.version, s.cipher, s.bits, inet_server_addr() IS NULL FROM pg_catalog.pg_stat_ssl s WHERE s.pid = pg_catalog.pg_backend_pid()"
"""What the server says of this very connection; give its row to :func:`check_live`."""


def secure_dsn(dsn: str, *, root_certificate: str = "system", pooled: bool = False) -> str:
    """*dsn* with every TLS setting of the policy put in.

    Args:
        dsn: a libpq connection string or URL.
        root_certificate: path of the authority's certificate, or ``system`` for the operating system's store.
        pooled: the address is a pooler's (PgBouncer): channel binding can't pass through one and is left out; the rest stays.

    Raises:
        ConfigError: *dsn* can't be parsed, or already sets one of the policy's parameters to something weaker.
    """
    parts = _parse(dsn)
    wanted = _wanted(pooled=pooled)
    for name, (value, why) in wanted.items():
        if str(parts.get(name, value)) != value:
            raise ConfigError(
                what=f"the DSN sets `{name}` against the policy",
                why=why,
                fix=f"remove `{name}` from the DSN; this function sets {name}={value}",
            )
    return make_conninfo(
        "", **{**parts, **{name: value for name, (value, _) in wanted.items()}, "sslrootcert": parts.get("sslrootcert", root_certificate)}
    )


def check_dsn(dsn: str, *, pooled: bool = False, name: str = "database") -> CheckResult:
    """Hold *dsn* against the policy; nothing is connected. The DSN's password and user never appear in the answer.

    A Unix-domain socket needs no TLS (the bytes don't leave the kernel) and passes, if there is no other host to fall back to. A host that the DSN leaves to
    libpq's environment (``PGHOST``) or to a service file counts as one on the network.
    """
    try:
        parts = _parse(dsn)
    except ConfigError as error:
        finding = Finding(code="tls.dsn_malformed", severity=Severity.ERROR, object=name, what=error.what, why=error.why, fix=error.fix)
        return CheckResult(name="tls.dsn", ok=False, seen=f"{name}: unreadable DSN", findings=(finding,))
    if _is_local(parts):
        return CheckResult(name="tls.dsn", ok=True, seen=f"{name}: local socket, no network in between")
    findings = [
        Finding(
            code=f"tls.dsn_{setting}",
            severity=Severity.ERROR,
            object=name,
            what=f"the DSN does not set {setting}={value}",
            why=why,
            fix="pass the DSN through axis_security.ops.tls.secure_dsn()",
            evidence={"found": str(parts[setting]) if setting in parts else None},
        )
        for setting, (value, why) in _wanted(pooled=pooled).items()
        if parts.get(setting) != value
    ]
    seen = "verify-full, TLS 1.3 floor" if not findings else f"{len(findings)} settings missing or weak"
    return CheckResult(name="tls.dsn", ok=not findings, seen=f"{name}: {seen}", findings=tuple(findings))


def check_live(row: tuple[Any, ...] | None, *, name: str = "database") -> CheckResult:
    """Judge the row that :data:`LIVE_QUERY` gave on the app's own connection."""
    if row is not None and not row[0] and row[4]:
        return CheckResult(name="tls.database", ok=True, seen=f"{name}: local socket, no network in between")
    if row is None or not row[0]:
        why, seen = "pg_stat_ssl says this connection is not encrypted", "plaintext"
    elif row[1] != "TLSv1.3":
        why, seen = f"pg_stat_ssl says {row[1]}", f"{row[1]} {row[2]}"
    else:
        return CheckResult(name="tls.database", ok=True, seen=f"{name}: {row[1]} {row[2]}")
    finding = Finding(
        code="tls.database_connection",
        severity=Severity.ERROR,
        object=name,
        what="the connection between app and database is not TLS 1.3",
        why=why,
        fix="connect with secure_dsn(), and set ssl_min_protocol_version = 'TLSv1.3' and hostssl lines on the server",
    )
    return CheckResult(name="tls.database", ok=False, seen=f"{name}: {seen}", findings=(finding,))


def _wanted(*, pooled: bool) -> dict[str, tuple[str, str]]:
    return {name: rule for name, rule in _REQUIRED.items() if not (pooled and name == "channel_binding")}


def _is_local(parts: Mapping[str, Any]) -> bool:
    # libpq goes through a list of hosts until one answers, and where there is an address connects to that in place of the host.
    host = str(parts.get("host") or os.environ.get("PGHOST", ""))
    elsewhere = any(
        parts.get(name) or os.environ.get(variable) for name, variable in (("hostaddr", "PGHOSTADDR"), ("service", "PGSERVICE"))
    )
    return not elsewhere and all(each.startswith(("/", "@")) or not each for each in host.split(","))


def _parse(dsn: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(dsn)
    except ProgrammingError:
        # libpq's message can quote the string, password and all.
        raise ConfigError(
            what="the DSN cannot be parsed",
            why="libpq does not accept its syntax",
            fix="write it as key=value pairs or as postgresql://user@host/db",
        ) from None

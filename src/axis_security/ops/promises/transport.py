"""Promise 1: TLS 1.3 on every hop, measured by handshakes and by what the database says of the app's own connection."""

from __future__ import annotations

from os import PathLike

from axis_security.core.checks import CheckResult
from axis_security.core.secret import Secret
from axis_security.ops.promises.answer import Look, rows
from axis_security.ops.tls import LIVE_QUERY, StartTls, check_dsn, check_live, probe

__all__ = ["database_connection", "endpoint"]


def endpoint(
    host: str,
    port: int = 443,
    *,
    server_name: str | None = None,
    cafile: str | PathLike[str] | None = None,
    start: StartTls = StartTls.NONE,
) -> Look:
    """The endpoint speaks TLS 1.3 and refuses everything older, and its certificate holds. Arguments: see :func:`axis_security.ops.tls.probe`."""
    return lambda: probe(host, port, server_name=server_name, cafile=cafile, start=start).as_check()


def database_connection(dsn: Secret[str], *, pooled: bool = False, name: str = "database") -> Look:
    """The app's own connection string asks for verified TLS 1.3, and the server says that a connection made with it has that.

    Args:
        dsn: exactly what the app connects with.
        pooled: the address is a pooler's, which cannot pass channel binding on.
    """

    def look() -> tuple[CheckResult, CheckResult]:
        import psycopg

        said = check_dsn(dsn.reveal(), pooled=pooled, name=name)
        with psycopg.connect(dsn.reveal(), connect_timeout=10, application_name="axis-security verify") as connection:
            live = check_live(next(iter(rows(connection, LIVE_QUERY)), None), name=name)
        return said, live

    return look

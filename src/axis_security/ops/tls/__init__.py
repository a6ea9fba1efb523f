"""TLS 1.3: contexts with a floor, a connection policy for the database, and probes that measure both."""

from axis_security.ops.tls.contexts import client_context as client_context
from axis_security.ops.tls.contexts import server_context as server_context
from axis_security.ops.tls.contexts import tls13_factory as tls13_factory
from axis_security.ops.tls.dsn import LIVE_QUERY as LIVE_QUERY
from axis_security.ops.tls.dsn import check_dsn as check_dsn
from axis_security.ops.tls.dsn import check_live as check_live
from axis_security.ops.tls.dsn import secure_dsn as secure_dsn
from axis_security.ops.tls.probe import StartTls as StartTls
from axis_security.ops.tls.probe import TlsReport as TlsReport
from axis_security.ops.tls.probe import probe as probe

__all__ = [
    "LIVE_QUERY",
    "StartTls",
    "TlsReport",
    "check_dsn",
    "check_live",
    "client_context",
    "probe",
    "secure_dsn",
    "server_context",
    "tls13_factory",
]

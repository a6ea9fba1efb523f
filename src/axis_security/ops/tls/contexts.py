"""``ssl.SSLContext`` objects with a TLS 1.3 floor, for servers and clients.

Why a floor and not a preference: a peer that may still be talked down to 1.2 has not got the promise (ASVS 12.1.1). The standard
library's defaults start at 1.2, and a server framework's "version" option is often a *protocol constant* that does not set a floor.
The three TLS 1.3 suites all authenticate; Python before 3.15 cannot choose among them, so :mod:`~axis_security.ops.tls.probe`
reports the one that was negotiated.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from os import PathLike
from typing import Any

from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret

__all__ = ["client_context", "server_context", "tls13_factory"]


def server_context(
    *,
    certfile: str | PathLike[str],
    keyfile: str | PathLike[str],
    password: Secret[str] | None = None,
    client_ca: str | PathLike[str] | None = None,
) -> ssl.SSLContext:
    """A server's context: TLS 1.3 or nothing, no compression, no renegotiation.

    Args:
        certfile: the certificate chain, PEM.
        keyfile: its private key, PEM.
        password: of the key, if it is encrypted.
        client_ca: require clients to show a certificate signed by one of these (mutual TLS).

    Raises:
        ConfigError: a file is missing or unreadable, or the key does not fit the certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _floor(context)
    try:
        # Without an explicit empty password OpenSSL would stop and ask on the terminal for an encrypted key.
        context.load_cert_chain(certfile, keyfile, password=password.reveal() if password else "")
        if client_ca is not None:
            context.load_verify_locations(cafile=client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "unreadable"
        raise ConfigError(
            what="the server's TLS certificate cannot be used",
            why=f"`{certfile}` with `{keyfile}`: {reason}",
            fix="give a PEM certificate chain and the private key that belongs to it, readable by this process",
        ) from None
    return context


def client_context(
    *, cafile: str | PathLike[str] | None = None, certfile: str | PathLike[str] | None = None, keyfile: str | PathLike[str] | None = None
) -> ssl.SSLContext:
    """A client's context: TLS 1.3 or nothing, certificate and host name verified; there is no argument that turns either off.

    Args:
        cafile: trust only these authorities; the system's store if ``None``.
        certfile, keyfile: the client's own certificate, for mutual TLS.

    Raises:
        ConfigError: a file is missing or unreadable.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=cafile)
        if certfile is not None:
            context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            what="the TLS trust store or client certificate cannot be used",
            why=f"{getattr(error, 'reason', None) or error.strerror or 'unreadable'}",
            fix="give PEM files that this process can read",
        ) from None
    _floor(context)
    return context


def tls13_factory(config: Any, default_factory: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Put the floor under the context that a server builds from its own options.

    The signature is the one that uvicorn (``ssl_context_factory=``, from 0.47) and gunicorn (``ssl_context`` in its configuration) both ask for::

        uvicorn.run(app, ssl_certfile=..., ssl_keyfile=..., ssl_context_factory=tls13_factory)
    """
    del config
    context = default_factory()
    _floor(context)
    return context


def _floor(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION

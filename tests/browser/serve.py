"""An ASGI app over TLS 1.3 in a thread, under a certificate made for the occasion."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import trustme
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from axis_security.ops.tls import tls13_factory

PATIENCE_MS: Final = 30_000
"""For one step of a browser on a busy machine; nothing waits for it when all is well."""


@contextmanager
def serving(app: Any, home: Path, listener: socket.socket, hosts: tuple[str, ...]) -> Iterator[str]:
    """*app* on *listener* until the block ends; gives the pin of the key, as Chromium wants it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(home / "authority.pem")
    certificate = authority.issue_cert(*hosts)
    chain, key = home / "chain.pem", home / "key.pem"
    chain.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    public = x509.load_pem_x509_certificate(chain.read_bytes()).public_key()
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    config = uvicorn.Config(
        app,
        ssl_certfile=chain,
        ssl_keyfile=str(key),
        ssl_context_factory=tls13_factory,
        log_level="error",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="uvicorn")
    thread.start()
    try:
        # The socket listens already: a browser that is early waits in its queue.
        yield base64.b64encode(digest.finalize()).decode()
    finally:
        server.should_exit = True
        thread.join(30)
    if thread.is_alive():
        raise RuntimeError("the server did not stop")

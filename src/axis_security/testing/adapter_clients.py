"""Requests to an app without a server: ASGI and WSGI, as a server would call it, with every byte of the answer to look at."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote

__all__ = ["AsgiClient", "Got", "Sent", "WsgiClient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request. ``target`` is path and query as a browser sends them."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """An answer, to the byte; header names in lower case, in the order in which they were sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of one header; several lines are joined."""
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None


class AsgiClient:
    """Calls an ASGI app on an event loop of its own. Use it as a context manager.

    Args:
        app: the app.
        piece: bodies are sent in pieces of this many bytes.
    """

    def __init__(self, app: Any, *, piece: int = 1000) -> None:
        self._app: Final = app
        self._piece: Final = piece
        self.runner: Final = asyncio.Runner()

    def __enter__(self) -> Self:
        self.runner.get_loop()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.runner.close()

    def send(self, sent: Sent) -> Got:
        """Send one request."""
        return self.runner.run(self.asend(sent))

    async def asend(self, sent: Sent) -> Got:
        """:meth:`send`, on whatever loop runs."""
        pieces = [sent.body[at : at + self._piece] for at in range(0, len(sent.body), self._piece)] or [b""]
        messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not pieces:
                await asyncio.Event().wait()  # the client stays connected
            body = pieces.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(pieces)}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        path, _, query = sent.target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": sent.method,
            "scheme": "https",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent.headers],
            "client": ("192.0.2.1", 50000),
            "server": ("app.example.com", 443),
            "state": {},
        }
        await self._app(scope, receive, send)
        start = next(message for message in messages if message["type"] == "http.response.start")
        return Got(
            status=start["status"],
            headers=tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in start.get("headers", ())),
            body=b"".join(message.get("body", b"") for message in messages if message["type"] == "http.response.body"),
        )

    def start(self) -> None:
        """Run the app's start-up and shut-down. An exception of the start-up is raised."""
        self.runner.run(self._lifespan())

    async def _lifespan(self) -> None:
        told = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive() -> dict[str, Any]:
            return told.pop(0)

        async def send(message: dict[str, Any]) -> None:
            return None

        await self._app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    def talk(
        self, target: str, *, headers: Iterable[tuple[str, str]] = (), says: Iterable[str] = (), whole: bool = True
    ) -> list[dict[str, Any]]:
        """Open a WebSocket, say something, hang up; returns every message of the app.

        Args:
            whole: whether the server can send a whole answer where the handshake is refused.
        """
        return self.runner.run(self.atalk(target, headers=headers, says=says, whole=whole))

    async def atalk(
        self, target: str, *, headers: Iterable[tuple[str, str]] = (), says: Iterable[str] = (), whole: bool = True
    ) -> list[dict[str, Any]]:
        """:meth:`talk`, on whatever loop runs."""
        told: list[dict[str, Any]] = [{"type": "websocket.connect"}]
        told += [{"type": "websocket.receive", "text": text} for text in says]
        told.append({"type": "websocket.disconnect", "code": 1000})
        messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            return told.pop(0) if len(told) > 1 else told[0]

        async def send(message: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            messages.append(message)

        path, _, query = target.partition("?")
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            "client": ("192.0.2.1", 50000),
            "server": ("app.example.com", 443),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}} if whole else {},
        }
        await self._app(scope, receive, send)
        return messages


class WsgiClient:
    """Calls a WSGI app (PEP 3333). Use it as a context manager.

    Args:
        app: the app.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app: Final = app

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def send(self, sent: Sent) -> Got:
        """Send one request."""
        path, _, query = sent.target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": sent.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(path).encode().decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "app.example.com",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "CONTENT_LENGTH": str(len(sent.body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(sent.body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in sent.headers:
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        started: list[tuple[str, list[tuple[str, str]]]] = []
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            started.append((status, headers))
            return written.append

        parts = self._app(environ, start_response)
        try:
            body = b"".join(parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        return Got(
            status=int(status.split()[0]),
            headers=tuple((name.lower(), value) for name, value in headers),
            body=b"" if sent.method == "HEAD" else b"".join(written) + body,
        )

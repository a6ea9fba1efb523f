"""ASGI: translates scopes and messages for the gate, and the gate's answers back. Every decision is made in :mod:`axis_security.wiring.gate`.

Works around any ASGI app; :mod:`axis_security.adapters.starlette` and :mod:`axis_security.adapters.fastapi` put it where it belongs.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from axis_security.adapters.teardown import nobody_tears_down
from axis_security.core.context import acting_as_nobody
from axis_security.core.errors import AxisError, PrincipalRequired
from axis_security.core.flow import adrive
from axis_security.wiring.facts import WANTED_HEADERS, WEBSOCKET, RequestFacts, merged
from axis_security.wiring.gate import Call, Gate, ReadForm
from axis_security.wiring.marks import mark_of
from axis_security.wiring.refusals import Answer
from axis_security.wiring.visit import Visit

__all__ = ["ASGIApp", "GateMiddleware", "Message", "Receive", "Scope", "Send", "facts_from"]

Scope = MutableMapping[str, Any]
"""What an ASGI server tells of a connection."""
Message = MutableMapping[str, Any]
"""One event of a connection, either way."""
Receive = Callable[[], Awaitable[Message]]
"""Gives the next event from the client."""
Send = Callable[[Message], Awaitable[None]]
"""Takes an event for the client."""
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI 3 application."""

_NAMES: Final = {name.encode("ascii"): name for name in WANTED_HEADERS}
POLICY_VIOLATION: Final = 1008
"""WebSocket close code (RFC 6455 section 7.4.1) for a connection whose person may not go on."""


def facts_from(scope: Scope) -> RequestFacts:
    """What *scope* (http or websocket) says."""
    client = scope.get("client")
    return RequestFacts(
        method=WEBSOCKET if scope["type"] == "websocket" else scope["method"],
        path=scope["path"],
        query=scope.get("query_string", b"").decode("latin-1"),
        secure=scope.get("scheme") in {"https", "wss"},
        peer=client[0] if client else "",
        headers=merged((_NAMES[name], value.decode("latin-1")) for name, value in scope["headers"] if name in _NAMES),
    )


class GateMiddleware:
    """Any ASGI app behind the gate.

    An app that routes by itself tells the gate which endpoint it reached (see :mod:`axis_security.adapters.starlette`). For any other, the mark on
    the app itself counts (``public("reason")(app)``), and else every answer below 400 needs a decision made on the way.

    Args:
        app: the app.
        gate: decides.
        recheck_seconds: how long a WebSocket may live on the answer of the last look at its session.
        on_start: called before the app's start-up; what it raises keeps the app from starting.
    """

    def __init__(
        self, app: ASGIApp, *, gate: Gate, recheck_seconds: float = 60.0, on_start: Callable[[], None] | None = None, routed: bool = False
    ) -> None:
        self.app: Final = app
        self.gate: Final = gate
        self._recheck_seconds: Final = recheck_seconds
        self._on_start: Final = on_start
        self._mark: Final = None if routed else mark_of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection.

        Raises:
            RuntimeError: a kind of connection that this release does not know; passing it through would pass it by.
        """
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                if self._on_start is not None:
                    try:
                        self._on_start()
                    except Exception as error:
                        # Servers take an exception here for an app without lifespan, and serve it; this they take for a refusal.
                        await receive()
                        await send({"type": "lifespan.startup.failed", "message": str(error)})
                        raise
                with acting_as_nobody():
                    await self.app(scope, receive, send)
            case other:
                raise RuntimeError(f"unknown ASGI connection type {other!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        nobody_tears_down()
        body = _Body(receive)
        verdict = await adrive(self.gate.enter(facts_from(scope)), _performer(self.gate, body))
        if isinstance(verdict, Answer):
            await _send(send, verdict)
            return
        out = _Response(self.gate, verdict, send)
        with verdict.acting():
            try:
                if self._mark is not None:
                    self.gate.reached(verdict, self._mark, scope["path"])
                await self.app(scope, body.receive, out.send)
            except AxisError as error:
                if out.started or not _is_answer(error):
                    raise
                await _send(send, self.gate.refuse(error, verdict))
                return
            await out.finish()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        nobody_tears_down()
        verdict = await adrive(self.gate.enter(facts_from(scope)), _performer(self.gate, _Body(receive)))
        if isinstance(verdict, Answer):
            await _reject(scope, receive, send, verdict)
            return
        socket = _Socket(self.gate, verdict, receive, send, self._recheck_seconds)
        with verdict.acting():
            try:
                if self._mark is not None:
                    self.gate.reached(verdict, self._mark, scope["path"])
                await self.app(scope, socket.receive, socket.send)
            except AxisError as error:
                if not _is_answer(error):
                    raise
                if socket.accepted:
                    await socket.close()
                else:
                    await _reject(scope, receive, send, self.gate.refuse(error, verdict), asked=socket.asked)


def _is_answer(error: AxisError) -> bool:
    """Whether the error speaks to whoever asked; one that does not is the app's own failure, and its error handling's."""
    return error.http_status < 500 or error.http_status == 503


def _performer(gate: Gate, body: _Body) -> Callable[[Any], Awaitable[Any]]:
    identity = gate.identity

    async def perform(request: Any) -> Any:
        match request:
            case ReadForm(limit):
                return await body.peek(limit)
            case Call():
                return await request.asynchronous()
            case _:
                answer = identity.perform(request) if gate.is_async else await asyncio.to_thread(identity.perform, request)
                return await answer if inspect.isawaitable(answer) else answer

    return perform


class _Body:
    """A body whose beginning the gate may look at before the app reads it all."""

    __slots__ = ("_held", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._held: list[Message] = []

    async def peek(self, limit: int) -> bytes:
        seen = b""
        while len(seen) < limit:
            message = await self._receive()
            self._held.append(message)
            if message["type"] != "http.request":
                break
            seen += message.get("body", b"")
            if not message.get("more_body", False):
                break
        return seen[:limit]

    async def receive(self) -> Message:
        return self._held.pop(0) if self._held else await self._receive()


class _Response:
    """The app's answer on its way out: held back until a decision is known, with our headers on it."""

    __slots__ = ("_gate", "_held", "_holding", "_replaced", "_send", "_visit", "started")

    def __init__(self, gate: Gate, visit: Visit, send: Send) -> None:
        self._gate, self._visit, self._send = gate, visit, send
        self._held: list[Message] = []
        self._holding = False
        self._replaced = False
        self.started = False

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if self._holding:
            self._held.append(message)
            if self._held[0]["status"] != _FAILED:
                # The first part of the body is there: a guard inside a streaming endpoint has been asked by now.
                await self._release()
        elif message["type"] == "http.response.start" and not self.started:
            self._held.append(message)
            self._holding = True
            if message["status"] != _FAILED and self._visit.decided:
                await self._release()
        else:
            await self._send(message)

    async def finish(self) -> None:
        """The app has returned; what is held may go."""
        if self._holding:
            await self._release()

    async def _release(self) -> None:
        held, self._held, self._holding = self._held, [], False
        start = held[0]
        answer = self._gate.leave(self._visit, status=start["status"])
        self.started = True
        if answer is not None:
            self._replaced = True
            await _send(self._send, answer)
            return
        ours = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._visit.answer_headers()]
        taken = {name for name, _ in ours if name not in _ADDED}
        start["headers"] = [*(pair for pair in start.get("headers", ()) if pair[0].lower() not in taken), *ours]
        for message in held:
            await self._send(message)


_FAILED: Final = 500
"""An answer of this status waits until the app has returned: a mounted app answers so, and then raises the refusal that we should send."""
_ADDED: Final = frozenset({b"set-cookie", b"vary"})
"""Of these headers the app's own lines stay beside ours."""


class _Socket:
    """A WebSocket: nothing goes out before a decision, and the session is looked at again from time to time."""

    __slots__ = ("_gate", "_looked", "_perform", "_receive", "_seconds", "_send", "_visit", "accepted", "asked", "closed")

    def __init__(self, gate: Gate, visit: Visit, receive: Receive, send: Send, seconds: float) -> None:
        self._gate, self._visit, self._receive, self._send, self._seconds = gate, visit, receive, send, seconds
        self._perform = _performer(gate, _Body(receive))
        self._looked = time.monotonic()
        self.accepted = False
        self.asked = False
        self.closed = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.asked = True
        if message["type"] == "websocket.receive" and not await self._still():
            await self.close()
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self.accepted = True
            cookies = [(b"set-cookie", value.encode("latin-1")) for name, value in self._visit.answer_headers() if name == "set-cookie"]
            message["headers"] = [*message.get("headers", ()), *cookies]
        elif message["type"] == "websocket.send" and (self._gate.leave(self._visit, status=200) is not None or not await self._still()):
            await self.close()
            raise PrincipalRequired  # ends the app's loop; the client has its answer
        elif message["type"] == "websocket.close" and self.closed:
            return  # said already
        await self._send(message)

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self._send({"type": "websocket.close", "code": POLICY_VIOLATION})

    async def _still(self) -> bool:
        if self.closed:
            return False  # for good: an app that reads on, or in another task, gets no more either
        if time.monotonic() - self._looked < self._seconds:
            return True
        self._looked = time.monotonic()
        try:
            return await adrive(self._gate.still(self._visit), self._perform)
        except AxisError:
            return False


async def _send(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": _raw(answer.headers)})
    await send({"type": "http.response.body", "body": answer.body})


async def _reject(scope: Scope, receive: Receive, send: Send, answer: Answer, *, asked: bool = False) -> None:
    """Refuse a handshake: with the whole answer where the server can send one, else by closing (the client sees 403)."""
    if not asked:
        await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": answer.status, "headers": _raw(answer.headers)})
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})


def _raw(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]

"""A loopback TCP proxy that delays bytes and counts round trips, to see what a protocol costs over a real network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

__all__ = ["LatencyProxy"]

T = TypeVar("T")

_CHUNK: Final = 65536


class LatencyProxy:
    """Forwards connections to *host*:*port*, each direction later by *delay_seconds*.

    A round trip is a change of direction: the client spoke, then the server answered. What is sent in one flush, however many
    messages it holds, counts once. Bytes keep their order, and the delay is a delay, not a throughput limit.
    """

    def __init__(self, host: str, port: int, *, delay_seconds: float = 0.005) -> None:
        self._host = host
        self._target_port = port
        self._delay = delay_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="latency-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.round_trips = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            up_reader, up_writer = await asyncio.open_connection(self._host, self._target_port)
        except OSError:
            writer.close()
            return
        said = {"client": False}

        async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, client: bool) -> None:
            queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

            async def late() -> None:
                while True:
                    due, data = await queue.get()
                    await asyncio.sleep(due - self._loop.time())
                    if not data:
                        break
                    target.write(data)
                    await target.drain()

            sender = asyncio.ensure_future(late())
            try:
                while data := await source.read(_CHUNK):
                    if client:
                        said["client"] = True
                    elif said["client"]:
                        said["client"] = False
                        self.round_trips += 1
                    queue.put_nowait((self._loop.time() + self._delay, data))
                queue.put_nowait((self._loop.time(), b""))
                await sender
            finally:
                sender.cancel()
                target.close()

        try:
            await asyncio.gather(forward(reader, up_writer, client=True), forward(up_reader, writer, client=False), return_exceptions=True)
        except asyncio.CancelledError:
            pass  # the proxy is closing; nobody awaits a connection's task
        finally:
            up_writer.close()
            writer.close()

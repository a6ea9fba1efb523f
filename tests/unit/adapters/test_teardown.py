"""A generator that nobody closed is torn down as nobody, whoever collects the garbage."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from axis_security import acting_as, requires
from axis_security.adapters.starlette import install
from axis_security.adapters.teardown import nobody_tears_down
from axis_security.core.context import maybe_principal
from axis_security.core.principal import Principal
from axis_security.testing.gate_world import GateWorld

OTHER = Principal(tenant="globex", user="bob", role="owner")


def who() -> str:
    principal = maybe_principal()
    return "nobody" if principal is None else principal.tenant.text


async def dropped(seen: list[str], *, cycle: bool) -> None:
    """Begin a generator, drop it, and collect it while somebody else acts."""

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append(who())

    async def begin() -> list[Any]:
        held: list[Any] = [generator()]
        await anext(held[0])
        return held

    held = await asyncio.create_task(begin())
    await asyncio.sleep(0)  # the loop holds the finished task, and so its result, for the length of this step
    if cycle:
        held.append(held)
    with acting_as(OTHER):
        del held
        gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("cycle", [False, True], ids=["dropped", "in a cycle"])
@pytest.mark.parametrize("guarded", [True, False], ids=["ours", "the control"])
def test_garbage_is_torn_down_as_nobody(guarded: bool, cycle: bool) -> None:
    """With the hook: nobody. Without: whoever collected it, which is what makes the hook necessary."""
    seen: list[str] = []

    async def main() -> None:
        if guarded:
            nobody_tears_down()
            mine = sys.get_asyncgen_hooks().finalizer
            nobody_tears_down()
            assert sys.get_asyncgen_hooks().finalizer is mine
        await dropped(seen, cycle=cycle)

    asyncio.run(main())
    assert seen == (["nobody"] if guarded else ["globex"])


def test_a_stream_that_a_client_breaks_off() -> None:
    """Through Starlette: its teardown is not another request's."""
    world, seen = GateWorld(), []

    async def pieces() -> AsyncIterator[str]:
        try:
            while True:
                yield who()
                await asyncio.sleep(0)
        finally:
            seen.append(who())

    @requires(world.caps.contacts.read)
    async def view(request: Any) -> StreamingResponse:
        return StreamingResponse(pieces())

    app = Starlette(routes=[Route("/", view)])
    install(app, world.gate())
    ann = world.person("ann", tenant="acme", role="member")
    headers = [(name.encode(), value.encode()) for name, value in ann.headers().items()]

    async def main() -> None:
        gone, sent, asked = asyncio.Event(), [], []

        async def receive() -> dict[str, Any]:
            asked.append(1)
            if len(asked) > 1:
                await gone.wait()
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if len(sent) == 2:
                gone.set()
                await asyncio.Event().wait()

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET", "scheme": "https", "path": "/",
            "query_string": b"", "root_path": "", "headers": headers, "client": ("192.0.2.1", 1), "server": ("x", 443), "state": {},
        }  # fmt: skip
        await app(scope, receive, send)  # type: ignore[arg-type]  # plain dictionaries
        with acting_as(OTHER):
            gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert seen in (["nobody"], ["acme"])

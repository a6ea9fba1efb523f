"""No request sees another's principal: two tenants, every way in which code runs on behalf of a request, in every order.

Each place where the app's code runs notes whom it acts for beside whom it should. The same app with its principal in a place that requests share is the control.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from axis_security import requires
from axis_security.adapters.fastapi import install
from axis_security.core.context import maybe_principal
from axis_security.core.principal import Principal
from axis_security.testing.adapter_clients import AsgiClient, Sent
from axis_security.testing.gate_world import GateWorld, Person

REQUESTS: Final = 200
Who = Callable[[], Principal | None]


class Shared:
    """Where a careless adapter keeps the principal: one place for all requests."""

    def __init__(self) -> None:
        self.principal: Principal | None = None

    def __call__(self) -> Principal | None:
        return self.principal


class OnTheLoop:
    """The world's identity store without a thread, so that one run of the machine is like another."""

    def __init__(self, world: GateWorld) -> None:
        self._identity: Any = world.identity

    async def perform(self, request: Any, /) -> Any:
        """Carry out a request of the gate."""
        await asyncio.sleep(0)
        return self._identity.perform(request)


class Crowd:
    """An app, two people, and what was seen.

    Args:
        who: how the app's code finds out whom it acts for.
        turn: what it waits for between two looks.
    """

    def __init__(self, who: Who = maybe_principal, turn: Callable[[str], Any] | None = None) -> None:
        self.world = GateWorld()
        self.who = who
        self.seen: list[tuple[str, str | None, str]] = []
        self.turn = turn or self._soon
        self.people: dict[str, Person] = {name: self.world.person(name, tenant=name, role="member") for name in ("red", "blue")}
        self.headers = {name: tuple(person.headers().items()) for name, person in self.people.items()}
        self.app = self._app()

    @staticmethod
    async def _soon(request: str) -> None:
        await asyncio.sleep(random.random() / 500)

    def look(self, request: str, place: str) -> None:
        """Note whom the code acts for. A request's name begins with the tenant it comes from."""
        principal = self.who()
        self.seen.append((request, None if principal is None else principal.tenant.text, place))

    @property
    def crossed(self) -> list[tuple[str, str | None, str]]:
        """Looks that saw somebody else, or nobody."""
        return [each for each in self.seen if each[1] != each[0].partition("-")[0]]

    def _app(self) -> FastAPI:
        app, caps, look = FastAPI(openapi_url=None), self.world.caps, self.look
        install(app, self.world.gate(identity=OnTheLoop(self.world)))
        guard = requires(caps.contacts.read)

        async def around(request: str) -> AsyncIterator[None]:
            look(request, "dependency")
            yield
            await self.turn(request)
            look(request, "async teardown")

        def around_sync(request: str) -> Iterator[None]:
            yield
            look(request, "teardown in a thread")

        async def share() -> None:
            if isinstance(self.who, Shared):
                self.who.principal = maybe_principal()

        app.router.dependencies.append(Depends(share))

        @app.get("/thread")
        @guard
        def thread(request: str) -> str:
            time.sleep(random.random() / 500)
            look(request, "thread")
            return "done"

        @app.get("/async", dependencies=[Depends(around), Depends(around_sync)])
        @guard
        async def coroutine(request: str) -> str:
            for _ in range(2):
                await self.turn(request)
                look(request, "coroutine")
            inner = asyncio.create_task(self._later(request, "task"))
            await inner
            return "done"

        @app.get("/coroutine", dependencies=[Depends(around)])
        @guard
        async def without_threads(request: str) -> str:
            await self._later(request, "coroutine")
            await asyncio.create_task(self._later(request, "task"))
            return "done"

        @app.get("/background")
        @guard
        async def background(request: str, tasks: BackgroundTasks) -> str:
            tasks.add_task(self._later, request, "background")
            tasks.add_task(look, request, "background in a thread")
            return "done"

        @app.get("/after")
        @guard
        async def after(request: str, tasks: BackgroundTasks) -> str:
            tasks.add_task(self._later, request, "background")
            tasks.add_task(self._later, request, "background again")
            return "done"

        @app.get("/stream")
        @guard
        async def stream(request: str) -> StreamingResponse:
            async def pieces() -> AsyncIterator[str]:
                try:
                    for _ in range(3):
                        await self.turn(request)
                        look(request, "stream")
                        yield "x"
                finally:
                    look(request, "stream's end")

            return StreamingResponse(pieces())

        @app.get("/stream-thread")
        @guard
        def stream_thread(request: str) -> StreamingResponse:
            def pieces() -> Iterator[str]:
                for _ in range(2):
                    look(request, "stream in a thread")
                    yield "x"

            return StreamingResponse(pieces())

        @app.websocket("/socket")
        @guard
        async def socket(websocket: WebSocket, request: str) -> None:
            await websocket.accept()
            async for _ in websocket.iter_text():
                await self.turn(request)
                look(request, "socket")
                await websocket.send_text("x")

        return app

    async def _later(self, request: str, place: str) -> None:
        await self.turn(request)
        self.look(request, place)

    async def send(self, client: AsgiClient, way: str, name: str) -> None:
        """One request on behalf of the tenant that *name* begins with."""
        headers = self.headers[name.partition("-")[0]]
        if way == "socket":
            await client.atalk(f"/socket?request={name}", headers=(*headers, ("origin", "https://app.example.com")), says=["a", "b"])
            return
        got = await client.asend(Sent(method="GET", target=f"/{way}?request={name}", headers=headers))
        if got.status != 200:
            raise RuntimeError(f"{way}: {got.status} {got.body!r}")


WAYS: Final = {"thread": 1, "async": 6, "coroutine": 4, "after": 2, "background": 2, "stream": 4, "stream-thread": 2, "socket": 2}
"""How often each way looks."""


@pytest.mark.parametrize("way", WAYS)
def test_two_tenants_at_once_never_cross(way: str) -> None:
    """2 tenants x 200 interleaved requests: every look sees its own tenant, none is missing, and nobody is left acting afterwards."""
    crowd = Crowd()
    with AsgiClient(crowd.app) as client:
        client.runner.run(_all_at_once(crowd, client, way))
        assert client.runner.run(_acting()) is None
    assert crowd.crossed == []
    assert len(crowd.seen) == 2 * REQUESTS * WAYS[way]


async def _all_at_once(crowd: Crowd, client: AsgiClient, way: str, requests: int = REQUESTS) -> None:
    names = [f"{tenant}-{number}" for number in range(requests) for tenant in crowd.people]
    await asyncio.gather(*(crowd.send(client, way, name) for name in names))


async def _acting() -> Principal | None:
    return maybe_principal()


@pytest.mark.parametrize("way", ["thread", "async", "stream", "background"])
def test_a_principal_that_requests_share_is_seen_to_leak(way: str) -> None:
    """The control: the same app, with its principal where a careless adapter would keep it."""
    crowd = Crowd(who=Shared())
    with AsgiClient(crowd.app) as client:
        client.runner.run(_all_at_once(crowd, client, way, 40))
    assert crowd.crossed != []


class Requests(RuleBasedStateMachine):
    """Requests begin, go on by one step, or are cut off, in any order that Hypothesis thinks of. No thread is in it, so that a run can be repeated."""

    who: Who = staticmethod(maybe_principal)

    @initialize()
    def begin(self) -> None:
        """An app whose code waits to be let on."""
        self.waiting: dict[str, asyncio.Future[None]] = {}
        self.running: dict[str, asyncio.Task[None]] = {}
        self.count = 0
        self.crowd = Crowd(who=self.who, turn=self._wait)
        self.client = AsgiClient(self.crowd.app)

    async def _wait(self, request: str) -> None:
        self.waiting[request] = asyncio.get_running_loop().create_future()
        await self.waiting[request]

    async def _settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    @rule(tenant=st.sampled_from(["red", "blue"]), way=st.sampled_from(["coroutine", "after", "stream", "socket"]))
    def open(self, tenant: str, way: str) -> None:
        """A request comes in."""
        self.count += 1
        name = f"{tenant}-{self.count}"

        async def start() -> None:
            self.running[name] = asyncio.create_task(self.crowd.send(self.client, way, name))
            await self._settle()

        self.client.runner.run(start())

    @rule(pick=st.integers(0, 99), cut=st.sampled_from([False, False, False, True]))
    def go_on(self, pick: int, cut: bool) -> None:
        """One that waits goes on, or its client hangs up."""
        ready = sorted(name for name, future in self.waiting.items() if not future.done())
        if not ready:
            return
        name = ready[pick % len(ready)]

        async def step() -> None:
            if cut:
                self.running[name].cancel()
            else:
                self.waiting.pop(name).set_result(None)
            await self._settle()
            assert maybe_principal() is None

        self.client.runner.run(step())

    @invariant()
    def nobody_saw_another(self) -> None:
        """Every look so far saw its own tenant."""
        if getattr(self, "crowd", None) is not None:
            assert self.crowd.crossed == []

    def teardown(self) -> None:
        """Cut off what is left."""
        if getattr(self, "client", None) is None:
            return

        async def end() -> None:
            for task in self.running.values():
                task.cancel()
            for task in self.running.values():
                with suppress(asyncio.CancelledError, Exception):
                    await task

        self.client.runner.run(end())
        self.client.runner.close()


BRIEF: Final = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))


def test_in_no_order_do_principals_cross() -> None:
    """Interleavings of opening, going on and cutting off, step by step."""
    run_state_machine_as_test(Requests, settings=BRIEF)


class Leaking(Requests):
    """The same with a principal that requests share."""

    @initialize()
    def begin(self) -> None:
        """A place of its own for each run."""
        self.who = Shared()
        super().begin()


def test_the_machine_finds_a_leak() -> None:
    """The control: the machine turns red when requests share their principal."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Leaking, settings=settings(BRIEF, phases=[Phase.generate]))

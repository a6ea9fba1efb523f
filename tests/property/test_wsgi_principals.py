"""Crossed principals under WSGI: requests of two tenants opened, read and closed in any order and on any thread; none ever acts for another."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.unit.adapters.wsgi_client import environ

from axis_security import requires
from axis_security.adapters.flask import AxisFlask
from axis_security.adapters.wsgi import AxisWsgi
from axis_security.core.context import _PRINCIPAL, maybe_principal
from axis_security.core.principal import Principal
from axis_security.testing.gate_world import GateWorld

THREADS = 3
TENANTS = ("acme", "globex")
Log = list[tuple[str, str]]


def who() -> str:
    principal = maybe_principal()
    return "nobody" if principal is None else principal.tenant.text


def pieces(owner: str, log: Log) -> Generator[str, None, None]:
    """A generator that says who it acts for at each step and in its teardown."""
    try:
        for _ in range(5):
            yield who()
    finally:
        log.append((owner, who()))


def plain(world: GateWorld, log: Log) -> Any:
    """A WSGI app."""

    @requires(world.caps.contacts.read)
    def app(env: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        inner = pieces(env["QUERY_STRING"], log)
        try:
            for piece in inner:
                yield piece.encode()
        finally:
            inner.close()

    return AxisWsgi(app, world.gate())


def in_flask(world: GateWorld, log: Log) -> Any:
    """A Flask app that streams."""
    app = flask.Flask("streams", static_folder=None)
    AxisFlask(world.gate(), app)

    @app.get("/")
    @requires(world.caps.contacts.read)
    def stream() -> Any:
        return flask.Response(flask.stream_with_context(pieces(flask.request.query_string.decode(), log)))

    return app


def leaky(world: GateWorld, log: Log) -> Any:
    """The control: binds to the thread that calls it, and unbinds when the answer is closed."""

    def app(env: Any, start_response: Any) -> Any:
        owner = env["QUERY_STRING"]
        _PRINCIPAL.set(Principal(tenant=owner, user="x", role="member"))
        start_response("200 OK", [])

        class Answer:
            def __init__(self) -> None:
                self._inner = pieces(owner, log)

            def __iter__(self) -> Iterator[bytes]:
                return (piece.encode() for piece in self._inner)

            def close(self) -> None:
                self._inner.close()
                _PRINCIPAL.set(None)

        return Answer()

    return app


def machine(build: Callable[[GateWorld, Log], Any]) -> type[RuleBasedStateMachine]:
    """The machine over one app; accounts and the app are made once."""
    world, log = GateWorld(), Log()
    app = build(world, log)
    cookies = {tenant: world.person(tenant, tenant=tenant, role="member").cookie for tenant in TENANTS}

    class Requests(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            log.clear()
            self.threads = [ThreadPoolExecutor(1) for _ in range(THREADS)]
            self.open: list[tuple[Any, Any, str]] = []

        def on(self, thread: int, work: Callable[[], Any]) -> Any:
            return self.threads[thread].submit(work).result()

        @rule(tenant=st.sampled_from(TENANTS), thread=st.integers(0, THREADS - 1))
        def begin(self, tenant: str, thread: int) -> None:
            env = environ(f"/?{tenant}", headers={"cookie": cookies[tenant]})
            answer = self.on(thread, lambda: app(env, lambda *_: lambda _: None))
            self.open.append((answer, iter(answer), tenant))

        @precondition(lambda self: self.open)
        @rule(at=st.integers(0, 50), thread=st.integers(0, THREADS - 1))
        def read(self, at: int, thread: int) -> None:
            _, stream, tenant = self.open[at % len(self.open)]
            piece = self.on(thread, lambda: next(stream, None))
            assert piece in (None, tenant.encode())

        @precondition(lambda self: self.open)
        @rule(at=st.integers(0, 50), thread=st.integers(0, THREADS - 1))
        def end(self, at: int, thread: int) -> None:
            answer, _, _ = self.open.pop(at % len(self.open))
            self.on(thread, answer.close)

        @invariant()
        def threads_are_nobodys(self) -> None:
            assert [self.on(thread, who) for thread in range(THREADS)] == ["nobody"] * THREADS

        @invariant()
        def teardowns_were_their_own(self) -> None:
            assert [(owner, seen) for owner, seen in log if owner != seen] == []

        def teardown(self) -> None:
            for answer, _, _ in self.open:
                self.on(0, answer.close)
            for thread in self.threads:
                thread.shutdown()

    return Requests


SETTINGS = settings(max_examples=1000 if os.environ.get("AXIS_TEST_PROFILE") == "nightly" else 40, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("build", [plain, in_flask])
def test_no_request_acts_for_another(build: Callable[[GateWorld, Log], Any]) -> None:
    """Pieces, teardowns and the threads between them, in every order that Hypothesis finds."""
    run_state_machine_as_test(machine(build), settings=SETTINGS)


def test_the_control_a_leak_is_found() -> None:
    """A middleware that binds to the thread is caught by the same machine."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(leaky), settings=SETTINGS)

"""An app with an unmarked route does not start in development, in the words that servers understand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI

from axis_security import public
from axis_security.adapters.fastapi import install
from axis_security.core.settings import Environment
from axis_security.testing.gate_world import GateWorld
from axis_security.wiring.errors import UnmarkedRoutes


def started(*, marked: bool) -> list[str]:
    """What a server hears at start-up: with ``lifespan="auto"`` an exception alone would mean an app without lifespan, and be served."""
    app = FastAPI()

    async def home() -> str:
        return "home"

    app.get("/")(public("the front page")(home) if marked else home)
    install(app, GateWorld().gate(environment=Environment.DEVELOPMENT))
    heard: list[str] = []
    script = ["lifespan.startup", "lifespan.shutdown"]

    async def receive() -> dict[str, Any]:
        return {"type": script.pop(0)}

    async def send(message: Any) -> None:
        heard.append(message["type"])
        if message["type"] == "lifespan.startup.failed":
            assert "GET" in message["message"]

    async def run() -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    if marked:
        asyncio.run(run())
    else:
        with pytest.raises(UnmarkedRoutes):
            asyncio.run(run())
    return heard


def test_an_unmarked_route_keeps_the_app_from_starting() -> None:
    """The server is told that the start failed, and why."""
    assert started(marked=False) == ["lifespan.startup.failed"]


def test_a_marked_app_starts() -> None:
    """The control."""
    assert started(marked=True) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

"""Async generators that nobody closed: torn down as nobody, never as whoever's request happened to collect the garbage.

A stream that a client breaks off is often just dropped. Python then asks the event loop to close the generator, and the loop does so in a copy
of the context in which the garbage was collected: possibly in the middle of another tenant's request. Code in a ``finally`` would run as them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextvars import Context
from typing import Any

__all__ = ["nobody_tears_down"]


def nobody_tears_down() -> None:
    """From now on, on the running loop, a collected async generator is closed in an empty context. Cheap to call again."""
    hooks = sys.get_asyncgen_hooks()
    if isinstance(hooks.finalizer, _Finalizer):
        return
    sys.set_asyncgen_hooks(finalizer=_Finalizer(asyncio.get_running_loop(), hooks.finalizer))


class _Finalizer:
    """Stands before the loop's own finalizer: the same, but in a context that belongs to nobody."""

    def __init__(self, loop: asyncio.AbstractEventLoop, below: Any) -> None:
        self._loop = loop
        self._below = below

    def __call__(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._loop.is_closed():
            return
        if self._below is None:
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(generator.aclose()), context=Context())
        else:
            Context().run(self._below, generator)

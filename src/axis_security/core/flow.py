"""Sync and async from one body: a flow yields requests, a driver carries them out.

A *flow* is a generator that yields requests (a :class:`Statement` for a database, a piece of work for a pool) and is sent the
answers; its return value is the result. :func:`drive` and :func:`adrive` run one with a function that performs a request.
A failure of the performer is thrown into the flow, which may translate it, and closes it otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString, TypeVar

__all__ = ["Flow", "Rows", "Statement", "adrive", "drive"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with ``%s`` parameters. The text is a ``LiteralString``: user text cannot become SQL. Parameters are not printed."""

    sql: LiteralString
    params: tuple[Any, ...] = field(default=(), repr=False)


Rows = Sequence[tuple[Any, ...]]
"""What a statement answers: its rows, or an empty sequence where it returns none."""

Flow = Generator[Statement, Rows, Result]
"""A flow that needs nothing but a database."""


def drive(flow: Generator[Request, Answer, Result], perform: Callable[[Request], Answer]) -> Result:
    """Run *flow* to its result, carrying out each request with *perform*."""
    try:
        request = next(flow)
        while True:
            try:
                answer = perform(request)
            except BaseException as error:  # noqa: BLE001  # thrown into the flow, which decides
                request = flow.throw(error)
            else:
                request = flow.send(answer)
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        flow.close()


async def adrive(flow: Generator[Request, Answer, Result], perform: Callable[[Request], Awaitable[Answer]]) -> Result:
    """Run *flow* to its result, awaiting *perform* for each request."""
    try:
        request = next(flow)
        while True:
            try:
                answer = await perform(request)
            except BaseException as error:  # noqa: BLE001  # thrown into the flow, which decides
                request = flow.throw(error)
            else:
                request = flow.send(answer)
    except StopIteration as done:
        result: Result = done.value
        return result
    finally:
        flow.close()

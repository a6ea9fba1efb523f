"""``@task`` for any queue: a message is one line of text, and says for whom it runs in a form that only we can write.

A producer makes the text (``reindex.message(7)``) and puts it wherever it likes: RQ, Dramatiq, SQS, a table. A worker gives what it took out
to :meth:`Tasks.run`, which checks the seal, asks for today's role, and runs the body inside :func:`~axis_security.core.context.acting_as`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Generic, ParamSpec, TypeVar

from axis_security.adapters.task_seal import TaskRefused, TaskSeals, as_sealed
from axis_security.core.context import current_principal
from axis_security.core.errors import ConfigError

__all__ = ["MAX_MESSAGE_CHARS", "BoundTask", "TaskRefused", "TaskSeals", "Tasks"]

P = ParamSpec("P")
R = TypeVar("R")

MAX_MESSAGE_CHARS: Final = 256 * 1024
"""Longest message, in characters (what SQS takes); put larger things into storage and send their id."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,127}", re.ASCII)


class BoundTask(Generic[P, R]):
    """A declared task. Call it like the function it is; :meth:`message` makes the text for a queue."""

    def __init__(self, function: Callable[P, R], *, name: str, seals: TaskSeals, unbound: str | None, lasting: timedelta | None) -> None:
        self.name: Final = name
        self.unbound: Final = unbound
        """Why it runs as nobody, if it does."""
        self._function: Final = function
        self._seals: Final = seals
        self._lasting: Final = lasting
        self._signature: Final = inspect.signature(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body here and now, as whoever is acting."""
        return self._function(*args, **kwargs)

    def message(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The text for the queue, sealed for the acting principal. Arguments are JSON values.

        Raises:
            PrincipalRequired: nobody is acting, and the task is not declared unbound.
            ConfigError: an argument is no JSON value, or the message is too long.
            TypeError: the arguments do not fit the function.
        """
        self._signature.bind(*args, **kwargs)
        principal = None if self.unbound is not None else current_principal()
        try:
            body = _canonical([list(args), kwargs])
            if json.loads(body) != [list(args), kwargs]:
                raise ValueError("a value changes on the way through JSON")
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                what=f"the arguments of `{self.name}` cannot be sent",
                why=f"they must come back from JSON as they went in ({type(error).__name__})",
                fix="pass text, numbers, booleans, None, lists and dicts with text keys; pass ids instead of objects",
            ) from None
        seal = self._seals.seal(principal, name=self.name, body=body.encode(), lasting=self._lasting)
        text = _canonical({"body": json.loads(body), "seal": seal, "task": self.name})
        if len(text) > MAX_MESSAGE_CHARS:
            raise ConfigError(
                what=f"the message of `{self.name}` is too long",
                why=f"{len(text)} characters, at most {MAX_MESSAGE_CHARS}",
                fix="put the data into storage and send its id",
            )
        return text


class Tasks:
    """The tasks of an app: declared with :meth:`task`, run in a worker with :meth:`run` or :meth:`arun`.

    Args:
        seals: makes and opens the seals.
    """

    def __init__(self, seals: TaskSeals) -> None:
        self._seals: Final = seals
        self._tasks: Final[dict[str, BoundTask[Any, Any]]] = {}

    def task(
        self, name: str, *, unbound: str | None = None, lasting: timedelta | None = None
    ) -> Callable[[Callable[P, R]], BoundTask[P, R]]:
        """Declare a function as a task.

        Args:
            name: its name in messages; changing it orphans what is queued.
            unbound: why it runs as nobody (it will get no tenant's rows); leave it out for tasks that act for whoever asked.
            lasting: how long its messages hold, instead of the seals' own.

        Raises:
            ConfigError: (at decoration) a malformed or taken name, an empty reason, or a generator, whose body would run after the check.
        """
        if _NAME.fullmatch(name) is None or name in self._tasks or (unbound is not None and not unbound.strip()):
            raise ConfigError(
                what=f"the task `{name[:128]}` cannot be declared",
                why="its name is malformed or taken, or `unbound` gives no reason",
                fix='use a lower-case dotted name once, and unbound="why it needs no tenant"',
            )

        def declare(function: Callable[P, R]) -> BoundTask[P, R]:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise ConfigError(
                    what=f"the task `{name}` cannot be a generator",
                    why="its body would run after the principal is gone",
                    fix="write a function that does its work before it returns",
                )
            made = BoundTask(function, name=name, seals=self._seals, unbound=unbound, lasting=lasting)
            self._tasks[name] = made
            return made

        return declare

    def run(self, message: str | bytes) -> Any:
        """Run what a queue delivered, as whoever asked for it with the role they have now; returns what the body returns.

        Raises:
            TaskRefused: the message is not genuine, has expired, or whoever asked may not any more; the body was not entered.
            Unavailable: the membership store did not answer; deliver the message again later.
            ConfigError: the body is async; use :meth:`arun`.
        """
        task, seal, body, args, kwargs = self._read(message)
        if inspect.iscoroutinefunction(task._function):  # noqa: SLF001  # of the same module
            raise ConfigError(what=f"the task `{task.name}` is async", why="run() has no event loop", fix="await tasks.arun(message)")
        principal = self._seals.admit(seal, name=task.name, body=body, unbound=task.unbound is not None)
        with as_sealed(principal):
            return task(*args, **kwargs)

    async def arun(self, message: str | bytes) -> Any:
        """:meth:`run` on an event loop; a sync body runs in a thread, with the principal."""
        task, seal, body, args, kwargs = self._read(message)
        principal = await self._seals.aadmit(seal, name=task.name, body=body, unbound=task.unbound is not None)
        if not inspect.iscoroutinefunction(task._function):  # noqa: SLF001  # of the same module
            with as_sealed(principal):
                return await asyncio.to_thread(task, *args, **kwargs)
        with as_sealed(principal):
            return await task(*args, **kwargs)

    def _read(self, message: str | bytes) -> tuple[BoundTask[Any, Any], object, bytes, list[Any], dict[str, Any]]:
        try:
            text = message.decode() if isinstance(message, bytes) else message
            if len(text) > MAX_MESSAGE_CHARS:
                raise ValueError("too long")
            fields = json.loads(text)
            # One spelling: duplicate keys, white space and other escapes are no message of ours.
            if fields.keys() != {"body", "seal", "task"} or _canonical(fields) != text:
                raise ValueError("not canonical")
            (args, kwargs), name = fields["body"], fields["task"]
            if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(name, str):
                raise TypeError("other types")
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise self._refused("malformed") from None
        task = self._tasks.get(name)
        if task is None:
            raise self._refused("unknown_task")
        return task, fields["seal"], _canonical(fields["body"]).encode(), args, kwargs

    def _refused(self, reason: str) -> TaskRefused:
        refused = TaskRefused(reason, task=None)
        self._seals.note(refused, None)
        return refused


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)

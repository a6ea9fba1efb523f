"""Celery: the seal travels in a message header, and a task's own ``__call__`` checks it before the body runs.

Why a Task class and not signals: Celery logs and swallows what a signal's receiver raises, so a receiver cannot refuse. Why an app class:
its registry refuses a task of any other kind, so no task of the app runs unchecked.

Sealed are the task's name, its arguments, and what the worker would do because of the message: callbacks, error callbacks, the rest of a
chain, a chord's body. Without the latter, whoever can write to the broker would let a genuine message start tasks of their own choice,
which the worker would seal for the same person.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from axis_security.adapters.task_seal import TaskSeals, as_sealed
from axis_security.core.context import maybe_principal
from axis_security.core.errors import ConfigError, MissingExtra, PrincipalRequired
from axis_security.core.principal import Principal

try:
    from celery import Celery, Task, bootsteps
    from celery._state import get_current_task
    from celery.app.registry import TaskRegistry
    from celery.utils.functional import maybe_list
    from kombu.utils import json
except ModuleNotFoundError:
    raise MissingExtra(package="celery", extra="celery") from None

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["HEADER", "AxisCelery", "SealedTask"]

HEADER: Final = "axis_seal"
"""The message header that carries the seal."""

_OWN: Final = frozenset(
    f"celery.{name}" for name in ("accumulate", "backend_cleanup", "chain", "chord", "chord_unlock", "chunks", "group", "map", "starmap")
)
"""Celery's own tasks: they run for whoever acts, or for nobody (the scheduler sends the clean-up)."""
_JSON: Final = frozenset({"json", "application/json"})


class _Admitted:
    """What a checked request runs as. Never made from a message: a request that claims to be admitted holds a value, not this."""

    __slots__ = ("principal", "running")

    def __init__(self, principal: Principal | None) -> None:
        self.principal: Final = principal
        self.running = True


class SealedTask(Task):  # type: ignore[misc]  # Celery ships no types
    """The base of every task of an :class:`AxisCelery`. A base of your own inherits from it, and leaves ``__call__`` alone.

    Attributes (``@app.task(unbound=…, seal_lasting=…)``):
        unbound: why the task runs as nobody; ``None`` for tasks that act for whoever asked.
        seal_lasting: how long its seals hold, instead of the app's; longer than any ``countdown`` or ``eta`` it is called with.
    """

    abstract = True
    unbound: str | None = None
    seal_lasting: timedelta | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body: here and now where it is called as a function, under its seal where a worker calls it.

        Raises:
            TaskRefused: the message is not genuine, has expired, or whoever asked may not any more; the body was not entered.
        """
        request = self.request
        if request.called_directly or isinstance(request.__dict__.get("axis_admitted"), _Admitted):
            ended = _ended()
            if ended is None:
                return super().__call__(*args, **kwargs)
            # An error callback with three arguments: the worker calls it as a function, after the body it belongs to.
            with as_sealed(ended.principal):
                return super().__call__(*args, **kwargs)
        triggers = (request.callbacks, request.errbacks, request.chain, request.chord)
        try:
            seal = request.headers.get(HEADER) if isinstance(request.headers, Mapping) else None
            principal = self._seals.admit(seal, name=self.name, body=_body(args, kwargs, *triggers), unbound=self._nobody)
        except BaseException:
            # What an unchecked message would set off next is as unchecked as the message.
            request.callbacks = request.errbacks = request.chain = request.chord = None
            raise
        request.axis_admitted = admitted = _Admitted(principal)
        try:
            with as_sealed(principal):
                return self.run(*args, **kwargs)
        finally:
            admitted.running = False

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Celery's own, with the acting principal sealed in.

        Raises:
            PrincipalRequired: nobody is acting, and the task is not declared unbound.
            ConfigError: another serializer than JSON, or arguments that JSON cannot carry.
        """
        if not self.app.conf.task_always_eager:  # else it calls apply(), which seals
            serializer = options.get("serializer") or self.serializer or self.app.conf.task_serializer
            if serializer not in _JSON:
                raise _json_only(f"`{self.name}` is sent as `{serializer}`")
            args, kwargs = self._plain(args, kwargs)
            options = self._sealed(args, kwargs, options)
        return super().apply_async(args, kwargs, **options)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Celery's own, here and now, under a seal like any message.

        Raises:
            PrincipalRequired: nobody is acting, and the task is not declared unbound.
        """
        args, kwargs = self._plain(args, kwargs)
        return super().apply(args, kwargs, **self._sealed(args, kwargs, {**options, "chain": None, "chord": None}))

    @property
    def _seals(self) -> TaskSeals:
        seals: TaskSeals = self.app.axis_seals
        return seals

    @property
    def _nobody(self) -> bool:
        return self.unbound is not None or self.name in _OWN

    def _plain(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        dump = getattr(self, "_dump_pydantic_arguments", None)
        return dump(args, kwargs) if dump is not None else (args, kwargs)

    def _sealed(self, args: Any, kwargs: Any, options: dict[str, Any]) -> dict[str, Any]:
        principal = None if self.unbound is not None else _acting()
        if principal is None and not self._nobody:
            raise PrincipalRequired
        try:
            body = _body(args, kwargs, *(options.get(name) for name in ("link", "link_error", "chain", "chord")))
        except (TypeError, ValueError, RecursionError) as error:
            raise _json_only(f"an argument of `{self.name}` is no JSON value ({type(error).__name__})") from None
        seal = self._seals.seal(principal, name=self.name, body=body, lasting=self.seal_lasting)
        return {**options, "headers": {**(options.get("headers") or {}), HEADER: seal}}


class _Registry(TaskRegistry):  # type: ignore[misc]  # Celery ships no types
    """Takes sealed tasks only."""

    def __setitem__(self, name: str, task: Any) -> None:
        made = task if isinstance(task, type) else type(task)
        if not issubclass(made, SealedTask) or made.__call__ is not SealedTask.__call__:
            raise ConfigError(
                what=f"the task `{name}` would run unchecked",
                why="its base is not SealedTask, or defines `__call__` anew",
                fix="inherit from SealedTask (or leave `base` out), and use `before_start` or `run` instead of `__call__`",
            )
        super().__setitem__(name, task)


class _JsonOnly(bootsteps.Step):  # type: ignore[misc]  # Celery ships no types
    """Stops a worker from starting where it would unpack anything else: a pickle runs before any seal is looked at."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        wrong = sorted(set(parent.app.conf.accept_content) - _JSON)
        if wrong:
            raise _json_only(f"accept_content lets in {', '.join(wrong)}")
        super().__init__(parent, **kwargs)


class AxisCelery(Celery):  # type: ignore[misc]  # Celery ships no types
    """A Celery app whose tasks all run under a seal.

    Args:
        seals: the same keys in producers and workers.

    Everything else is Celery's.
    """

    task_cls = SealedTask
    registry_cls = _Registry

    def __init__(self, *args: Any, seals: TaskSeals, **kwargs: Any) -> None:
        if {"task_cls", "tasks"} & kwargs.keys():
            raise ConfigError(
                what="this app's tasks and registry are its own",
                why="`task_cls` or `tasks` was given",
                fix="leave them out; pass `base` to a task",
            )
        self.axis_seals: Final = seals
        super().__init__(*args, **kwargs)
        self.steps["worker"].add(_JsonOnly)

    def seal_headers(self, name: str, args: Any = (), kwargs: Any = None, *, lasting: timedelta | None = None) -> dict[str, str]:
        """For ``app.send_task(name, args, kwargs, headers=…)`` where the task's code is elsewhere; plain calls need it not.

        Raises:
            PrincipalRequired: nobody is acting.
        """
        principal = _acting()
        if principal is None:
            raise PrincipalRequired
        return {HEADER: self.axis_seals.seal(principal, name=name, body=_body(args, kwargs, None, None, None, None), lasting=lasting)}


def _ended() -> _Admitted | None:
    """The checked request whose body has ended, and which the worker still attends to."""
    task = get_current_task()
    admitted = None if task is None else task.request.__dict__.get("axis_admitted")
    return admitted if isinstance(admitted, _Admitted) and not admitted.running else None


def _acting() -> Principal | None:
    # What Celery sends after a body has ended (the rest of a chain, callbacks, a chord's body) goes out for whom the body ran.
    ended = _ended()
    return maybe_principal() if ended is None else ended.principal


def _body(args: Any, kwargs: Any, link: Any, link_error: Any, chain: Any, chord: Any) -> bytes:
    fields = [list(args or ()), dict(kwargs or {}), maybe_list(link) or None, maybe_list(link_error) or None, chain or None, chord or None]
    # There and back again first: a worker sees lists for tuples and text for keys, and sorts by those.
    seen: Any = json.loads(json.dumps(fields))  # type: ignore[no-untyped-call]  # kombu's own JSON, which is what travels
    return str(json.dumps(seen, sort_keys=True, separators=(",", ":"))).encode()  # type: ignore[no-untyped-call]  # as above


def _json_only(why: str) -> ConfigError:
    return ConfigError(what="Celery messages must be JSON here", why=why, fix='keep task_serializer="json", accept_content=["json"]')

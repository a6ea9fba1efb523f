"""The decorator: every kind of callable, every reason to say no, and the decorator-order trap."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from axis_security import Assurance, Principal, acting_as
from axis_security.core.errors import ConfigError, PrincipalRequired
from axis_security.core.events import AuditEvent, EventKind, Outcome
from axis_security.rbac import (
    Capabilities,
    DecisionCode,
    PermissionDenied,
    Policy,
    Role,
    allow,
    decide,
    owns,
    predicate,
    public,
    requires,
    standard_policy,
)
from axis_security.rbac.guard import Guard, Open, guard_of, recording
from axis_security.rbac.registered import AlreadyRegistered


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        """Keep it."""
        self.events.append(event)


SINK = Kept()
CAPS = Capabilities(notes=("read", "write"), users=("manage",))
POLICY = standard_policy(
    CAPS, viewer=[CAPS.notes.read], member=[allow(CAPS.notes.write, when=owns("owner_id"))], admin=[CAPS.notes.write], events=SINK
)


def who(role: str) -> Principal:
    """User ``u`` in tenant ``t``."""
    return Principal(tenant="t", user="u", role=role)


@requires(CAPS.users.manage)
def plain(x: int, *, y: int = 0) -> int:
    """Plain."""
    return x + y


@requires(CAPS.users.manage)
async def coroutine(x: int, *, y: int = 0) -> int:
    """Coroutine."""
    return x + y


@requires(CAPS.users.manage)
def generator(x: int, *, y: int = 0) -> Iterator[int]:
    """Generator."""
    yield x + y


@requires(CAPS.users.manage)
async def async_generator(x: int, *, y: int = 0) -> AsyncIterator[int]:
    """Async generator."""
    yield x + y


class View:
    """Methods of three kinds."""

    @requires(CAPS.users.manage)
    def method(self, x: int, *, y: int = 0) -> int:
        """Method."""
        return x + y

    @requires(CAPS.users.manage)
    @staticmethod
    def static(x: int, *, y: int = 0) -> int:
        """Static."""
        return x + y

    @classmethod
    @requires(CAPS.users.manage)
    def of_class(cls, x: int, *, y: int = 0) -> int:
        """Class method."""
        return x + y


async def _collect(stream: AsyncIterator[int]) -> int:
    return await anext(stream)


CALLS: dict[str, Callable[[], int]] = {
    "plain": lambda: plain(1, y=2),
    "coroutine": lambda: asyncio.run(coroutine(1, y=2)),
    "generator": lambda: next(iter(generator(1, y=2))),
    "async_generator": lambda: asyncio.run(_collect(async_generator(1, y=2))),
    "method": lambda: View().method(1, y=2),
    "static": lambda: View.static(1, y=2),
    "of_class": lambda: View.of_class(1, y=2),
}


@pytest.mark.parametrize("kind", sorted(CALLS))
def test_every_kind_of_callable_is_guarded(kind: str) -> None:
    """Whoever holds the capability gets through with the same result; anybody else, and nobody, does not."""
    with acting_as(who("admin")):
        assert CALLS[kind]() == 3
    with acting_as(who("member")), pytest.raises(PermissionDenied) as caught:
        CALLS[kind]()
    assert caught.value.decision is not None
    assert caught.value.decision.code is DecisionCode.MISSING_CAPABILITY
    with pytest.raises(PrincipalRequired):
        CALLS[kind]()


def test_wrappers_keep_kind_name_and_signature() -> None:
    """Frameworks inspect what they register: the wrapper is of the same kind and shows the same signature."""
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert not inspect.iscoroutinefunction(plain)
    assert list(inspect.signature(plain).parameters) == ["x", "y"]
    assert plain.__name__ == "plain"
    assert guard_of(plain) == Guard("users.manage")


def test_a_generator_is_transparent() -> None:
    """send, throw and the return value pass through, in both colours."""

    @requires(CAPS.users.manage)
    def echo() -> Any:
        got = yield 1
        try:
            yield got
        except KeyError:
            yield "caught"
        return "end"

    @requires(CAPS.users.manage)
    async def aecho() -> Any:
        got = yield 1
        try:
            yield got
        except KeyError:
            yield "caught"

    async def use() -> list[Any]:
        stream = aecho()
        return [await anext(stream), await stream.asend(5), await stream.athrow(KeyError()), await anext(stream, "end")]

    with acting_as(who("owner")):
        one = echo()
        seen = [next(one), one.send(5), one.throw(KeyError())]
        with pytest.raises(StopIteration) as done:
            next(one)
        assert [*seen, done.value.value] == [1, 5, "caught", "end"]
        assert asyncio.run(use()) == [1, 5, "caught", "end"]


def test_the_body_never_runs_on_a_denial() -> None:
    """Deny comes before the first line of the body, for generators too."""
    ran: list[str] = []

    @requires(CAPS.users.manage)
    def body() -> Iterator[int]:
        ran.append("body")
        yield 1

    with acting_as(who("viewer")), pytest.raises(PermissionDenied):
        next(body())
    assert not ran


def test_conditions_look_at_the_named_parameter_or_the_loaders_answer() -> None:
    """resource= takes a parameter's name, a callable, or an async callable; it is not asked where nothing depends on it."""
    asked: list[str] = []

    def load(row: dict[str, str]) -> dict[str, str]:
        asked.append("sync")
        return row

    async def aload(row: dict[str, str]) -> dict[str, str]:
        asked.append("async")
        return row

    @requires(CAPS.notes.write, resource="row")
    def by_name(_: int, row: dict[str, str]) -> bool:
        return bool(row)

    @requires(CAPS.notes.write, resource=load)
    def by_loader(row: dict[str, str]) -> bool:
        return bool(row)

    @requires(CAPS.notes.write, resource=aload)
    async def by_async_loader(row: dict[str, str]) -> bool:
        return bool(row)

    @requires(CAPS.notes.write, resource=aload)
    def sync_with_async_loader(row: dict[str, str]) -> bool:
        return bool(row)

    mine, theirs = {"owner_id": "u"}, {"owner_id": "x"}
    calls: list[Callable[[dict[str, str]], bool]] = [
        lambda row: by_name(0, row),
        lambda row: by_name(0, row=row),
        by_loader,
        lambda row: asyncio.run(by_async_loader(row)),
    ]
    for call in calls:
        with acting_as(who("member")):
            assert call(mine)
            with pytest.raises(PermissionDenied):
                call(theirs)
        asked.clear()
        with acting_as(who("admin")):
            assert call(theirs)
        assert not asked
    with acting_as(who("member")), pytest.raises(PermissionDenied):
        sync_with_async_loader(mine)
    with pytest.raises(ConfigError, match="no parameter"):
        requires(CAPS.notes.write, resource="ghost")(lambda row: row)


def test_no_policy_in_force_denies() -> None:
    """A guard whose registry has no policy lets nobody through; building the policy later puts it in force."""
    caps = Capabilities(users=("manage",))

    @requires(caps.users.manage)
    def early() -> int:
        return 1

    with acting_as(who("owner")):
        with pytest.raises(PermissionDenied) as caught:
            early()
        assert caught.value.decision is not None
        assert caught.value.decision.code is DecisionCode.NO_POLICY
        first = standard_policy(caps)
        assert early() == 1
        Policy(caps, roles=[], events=SINK)
        assert early() == 1, "a second policy does not slip in by being built"
        Policy(caps, roles=[], events=SINK).activate()
        with pytest.raises(PermissionDenied):
            early()
        first.activate()
        assert early() == 1


def test_a_thread_without_context_is_denied() -> None:
    """A plain thread starts unbound, and unbound is refused; a copied context carries the principal."""
    seen: list[object] = []

    def attempt() -> None:
        try:
            seen.append(plain(1))
        except PrincipalRequired as error:
            seen.append(type(error))

    with acting_as(who("owner")):
        context = contextvars.copy_context()
        for run in (attempt, lambda: context.run(attempt)):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    # The interpreter may be set to let threads inherit a copy, which is as good as the explicit one.
    assert seen in ([PrincipalRequired, 1], [1, 1])


def test_step_up_has_no_short_way() -> None:
    """fresh= is asked even of the owner."""

    @requires(CAPS.users.manage, fresh=timedelta(minutes=5))
    def delicate() -> int:
        return 1

    with acting_as(who("owner")), pytest.raises(PermissionDenied) as caught:
        delicate()
    assert caught.value.public()["code"] == "rbac.step_up_required"
    with pytest.raises(ConfigError):
        requires(CAPS.users.manage, fresh=timedelta(0))


def test_a_second_factor_has_no_short_way() -> None:
    """aal= is asked even of the owner, who holds everything without condition; with it the same call goes through."""

    @requires(CAPS.users.manage, aal=Assurance.AAL2)
    def delicate() -> int:
        return 1

    with acting_as(who("owner")), pytest.raises(PermissionDenied) as caught:
        delicate()
    assert caught.value.public()["step_up"] == {"aal": 2, "fresh_seconds": None}
    with acting_as(Principal(tenant="t", user="u", role="owner", assurance=Assurance.AAL2)):
        assert delicate() == 1


def test_denials_are_written_to_the_log() -> None:
    """Each denial emits one event with actor, capability and code (ASVS 16.3.2); a yes emits none."""
    SINK.events.clear()
    with acting_as(who("admin")):
        plain(1)
    assert not SINK.events
    with acting_as(who("viewer")), pytest.raises(PermissionDenied):
        plain(1)
    (event,) = SINK.events
    assert (event.kind, event.outcome, event.role) == (EventKind.DECISION, Outcome.DENIED, "viewer")
    assert dict(event.detail) == {"capability": "users.manage", "code": "rbac.missing_capability", "rule": None, "missing": "users.manage"}


def test_a_record_notes_that_somebody_decided() -> None:
    """The gate can tell whether any decision was made, on the short way, on the long one, and by decide()."""
    for act in (lambda: plain(1), lambda: decide(who("viewer"), CAPS.users.manage)):
        with recording() as record, acting_as(who("owner")):
            assert not record.made
            act()
            assert record.made


def _flask() -> Callable[[Any], Any]:
    flask = pytest.importorskip("flask")
    return flask.Flask("x").route("/x")  # type: ignore[no-any-return]


def _blueprint() -> Callable[[Any], Any]:
    flask = pytest.importorskip("flask")
    return flask.Blueprint("b", "b").route("/x")  # type: ignore[no-any-return]


def _fastapi() -> Callable[[Any], Any]:
    fastapi = pytest.importorskip("fastapi")
    return fastapi.FastAPI().get("/x")  # type: ignore[no-any-return]


def _router() -> Callable[[Any], Any]:
    fastapi = pytest.importorskip("fastapi")
    return fastapi.APIRouter().get("/x")  # type: ignore[no-any-return]


def _homemade() -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        HANDLERS["x"] = function
        return function

    return register


HANDLERS: dict[str, Any] = {}


@pytest.mark.parametrize("route", [_flask, _blueprint, _fastapi, _router, _homemade])
def test_guarding_a_registered_route_is_refused(route: Callable[[], Callable[[Any], Any]]) -> None:
    """Above the route's decorator the guard would never be called, so it refuses to be written there; below, it works."""
    register = route()
    with pytest.raises(AlreadyRegistered, match="swap the decorators"):

        @requires(CAPS.users.manage)
        @register
        def wrong() -> None:
            """Registered unguarded."""

    @route()
    @requires(CAPS.users.manage)
    def right() -> None:
        """Registered guarded."""

    assert guard_of(right) is not None


def test_stacked_decorators_and_later_wrapping_are_no_false_alarm() -> None:
    """A wrapped function, a stack of guards, a lambda, and a function from a module can all be guarded."""

    def other(function: Any) -> Any:
        @functools.wraps(function)
        def inner(*args: Any) -> Any:
            return function(*args)

        return inner

    @requires(CAPS.notes.read)
    @requires(CAPS.users.manage)
    @other
    def stacked() -> int:
        return 1

    def local() -> int:
        return 2

    guarded = requires(CAPS.users.manage)(local)
    with acting_as(who("admin")):
        assert stacked() == 1
        assert guarded() == 2
        assert requires(CAPS.users.manage)(_module_level)() == 3
    mark = guard_of(stacked)
    assert isinstance(mark, Guard)
    assert mark.inner == Guard("users.manage")


def test_one_function_may_be_guarded_twice_and_registered_guarded() -> None:
    """A live guarded wrapper, registered or not, does not stop the same function from being guarded again."""
    flask = pytest.importorskip("flask")
    app = flask.Flask("x")
    first = app.route("/x")(requires(CAPS.users.manage)(_module_level))
    second = requires(CAPS.notes.read)(_module_level)
    with acting_as(who("viewer")):
        assert second() == 3
        with pytest.raises(PermissionDenied):
            first()
    app.route("/y", endpoint="bare")(_module_level)
    with pytest.raises(AlreadyRegistered):
        requires(CAPS.notes.read)(_module_level)


def _module_level() -> int:
    return 3


def test_public_needs_a_reason_and_excludes_a_guard() -> None:
    """The opt-out names its reason, and never meets a guard on the same function, in either order."""

    @public("health probe")
    def probe() -> int:
        return 1

    assert probe() == 1
    assert guard_of(probe) == Open("health probe")
    with pytest.raises(ConfigError):
        public("  ")
    with pytest.raises(ConfigError):
        requires(CAPS.users.manage)(probe)
    with pytest.raises(ConfigError):
        public("open")(plain)


def test_requires_takes_capability_objects_only() -> None:
    """A string, or the forgotten call, is refused at decoration."""
    for wrong in ("users.manage", plain, None):
        with pytest.raises(ConfigError):
            requires(wrong)  # type: ignore[arg-type]


def test_a_record_is_its_blocks_own() -> None:
    """What is decided after a block is noted outside it, not in it; coroutines on the short way are noted too."""
    with recording() as outer, acting_as(who("owner")):
        with recording() as inner:
            pass
        assert asyncio.run(coroutine(1)) == 1
    assert (outer.made, inner.made) == (True, False)


def test_nothing_is_loaded_for_whoever_cannot_pass_anyway() -> None:
    """The loader runs where a condition must look at the object: not for nobody, not for a role without the capability, not without a policy."""
    loaded: list[str] = []
    caps = Capabilities(notes=("read",))

    def load(name: str) -> dict[str, str]:
        loaded.append(name)
        return {"owner_id": "u"}

    @requires(CAPS.notes.write, resource=load)
    def write(name: str) -> str:
        return name

    @requires(caps.notes.read, resource=load)
    def early(name: str) -> str:
        return name

    with pytest.raises(PrincipalRequired):
        write("x")
    with pytest.raises(PrincipalRequired):
        early("x")
    with acting_as(who("viewer")):
        with pytest.raises(PermissionDenied):
            write("x")
        with pytest.raises(PermissionDenied) as caught:
            early("x")
    assert caught.value.decision is not None
    assert caught.value.decision.code is DecisionCode.NO_POLICY
    with acting_as(who("admin")):
        assert write("x") == "x"
    assert loaded == []


@pytest.mark.parametrize("thing", [5, "text", property(lambda self: 1), None])
def test_what_is_not_called_cannot_be_guarded(thing: Any) -> None:
    """A property would be guarded at the wrong moment, a value never: told with the line to change."""
    with pytest.raises(ConfigError, match="cannot guard this"):
        requires(CAPS.users.manage)(thing)


def test_a_stream_that_is_left_early_is_closed() -> None:
    """Whoever stops reading ends the guarded generator: its `finally` runs at once, and closing raises nothing."""
    ended: list[str] = []

    @requires(CAPS.users.manage)
    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("closed")

    async def read() -> None:
        stream = rows()
        assert await anext(stream) == 1
        await stream.aclose()  # type: ignore[attr-defined]  # an asynchronous generator
        assert ended == ["closed"]

    with acting_as(who("owner")):
        asyncio.run(read())


def test_a_condition_with_a_long_name_is_still_a_denial() -> None:
    """The log's field takes 512 characters; many conditions on one grant are cut there, and the answer is no, not an error of the log."""
    caps = Capabilities(notes=("write",))
    tests = [predicate(f"{number}" + "n" * 98)(lambda _principal, _row: False) for number in range(8)]
    sink = Kept()
    Policy(caps, roles=[Role("member", [allow(caps.notes.write, when=test) for test in tests])], events=sink)
    decision = decide(who("member"), caps.notes.write, {})
    assert decision.code is DecisionCode.CONDITION_FAILED
    assert decision.rule is not None
    (event,) = sink.events
    assert event.detail["rule"] == decision.rule[:512]


def test_a_denial_is_forbidden_in_http() -> None:
    """403 (RFC 9110, section 15.5.4): who it is is known, and may not."""
    assert PermissionDenied.http_status == 403

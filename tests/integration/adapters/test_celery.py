"""Celery with a real worker and a real (in-memory) broker: what runs, runs for whoever asked; what was touched does not run."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Task, chain, chord, group
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult
from celery.signals import before_task_publish

from axis_security.adapters.celery import HEADER, AxisCelery, SealedTask
from axis_security.adapters.task_seal import TaskSeals
from axis_security.auth.signing import SigningKeys
from axis_security.core.context import acting_as, maybe_principal
from axis_security.core.errors import ConfigError, PrincipalRequired
from axis_security.core.ids import TenantId, UserId
from axis_security.core.principal import Principal
from axis_security.core.secret import Secret
from axis_security.rbac.members import Membership
from axis_security.testing.sink import MemorySink

ANN = Principal(tenant=1, user=10, role="owner")
BOB = Principal(tenant=2, user=20, role="owner")


class Members:
    """Ann and Bob are members; the role of the moment is in `roles`."""

    def __init__(self) -> None:
        self.roles = {("1", "10"): "member", ("2", "20"): "viewer"}

    def resolve(self, tenant: TenantId, user: UserId, /) -> Membership | None:
        role = self.roles.get((tenant.text, user.text))
        return None if role is None else Membership(role, "active")


def who() -> str | None:
    """Whoever acts, as text that JSON carries."""
    principal = maybe_principal()
    return None if principal is None else f"{principal.tenant}/{principal.user}/{principal.role}"


class World:
    """An app, its worker, and what its tasks saw."""

    def __init__(self, **conf: Any) -> None:
        self.members, self.sink = Members(), MemorySink()
        self.seen: list[Any] = []
        seals = TaskSeals(keys=SigningKeys([Secret(b"k" * 32)]), members=self.members, sink=self.sink)
        self.app = AxisCelery(
            f"t{uuid.uuid4().hex}", seals=seals, broker=f"memory://{uuid.uuid4().hex}", backend="cache+memory://", set_as_current=False
        )
        self.app.conf.update(
            task_default_queue=uuid.uuid4().hex,
            broker_connection_retry_on_startup=True,
            worker_hijack_root_logger=False,
            broker_transport_options={"polling_interval": 0.01},
            **conf,
        )

        # Not shared: Celery would hand these to the other tests' apps as well.
        task = partial(self.app.task, shared=False)

        @task(name="who")
        def task_who(*args: Any, **kwargs: Any) -> list[Any]:
            self.seen.append(("who", who(), list(args)))
            return [who(), *args]

        @task(name="one")
        def one(task_id: str) -> None:
            self.seen.append(("one", who(), []))

        @task(name="add", typing=False)
        def add(*numbers: Any) -> Any:
            self.seen.append(("add", who(), list(numbers)))
            return sum(number for number in numbers if isinstance(number, int))

        @task(name="total")
        def total(numbers: list[int]) -> int:
            self.seen.append(("total", who(), numbers))
            return sum(numbers)

        @task(name="again", bind=True, max_retries=2)
        def again(this: Any) -> list[Any]:
            self.seen.append(("again", who(), this.request.retries))
            if this.request.retries < 2:
                raise this.retry(countdown=0)
            return [who()]

        @task(name="fails")
        def fails() -> None:
            self.seen.append(("fails", who(), []))
            raise ValueError("no")

        @task(name="spawns")
        def spawns() -> None:
            self.seen.append(("spawns", who(), []))
            task_who.delay("child")
            with acting_as(BOB):
                task_who.delay("bob's")

        @task(name="nightly", unbound="reads no tenant's rows")
        def nightly() -> Any:
            self.seen.append(("nightly", who(), []))
            return who()

        @task(name="direct")
        def direct() -> Any:
            return task_who("called as a function")

        self.who, self.add, self.total, self.again, self.fails, self.spawns, self.nightly, self.direct = (
            task_who, add, total, again, fails, spawns, nightly, direct,
        )  # fmt: skip


@contextmanager
def running(**conf: Any) -> Iterator[World]:
    world = World(**conf)
    with start_worker(world.app, perform_ping_check=False, pool="solo", loglevel="CRITICAL", shutdown_timeout=30):
        yield world


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with running() as world:
        yield world


@pytest.fixture
def world(shared: World) -> World:
    shared.seen.clear()
    shared.sink.events.clear()
    shared.members.roles = Members().roles
    return shared


def got(result: AsyncResult) -> Any:
    return result.get(timeout=60, interval=0.01)


def reason(result: AsyncResult) -> str:
    """The text of the failure, as the result backend kept it."""
    with pytest.raises(Exception) as caught:
        got(result)
    return str(caught.value)


@contextmanager
def touching(touch: Callable[[tuple[Any, Any, dict[str, Any]], dict[str, Any]], None]) -> Iterator[None]:
    """Change each message between the producer and the broker, as somebody who can write to the broker would."""

    def receiver(sender: Any = None, body: Any = None, headers: Any = None, **_: Any) -> None:
        touch(body, headers)

    before_task_publish.connect(receiver, weak=False)
    try:
        yield
    finally:
        before_task_publish.disconnect(receiver)


def test_a_task_runs_as_whoever_asked_with_todays_role(world: World) -> None:
    """Arguments of every JSON kind that Celery carries come through the seal; the role is the store's."""
    at, some = datetime(2026, 1, 1, tzinfo=UTC), uuid.uuid4()
    with acting_as(ANN):
        results = [world.who.delay(1, "x", None, [1, (2,)], at, some, key={"b": 1, "a": {10: 1, 9: 2}}), world.who.apply_async((), {})]
    assert [got(result)[0] for result in results] == ["1/10/member", "1/10/member"]
    world.members.roles["1", "10"] = "admin"
    with acting_as(ANN):
        assert got(world.who.delay())[0] == "1/10/admin"


def test_nobody_acting_sends_nothing(world: World) -> None:
    """The producer is refused."""
    for call in (world.who.delay, world.who.apply_async, world.who.apply, world.who.s().delay):
        with pytest.raises(PrincipalRequired):
            call()
    assert world.seen == []


@pytest.mark.parametrize(
    "touch",
    [
        lambda body, headers: headers.pop(HEADER),
        lambda body, headers: headers.update({HEADER: "x.y"}),
        lambda body, headers: headers.update({HEADER: {"a": 1}}),
        lambda body, headers: headers.update({HEADER: headers[HEADER][:-1]}),
        lambda body, headers: body[1].update(more=1),
        lambda body, headers: headers.update(task="nightly"),
        lambda body, headers: headers.update(task="total"),
        lambda body, headers: (headers.pop(HEADER), headers.update(axis_admitted=True, called_directly=True, is_eager=True)),
        lambda body, headers: (headers.pop(HEADER), headers.update(axis_admitted={"principal": None, "running": True})),
        lambda body, headers: (headers.pop(HEADER), headers.update(headers={HEADER: "a.b"})),
    ],
)  # fmt: skip
def test_a_touched_message_does_not_run(world: World, touch: Any) -> None:
    """No seal, a broken one, other arguments, another task, claims in the headers: refused before the body, with an event."""
    with acting_as(ANN), touching(touch):
        result = world.who.apply_async((1,), {})
    assert "not run" in reason(result) or "refused" in reason(result)
    assert world.seen == []
    assert [event.kind.value for event in world.sink.events] == ["wiring.task_refused"]


@pytest.mark.parametrize("trigger", ["callbacks", "errbacks", "chain", "chord"])
def test_what_a_message_sets_off_is_sealed_too(world: World, trigger: str) -> None:
    """A task slipped into a genuine message's callbacks, error callbacks, chain or chord is not run, and neither is the message."""
    planted: Any = world.add.s(666)
    with acting_as(ANN), touching(lambda body, _: body[2].update({trigger: planted if trigger == "chord" else [planted]})):
        result = world.who.delay()
    reason(result)
    with acting_as(ANN):
        got(world.who.delay("after"))  # one queue, one worker: what was planted would have run before this
    assert [name for name, *_ in world.seen] == ["who"]


def test_the_control_an_untouched_message_runs(world: World) -> None:
    """The same path with a receiver that changes nothing."""
    with acting_as(ANN), touching(lambda body, headers: None):
        assert got(world.who.delay(1)) == ["1/10/member", 1]


def test_who_was_removed_meanwhile_gets_nothing_done(world: World) -> None:
    """Membership is asked for when the task runs."""
    world.members.roles.clear()
    with acting_as(ANN):
        result = world.who.delay()
    assert "member" in reason(result)
    assert world.seen == []


def test_chains_callbacks_groups_and_chords_act_for_the_same_person(world: World) -> None:
    """Whatever Celery sends after a body ended goes out sealed for whom the body ran."""
    with acting_as(ANN):
        assert got(chain(world.add.s(1), world.add.s(2), world.add.s(3)).apply_async()) == 6
        assert got(chord(group(world.add.s(1), world.add.s(2)), world.total.s()).apply_async()) == 3
        assert got(group(world.add.s(1), world.add.s(2)).apply_async()) == [1, 2]
        linked = world.add.apply_async((5,), link=world.add.s(6))
        got(linked)
        (child,) = linked.children
        assert got(child) == 11
        assert got(world.add.chunks([(1,), (2,)], 1).apply_async()) == [[1], [2]]
        assert got(world.total.map([[1], [2]]).apply_async()) == [1, 2]
    assert {principal for _, principal, _ in world.seen} == {"1/10/member"}


@pytest.mark.parametrize("kind", ["who", "one"])
def test_an_error_callback_acts_for_the_same_person(world: World, kind: str) -> None:
    """Both kinds: the one that Celery calls as a function, and the one with a single argument, which it sends as a message."""
    with acting_as(ANN):
        result = world.fails.apply_async(link_error=world.app.tasks[kind].s())
    with pytest.raises(ValueError, match="no"):
        got(result)
    # The failure is known before the message of the callback has been worked off, whose turn may come at any later moment.
    deadline = time.monotonic() + 60
    while len(world.seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [(name, principal) for name, principal, _ in world.seen] == [("fails", "1/10/member"), (kind, "1/10/member")]


def test_a_retry_asks_for_the_role_again(world: World) -> None:
    """Each attempt has a seal and a look at the membership of its own."""
    with acting_as(ANN):
        assert got(world.again.delay()) == ["1/10/member"]
    assert [attempt for *_, attempt in world.seen] == [0, 1, 2]


def test_a_task_sends_tasks_for_whoever_acts(world: World) -> None:
    """Its own principal, or the one it acts as; and a task called as a function is a function."""
    with acting_as(ANN):
        got(world.spawns.delay())
        assert got(world.direct.delay()) == ["1/10/member", "called as a function"]
    assert [(principal, args) for name, principal, args in world.seen if name == "who"] == [
        ("1/10/member", ["child"]), ("2/20/viewer", ["bob's"]), ("1/10/member", ["called as a function"]),
    ]  # fmt: skip


def test_an_unbound_task_runs_as_nobody_and_is_sealed_too(world: World) -> None:
    """The scheduler may send it without anybody acting; somebody at the broker may not."""
    assert got(world.nightly.delay()) is None
    with acting_as(ANN):
        assert got(world.nightly.delay()) is None
        assert world.nightly.apply().get() is None
    with touching(lambda body, headers: headers.pop(HEADER)):
        assert "seal" in reason(world.nightly.delay())
    assert [name for name, *_ in world.seen] == ["nightly"] * 3


def test_a_name_sent_from_elsewhere_needs_seal_headers(world: World) -> None:
    """`send_task` knows no Task class: without the headers the worker refuses, with them it runs."""
    with acting_as(ANN):
        assert "seal" in reason(world.app.send_task("who", [1]))
        assert got(world.app.send_task("who", [1], headers=world.app.seal_headers("who", [1]))) == ["1/10/member", 1]
    with pytest.raises(PrincipalRequired):
        world.app.seal_headers("who")


def test_two_tenants_interleaved(world: World) -> None:
    """Messages of two tenants from many threads: each task saw its own."""

    def send(principal: Principal, results: list[Any]) -> None:
        with acting_as(principal):
            results += [world.who.delay(str(principal.tenant)) for _ in range(20)]

    sent: list[Any] = []
    threads = [threading.Thread(target=send, args=(principal, sent)) for principal in (ANN, BOB) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = [got(result) for result in sent]
    assert len(answers) == 120
    assert all(answer[0].startswith(f"{answer[1]}/") for answer in answers)


def test_eager_mode_and_apply_are_checked_the_same() -> None:
    """What runs in the same process runs under a seal as well, with the role of the store."""
    world = World(task_always_eager=True, task_eager_propagates=True)
    with acting_as(ANN):
        assert world.who.delay(1).get() == ["1/10/member", 1]
        assert chain(world.add.s(1), world.add.s(2)).apply_async().get() == 3
        assert world.nightly.delay().get() is None
        world.members.roles.clear()
        with pytest.raises(Exception, match="not run"):
            world.who.delay()
        assert who() == "1/10/owner"
    with pytest.raises(PrincipalRequired):
        world.who.delay()


def test_no_other_task_is_registered() -> None:
    """A base that Celery would call unchecked is refused where it is declared; so is a class with a `__call__` of its own."""
    world = World()

    def nothing() -> None:
        """A body."""

    class Own(SealedTask):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.run(*args, **kwargs)

    for base in (Task, Own):
        with pytest.raises(ConfigError):
            world.app.task(shared=False, name="x", base=base, lazy=False)(nothing)

    class Fine(SealedTask):
        abstract = True
        seal_lasting = None

    world.app.task(shared=False, name="fine", base=Fine, lazy=False)(nothing)
    assert all(isinstance(task, SealedTask) for task in world.app.tasks.values())


def test_nothing_but_json() -> None:
    """A pickle would run before any seal is looked at: refused in the producer, and a worker that takes it does not start."""
    world = World(accept_content=["json", "pickle"])
    with acting_as(ANN), pytest.raises(ConfigError):
        world.who.apply_async((1,), serializer="pickle")
    with acting_as(ANN), pytest.raises(ConfigError):
        world.who.delay(object())
    # The worker's own step; a second worker in this process would take the place of the first one's task table.
    (step,) = world.app.steps["worker"]
    with pytest.raises(ConfigError):
        step(SimpleNamespace(app=world.app))
    world.app.conf.accept_content = ["application/json"]
    step(SimpleNamespace(app=world.app))
    with pytest.raises(ConfigError):
        AxisCelery("x", seals=world.app.axis_seals, task_cls=Task)

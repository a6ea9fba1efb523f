"""Background tasks: a message runs as whoever asked, with the role they have now, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.adapters.task_seal import TaskRefused, TaskSeals
from axis_security.adapters.tasks import MAX_MESSAGE_CHARS, Tasks
from axis_security.auth.signing import SigningKeys
from axis_security.core.context import acting_as, maybe_principal
from axis_security.core.errors import ConfigError, PrincipalRequired, Unavailable
from axis_security.core.events import EventKind
from axis_security.core.ids import TenantId, UserId
from axis_security.core.principal import Assurance, Principal
from axis_security.core.secret import Secret
from axis_security.rbac.members import Membership
from axis_security.testing.clock import ManualClock
from axis_security.testing.sink import MemorySink

ANN = Principal(tenant=1, user=10, role="admin", session="handle", assurance=Assurance.AAL2)
OLD, NEW = Secret(b"o" * 32), Secret(b"n" * 32)


@dataclass
class Members:
    """The membership store of these tests."""

    known: dict[tuple[str, str], Membership] = field(default_factory=lambda: {("1", "10"): Membership("member", "active")})
    down: bool = False

    def resolve(self, tenant: TenantId, user: UserId, /) -> Membership | None:
        if self.down:
            raise Unavailable(what="the store", why="is down", fix="wait")
        return self.known.get((tenant.text, user.text))


class AsyncMembers(Members):
    """The same, asked by awaiting."""

    async def resolve(self, tenant: TenantId, user: UserId, /) -> Membership | None:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().resolve(tenant, user)


@dataclass
class World:
    """A queue's two ends."""

    clock: ManualClock = field(default_factory=ManualClock)
    members: Any = field(default_factory=Members)
    sink: MemorySink = field(default_factory=MemorySink)
    seen: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seals = TaskSeals(
            keys=SigningKeys([OLD, NEW]), members=self.members, clock=self.clock, sink=self.sink, service_roles=["robot"]
        )
        self.tasks = Tasks(self.seals)

        @self.tasks.task("note.store")
        def store(text: str, *, times: int = 1) -> int:
            self.seen.append((maybe_principal(), text, times))
            return times

        @self.tasks.task("note.count")
        def count() -> None:
            self.seen.append("count")

        @self.tasks.task("nightly", unbound="reads no tenant's rows")
        def nightly() -> None:
            self.seen.append(maybe_principal())

        self.store, self.count, self.nightly = store, count, nightly

    def message(self, text: str = "hello") -> str:
        with acting_as(ANN):
            return self.store.message(text, times=2)

    def refused(self, message: str | bytes) -> str:
        """Why *message* was refused; nothing ran, and one event says so."""
        before = len(self.seen)
        with pytest.raises(TaskRefused) as caught:
            self.tasks.run(message)
        assert len(self.seen) == before
        assert self.sink.events[-1].kind is EventKind.TASK_REFUSED
        assert self.sink.events[-1].detail["code"] == caught.value.reason
        return caught.value.reason


@pytest.fixture
def world() -> World:
    return World()


def test_a_task_runs_as_whoever_asked_with_the_role_they_have_now(world: World) -> None:
    """Tenant and user travel; the role is today's, and the sign-in (session, assurance) stays behind."""
    assert world.tasks.run(world.message()) == 2
    ((who, text, times),) = world.seen
    assert (who.tenant, who.user, who.role) == (ANN.tenant, ANN.user, "member")
    assert (who.session, who.assurance, who.auth_time) == (None, Assurance.NONE, None)
    assert (text, times) == ("hello", 2)
    assert maybe_principal() is None


def test_a_role_change_takes_effect_on_what_is_queued(world: World) -> None:
    """What was asked for as a member runs with the role of the moment it runs in."""
    message = world.message()
    world.members.known["1", "10"] = Membership("viewer", "active")
    world.tasks.run(message)
    assert world.seen[0][0].role == "viewer"


@pytest.mark.parametrize("membership", [None, Membership("owner", "suspended"), Membership("owner", "deleting")])
def test_who_is_no_member_any_more_gets_nothing_done(world: World, membership: Membership | None) -> None:
    """Removed members and closed workspaces: queued messages are refused."""
    message = world.message()
    if membership is None:
        world.members.known.clear()
    else:
        world.members.known["1", "10"] = membership
    assert world.refused(message) == "not_a_member"


def test_a_disabled_account_gets_nothing_done(world: World) -> None:
    """With the accounts given, a disabled or deleted account's messages are refused."""

    @dataclass
    class Accounts:
        active: bool | None

        def perform(self, op: Any, /) -> Any:
            assert op.user == ANN.user
            return None if self.active is None else self

    for active, expected in ((True, None), (False, "account_disabled"), (None, "account_disabled")):
        seals = TaskSeals(keys=SigningKeys([NEW]), members=world.members, accounts=Accounts(active), clock=world.clock, sink=world.sink)
        seal = seals.seal(ANN, name="x", body=b"")
        if expected is None:
            assert seals.admit(seal, name="x", body=b"") is not None
        else:
            with pytest.raises(TaskRefused) as caught:
                seals.admit(seal, name="x", body=b"")
            assert caught.value.reason == expected


def test_nobody_acting_sends_nothing(world: World) -> None:
    """The producer is refused before a message exists."""
    with pytest.raises(PrincipalRequired):
        world.store.message("hello")


def test_an_expired_message_is_refused(world: World) -> None:
    """On the second."""
    message = world.message()
    world.clock.advance(timedelta(hours=24) - timedelta(seconds=1))
    world.tasks.run(message)
    world.clock.advance(timedelta(seconds=1))
    assert world.refused(message) == "expired"


def test_a_task_may_have_its_own_lasting(world: World) -> None:
    """A shorter time for one task."""

    @world.tasks.task("short", lasting=timedelta(minutes=1))
    def short() -> None:
        """Nothing."""

    with acting_as(ANN):
        message = short.message()
    world.clock.advance(timedelta(minutes=1))
    assert world.refused(message) == "expired"


def test_the_seal_fits_one_task_and_its_arguments_only(world: World) -> None:
    """Another name, other arguments, another principal's seal, another purpose's signature, another key: forged."""
    message = json.loads(world.message())

    def text(**changes: Any) -> str:
        return json.dumps({**message, **changes}, sort_keys=True, separators=(",", ":"))

    assert world.refused(text(task="note.count")) == "forged"
    assert world.refused(text(body=[["hello"], {"times": 3}])) == "forged"
    assert world.refused(text(body=[["hello", 2], {}])) == "forged"
    assert world.refused(text(seal="")) == "unsealed"
    assert world.refused(text(seal=None)) == "unsealed"
    assert world.refused(text(seal={"a": 1})) == "unsealed"
    payload = message["seal"].rpartition(".")[0]
    assert world.refused(text(seal=SigningKeys([NEW]).signer("session").sign(payload).reveal())) == "forged"
    assert world.refused(text(seal=SigningKeys([Secret(b"x" * 32)]).signer("task").sign(payload).reveal())) == "forged"
    # The control: the same surgery with nothing changed runs.
    world.tasks.run(text())


def test_an_authentic_text_of_another_shape_is_forged(world: World) -> None:
    """What the key signed for another release, or by mistake, is refused and does not crash."""
    signer = SigningKeys([NEW]).signer("task")
    for payload in ("t1", "W10", "WzFd", "e30", "bnVsbA"):
        with pytest.raises(TaskRefused) as caught:
            world.seals.admit(signer.sign(payload).reveal(), name="x", body=b"")
        assert caught.value.reason == "forged"


def test_keys_rotate_without_losing_what_is_queued(world: World) -> None:
    """A message sealed with the old key runs while that key is listed, and not after."""
    old = TaskSeals(keys=SigningKeys([OLD]), members=world.members, clock=world.clock, sink=world.sink)
    seal = old.seal(ANN, name="x", body=b"")
    assert world.seals.admit(seal, name="x", body=b"") is not None
    late = TaskSeals(keys=SigningKeys([NEW]), members=world.members, clock=world.clock, sink=world.sink)
    with pytest.raises(TaskRefused):
        late.admit(seal, name="x", body=b"")


@pytest.mark.parametrize(
    "bad",
    [
        "", "{}", "[]", "null", "1", "hello", "\x00", '{"task":', '{"body":[[],{}],"seal":"x","task":7}', b"\xff\xfe", "[" * 100_000,
        '{"body":[[],{}],"seal":"x","task":"note.count","x":1}', '{"body":{},"seal":"x","task":"note.count"}',
        '{"body":[[NaN],{}],"seal":"x","task":"note.count"}', "1" * 10_000, "x" * (MAX_MESSAGE_CHARS + 1),
    ],
)  # fmt: skip
def test_garbage_is_refused(world: World, bad: str | bytes) -> None:
    """Whatever a broker delivers, the answer is one typed refusal."""
    assert world.refused(bad) == "malformed"


def test_a_message_has_one_spelling(world: World) -> None:
    """White space, another order, duplicate keys and other escapes are refused, though they mean the same."""
    message = world.message("hé")
    assert "\\u00e9" in message
    fields = json.loads(message)
    for other in (
        message + " ",
        message.replace(":", ": ", 1),
        json.dumps(dict(reversed(fields.items())), separators=(",", ":")),
        message.replace('{"body"', '{"task":"note.count","body"', 1),
        message.replace("\\u00e9", "é"),
        message.replace("\\u00e9", "\\u00E9"),
    ):
        assert json.loads(other) == fields
        assert world.refused(other) == "malformed"
    world.tasks.run(message.encode())


def test_an_unknown_task_is_refused_and_not_named_in_the_event(world: World) -> None:
    """A stranger's text does not reach the log."""
    assert world.refused('{"body":[[],{}],"seal":"x","task":"evil\\nname"}') == "unknown_task"
    assert world.sink.events[-1].detail["task"] is None


def test_the_store_being_down_runs_nothing(world: World) -> None:
    """An error of the membership store is an error, not a yes."""
    message = world.message()
    world.members.down = True
    with pytest.raises(Unavailable):
        world.tasks.run(message)
    assert world.seen == []


def test_an_unbound_task_runs_as_nobody(world: World) -> None:
    """Even where somebody acts around it; and a seal for nobody starts no other task."""
    with acting_as(ANN):
        world.tasks.run(world.nightly.message())
    assert world.seen == [None]
    fields = json.loads(world.nightly.message())
    seal = world.seals.seal(None, name="note.count", body=b"[[],{}]")
    assert world.refused(json.dumps({**fields, "task": "note.count", "seal": seal}, sort_keys=True, separators=(",", ":"))) == "unsealed"


def test_an_unbound_task_is_sealed_too(world: World) -> None:
    """Whoever can write to the queue cannot start it."""
    assert world.refused('{"body":[[],{}],"seal":"","task":"nightly"}') == "unsealed"


def test_a_principal_without_a_user_needs_a_listed_role(world: World) -> None:
    """Nobody's membership backs it, so the host names the roles; at both ends."""
    with acting_as(Principal(tenant=1, role="owner")), pytest.raises(ConfigError):
        world.count.message()
    with acting_as(Principal(tenant=1, role="robot")):
        message = world.count.message()
    world.tasks.run(message)
    strict = TaskSeals(keys=SigningKeys([NEW]), members=world.members, clock=world.clock, sink=world.sink)
    with pytest.raises(TaskRefused):
        strict.admit(json.loads(message)["seal"], name="note.count", body=b"[[],{}]")


@pytest.mark.parametrize("bad", [object(), (1, 2), {1: 2}, float("nan"), b"x", {1, 2}, "\ud800" * MAX_MESSAGE_CHARS])
def test_arguments_that_change_on_the_way_are_refused_when_sent(world: World, bad: Any) -> None:
    """Rather than arriving as something else."""
    with acting_as(ANN), pytest.raises(ConfigError):
        world.store.message(bad)


def test_arguments_that_do_not_fit_are_refused_when_sent(world: World) -> None:
    """Where the mistake is, not in the worker."""
    with acting_as(ANN), pytest.raises(TypeError):
        world.count.message(1)  # type: ignore[call-arg]


def test_declarations_that_cannot_hold_are_refused(world: World) -> None:
    """Taken or malformed names, no reason, generators."""
    for name in ("note.store", "", "Upper", "a b", "x" * 200):
        with pytest.raises(ConfigError):
            world.tasks.task(name)
    with pytest.raises(ConfigError):
        world.tasks.task("fresh", unbound=" ")

    def lazy() -> Iterator[int]:
        yield 1

    async def alazy() -> Any:
        yield 1

    for function in (lazy, alazy):
        with pytest.raises(ConfigError):
            world.tasks.task("fresh")(function)
    for lasting in (timedelta(0), timedelta(days=8)):
        with pytest.raises(ConfigError):
            TaskSeals(keys=SigningKeys([NEW]), members=world.members, lasting=lasting)


async def _arun(world: World, message: str) -> Any:
    return await world.tasks.arun(message)


def test_async_bodies_and_stores() -> None:
    """`arun` awaits the store and the body; a sync body runs in a thread with the principal; `run` refuses what it cannot do."""
    world = World(members=AsyncMembers())

    @world.tasks.task("async")
    async def body(text: str) -> str:
        await asyncio.sleep(0)
        world.seen.append(maybe_principal())
        return text

    with acting_as(ANN):
        message = body.message("x")
    assert asyncio.run(_arun(world, message)) == "x"
    assert asyncio.run(_arun(world, world.message())) == 2
    assert [who.role for who in (world.seen[0], world.seen[1][0])] == ["member", "member"]
    with pytest.raises(ConfigError):
        world.tasks.run(message)
    with pytest.raises(ConfigError):
        world.tasks.run(world.message())
    world.members.known.clear()
    with pytest.raises(TaskRefused):
        asyncio.run(_arun(world, message))
    assert world.sink.events[-1].kind is EventKind.TASK_REFUSED


def test_two_tenants_interleaved_keep_their_principals() -> None:
    """Concurrent messages of two tenants on one loop: each body sees its own, before and after it waits."""
    world = World()
    world.members.known["2", "20"] = Membership("owner", "active")

    @world.tasks.task("who")
    async def who(tenant: int) -> bool:
        seen = []
        for _ in range(3):
            principal = maybe_principal()
            seen.append(principal is not None and principal.tenant.value == tenant)
            await asyncio.sleep(0)
        return all(seen)

    messages = []
    for turn in range(200):
        principal = (ANN, Principal(tenant=2, user=20, role="owner"))[turn % 2]
        with acting_as(principal):
            messages.append(who.message(principal.tenant.value))  # type: ignore[arg-type]

    async def everything() -> list[Any]:
        return await asyncio.gather(*(world.tasks.arun(message) for message in messages))

    assert asyncio.run(everything()) == [True] * 200


@given(at=st.integers(min_value=0), bit=st.integers(0, 6))
def test_any_flipped_bit_is_refused(at: int, bit: int) -> None:
    """No single-bit change of a message runs."""
    world = World()
    message = bytearray(world.message().encode())
    message[at % len(message)] ^= 1 << bit
    with pytest.raises(TaskRefused):
        world.tasks.run(bytes(message))
    assert world.seen == []

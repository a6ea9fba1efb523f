"""A state machine that tries to make one tenant see or change another's rows, with a model in Python as the oracle.

Hypothesis drives a few connections of one pool through reads, writes, savepoints, commits, rollbacks, hand-overs between principals,
threads and tasks, in ORM, Core and raw SQL. After every step the rows that PostgreSQL answers must be exactly the rows of the model:
one more is a leak, one fewer a loss, and what must be refused must be refused before it is sent.

What is drawn never depends on what the database answers, on the time or on keys: every rule draws plain numbers before it acts, and they
pick among what is there. So an example that fails for a reason outside (a server that went away) is told as that failure.

Every example works with tenants of its own, so nothing is cleaned up between examples, and the leftovers of earlier tenants are bait.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sqlalchemy import Column, Table, delete, insert, select, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, registry
from sqlalchemy.util import greenlet_spawn

from axis_security.core.context import acting_as
from axis_security.core.ids import IdValue
from axis_security.core.principal import Principal
from axis_security.rls.bind import AutocommitRefused, PrincipalChanged, TenantNotBound
from axis_security.rls.model import quote

__all__ = ["IsolationLab", "Leak", "isolation_machine"]

T = TypeVar("T")

_SURFACES: Final = ("orm", "core", "raw")
_PRINCIPALS: Final = 4
_SLOTS: Final = 3


class Leak(AssertionError):
    """The database answered something else than the model, or something was not refused."""


@dataclass(kw_only=True)
class IsolationLab:
    """What the machine works with.

    Args:
        engines: guarded engines by name; each with a pool of one to three connections and no overflow.
        table: a protected table with a key that sorts (whole numbers, UUIDs), the tenant column and a text column.
        key, tenant, text: the names of these columns.
        new_key: makes a key that no row has; whole numbers unless told.
        fill: values for the table's other columns that need one.
        new_tenant: makes a tenant that no earlier example used, and returns its id.
        role: the role to act in; it may read and write the table.
        loop: runs the engines of async drivers; theirs must never be used on another loop.
    """

    engines: dict[str, Engine | AsyncEngine]
    table: Table
    new_tenant: Callable[[], IdValue]
    key: str = "id"
    tenant: str = "tenant_id"
    text: str = "body"
    role: str = "member"
    new_key: Callable[[], Any] | None = None
    fill: Callable[[], dict[str, Any]] = dict
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __post_init__(self) -> None:
        self._row = type("Row", (), {})
        registry().map_imperatively(self._row, self.table)
        # Random start, so that two processes on one database do not meet.
        self._ids: Iterator[int] = itertools.count(secrets.randbelow(2**40) * 2**20)

    def next_id(self) -> Any:
        """A key that no row has."""
        return next(self._ids) if self.new_key is None else self.new_key()

    def column(self, name: str) -> Column[Any]:
        """A column of the table."""
        return self.table.c[name]

    def close(self) -> None:
        """Close the engines and the loop."""
        for engine in self.engines.values():
            if isinstance(engine, AsyncEngine):
                self.loop.run_until_complete(engine.dispose())
            else:
                engine.dispose()
        self.loop.close()


@dataclass(slots=True)
class _Slot:
    """One connection or session that somebody holds, and what the model knows of its transaction."""

    surface: str
    handle: Any
    owner: Principal | None = None
    savepoints: list[Any] = field(default_factory=list)
    frames: list[dict[int, str | None]] = field(default_factory=lambda: [{}])

    def touched(self) -> set[int]:
        return {key for frame in self.frames for key in frame}

    def ended(self) -> None:
        self.owner = None
        self.savepoints.clear()
        self.frames = [{}]


def isolation_machine(lab: IsolationLab) -> type[RuleBasedStateMachine]:
    """The machine over *lab*; run it with ``hypothesis.stateful.run_state_machine_as_test``."""

    slots, people, picks = st.integers(0, _SLOTS - 1), st.integers(0, _PRINCIPALS - 1), st.integers(0, 63)

    class IsolationMachine(RuleBasedStateMachine):
        @initialize(name=st.sampled_from(sorted(lab.engines)))
        def start(self, name: str) -> None:
            engine = lab.engines[name]
            self.is_async = isinstance(engine, AsyncEngine)
            self.engine: Engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
            self.capacity: int = getattr(self.engine.pool, "size", lambda: _SLOTS)()
            tenants = [lab.new_tenant() for _ in range(3)]
            # Two people share a tenant; one of them shares the role too.
            owners = [tenants[0], tenants[0], tenants[1], tenants[2]]
            self.people = [Principal(tenant=tenant, user=f"u{n}", role=lab.role) for n, tenant in enumerate(owners)]
            self.rows: dict[IdValue, dict[int, str]] = {tenant: {} for tenant in tenants}
            self.slots: dict[int, _Slot] = {}

        # How things run

        def run(self, who: Principal | None, work: Callable[[], T]) -> T:
            with nullcontext() if who is None else acting_as(who):
                return lab.loop.run_until_complete(greenlet_spawn(work)) if self.is_async else work()

        def slot(self, n: int, surface: str) -> _Slot | None:
            slot = self.slots.get(n)
            if slot is None and len(self.slots) < self.capacity:
                handle: Any = Session(self.engine) if surface == "orm" else None
                if handle is None:
                    handle = self.run(None, self.engine.connect)
                slot = self.slots[n] = _Slot(surface, handle)
            return slot

        def expected(self, slot: _Slot, who: Principal) -> dict[int, str]:
            seen = dict(self.rows[who.tenant.value])
            for frame in slot.frames:
                for key, text in frame.items():
                    if text is None:
                        seen.pop(key, None)
                    else:
                        seen[key] = text
            return seen

        def as_(self, slot: _Slot, who: Principal, work: Callable[[], T]) -> tuple[bool, T | None]:
            """Do *work* on the slot as *who*; if its transaction is somebody else's, see that it is refused."""
            if slot.owner is not None and slot.owner != who:
                with self.refused(PrincipalChanged):
                    self.run(who, work)
                return False, None
            slot.owner = who
            return True, self.run(who, work)

        @contextmanager
        def refused(self, kind: type[Exception]) -> Iterator[None]:
            try:
                yield
            except kind:
                return
            raise Leak(f"{kind.__name__} expected, nothing was raised")

        def see(self, slot: _Slot, who: Principal, got: dict[int, tuple[Any, str]]) -> None:
            wrong = {key: row for key, row in got.items() if row[0] != who.tenant.value}
            if wrong:
                raise Leak(f"{who.tenant} was shown rows of {sorted({str(row[0]) for row in wrong.values()})}")
            seen, wanted = {key: row[1] for key, row in got.items()}, self.expected(slot, who)
            if seen != wanted:
                raise Leak(f"{who.tenant} was shown {seen}, the model has {wanted}")

        # Steps

        @rule(n=slots, p=people, surface=st.sampled_from(_SURFACES))
        def read(self, n: int, p: int, surface: str) -> None:
            slot = self.slot(n, surface)
            if slot is not None:
                done, got = self.as_(slot, self.people[p], lambda: _read(lab, slot))
                if done and got is not None:
                    self.see(slot, self.people[p], got)

        @rule(n=slots, p=people, surface=st.sampled_from(_SURFACES), commit=st.booleans(), implicit=st.booleans())
        def write(self, n: int, p: int, surface: str, commit: bool, implicit: bool) -> None:
            """Insert, also as a session's very first statement, with the commit doing the flush, and (where the metadata has its default) without tenant."""
            slot, who = self.slot(n, surface), self.people[p]
            if slot is None or (commit and slot.savepoints):
                return
            key = lab.next_id()
            values = (
                lab.fill()
                | {lab.key: key, lab.text: f"b{key}"}
                | ({} if implicit and lab.column(lab.tenant).server_default is not None else {lab.tenant: who.tenant.value})
            )
            done, _ = self.as_(slot, who, lambda: _insert(lab, slot, values, commit=commit))
            if done:
                slot.frames[-1][key] = f"b{key}"
                if commit:
                    self.committed(slot)
            elif slot.surface == "orm":
                # A flush that fails, for whatever reason, ends a session's transaction.
                self.run(None, slot.handle.rollback)
                slot.ended()

        @rule(n=slots, p=people, q=people, surface=st.sampled_from(_SURFACES), commit=st.booleans())
        def write_for_another(self, n: int, p: int, q: int, surface: str, commit: bool) -> None:
            """A row for another tenant is refused by the database, also as a session's very first statement."""
            slot, who, other = self.slot(n, surface), self.people[p], self.people[q]
            if slot is None or other.tenant == who.tenant or (slot.owner is not None and slot.owner != who):
                return
            values = lab.fill() | {lab.key: lab.next_id(), lab.text: "stolen", lab.tenant: other.tenant.value}
            with self.refused(DBAPIError):
                self.run(who, lambda: _insert(lab, slot, values, commit=commit))
            self.run(None, slot.handle.rollback)
            slot.ended()

        @rule(n=slots, p=people, surface=st.sampled_from(_SURFACES), erase=st.booleans(), mine=st.booleans(), pick=picks)
        def change(self, n: int, p: int, surface: str, erase: bool, mine: bool, pick: int) -> None:
            """UPDATE or DELETE by key reaches a row of one's own tenant and none of another's."""
            slot, who = self.slot(n, surface), self.people[p]
            if slot is None:
                return
            locked = {key for other in self.slots.values() if other is not slot for key in other.touched()}
            owned = slot.owner is None or slot.owner == who
            own = set(self.expected(slot, who)) if owned else set()
            pool = own if mine else {key for tenant, rows in self.rows.items() if tenant != who.tenant.value for key in rows}
            pool -= locked
            if not pool:
                return
            key = sorted(pool)[pick % len(pool)]
            done, count = self.as_(slot, who, lambda: _change(lab, slot, key, "changed", erase=erase))
            if done:
                if count != int(mine):
                    raise Leak(f"a {'DELETE' if erase else 'UPDATE'} reached {count} rows, expected {int(mine)}")
                if mine:
                    slot.frames[-1][key] = None if erase else "changed"

        @rule(n=slots, p=people)
        def savepoint(self, n: int, p: int) -> None:
            slot = self.slots.get(n)
            if slot is not None and slot.owner == self.people[p] and len(slot.savepoints) < 2:
                slot.savepoints.append(self.run(slot.owner, slot.handle.begin_nested))
                slot.frames.append({})

        @rule(n=slots, keep=st.booleans())
        def end_savepoint(self, n: int, keep: bool) -> None:
            slot = self.slots.get(n)
            if slot is not None and slot.savepoints:
                savepoint = slot.savepoints.pop()
                self.run(slot.owner, savepoint.commit if keep else savepoint.rollback)
                frame = slot.frames.pop()
                if keep:
                    slot.frames[-1].update(frame)

        @rule(n=slots, keep=st.booleans(), close=st.booleans(), p=st.none() | people)
        def end(self, n: int, keep: bool, close: bool, p: int | None) -> None:
            """Commit or roll back, as anybody or nobody; perhaps give the connection back, with or without an end before."""
            slot = self.slots.get(n)
            if slot is None:
                return
            who = None if p is None else self.people[p]
            if keep and not slot.savepoints:
                self.run(who, slot.handle.commit)
                self.committed(slot)
            elif not close:
                self.run(who, slot.handle.rollback)
            slot.ended()
            if close:
                self.run(who, slot.handle.close)
                del self.slots[n]

        def committed(self, slot: _Slot) -> None:
            if slot.owner is not None:
                rows = self.rows[slot.owner.tenant.value]
                for key, text in slot.frames[0].items():
                    if text is None:
                        rows.pop(key, None)
                    else:
                        rows[key] = text
            slot.ended()

        # Nobody, another thread, another task

        @rule(n=slots, surface=st.sampled_from(_SURFACES))
        def as_nobody(self, n: int, surface: str) -> None:
            slot = self.slot(n, surface)
            if slot is not None:
                with self.refused(TenantNotBound):
                    self.run(None, lambda: _read(lab, slot))
                if slot.owner is None:
                    self.run(None, slot.handle.rollback)

        @rule(n=slots, p=people, surface=st.sampled_from(_SURFACES))
        def in_a_thread(self, n: int, p: int, surface: str) -> None:
            """A thread that did not copy the context is nobody."""
            slot = None if self.is_async else self.slot(n, surface)
            if slot is not None:
                with acting_as(self.people[p]), self.refused(TenantNotBound):
                    _in_threads(lambda: _read(lab, slot))
                if slot.owner is None:
                    slot.handle.rollback()

        @rule(n=slots, m=slots, p=people, q=people, surface=st.sampled_from(_SURFACES))
        def two_at_once(self, n: int, m: int, p: int, q: int, surface: str) -> None:
            """Two tasks, or two threads, each with its principal and its connection."""
            one, two = self.slot(n, surface), self.slot(m, surface)
            if one is None or two is None or one is two:
                return
            pairs = [(one, self.people[p]), (two, self.people[q])]
            if any(slot.owner is not None and slot.owner != who for slot, who in pairs):
                return
            for (slot, who), got in zip(pairs, _at_once(lab, pairs, is_async=self.is_async), strict=True):
                slot.owner = who
                self.see(slot, who, got)

        @rule(p=people)
        def in_autocommit(self, p: int) -> None:
            """No statement leaves in autocommit mode, where the context could not hold."""
            if len(self.slots) >= self.capacity:
                return

            def work() -> None:
                with self.engine.connect() as connection:
                    connection.execution_options(isolation_level="AUTOCOMMIT").execute(select(lab.table))

            with self.refused(AutocommitRefused):
                self.run(self.people[p], work)

        def teardown(self) -> None:
            for slot in getattr(self, "slots", {}).values():
                self.run(None, slot.handle.close)

    return IsolationMachine


def _at_once(lab: IsolationLab, pairs: Sequence[tuple[_Slot, Principal]], *, is_async: bool) -> list[dict[int, tuple[Any, str]]]:
    if is_async:

        async def both() -> list[dict[int, tuple[Any, str]]]:
            tasks = []
            for slot, who in pairs:
                with acting_as(who):  # a task copies the context when it is made
                    tasks.append(asyncio.ensure_future(greenlet_spawn(_read, lab, slot)))
            return list(await asyncio.gather(*tasks))

        return lab.loop.run_until_complete(both())
    work: list[Callable[[], dict[int, tuple[Any, str]]]] = []
    for slot, who in pairs:
        with acting_as(who):
            work.append(partial(contextvars.copy_context().run, _read, lab, slot))
    return _in_threads(*work)


def _in_threads(*work: Callable[[], T]) -> list[T]:
    """Run each in a thread of its own; their answers in order, or what the first of them raised."""
    answers: dict[int, T] = {}
    raised: list[BaseException] = []

    def catch(n: int) -> None:
        try:
            answers[n] = work[n]()
        except BaseException as error:  # noqa: BLE001  # handed on to the caller
            raised.append(error)

    threads = [threading.Thread(target=catch, args=(n,)) for n in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return [answers[n] for n in range(len(work))]


def _read(lab: IsolationLab, slot: _Slot) -> dict[int, tuple[Any, str]]:
    key, tenant, text = lab.column(lab.key), lab.column(lab.tenant), lab.column(lab.text)
    handle: Any = slot.handle
    if slot.surface == "orm":
        rows = handle.scalars(select(lab._row).execution_options(populate_existing=True)).all()
        return {getattr(row, lab.key): (getattr(row, lab.tenant), getattr(row, lab.text)) for row in rows}
    if slot.surface == "core":
        return {row[0]: (row[1], row[2]) for row in handle.execute(select(key, tenant, text))}
    sql = f'SELECT "{lab.key}", "{lab.tenant}", "{lab.text}" FROM {_name(lab)}'  # names of the host's own table
    return {row[0]: (row[1], row[2]) for row in handle.exec_driver_sql(sql)}


def _name(lab: IsolationLab) -> str:
    return quote(*filter(None, (lab.table.schema, lab.table.name)))


def _insert(lab: IsolationLab, slot: _Slot, values: dict[str, Any], *, commit: bool) -> None:
    handle: Any = slot.handle
    if slot.surface == "orm":
        handle.add(lab._row(**values))
        if not commit:
            handle.flush()
    elif slot.surface == "core":
        handle.execute(insert(lab.table).values(**values))
    else:
        names, literals = ", ".join(f'"{name}"' for name in values), ", ".join(f"'{value}'" for value in values.values())
        handle.exec_driver_sql(f"INSERT INTO {_name(lab)} ({names}) VALUES ({literals})")  # made here, no input
    if commit:
        handle.commit()


def _change(lab: IsolationLab, slot: _Slot, key: int, text: str, *, erase: bool) -> int:
    handle: Session | Connection = slot.handle
    where = lab.column(lab.key) == key
    if slot.surface == "raw":
        verb = f"DELETE FROM {_name(lab)}" if erase else f"UPDATE {_name(lab)} SET \"{lab.text}\" = '{text}'"  # made here
        return (
            int(handle.connection().exec_driver_sql(f"{verb} WHERE \"{lab.key}\" = '{key}'").rowcount)
            if isinstance(handle, Session)
            else int(handle.exec_driver_sql(f"{verb} WHERE \"{lab.key}\" = '{key}'").rowcount)
        )
    statement: Any = delete(lab.table).where(where) if erase else update(lab.table).where(where).values({lab.text: text})
    done: Any = handle.execute(statement)
    return int(done.rowcount)

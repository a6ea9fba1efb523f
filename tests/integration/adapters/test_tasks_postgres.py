"""Background tasks on a real database: members, accounts and rows in PostgreSQL, the seal between producer and worker."""

from __future__ import annotations

import secrets
import threading
from typing import Any

import pytest
from examples.flask_notes.security import Note, caps
from examples.people import PASSWORD
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tests.integration.adapters.conftest import Notes

from axis_security import Principal, Secret, acting_as, requires
from axis_security.adapters.tasks import TaskRefused, Tasks, TaskSeals
from axis_security.auth.visitor import Visitor
from axis_security.core.ids import UserId
from axis_security.rbac import PermissionDenied
from axis_security.rls import TenantNotBound
from axis_security.testing.sink import MemorySink

ANN = Principal(tenant="acme", user="ann", role="owner")
BOB = Principal(tenant="globex", user="bob", role="owner")


class Queue:
    """A list between a producer and a worker that share nothing else but the seals."""

    def __init__(self, notes: Notes) -> None:
        self.axis: Any = notes.axis
        self.tasks = Tasks(TaskSeals(keys=notes.keys.cookies, members=self.axis.members, accounts=self.axis.runner, sink=MemorySink()))
        engine = self.axis.engine

        @self.tasks.task("notes.write")
        def write(text: str) -> None:
            with Session(engine) as db:
                db.add(Note(text=text))
                db.commit()

        @self.tasks.task("notes.guarded")
        @requires(caps.notes.write)
        def guarded(text: str) -> None:
            write(text)

        @self.tasks.task("notes.count", unbound="counts nothing, as nobody")
        def count() -> int:
            with Session(engine) as db:
                return len(db.scalars(select(Note)).all())

        self.write, self.guarded, self.count = write, guarded, count

    def read(self, who: Principal) -> set[str]:
        """What *who* sees."""
        with acting_as(who), Session(self.axis.engine) as db:
            return {note.text for note in db.scalars(select(Note))}


@pytest.fixture
def queue(notes: Notes) -> Queue:
    return Queue(notes)


def newcomer(queue: Queue, role: str = "viewer") -> Principal:
    """Somebody new in Ann's workspace."""
    name, digest = f"n{secrets.token_hex(4)}", secrets.token_bytes(32)
    axis, email = queue.axis, f"{name}@example.com"
    visitor = Visitor(cookies=axis.auth.profile.read(None), address="127.0.0.1", agent="test", host="localhost")
    registered = axis.auth.lifecycle.register(user=UserId(name), identifier=email, password=Secret(PASSWORD), visitor=visitor)
    axis.run(axis.auth.lifecycle.verify(token=axis.run(registered).letter.token, visitor=visitor))
    who = Principal(tenant="acme", user=name, role=role)
    with acting_as(ANN):
        axis.members.invite(digest=digest, email=email, role=role)
    with acting_as(who):
        axis.members.accept(digest=digest, email=email)
    return who


def sent(who: Principal, task: Any, *args: Any) -> str:
    """A message of *who*."""
    with acting_as(who):
        text: str = task.message(*args)
    return text


def test_a_task_works_in_the_workspace_of_whoever_asked(queue: Queue) -> None:
    """In another thread, which inherits nothing: each row is in the tenant of its message."""
    messages = [sent(ANN, queue.write, "task of acme"), sent(BOB, queue.write, "task of globex")]
    worker = threading.Thread(target=lambda: [queue.tasks.run(message) for message in messages])
    worker.start()
    worker.join()
    assert "task of acme" in queue.read(ANN)
    assert "task of globex" not in queue.read(ANN)
    assert "task of globex" in queue.read(BOB)


def test_the_role_of_the_store_counts_in_python_and_in_the_database(queue: Queue) -> None:
    """A message that claims nothing of a role runs with the member's own: a viewer's is stopped by the guard, and without one by PostgreSQL."""
    pretender = Principal(tenant="acme", user=newcomer(queue).user, role="owner")
    with pytest.raises(PermissionDenied):
        queue.tasks.run(sent(pretender, queue.guarded, "x"))
    with pytest.raises(DBAPIError):
        queue.tasks.run(sent(pretender, queue.write, "x"))


def test_a_role_change_and_a_removal_reach_what_is_queued(queue: Queue) -> None:
    """Promoted while the message waits: it runs; removed: it is refused."""
    who = newcomer(queue)
    message, second = sent(who, queue.guarded, "promoted"), sent(who, queue.write, "removed")
    with acting_as(ANN):
        queue.axis.members.change_role(who.user, "member")
    queue.tasks.run(message)
    assert "promoted" in queue.read(ANN)
    with acting_as(ANN):
        queue.axis.members.remove(who.user)
    with pytest.raises(TaskRefused) as caught:
        queue.tasks.run(second)
    assert caught.value.reason == "not_a_member"


def test_a_disabled_account_s_messages_stop(queue: Queue) -> None:
    """Membership or not; and they run again once it is enabled, while the seal lasts."""
    who = newcomer(queue, "member")
    message = sent(who, queue.write, "from a disabled account")
    set_active = queue.axis.auth.lifecycle.set_active
    queue.axis.run(set_active(who.user, active=False, by="operator"))
    with pytest.raises(TaskRefused) as caught:
        queue.tasks.run(message)
    assert caught.value.reason == "account_disabled"
    queue.axis.run(set_active(who.user, active=True, by="operator"))
    queue.tasks.run(message)
    assert "from a disabled account" in queue.read(ANN)


def test_an_unbound_task_gets_no_rows(queue: Queue) -> None:
    """It runs as nobody, and nobody's statement is sent."""
    with acting_as(ANN):
        message = queue.count.message()
        with pytest.raises(TenantNotBound):
            queue.tasks.run(message)

"""Pooler conformance: many clients, few backends, two tenants interleaved, backends dying; and not one row of the wrong tenant.

A pooler hands one database connection to many clients, transaction by transaction. Whatever a transaction leaves behind (a setting, a role,
a prepared statement) is the next client's. This check drives real clients through a real pooler, the way the host opens them, and says
what it saw: rows of another tenant, answers to nobody, and whether backends were shared at all, without which it proves nothing.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from axis_security.core.context import acting_as
from axis_security.core.principal import Principal

__all__ = ["AsyncpgClient", "Client", "PoolerReport", "PsycopgClient", "SqlAlchemyClient", "Work", "check_pooler"]

PID: Final = "SELECT pg_catalog.pg_backend_pid()"
"""Which backend serves."""


class Client(Protocol):
    """One connection of the application."""

    def run(self, statements: Sequence[str], *, keep: bool) -> list[list[tuple[Any, ...]]]:
        """Run *statements* in one transaction, as whoever is acting; commit if *keep*, else roll back. Connects where it must."""
        ...

    def close(self) -> None:
        """Give the connection back; the next run makes another."""
        ...


class PsycopgClient:
    """A psycopg connection.

    Args:
        connect: opens it; a guarded class's ``connect`` bound to its DSN, say.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._connection: Any = None

    def run(self, statements: Sequence[str], *, keep: bool) -> list[list[tuple[Any, ...]]]:
        """In one transaction."""
        if self._connection is None:
            self._connection = self._connect()
        answers = []
        with self._connection.transaction(force_rollback=not keep):
            for text in statements:
                cursor = self._connection.execute(text)
                answers.append(cursor.fetchall() if cursor.description else [])
        return answers

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SqlAlchemyClient:
    """A checkout of a SQLAlchemy engine for each transaction."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def run(self, statements: Sequence[str], *, keep: bool) -> list[list[tuple[Any, ...]]]:
        """In one transaction."""
        with self._engine.connect() as connection:
            answers = []
            for text in statements:
                done = connection.exec_driver_sql(text)
                answers.append([tuple(row) for row in done] if done.returns_rows else [])
            if keep:
                connection.commit()
            return answers

    def close(self) -> None:
        """The engine mends itself."""


class AsyncpgClient:
    """An asyncpg connection on a loop of its own.

    Args:
        connect: a coroutine function that opens it, guarded, with ``statement_cache_size=0`` where the pooler wants that.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, statements: Sequence[str], *, keep: bool) -> list[list[tuple[Any, ...]]]:
        """In one transaction."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(self._run(statements, keep=keep))

    async def _run(self, statements: Sequence[str], *, keep: bool) -> list[list[tuple[Any, ...]]]:
        if self._connection is None:
            self._connection = await self._connect()
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            answers = [[tuple(row) for row in await self._connection.fetch(text)] for text in statements]
        except BaseException:
            if not self._connection.is_closed():
                await transaction.rollback()
            raise
        await (transaction.commit() if keep else transaction.rollback())
        return answers

    def close(self) -> None:
        """Close the connection and the loop."""
        if self._loop is not None:
            if self._connection is not None:
                self._connection.terminate()
                self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()
        self._connection = self._loop = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the clients do.

    Args:
        read: a query whose first column is the tenant, as text; each tenant has rows there before the check begins.
        principals: at least two, of different tenants.
        write: for each principal, a statement to run in some transactions; ``None`` to read only.
    """

    read: str
    principals: Sequence[Principal]
    write: Callable[[Principal], str] | None = None


@dataclass(slots=True, kw_only=True)
class PoolerReport:
    """What was seen.

    Args:
        transactions: that ended well, by kind of client.
        rows: that were read.
        foreign: rows of another tenant.
        missing: reads that did not answer a row of the reader's own tenant.
        unbound: attempts of nobody; *answered* counts those that were shown a row.
        lost: transactions that ended with their backend or connection.
        errors: anything else that was raised, by name.
        backends: for each backend, the tenants that it served.
    """

    transactions: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    foreign: int = 0
    missing: int = 0
    unbound: int = 0
    answered: int = 0
    lost: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    backends: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def shared(self) -> int:
        """Backends that served more than one tenant: without any, nothing was shown."""
        return sum(len(tenants) > 1 for tenants in self.backends.values())

    @property
    def ok(self) -> bool:
        """Nobody saw what is not theirs, everybody saw what is, and backends were shared."""
        return not (self.foreign or self.missing or self.answered or self.errors) and self.shared > 0 and self.rows > 0

    def __str__(self) -> str:
        done = ", ".join(f"{count} {kind}" for kind, count in sorted(self.transactions.items()))
        errors = ", ".join(f"{count} {name}" for name, count in sorted(self.errors.items())) or "none"
        return (
            f"transactions: {done}; rows read: {self.rows}; of another tenant: {self.foreign}; own rows missing: {self.missing}; "
            f"unbound: {self.unbound}, answered: {self.answered}; lost with their backend: {self.lost}; "
            f"backends: {len(self.backends)}, shared by tenants: {self.shared}; errors: {errors}"
        )


def check_pooler(
    work: Work,
    clients: Mapping[str, Sequence[Client]],
    *,
    unbound: Mapping[str, Sequence[Client]],
    transactions: int,
    kill: Callable[[], None] | None = None,
    kill_every: int = 200,
    seed: int = 0,
) -> PoolerReport:
    """Drive all *clients* at once, each in a thread of its own, until *transactions* have ended well.

    Args:
        work: what they do.
        clients: bound clients by kind; each acts as one principal after another.
        unbound: clients that nothing binds, by kind; they try to read in between.
        transactions: in total.
        kill: ends some backend; called once for each *kill_every* transactions.
        seed: of the random choices, which decide who acts, and what is written.
    """
    report, lock = PoolerReport(), threading.Lock()
    tickets = iter(range(transactions))
    turn = threading.Event()
    over = threading.Event()
    count = Counter[str]()

    def next_ticket() -> int | None:
        with lock:
            return next(tickets, None)

    def ended(kind: str) -> None:
        with lock:
            report.transactions[kind] += 1
            count["all"] += 1
            if count["all"] % kill_every == 0:
                turn.set()

    def one(kind: str, client: Client, number: int) -> None:
        chance = random.Random(f"{seed} {kind} {number}")
        strangers = list(unbound.get(kind, ()))
        stranger = strangers[number % len(strangers)] if strangers else None
        while next_ticket() is not None:
            principal = chance.choice(work.principals)
            while not _bound(work, client, principal, report, lock, write=chance.random() < 0.2, keep=chance.random() < 0.7):
                client.close()
            ended(kind)
            if stranger is not None and number < len(strangers) and chance.random() < 0.1:
                _nobody(work, stranger, report, lock)
        client.close()
        if stranger is not None and number < len(strangers):
            stranger.close()

    def reap() -> None:
        while True:
            turn.wait()
            turn.clear()
            if over.is_set():
                return
            if kill is not None:
                kill()

    threads = [
        threading.Thread(target=one, args=(kind, client, number), name=f"{kind} {number}")
        for kind, several in clients.items()
        for number, client in enumerate(several)
    ]
    reaper = threading.Thread(target=reap)
    reaper.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    turn.set()
    reaper.join()
    return report


def _bound(
    work: Work, client: Client, principal: Principal, report: PoolerReport, lock: threading.Lock, *, write: bool, keep: bool
) -> bool:
    """One transaction; whether it ended well. What else is raised is noted, and counts as an end."""
    statements = [PID, work.read]
    if write and work.write is not None:
        statements.insert(1, work.write(principal))
    try:
        with acting_as(principal):
            answers = client.run(statements, keep=keep)
    except Exception as error:  # noqa: BLE001  # whatever a driver raises is what this is about
        with lock:
            if _connection_lost(error):
                report.lost += 1
                return False
            report.errors[_name(error)] += 1
        client.close()
        return True
    mine = principal.tenant.text
    with lock:
        report.backends[answers[0][0][0]].add(mine)
        report.rows += len(answers[-1])
        report.foreign += sum(str(row[0]) != mine for row in answers[-1])
        report.missing += not any(str(row[0]) == mine for row in answers[-1])
    return True


def _nobody(work: Work, client: Client, report: PoolerReport, lock: threading.Lock) -> None:
    try:
        answers = client.run([work.read], keep=False)
    except Exception:  # noqa: BLE001  # a refusal is what is wanted, and a lost connection is no answer either
        answers = [[]]
        client.close()
    with lock:
        report.unbound += 1
        report.answered += bool(answers[0])


_DEAD: Final = frozenset({"OperationalError", "InterfaceError", "InternalError", "ConnectionDoesNotExistError", "InternalClientError"})


def _connection_lost(error: BaseException | None) -> bool:
    """Whether the backend, the pooler or the socket went away."""
    while error is not None:
        state = str(getattr(error, "sqlstate", None) or "")
        if state.startswith(("08", "57P")) or isinstance(error, OSError):
            return True
        # No SQLSTATE: the driver's own words for a dead connection. psycopg's InternalError is the backend's last words beside the answer to COMMIT.
        if not state and type(error).__name__ in _DEAD:
            return True
        error = getattr(error, "orig", None) or error.__cause__
    return False


def _name(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None)
    return f"{type(error).__name__} {state or ''}".strip()

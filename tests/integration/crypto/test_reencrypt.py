"""Sealing rows anew, on a real PostgreSQL: beside writers, killed at any point, under row security."""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from axis_security import Principal, acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.events import NullSink
from axis_security.core.minted import minted_text
from axis_security.core.schema import DatabaseRoles
from axis_security.crypto.attribute import sealed
from axis_security.crypto.blindindex import BlindIndex, IndexKeys
from axis_security.crypto.columns import EncryptedText, harden, use_keys
from axis_security.crypto.errors import SealError, TenantRequired
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.reencrypt import Progress, reencrypt, reindex, remaining, sealed_columns
from axis_security.rls import Tenancy
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.testing.cluster import TestServer
from axis_security.testing.crypto import FakeKms, MemoryKeyStore

ACME, GLOBEX = Principal(tenant="acme", user="a", role="member"), Principal(tenant="globex", user="g", role="member")
INDEX = {version: minted_text("index", bytes([version]) * 32) for version in (1, 2)}


class Base(DeclarativeBase):
    """The host's tables."""


class Card(Base):
    """One value bound to its row, one to its column only."""

    __tablename__ = "card"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[str]
    number = sealed("card.number", index=BlindIndex("digits-v1"))
    note: Mapped[str | None] = mapped_column(EncryptedText("card.note"))


COLUMNS = sealed_columns(Base.metadata)
NOTE, NUMBER = COLUMNS


class Killed(Exception):
    """The rotator's process is gone."""


class World:
    """A database, and two processes over one set of keys."""

    def __init__(self, server: TestServer, name: str, folder: Path) -> None:
        self.engine = harden(create_engine(server.url(name)))
        Base.metadata.create_all(self.engine)
        self.store, self.kms, self.ledger = MemoryKeyStore(), FakeKms(), FileShredLedger(folder / secrets.token_hex(4), create=True)
        self.ring = self.process()
        for principal in (ACME, GLOBEX):
            self.ring.create(principal.tenant)
        use_keys(self.ring, IndexKeys({1: INDEX[1]}, current=1))

    def process(self) -> KeyRing:
        return KeyRing(store=self.store, service=self.kms, ledger=self.ledger, sink=NullSink())

    def add(self, principal: Principal, count: int) -> list[uuid.UUID]:
        with acting_as(principal), Session(self.engine) as session:
            cards = [Card(tenant_id=principal.tenant.text, number=str(n), note=f"note {n}") for n in range(count)]
            session.add_all(cards)
            session.commit()
            return [card.id for card in cards]


def read(engine: Engine, principal: Principal) -> dict[uuid.UUID, tuple[str | None, str | None]]:
    """Every card of *principal*'s, opened."""
    with acting_as(principal), Session(engine) as session:
        return {card.id: (card.number, card.note) for card in session.scalars(select(Card).where(Card.tenant_id == principal.tenant.text))}


@pytest.fixture
def world(cluster: TestServer, tmp_path: Path) -> Iterator[World]:
    """A fresh world."""
    with cluster.database("reseal") as name:
        made = World(cluster, name, tmp_path)
        yield made
        made.engine.dispose()


def test_columns_are_found_in_the_metadata() -> None:
    """Both kinds, with what they are bound to; index columns hold no value."""
    assert [(str(column), column.field, column.bind_row) for column in COLUMNS] == [
        ("card.note", "card.note", False),
        ("card.number", "card.number", True),
    ]


def test_every_row_of_the_tenant_and_of_no_other_is_sealed_anew(world: World) -> None:
    """All pages, values unchanged, other tenants untouched; a second run finds nothing to do."""
    world.add(ACME, 25)
    world.add(GLOBEX, 3)
    before = read(world.engine, ACME)
    for principal in (ACME, GLOBEX):
        world.ring.rotate(principal.tenant)
    pages: list[Progress] = []
    with acting_as(ACME):
        for column in COLUMNS:
            assert remaining(world.engine, world.ring, column) == 25
            assert reencrypt(world.engine, world.ring, column, batch=10, report=pages.append) == Progress(done=25)
            assert remaining(world.engine, world.ring, column) == 0
            assert reencrypt(world.engine, world.ring, column) == Progress()
    assert [page.done for page in pages] == [10, 20, 25] * 2
    assert read(world.engine, ACME) == before
    with acting_as(GLOBEX):
        assert [remaining(world.engine, world.ring, column) for column in COLUMNS] == [3, 3]


def test_nobody_acting_and_odd_batches_are_refused(world: World) -> None:
    """No tenant, no work."""
    for work in (reencrypt, remaining):
        with pytest.raises(TenantRequired):
            work(world.engine, world.ring, NUMBER)
    with acting_as(ACME), pytest.raises(ConfigError):
        reencrypt(world.engine, world.ring, NUMBER, batch=0)
    with acting_as(ACME), pytest.raises(ConfigError):
        reindex(world.engine, world.ring, IndexKeys(INDEX, current=2), Card, "note")


def test_a_damaged_row_stops_the_run(world: World) -> None:
    """A row that does not open is not skipped and not overwritten."""
    key = world.add(ACME, 1)[0]
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE card SET number = set_byte(number, 40, 255 - get_byte(number, 40)) WHERE id = :id"), {"id": key})
        damaged = connection.execute(text("SELECT number FROM card")).scalar_one()
    world.ring.rotate(ACME.tenant)
    with acting_as(ACME), pytest.raises(SealError):
        reencrypt(world.engine, world.ring, NUMBER)
    with world.engine.begin() as connection:
        assert connection.execute(text("SELECT number FROM card")).scalar_one() == damaged


def test_no_write_of_the_application_is_lost(world: World) -> None:
    """Four writers change rows all the while; each row ends with what was written last, under the new key."""
    keys = world.add(ACME, 40)
    written: dict[uuid.UUID, str] = {}
    stop = threading.Event()

    def write(mine: list[uuid.UUID]) -> None:
        turn = 0
        while not stop.is_set():
            key = mine[turn % len(mine)]
            turn += 1
            with acting_as(ACME), Session(world.engine) as session:
                session.get_one(Card, key).number = str(turn)
                session.commit()
            written[key] = str(turn)

    writers = [threading.Thread(target=write, args=(keys[n::4],)) for n in range(4)]
    for writer in writers:
        writer.start()
    for _ in range(4):
        world.ring.rotate(ACME.tenant)
        with acting_as(ACME):
            for column in COLUMNS:
                reencrypt(world.engine, world.ring, column, batch=7)
    stop.set()
    for writer in writers:
        writer.join()
    with acting_as(ACME):
        reencrypt(world.engine, world.ring, NUMBER)
        assert remaining(world.engine, world.ring, NUMBER) == 0
    after = read(world.engine, ACME)
    assert len(written) == 40
    assert {key: after[key][0] for key in written} == written


def test_a_write_between_reading_and_replacing_stays(world: World) -> None:
    """The application changes every row just after the rotator has read them: what it wrote is there at the end, and the run says so."""
    keys = world.add(ACME, 3)

    class Meddling(KeyRing):
        """Lets the application in at the worst moment."""

        def __init__(self) -> None:
            self.__dict__.update(vars(world.ring))
            self.left = list(keys)

        def open(self, *args: Any, **options: Any) -> bytes:
            while self.left:
                with Session(world.engine) as session:
                    session.get_one(Card, self.left.pop()).number = "777"
                    session.commit()
            return super().open(*args, **options)

    world.ring.rotate(ACME.tenant)
    with acting_as(ACME):
        progress = reencrypt(world.engine, Meddling(), NUMBER)
        assert (progress, remaining(world.engine, world.ring, NUMBER)) == (Progress(contested=3), 0)
    assert [number for number, _ in read(world.engine, ACME).values()] == ["777"] * 3


def test_a_row_that_the_application_holds_is_passed_over(world: World) -> None:
    """The rotator waits for nobody: with a row held by an open transaction it does the others and returns; the next run does that one."""
    keys = world.add(ACME, 5)
    world.ring.rotate(ACME.tenant)
    with acting_as(ACME):
        with Session(world.engine) as session:
            session.get_one(Card, keys[2]).note = "in the middle of something"
            session.flush()
            progress = reencrypt(world.engine, world.ring, NUMBER)
            assert progress.done == 4
            assert progress.contested >= 1
            assert remaining(world.engine, world.ring, NUMBER) == 1
            session.commit()
        assert reencrypt(world.engine, world.ring, NUMBER) == Progress(done=1)
    assert read(world.engine, ACME)[keys[2]] == ("2", "in the middle of something")


def test_under_row_security_a_tenant_reseals_its_own_rows_only(cluster: TestServer, tmp_path: Path) -> None:
    """With the tenancy's guarded engine as the app role and no filter of ours, row security alone keeps tenants apart."""
    roles = DatabaseRoles.prefixed(f"reseal_{secrets.token_hex(4)}")
    with cluster.database("reseal") as name:
        world = World(cluster, name, tmp_path)
        tenancy = Tenancy(Base.metadata, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
        app = harden(create_engine(cluster.url(name, user=roles.app)))
        try:
            tenancy.protect(Card)
            tenancy.plan(world.engine).apply(world.engine)
            with world.engine.begin() as connection:
                connection.execute(text(f"ALTER ROLE {roles.app} LOGIN"))
            world.add(ACME, 5)
            world.add(GLOBEX, 5)
            for principal in (ACME, GLOBEX):
                world.ring.rotate(principal.tenant)
            tenancy.install(app)
            with acting_as(ACME):
                assert reencrypt(app, world.ring, NUMBER, tenant_column=None) == Progress(done=5)
            with acting_as(GLOBEX):
                assert remaining(app, world.ring, NUMBER, tenant_column=None) == 5
        finally:
            app.dispose()
            world.engine.dispose()


def test_an_index_is_written_anew(world: World) -> None:
    """After reindexing every value is found with the new index key alone; rotating keys of values changes no index."""
    world.add(ACME, 12)
    both = IndexKeys(INDEX, current=2)
    use_keys(world.ring, both)
    with acting_as(ACME):
        assert reindex(world.engine, world.ring, both, Card, "number", batch=5) == Progress(done=12)
        assert reindex(world.engine, world.ring, both, Card, "number") == Progress()
        world.ring.rotate(ACME.tenant)
        reencrypt(world.engine, world.ring, NUMBER)
        use_keys(world.ring, IndexKeys({2: INDEX[2]}, current=2))
        with Session(world.engine) as session:
            assert [card.number for card in session.scalars(select(Card).where(Card.number == " 7 "))] == ["7"]


def test_a_field_that_was_indexed_later_is_found_after_reindexing(world: World) -> None:
    """Rows from before the index have no value there; a lookup would quietly pass them by. A row without a value gets none."""
    world.add(ACME, 3)
    with acting_as(ACME), Session(world.engine) as session:
        session.add(Card(tenant_id="acme", number=None, note="empty"))
        session.commit()
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE card SET number_bidx = NULL"))
    keys = IndexKeys({1: INDEX[1]}, current=1)
    with acting_as(ACME):
        assert reindex(world.engine, world.ring, keys, Card, "number", batch=2) == Progress(done=3)
        assert reindex(world.engine, world.ring, keys, Card, "number") == Progress()
        with Session(world.engine) as session:
            assert [card.note for card in session.scalars(select(Card).where(Card.number == "2"))] == ["note 2"]


class Rotation(RuleBasedStateMachine):
    """Writes, rotations, rotators killed at random and processes with an older view, in any order."""

    world: World

    @initialize()
    def begin(self) -> None:
        with self.world.engine.begin() as connection:
            connection.execute(text("TRUNCATE card"))
        self.world.ring = self.world.process()
        self.world.store.restore({})
        self.world.ring.create(ACME.tenant)
        use_keys(self.world.ring, IndexKeys({1: INDEX[1]}, current=1))
        self.stale = self.world.process()
        self.expected: dict[uuid.UUID, tuple[str | None, str | None]] = {}

    @rule(number=st.integers(0, 99), old=st.booleans())
    def add(self, number: int, *, old: bool) -> None:
        use_keys(self.stale if old else self.world.ring, IndexKeys({1: INDEX[1]}, current=1))
        key = self.world.add(ACME, 1)[0]
        self.change(at=len(self.expected), number=number, key=key)

    @rule(at=st.integers(0, 50), number=st.integers(0, 99))
    def write(self, at: int, number: int) -> None:
        if self.expected:
            self.change(at=at, number=number, key=list(self.expected)[at % len(self.expected)])

    def change(self, *, at: int, number: int, key: uuid.UUID) -> None:
        with acting_as(ACME), Session(self.world.engine) as session:
            card = session.get_one(Card, key)
            card.number, card.note = str(number), f"{at}"
            session.commit()
        self.expected[key] = (str(number), f"{at}")

    @rule()
    def rotate(self) -> None:
        if len(self.world.store.load("acme")) < 12:
            self.world.ring.rotate(ACME.tenant)

    @rule(column=st.sampled_from(COLUMNS), pages=st.integers(0, 3), midway=st.booleans())
    def reseal_until_killed(self, column: Any, pages: int, *, midway: bool) -> None:
        ring = Mortal(self.world.ring, pages * 2 + 1) if midway else self.world.ring
        seen = 0

        def report(_: Progress) -> None:
            nonlocal seen
            seen += 1
            if seen > pages:
                raise Killed
            self.write(seen, seen)  # the application goes on between two pages

        with acting_as(ACME):
            try:
                reencrypt(self.world.engine, ring, column, batch=2, report=report)
            except Killed:
                return
            assert remaining(self.world.engine, self.world.ring, column) == 0 or seen

    @invariant()
    def every_row_reads_as_it_was_written_last(self) -> None:
        if hasattr(self, "expected"):
            for ring in (self.world.ring, self.stale):
                use_keys(ring, IndexKeys({1: INDEX[1]}, current=1))
                assert read(self.world.engine, ACME) == self.expected


class Mortal(KeyRing):
    """A ring whose process dies at the nth opening: in the middle of a page, before its transaction ends."""

    def __init__(self, ring: KeyRing, opens: int) -> None:
        self.__dict__.update(vars(ring))
        self.opens = opens

    def open(self, *args: Any, **options: Any) -> bytes:
        self.opens -= 1
        if self.opens < 0:
            raise Killed
        return super().open(*args, **options)


def test_rotation_machine(world: World) -> None:
    """Whatever the order, every row is readable at each step as it was written last."""
    machine = type("Machine", (Rotation,), {"world": world})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=15, deadline=None))

"""Sealed columns, the key table and shredding, on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import Engine, Identity, Table, UniqueConstraint, create_engine, func, insert, literal, select, text, union, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from axis_security import Principal, acting_as
from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.core.minted import minted_text
from axis_security.core.schema import DatabaseRoles
from axis_security.crypto.attribute import ValueTaken, sealed
from axis_security.crypto.blindindex import BlindIndex, IndexKeys
from axis_security.crypto.columns import EncryptedJSON, EncryptedText, NotSearchable, harden, use_keys
from axis_security.crypto.errors import KeyShredded, SealError, Tampered, TenantRequired
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.keys import KeyState
from axis_security.crypto.keystore import KEYSTORE_PART, PostgresKeyStore, listen
from axis_security.crypto.ledger import FileShredLedger
from axis_security.rls import Tenancy
from axis_security.testing.cluster import Cluster, TestServer
from axis_security.testing.crypto import FakeKms

ACME, GLOBEX = Principal(tenant="acme", user="a", role="member"), Principal(tenant="globex", user="g", role="member")
INDEX = {1: minted_text("index", bytes(range(32))), 2: minted_text("index", bytes(range(1, 33)))}


class Base(DeclarativeBase):
    """The host's tables."""


class Person(Base):
    """Row-bound, indexed; column-bound beside it."""

    __tablename__ = "person"
    __table_args__ = (UniqueConstraint("tenant_id", "email_bidx"),)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[str]
    ssn = sealed("person.ssn", index=BlindIndex("digits-v1"))
    email = sealed("person.email", index=BlindIndex("email-v1", unique=True))
    note: Mapped[str | None] = mapped_column(EncryptedText("person.note"))
    extra: Mapped[dict[str, Any] | None] = mapped_column(EncryptedJSON("person.extra"))


class Numbered(Base):
    """A key that the database makes."""

    __tablename__ = "numbered"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tenant_id: Mapped[str]
    secret = sealed("numbered.secret")


class Shared(Base):
    """A key of two columns, as tables that many tenants share have it."""

    __tablename__ = "shared_key"
    __table_args__ = (UniqueConstraint("tenant_id", "email_bidx"),)
    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    email = sealed("shared.email", index=BlindIndex("email-v1", unique=True))


class World:
    """A database with the key table, and a ring on it as the app role."""

    def __init__(self, server: TestServer, name: str, folder: Path) -> None:
        self.server, self.name = server, name
        self.roles = DatabaseRoles.prefixed(f"seal_{secrets.token_hex(4)}")
        self.admin = create_engine(server.url(name))
        Base.metadata.create_all(self.admin)
        tenancy = Tenancy(Base.metadata, roles=self.roles)
        tenancy.protect(Person)
        tenancy.protect(Numbered)
        tenancy.protect(Shared)
        tenancy.plan(self.admin, parts=[KEYSTORE_PART]).apply(self.admin)
        with self.admin.begin() as connection:
            connection.execute(text(f"ALTER ROLE {self.roles.app} LOGIN"))
            connection.execute(text(f"ALTER ROLE {self.roles.system} LOGIN"))
        assert not tenancy.plan(self.admin, parts=[KEYSTORE_PART]).steps
        self.kms, self.ledger = FakeKms(), FileShredLedger(folder / "ledger", create=True)
        self.pools: list[ConnectionPool[Any]] = []
        self.ring = self.process(self.roles.app)
        self.operator = self.process(self.roles.system)
        for principal in (ACME, GLOBEX):
            self.ring.create(principal.tenant)
        use_keys(self.ring, IndexKeys(INDEX, current=1))
        self.engine = harden(self.admin)

    def process(self, role: str) -> KeyRing:
        pool = ConnectionPool(self.server.dsn(self.name, user=role), min_size=1, max_size=4, open=True)
        self.pools.append(pool)
        return KeyRing(store=PostgresKeyStore(pool), service=self.kms, ledger=self.ledger, sink=NullSink())

    def close(self) -> None:
        for pool in self.pools:
            pool.close()
        self.admin.dispose()


@pytest.fixture
def world(cluster: TestServer, tmp_path: Path) -> Iterator[World]:
    """A fresh world."""
    with cluster.database("seal") as name:
        made = World(cluster, name, tmp_path)
        yield made
        made.close()


def add(engine: Engine, principal: Principal, **fields: Any) -> uuid.UUID:
    """One person of *principal*'s."""
    with acting_as(principal), Session(engine) as session:
        person = Person(tenant_id=principal.tenant.text, **fields)
        session.add(person)
        session.commit()
        return person.id


def test_values_are_sealed_in_the_table_and_open_when_read(world: World) -> None:
    """No plaintext is in the table; the ORM gives the values back, lazily, to their own tenant only."""
    key = add(world.engine, ACME, ssn="123-45-6789", email="Ann@Acme.Example", note="a note", extra={"a": [1]})
    with world.admin.connect() as connection:
        row = connection.execute(text("SELECT p::text FROM person p")).scalar_one()
    for plain in ("123-45", "nn@Acme", "a note", '{"a"'):
        assert plain.encode().hex() not in row
        assert plain not in row
    with acting_as(ACME), Session(world.engine) as session:
        person = session.get_one(Person, key)
        assert (person.ssn, person.email, person.note, person.extra) == ("123-45-6789", "Ann@Acme.Example", "a note", {"a": [1]})
        assert person.ssn == "123-45-6789"
    with acting_as(GLOBEX), Session(world.engine) as session, pytest.raises(SealError):
        session.get_one(Person, key)
    with Session(world.engine) as session, pytest.raises(TenantRequired):
        session.get_one(Person, key)


def test_equality_uses_the_index_and_normalises(world: World) -> None:
    """== and in_() find by normalised value, within the tenant, by an index scan."""
    for n in range(50):
        add(world.engine, ACME, ssn=f"{n:09d}", email=f"p{n}@acme.example")
    with acting_as(ACME), Session(world.engine) as session:
        assert session.scalars(select(Person).where(Person.ssn == "000-00-0007")).one().email == "p7@acme.example"
        found = session.scalars(select(Person).where(Person.ssn.in_(["000000001", "00 00 00 00 2", "999999999"]))).all()
        assert sorted(person.ssn for person in found) == ["000000001", "000000002"]
        assert session.scalars(select(Person).where(Person.email == "P3@ACME.example")).one().ssn == "000000003"
        assert session.scalars(select(Person).where(Person.ssn.in_([]))).all() == []
        statement = select(Person.id).where(Person.ssn == "000000007").compile(world.engine, compile_kwargs={"render_postcompile": True})
        session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = session.connection().exec_driver_sql(f"EXPLAIN {statement.string}", statement.params).scalars().all()
        assert "Index" in "\n".join(plan)
    with acting_as(GLOBEX), Session(world.engine) as session:
        assert session.scalars(select(Person).where(Person.ssn == "000000007")).all() == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Person.ssn.like("1%"),
        lambda: Person.ssn < "1",
        lambda: Person.ssn >= "1",
        lambda: Person.ssn != "1",
        lambda: Person.ssn.desc(),
        lambda: select(Person).order_by(Person.ssn),
        lambda: Person.note == "x",
        lambda: Person.note.like("x"),
        lambda: Person.note.desc(),
        lambda: Numbered.secret == "x",
    ],
)
def test_what_cannot_work_raises_when_the_statement_is_built(world: World, make: Any) -> None:
    """LIKE, order, inequality, and equality without an index: refused, never quietly empty."""
    with acting_as(ACME), pytest.raises(NotSearchable):
        make()


def distinct_on(statement: Any, column: Any) -> Any:
    """``SELECT DISTINCT ON``, as each SQLAlchemy spells it."""
    extension = getattr(postgresql, "distinct_on", None)
    return statement.distinct(column) if extension is None else statement.ext(extension(column))  # the latter from 2.1


def test_ordering_and_grouping_by_a_sealed_column_raises_at_execution(world: World) -> None:
    """What would quietly sort or compare sealed bytes is refused by the hardened engine before anything is sent, from either side of a comparison."""
    table = Person.__table__
    for statement in (
        select(Person.id).order_by(Person.note),
        select(Person.note).group_by(Person.note),
        select(Person.id).order_by(table.c.ssn),
        union(select(Person.note), select(Person.note)).order_by(Person.__table__.c.note),
        select(Person.note).distinct(),
        select(table.c.ssn, table.c.tenant_id).distinct(),
        distinct_on(select(Person), Person.note),
        select(func.row_number().over(order_by=Person.note)),
        select(func.row_number().over(partition_by=Person.note)),
        select(Person.id).where(literal("x") == Person.note),
        select(Person.id).where(Person.tenant_id == Person.note),
        update(Person).where(Person.tenant_id == Person.note).values(tenant_id="x"),
    ):
        with acting_as(ACME), Session(world.engine) as session, pytest.raises(NotSearchable):
            session.execute(statement)


def test_a_distinct_that_drops_repeated_rows_is_none_of_values(world: World) -> None:
    """Beside the primary key it compares rows, as a join of entities asks for; IS NULL needs no plaintext either."""
    add(world.engine, ACME, ssn="111111111", note="a")
    add(world.engine, ACME, ssn="222222222")
    with acting_as(ACME), Session(world.engine) as session:
        session.execute(text("INSERT INTO numbered (tenant_id) VALUES ('acme'), ('acme')"))
        twice = select(Person).join(Numbered, Numbered.tenant_id == Person.tenant_id)
        assert [len(session.scalars(statement).all()) for statement in (twice, twice.distinct())] == [4, 2]
        assert set(session.scalars(distinct_on(select(Person.note), Person.id))) == {"a", None}
        assert session.scalars(select(Person).where(Person.note.is_(None))).one().ssn == "222222222"
        assert session.scalars(select(Person).where(Person.note.is_not(None))).one().ssn == "111111111"
        assert session.scalars(select(Person).where(Person.ssn.in_([None, "111111111"]))).one().note == "a"


def test_none_is_not_the_text_none(world: World) -> None:
    """As in SQL, IN (NULL) finds nothing, and not whoever typed these four letters."""
    add(world.engine, ACME, email="None")
    with acting_as(ACME), Session(world.engine) as session:
        assert session.scalars(select(Person).where(Person.email.in_([None]))).all() == []
        assert session.scalars(select(Person).where(Person.email == "None")).one().email == "None"


def test_bytes_moved_to_another_row_do_not_open(world: World) -> None:
    """Two rows' sealed bytes swapped by somebody with write access: both refuse. A column-bound field may be moved within its column; that is its contract."""
    one, two = add(world.engine, ACME, ssn="111111111"), add(world.engine, ACME, ssn="222222222")
    with world.admin.begin() as connection:
        connection.execute(text("UPDATE person p SET ssn = q.ssn FROM person q WHERE p.id <> q.id"))
    with acting_as(ACME), Session(world.engine) as session:
        for key in (one, two):
            person = session.get_one(Person, key)
            with pytest.raises(Tampered):
                _ = person.ssn


def test_bulk_inserts_of_plaintext_are_refused_and_hidden(world: World) -> None:
    """Core and bulk statements take sealed bytes only, and the error shows no parameter."""
    table = Person.__table__
    assert isinstance(table, Table)
    with acting_as(ACME), world.engine.begin() as connection, pytest.raises((StatementError, SealError)) as caught:
        connection.execute(insert(table), [{"id": uuid.uuid4(), "tenant_id": "acme", "ssn": b"canary-123-45-6789"}])
    assert "canary" not in str(caught.value)
    with acting_as(ACME), world.engine.begin() as connection, pytest.raises(DBAPIError) as failed:
        connection.execute(update(table).values(tenant_id=text("'canary-' || (1/0)::text")))
    assert "hide_parameters" in str(failed.value) or "canary-1" not in str(failed.value)


def test_a_key_that_the_database_makes_cannot_be_bound(world: World) -> None:
    """Refused at flush with the fix, instead of sealing to nothing."""
    with acting_as(ACME), Session(world.engine) as session:
        session.add(Numbered(tenant_id="acme", secret="x"))
        with pytest.raises(ConfigError, match="bound to its row"):
            session.flush()


def test_changing_the_key_of_a_bound_row_is_refused(world: World) -> None:
    """It would leave a value that never opens again."""
    key = add(world.engine, ACME, ssn="111111111")
    with acting_as(ACME), Session(world.engine) as session:
        person = session.get_one(Person, key)
        person.id = uuid.uuid4()
        with pytest.raises(ConfigError, match="primary key"):
            session.flush()


def test_index_rotation_finds_old_and_new_and_keeps_values_unique(world: World) -> None:
    """While two index keys live, both are searched, and a value under the old key is still taken, also for racing writers."""
    add(world.engine, ACME, email="ann@acme.example")
    use_keys(world.ring, IndexKeys(INDEX, current=2))
    with acting_as(ACME), Session(world.engine) as session:
        assert len(session.scalars(select(Person).where(Person.email == "ann@acme.example")).all()) == 1
    with pytest.raises(ValueTaken):
        add(world.engine, ACME, email="ANN@acme.example")
    add(world.engine, GLOBEX, email="ann@acme.example")
    outcomes: list[str] = []

    def race() -> None:
        try:
            add(world.engine, ACME, email="new@acme.example")
            outcomes.append("won")
        except (ValueTaken, DBAPIError):
            outcomes.append("lost")

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]


def test_during_an_index_rotation_a_row_is_not_in_its_own_way(world: World) -> None:
    """Written again with the value that it has, a row with a key of two columns is not told that somebody else holds it; somebody else still is."""
    with acting_as(ACME), Session(world.engine) as session:
        session.add(Shared(tenant_id="acme", email="ann@acme.example"))
        session.commit()
    use_keys(world.ring, IndexKeys(INDEX, current=2))
    with acting_as(ACME), Session(world.engine) as session:
        session.scalars(select(Shared)).one().email = "Ann@Acme.example"
        session.commit()
        session.add(Shared(tenant_id="acme", email="ann@acme.example"))
        with pytest.raises((ValueTaken, DBAPIError)):
            session.flush()
        session.rollback()
    use_keys(world.ring, IndexKeys(INDEX, current=1))
    with acting_as(ACME), Session(world.engine) as session:
        session.add(Shared(tenant_id="acme", email="ann@acme.example"))
        with pytest.raises(ValueTaken):
            session.flush()


def test_rotation_and_shredding_reach_other_processes(world: World) -> None:
    """Another process follows a notice at once; after shredding it opens nothing, and the app role could not have shredded."""
    other, dropped = world.process(world.roles.app), list[str]()
    ready = threading.Event()

    def follow() -> None:
        with psycopg.connect(world.server.dsn(world.name, user=world.roles.app), autocommit=True) as connection:
            connection.execute("LISTEN axis_keys")
            ready.set()
            with contextlib.suppress(StopIteration):
                listen(other, connection, stop_after=60, on_drop=heard)

    def heard(tenant: str) -> None:
        dropped.append(tenant)
        if tenant == "acme":
            raise StopIteration

    value = other.seal(b"x", tenant=TenantId("acme"), field="f")
    thread = threading.Thread(target=follow)
    thread.start()
    assert ready.wait(60)
    with psycopg.connect(world.server.dsn(world.name, user=world.roles.app), autocommit=True) as stranger:
        stranger.execute("SELECT pg_notify('axis_keys', 'no id at all'), pg_notify('axis_keys', '')")
    with pytest.raises(Unavailable):
        world.ring.shred(TenantId("globex"), reason="the app role may not")
    assert world.operator.shred(TenantId("acme"), reason="DSR-17") == 1
    thread.join()
    assert dropped == ["acme"], "what is no id is passed over"
    with pytest.raises(KeyShredded):
        other.open(value, tenant=TenantId("acme"), field="f")
    assert world.ledger.shredded() == {"acme": frozenset({1})}, "a refused shredding leaves no entry"


def test_shredding_survives_a_file_level_restore(tmp_path: Path) -> None:
    """The whole data directory is put back to before the shredding: the key row is back, and still nothing opens."""
    with Cluster() as server:
        name = server.create_database("seal")
        world = World(server, name, tmp_path)
        value = world.ring.seal(b"x", tenant=TenantId("acme"), field="f")
        world.close()
        server.stop()
        backup = server.home / "backup"
        shutil.copytree(server.data_dir, backup, copy_function=shutil.copy2)
        server.start()
        operator = world.process(world.roles.system)
        assert operator.shred(TenantId("acme"), reason="DSR-17") == 1
        for pool in world.pools:
            pool.close()
        server.stop()
        with_owner = server.data_dir.stat()
        shutil.rmtree(server.data_dir)
        shutil.copytree(backup, server.data_dir, copy_function=shutil.copy2)
        for path in (server.data_dir, *server.data_dir.rglob("*")):
            os.chown(path, with_owner.st_uid, with_owner.st_gid)
        server.start()
        restored = world.process(world.roles.app)
        assert [record.state for record in restored.status(TenantId("acme"))] == [KeyState.ACTIVE]
        with pytest.raises(KeyShredded):
            restored.open(value, tenant=TenantId("acme"), field="f")
        assert world.process(world.roles.system).replay_ledger() == 1
        assert [record.state for record in restored.status(TenantId("acme"))] == [KeyState.SHREDDED]
        for pool in world.pools:
            pool.close()


def test_the_app_role_reads_no_key_table(world: World) -> None:
    """Only through the functions, and what those give is wrapped."""
    with (
        psycopg.connect(world.server.dsn(world.name, user=world.roles.app)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT * FROM axis.data_key")
    record = world.ring.status(TenantId("acme"))[0]
    assert world.ring.subkey(TenantId("acme"), "probe")[1].reveal() not in record.wrapped


def test_the_app_role_destroys_no_key(world: World) -> None:
    """Injected SQL can read wrapped bytes, which open nothing; it replaces, empties and lists none, and cannot use up the ids."""
    value = world.ring.seal(b"x", tenant=TenantId("acme"), field="f")
    with psycopg.connect(world.server.dsn(world.name, user=world.roles.app), autocommit=True) as injected:
        for statement in (
            "SELECT axis.keys_rewrap('acme', 1, (SELECT wrapped FROM axis.keys_load('acme')), 'garbage', 'x')",
            "SELECT axis.keys_shred('acme', '{1}')",
            "SELECT axis.keys_tenants()",
            "SELECT * FROM axis.data_key",
            "DELETE FROM axis.data_key",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                injected.execute(statement.encode())
        planted = injected.execute("SELECT axis.keys_insert('acme', 4294967295, 'x', 'x', sha256('x'), now(), 1)").fetchone()
    assert planted == (False,)
    assert world.process(world.roles.app).open(value, tenant=TenantId("acme"), field="f") == b"x"
    assert world.ring.rotate(TenantId("acme")) == 2
    world.kms.kek = "fake/2"
    with pytest.raises(Unavailable):
        world.ring.rewrap(TenantId("acme"))
    assert world.operator.rewrap(TenantId("acme")) == 2
    assert world.operator.tenants() == ["acme", "globex"]
    assert world.process(world.roles.app).open(value, tenant=TenantId("acme"), field="f") == b"x"


def test_a_shredded_tenant_is_given_no_key_by_what_began_before(world: World) -> None:
    """A rotation that comes to the table after the shredding activates nothing; a bad row that was shredded alone stops no rotation."""
    planted = "SELECT axis.keys_insert(%s, 2, 'x', 'x', sha256('x'), now(), 1)"
    with psycopg.connect(world.server.dsn(world.name, user=world.roles.app), autocommit=True) as app:
        world.operator.shred(TenantId("acme"), reason="DSR-17")
        assert app.execute(planted, ["acme"]).fetchone() == (True,)
        assert app.execute("SELECT axis.keys_activate('acme', 2)").fetchone() == (False,)
        value = world.ring.seal(b"x", tenant=TenantId("globex"), field="f")
        assert app.execute(planted, ["globex"]).fetchone() == (True,)
        assert app.execute("SELECT axis.keys_activate('globex', 2)").fetchone() == (True,)
    with psycopg.connect(world.server.dsn(world.name, user=world.roles.system), autocommit=True) as system:
        system.execute("SELECT axis.keys_shred('globex', '{2}')")
    ring = world.process(world.roles.app)
    assert ring.rotate(TenantId("globex")) == 3
    assert ring.open(value, tenant=TenantId("globex"), field="f") == b"x"
    for act in (ring.create, ring.rotate):
        with pytest.raises(KeyShredded):
            act(TenantId("acme"))


def test_a_rotation_and_a_shredding_at_once_leave_no_key(world: World) -> None:
    """Whichever commits first, after the shredding nothing of the tenant's opens."""
    for n in range(12):
        tenant = TenantId(f"t{n}")
        world.ring.create(tenant)
        value = world.ring.seal(b"x", tenant=tenant, field="f")

        def rotate(tenant: TenantId = tenant) -> None:
            with contextlib.suppress(KeyShredded):
                world.ring.rotate(tenant)

        rotator = threading.Thread(target=rotate)
        rotator.start()
        world.operator.shred(tenant, reason="DSR-17")
        rotator.join()
        assert {record.state for record in world.ring.status(tenant)} <= {KeyState.SHREDDED, KeyState.PENDING}
        with pytest.raises(KeyShredded):
            world.process(world.roles.app).open(value, tenant=tenant, field="f")


def test_an_activation_waits_for_a_shredding_that_has_not_committed(world: World) -> None:
    """It looks at the keys as they are after it: what it saw before, an active key to take over from, is gone."""
    answers: list[tuple[bool, ...] | None] = []
    with (
        psycopg.connect(world.server.dsn(world.name, user=world.roles.app), autocommit=True) as app,
        psycopg.connect(world.server.dsn(world.name, user=world.roles.system)) as system,
    ):
        app.execute("SELECT axis.keys_insert('acme', 2, 'x', 'x', sha256('x'), now(), 1)")
        system.execute("SELECT axis.keys_shred('acme', '{1}')")
        activation = threading.Thread(target=lambda: answers.append(app.execute("SELECT axis.keys_activate('acme', 2)").fetchone()))
        activation.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = :pid")
        with world.admin.connect() as connection:
            while not connection.execute(waiting, {"pid": app.info.backend_pid}).scalar_one():
                activation.join(0.05)
        system.commit()
        activation.join()
    assert answers == [(False,)]
    assert {record.state for record in world.ring.status(TenantId("acme"))} == {KeyState.SHREDDED, KeyState.PENDING}


def test_a_rewrap_is_told_to_the_other_processes(world: World) -> None:
    """They hold the bytes that the key before wrapped, and would go on asking for it until their ttl."""
    with psycopg.connect(world.server.dsn(world.name, user=world.roles.app), autocommit=True) as listener:
        listener.execute("LISTEN axis_keys")
        assert world.operator.rewrap(TenantId("acme")) == 1
        assert [notice.payload for notice in listener.notifies(timeout=5, stop_after=1)] == ["acme"]

"""``axis-security keys`` on real tables: what it prints, what it changes, and what it refuses without being told twice."""

from __future__ import annotations

import json
import secrets
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from axis_security import Principal, acting_as, cli
from axis_security.core.errors import ConfigError
from axis_security.core.events import NullSink
from axis_security.core.ids import KeyType, TenantId
from axis_security.crypto import EncryptedText, KeyRing, KeyShredded, KeyUpkeep, RotationPolicy, harden, sealed, use_keys
from axis_security.crypto.keys import KeyState
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.sealer import ACCOUNTS, RingSealer
from axis_security.testing.cluster import TestServer
from axis_security.testing.crypto import FakeKms, KekState, MemoryKeyStore

ACME, GLOBEX = uuid.UUID(int=1), uuid.UUID(int=2)


class Base(DeclarativeBase):
    """The host's tables."""


class Note(Base):
    """Two sealed columns; tenants are UUIDs."""

    __tablename__ = "sealed_note"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID]
    title: Mapped[str] = mapped_column(EncryptedText("note.title"))
    body = sealed("note.body")


class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def now(self) -> datetime:
        return self.at


class Desk:
    """An operator's terminal: the command line over one host module."""

    def __init__(self, server: TestServer, name: str, folder: Path) -> None:
        self.engine = harden(create_engine(server.url(name)))
        Base.metadata.create_all(self.engine)
        self.kms, self.store, self.clock = FakeKms(), MemoryKeyStore(), Clock()
        self.ledger = FileShredLedger(folder / "ledger", create=True)
        self.ring = KeyRing(
            store=self.store, service=self.kms, ledger=self.ledger, sink=NullSink(), clock=self.clock, rotation=RotationPolicy(age=timedelta(days=90))
        )  # fmt: skip
        use_keys(self.ring)
        self.upkeep = KeyUpkeep(ring=self.ring, engine=self.engine, metadata=Base.metadata, key_type=KeyType.UUID)
        self.values: dict[uuid.UUID, list[str]] = {}
        for tenant in (ACME, GLOBEX):
            self.ring.create(TenantId(tenant))
            with acting_as(Principal(tenant=tenant, role="owner")), Session(self.engine) as session:
                session.add_all([Note(tenant_id=tenant, title=f"t{n}", body=f"b{n}") for n in range(7)])
                session.commit()
        self.seed = RingSealer(self.ring, "totp.seed").seal(b"seed", b"ann")

    def read(self, tenant: uuid.UUID) -> list[tuple[str, str | None]]:
        with acting_as(Principal(tenant=tenant, role="owner")), Session(self.engine) as session:
            return sorted((note.title, note.body) for note in session.scalars(select(Note).where(Note.tenant_id == tenant)))

    def run(self, *words: str, typed: str = "") -> Result:
        command, *rest = words
        return CliRunner().invoke(cli._root(), ["keys", command, "keys_host:upkeep", *rest], input=typed)

    def told(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def desk(cluster: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A fresh desk."""
    with cluster.database("keys_" + secrets.token_hex(2)) as name:
        made = Desk(cluster, name, tmp_path)
        host = ModuleType("keys_host")
        host.upkeep, host.nothing = made.upkeep, 1  # type: ignore[attr-defined]  # a host's module, made here
        monkeypatch.setitem(sys.modules, "keys_host", host)
        yield made
        made.engine.dispose()


def test_a_key_goes_through_its_life_on_the_command_line(desk: Desk) -> None:
    """status, rotate --due, reencrypt: rows move to the new key, values stay, a second run has nothing to do."""
    before = desk.read(ACME)
    assert [(each["tenant"], each["state"], each["due"]) for each in desk.told("status")] == [
        (str(ACME), "active", False),
        (str(GLOBEX), "active", False),
        ("axis:accounts", "active", False),
    ]
    assert desk.told("rotate", "--due") == {}
    desk.clock.at += timedelta(days=91)
    assert desk.told("rotate", str(ACME)) == {str(ACME): 2}
    assert desk.told("rotate", "--due") == {str(GLOBEX): 2, "axis:accounts": 2}
    left = {"sealed_note.body": 7, "sealed_note.title": 7}
    status = desk.told("status", str(ACME), "--rows")
    assert [(each["key"], each["state"], each.get("rows_left")) for each in status] == [(1, "decrypt_only", None), (2, "active", left)]
    assert "sealed_note.body 7" in " ".join(desk.run("status", "--rows").stdout.split())
    done = desk.told("reencrypt", str(ACME))
    assert {each["column"]: (each["done"], each["left"]) for each in done} == dict.fromkeys(left, (7, 0))
    assert desk.read(ACME) == before
    assert {each["done"] for each in desk.told("reencrypt") if each["tenant"] == str(ACME)} == {0}
    assert desk.told("status", str(GLOBEX), "--rows")[1]["rows_left"] == dict.fromkeys(left, 0)
    assert RingSealer(desk.ring, "totp.seed").open(desk.seed, b"ann") == b"seed", "what people own rotates too, and still opens"


def test_status_asks_the_key_service_past_what_is_in_memory(desk: Desk) -> None:
    """A disabled key shows at once, with the keys still warm: exit status 1, and why, on standard error."""
    assert "fake/1 wraps and unwraps" in desk.run("status").stdout
    desk.kms.state = KekState.PENDING_DELETION
    done = desk.run("status")
    assert done.exit_code == 1
    assert "KMSInvalidStateException" in done.stderr
    assert str(ACME) in done.stdout


def test_a_planted_row_stops_no_work_and_is_named(desk: Desk) -> None:
    """The application's role may add keys for any text: what is no id of a tenant holds nobody's rotation up, and `status` tells of it."""
    planted = replace(desk.store.load(str(ACME))[0], tenant="no uuid\x1b", state=KeyState.PENDING)
    assert desk.store.insert(planted)
    assert desk.store.activate("no uuid\x1b", 1)
    desk.clock.at += timedelta(days=91)
    assert desk.told("rotate", "--due") == {str(ACME): 2, str(GLOBEX): 2, "axis:accounts": 2}
    done = desk.run("status")
    assert done.exit_code == 1
    assert "'no uuid\\x1b' has a row in the key table" in done.stderr
    assert str(GLOBEX) in done.stdout
    assert desk.run("status", "no uuid").exit_code != 0


def test_rewrapping_changes_no_row(desk: Desk) -> None:
    """Every record is wrapped anew under the key service's present key; it can be done again."""
    before = desk.read(ACME)
    desk.kms.kek = "fake/2"
    assert desk.told("rewrap") == {str(ACME): 1, str(GLOBEX): 1, ACCOUNTS.text: 1}
    assert set(desk.told("rewrap").values()) == {1}
    assert {each["kek"] for each in desk.told("status")} == {"fake/2"}
    assert desk.read(ACME) == before


@pytest.mark.parametrize(("words", "typed"), [((), "\n"), ((), f"{GLOBEX}\n"), (("--yes-shred", str(GLOBEX)), ""), ((), "y\n")])
def test_shredding_wants_the_id_twice(desk: Desk, words: tuple[str, ...], typed: str) -> None:
    """Nothing typed, another tenant's id, or a plain yes: nothing is destroyed."""
    done = desk.run("shred", str(ACME), "--reason", "DSR-17", *words, typed=typed)
    assert done.exit_code != 0
    assert len(desk.read(ACME)) == 7
    assert desk.ledger.shredded() == {}


def test_what_is_shredded_stays_so_after_a_restore(desk: Desk) -> None:
    """Typed once more it goes, for good; replay empties what a restore brought back; the other tenant reads on."""
    backup = desk.store.snapshot()
    assert desk.run("shred", str(ACME), typed=f"{ACME}\n").exit_code == 2, "no reason"
    done = desk.run("shred", str(ACME), "--reason", "DSR-17, erasure", typed=f"{ACME}\n")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{ACME}: 1 keys shredded")  # some versions of click echo what was typed
    desk.store.restore(backup)
    with pytest.raises(KeyShredded):
        desk.read(ACME)
    assert desk.told("status", str(ACME))[0]["state"] == "active", "the restored table says so; the ledger says otherwise"
    assert "1 keys had come back" in desk.run("replay").stdout
    assert desk.told("status", str(ACME))[0]["state"] == "shredded"
    assert desk.run("shred", str(ACME), "--reason", "DSR-17", "--yes-shred", str(ACME)).exit_code == 1, "nothing left to shred"
    assert desk.told("shred", str(GLOBEX), "--reason", "DSR-18", "--yes-shred", str(GLOBEX)) == {str(GLOBEX): 1}


def test_a_wrong_word_is_answered_plainly(desk: Desk) -> None:
    """Another object, an absent module, tenants beside --due, a malformed id: refused with status 2."""
    runner, root = CliRunner(), cli._root()
    for host in ("keys_host:nothing", "keys_host:absent", "no_such_module:x", ":"):
        assert runner.invoke(root, ["keys", "status", host]).exit_code == 2
    assert desk.run("rotate").exit_code == 2
    assert desk.run("rotate", str(ACME), "--due").exit_code == 2
    assert desk.run("status", "no-uuid").exit_code == 2
    with pytest.raises(ConfigError):
        KeyUpkeep(ring=desk.ring, metadata=Base.metadata)
    bare = KeyUpkeep(ring=desk.ring, key_type=KeyType.UUID)
    assert bare.columns(TenantId(ACME)) == []
    with pytest.raises(ConfigError):
        bare.left(TenantId(ACME), desk.upkeep.columns(TenantId(ACME))[0])


def test_rows_that_stay_behind_make_the_run_fail(desk: Desk) -> None:
    """A row that the application holds all the while is left, and the exit status says that the run is to be started again."""
    desk.ring.rotate(TenantId(ACME))
    with acting_as(Principal(tenant=ACME, role="owner")), Session(desk.engine) as session:
        session.scalars(select(Note).where(Note.tenant_id == ACME).limit(1).with_for_update()).all()
        held = desk.run("reencrypt", str(ACME))
        assert held.exit_code == 1
        assert "6 sealed anew, 1 left" in held.stdout
    assert desk.run("reencrypt", str(ACME)).exit_code == 0

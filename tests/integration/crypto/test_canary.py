"""No way that ordinary code prints, copies or fails shows a plaintext or a key."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import UniqueConstraint, create_engine, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from axis_security import Principal, acting_as
from axis_security.core.errors import AxisError
from axis_security.core.events import AuditEvent
from axis_security.core.ids import TenantId
from axis_security.core.minted import minted_text
from axis_security.crypto import BlindIndex, EncryptedJSON, EncryptedText, FileShredLedger, IndexKeys, KeyRing, harden, sealed, use_keys
from axis_security.crypto.stream import ObjectName
from axis_security.testing.cluster import TestServer
from axis_security.testing.crypto import FakeKms, KekState, MemoryKeyStore

CANARY = "canary-5f1e77a0"
ROOT = b"root-canary-9b21" * 2
INDEX = b"index-canary-77c" * 2
ACME = Principal(tenant="acme", user="a", role="member")


class Base(DeclarativeBase):
    """The host's tables."""


class Patient(Base):
    """Every kind of sealed column."""

    __tablename__ = "patient"
    __table_args__ = (UniqueConstraint("tenant_id", "ssn_bidx"),)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[str]
    ssn = sealed("patient.ssn", index=BlindIndex("nfc-casefold-v1"))
    note: Mapped[str | None] = mapped_column(EncryptedText("patient.note"))
    extra: Mapped[dict[str, Any] | None] = mapped_column(EncryptedJSON("patient.extra"))


class Kept:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        """Keep it."""
        self.events.append(event)


class Ward:
    """A ring whose root key is known, and everything that was printed."""

    def __init__(self, folder: Path) -> None:
        self.kms, self.store, self.sink = FakeKms(), MemoryKeyStore(), Kept()
        self.ring = KeyRing(
            store=self.store, service=self.kms, ledger=FileShredLedger(folder / "ledger", create=True), sink=self.sink, random=lambda _: ROOT
        )  # fmt: skip
        self.ring.create(ACME.tenant)
        self.index = IndexKeys({1: minted_text("index", INDEX)}, current=1)
        use_keys(self.ring, self.index)
        self.printed = io.StringIO()

    def clean(self) -> None:
        """Nothing that was printed holds a plaintext or a key, in any of its spellings."""
        shown = self.printed.getvalue()
        assert len(shown) > 100, "there was something to look at"
        for secret in (CANARY.encode(), ROOT, INDEX):
            for spelling in (secret.decode(), secret.hex(), secret.decode()[:16], repr(secret)[2:-1]):
                assert spelling not in shown


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """Every logger writes to it, at its most talkative."""
    made = Ward(tmp_path)
    handler = logging.StreamHandler(made.printed)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield made
    root.setLevel(level)
    root.removeHandler(handler)


def test_sql_that_is_logged_or_fails_shows_no_plaintext(ward: Ward, cluster: TestServer) -> None:
    """With echo on: inserts, look-ups, a broken constraint, a statement that fails on the server and one that fails in the driver."""
    with cluster.database("canary") as name:
        engine = harden(create_engine(cluster.url(name), echo="debug"))
        Base.metadata.create_all(engine)
        with acting_as(ACME):
            with Session(engine) as session:
                session.add(Patient(tenant_id="acme", ssn=CANARY, note=CANARY, extra={"k": CANARY}))
                session.commit()
                found = session.scalars(select(Patient).where(Patient.ssn == CANARY)).one()
                assert (found.ssn, found.note, found.extra) == (CANARY, CANARY, {"k": CANARY})
                print(found, vars(found).keys(), file=ward.printed)
            with Session(engine) as session, pytest.raises(IntegrityError) as taken:
                session.add(Patient(tenant_id="acme", ssn=CANARY, note=CANARY))
                session.commit()
            with engine.connect() as connection, pytest.raises(DBAPIError) as failed:
                connection.execute(insert(Patient).values(note=CANARY, extra={"k": CANARY}))
        for error in (taken.value, failed.value):
            print(error, repr(error), "".join(traceback.format_exception(error)), file=ward.printed)
        engine.dispose()
    assert "INSERT INTO patient" in ward.printed.getvalue(), "echo was on"
    ward.clean()


def test_refusals_show_no_plaintext_and_no_key(ward: Ward) -> None:
    """Every way that opening and sealing refuses: message, repr, facts, JSON and traceback."""
    ring, tenant = ward.ring, ACME.tenant
    value = ring.seal(CANARY.encode(), tenant=tenant, field="f", row=b"1")
    attempts: list[Callable[[], object]] = [
        lambda: ring.open(value, tenant=tenant, field="f", row=b"2"),
        lambda: ring.open(value, tenant=tenant, field="g"),
        lambda: ring.open(value[:20], tenant=tenant, field="f"),
        lambda: ring.open(CANARY.encode(), tenant=tenant, field="f"),
        lambda: ring.open(value[:2] + b"\0\0\0\x09" + value[6:], tenant=tenant, field="f"),
        lambda: ring.seal(CANARY.encode(), tenant=TenantId("globex"), field="f"),
        lambda: ring.shred(tenant, reason=""),
    ]
    for state in KekState:
        if state is not KekState.ENABLED:
            attempts.append(lambda state=state: cold(ward, state).seal(CANARY.encode(), tenant=tenant, field="f"))  # type: ignore[misc]  # mypy sees no default
    opened = 0
    for attempt in attempts:
        try:
            attempt()
            opened += 1
        except AxisError as error:
            print(error, repr(error), error.audit(), error.public(), traceback.format_exc(), file=ward.printed)
            print(json.dumps(error.audit(), default=str), file=ward.printed)
    assert opened <= 1, "only a service that lies, and gives a key of its own choosing, is not refused"
    print(ward.sink.events, file=ward.printed)
    ward.clean()


def cold(ward: Ward, state: KekState) -> KeyRing:
    """A process that just started, and a key service in *state*."""
    ward.kms.state = state
    return KeyRing(store=ward.store, service=ward.kms, ledger=ward.ring._ledger, sink=ward.sink)


def test_what_holds_a_key_cannot_be_printed_pickled_or_copied(ward: Ward) -> None:
    """Rings, ciphers, object seals, index keys and subkeys: no text form, no pickle, no deep copy, no JSON."""
    ring, tenant = ward.ring, ACME.tenant
    holders = [
        ring,
        ring.field(tenant, "f"),
        ring.object(ObjectName(tenant="acme", bucket="b", key="k")),
        ring.subkey(tenant, "backup")[1],
        ward.index,
    ]
    for holder in holders:
        print(f"{holder} {holder!r} {[holder]} {holder!s:>40}", file=ward.printed)
        for take in (pickle.dumps, copy.deepcopy, json.dumps):
            with pytest.raises(TypeError) as caught:
                take(holder)
            print(caught.value, file=ward.printed)
    ward.clean()

"""Who may do what, which rows belong to whom, and the keys: everything about security that this app decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, FetchedValue, MetaData, NullPool, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from axis_security.core.events import LoggingSink
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles
from axis_security.core.settings import Environment
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.keystore import PostgresKeyStore
from axis_security.crypto.kms.local import LocalFileKms
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.sealer import RingSealer
from axis_security.rbac import Capabilities, standard_policy
from axis_security.rls import Tenancy
from axis_security.wiring.axis import Axis
from axis_security.wiring.keys import AppKeys
from axis_security.wiring.refusals import Pages
from axis_security.wiring.sources import EngineSource

caps = Capabilities(notes=("read", "write"), users=("manage",))
policy = standard_policy(caps, viewer=[caps.notes.read], member=[caps.notes.write])


class Base(DeclarativeBase):
    """The app's tables."""

    metadata = MetaData()


class Note(Base):
    """A note of a workspace; the plan gives the tenant column a default, so it fills itself."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(server_default=FetchedValue())
    text: Mapped[str]


def secure(url: str, keys: AppKeys, *, home: Path, environment: Environment, roles: DatabaseRoles | None = None) -> Axis[Any, Any]:
    """Everything wired. *url* is the app role's; *home* keeps what a key service and a ledger would keep in production."""
    tenancy = Tenancy(Base.metadata, key="tenant_id", key_type=KeyType.TEXT, policy=policy, seal=keys.seal, roles=roles)
    tenancy.protect(Note, read=caps.notes.read, write=caps.notes.write)
    engine: Engine = create_engine(url)
    events = LoggingSink()
    ring = KeyRing(
        store=PostgresKeyStore(EngineSource(create_engine(url, poolclass=NullPool))),
        service=LocalFileKms(home / "kek", environment=environment, sink=events),
        ledger=FileShredLedger(home / "shredded", create=True),
        sink=events,
    )
    return Axis(
        tenancy=tenancy,
        policy=policy,
        keys=keys,
        engine=engine,
        sealer=RingSealer(ring, "totp.seed"),
        product="Flask Notes",
        origins=("http://localhost:5000", "http://localhost"),
        environment=environment,
        pages=Pages(sign_in="/sign-in"),
    )

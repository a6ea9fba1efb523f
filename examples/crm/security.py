"""Everything about security that the CRM decides: roles, tables, keys, and the one object that wires them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.crm.models import Attachment, Base, Contact, Deal, Profile
from examples.crm.pages import refused
from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.orm import Session

from axis_security import Axis, Secret
from axis_security.auth import PasswordService
from axis_security.core.events import LoggingSink
from axis_security.core.ids import KeyType
from axis_security.core.minted import minted_text
from axis_security.core.schema import DatabaseRoles
from axis_security.core.settings import Environment
from axis_security.crypto.blindindex import IndexKeys
from axis_security.crypto.columns import harden, use_keys
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.keys import KeyService
from axis_security.crypto.keystore import PostgresKeyStore
from axis_security.crypto.kms.local import LocalFileKms
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.objects import Files, SealedObjects
from axis_security.crypto.sealer import RingSealer
from axis_security.rbac import Capabilities, Policy, standard_policy
from axis_security.rls import Tenancy
from axis_security.wiring.gate import Endpoint
from axis_security.wiring.keys import AppKeys
from axis_security.wiring.refusals import Pages
from axis_security.wiring.sources import EngineSource

__all__ = ["Letter", "Site", "caps", "make_policy", "secure"]

caps = Capabilities(contacts=("read", "write"), deals=("read", "write"), files=("read", "write"), audit=("read",), users=("manage",))


def make_policy() -> Policy:
    """Viewers read, members work, admins see the log and manage people, owners everything."""
    return standard_policy(
        caps,
        viewer=[caps.contacts.read, caps.deals.read, caps.files.read],
        member=[caps.contacts.write, caps.deals.write, caps.files.write],
        admin=[caps.audit.read],
    )


@dataclass(frozen=True)
class Letter:
    """A letter that a real product would send."""

    to: str
    subject: str
    link: str


@dataclass
class Site:
    """What the pages work with."""

    axis: Axis[Any, Any]
    ring: KeyRing
    objects: SealedObjects
    origin: str
    environment: Environment
    outbox: deque[Letter] = field(default_factory=lambda: deque(maxlen=50))

    @property
    def engine(self) -> Engine:
        """The app's engine; every transaction is bound to whoever is acting."""
        engine: Engine = self.axis.engine
        return engine

    def db(self) -> Session:
        """A session for one unit of work."""
        return Session(self.engine, expire_on_commit=False)

    def send(self, to: str, subject: str, path: str, token: Secret[str] | None = None) -> None:
        """Put a letter into the outbox."""
        self.outbox.appendleft(Letter(to, subject, self.origin + path + ("" if token is None else f"?token={token.reveal()}")))


def secure(
    url: str,
    *,
    keys: AppKeys,
    home: Path,
    origin: str,
    environment: Environment = Environment.PRODUCTION,
    system_url: str | None = None,
    roles: DatabaseRoles | None = None,
    passwords: PasswordService | None = None,
    index_key: Secret[str] | None = None,
    endpoints: Sequence[Endpoint] = (),
    service: KeyService | None = None,
    kms_environment: Environment = Environment.DEVELOPMENT,
) -> Site:
    """Wire the CRM.

    Args:
        url: the database, as the app role.
        keys: from the secrets manager.
        home: what a key service, a ledger and an object store would keep in production.
        origin: where browsers find the app.
        system_url: the database, as the system role.
        service: wraps the workspaces' keys; unless told a file in *home*, which `verify` calls a fault on a deployment.
        kms_environment: where that file is used; production refuses it.
    """
    policy = make_policy()
    tenancy = Tenancy(Base.metadata, key="tenant_id", key_type=KeyType.UUID, policy=policy, seal=keys.seal, roles=roles)
    tenancy.protect(Profile)
    tenancy.protect(Contact, read=caps.contacts.read, write=caps.contacts.write)
    tenancy.protect(Deal, read=caps.deals.read, write=caps.deals.write)
    tenancy.protect(Attachment, via=Contact, read=caps.files.read, write=caps.files.write)
    log = LoggingSink()
    ring = KeyRing(
        store=PostgresKeyStore(EngineSource(create_engine(url, poolclass=NullPool))),
        service=service or LocalFileKms(home / "kek", environment=kms_environment, sink=log),
        ledger=FileShredLedger(home / "shredded", create=True),
        sink=log,
    )
    use_keys(ring, IndexKeys({1: index_key or minted_text("index", b"\1" * 32)}, current=1))
    axis = Axis(
        tenancy=tenancy,
        policy=policy,
        keys=keys,
        engine=harden(create_engine(url, pool_size=10)),
        system=None if system_url is None else create_engine(system_url),
        sealer=RingSealer(ring, "totp.seed"),
        product="Tidepool CRM",
        origins=(origin,),
        environment=environment,
        passwords=passwords,
        pages=Pages(sign_in="/sign-in", step_up="/confirm", render=refused),
        anonymous=("/static/",),
        endpoints=endpoints,
    )
    return Site(
        axis=axis,
        ring=ring,
        objects=SealedObjects(ring, Files(home / "objects"), bucket="attachments"),
        origin=origin,
        environment=environment,
    )

"""Who may do what, which rows belong to whom, and the keys: everything about security that this app decides."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from examples.django_notes.models import Note
from sqlalchemy import NullPool, create_engine

from axis_security.adapters.django import ModelTenancy
from axis_security.core.events import LoggingSink
from axis_security.core.ids import KeyType
from axis_security.core.settings import Environment
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.keystore import PostgresKeyStore
from axis_security.crypto.kms.local import LocalFileKms
from axis_security.crypto.ledger import FileShredLedger
from axis_security.crypto.sealer import RingSealer
from axis_security.rbac import Capabilities, standard_policy
from axis_security.wiring.axis import Axis
from axis_security.wiring.keys import AppKeys
from axis_security.wiring.refusals import Pages
from axis_security.wiring.sources import EngineSource

__all__ = ["axis", "caps"]

caps = Capabilities(notes=("read", "write"), users=("manage",))
policy = standard_policy(caps, viewer=[caps.notes.read], member=[caps.notes.write])

_home = Path(os.environ["NOTES_HOME"])  # keeps what a key service and a ledger would keep in production
_events = LoggingSink()
_keys = AppKeys.generate(environment=Environment.DEVELOPMENT)  # in production: AppKeys.load(manager)

tenancy = ModelTenancy(key="tenant_id", key_type=KeyType.TEXT, policy=policy, seal=_keys.seal)
tenancy.protect(Note, read=caps.notes.read, write=caps.notes.write)

# Accounts, sessions and members have connections of their own, beside Django's.
_parts = settings.DATABASES["default"]
_url = f"postgresql+psycopg://{_parts['USER']}@{_parts['HOST']}:{_parts['PORT']}/{_parts['NAME']}"
_ring = KeyRing(
    store=PostgresKeyStore(EngineSource(create_engine(_url, poolclass=NullPool))),
    service=LocalFileKms(_home / "kek", environment=Environment.DEVELOPMENT, sink=_events),
    ledger=FileShredLedger(_home / "shredded", create=True),
    sink=_events,
)
axis = Axis(
    tenancy=tenancy,
    policy=policy,
    keys=_keys,
    engine=create_engine(_url),
    sealer=RingSealer(_ring, "totp.seed"),
    product="Django Notes",
    origins=tuple(os.environ.get("NOTES_ORIGINS", "http://localhost:8000").split()),
    environment=Environment.DEVELOPMENT,
    pages=Pages(sign_in="/sign-in"),
)

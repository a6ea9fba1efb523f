"""What the code on a page takes for granted, made for real: the app around the README's lines, a workspace and its people, a key ring.

Each is a context that gives the page its names, and looks at what the page did when it is through. A clean environment that has only the wheel runs
the README's too, so this file imports nothing of the tests, and nothing at its top that a release does not bring.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
from sqlalchemy import MetaData, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from axis_security import Principal, acting_as
from axis_security.core.ids import KeyType
from axis_security.rbac import Capabilities, standard_policy
from axis_security.rbac.members_sql import members_part
from axis_security.rls import SealKey, SealKeyring, Tenancy, TenantNotBound
from axis_security.testing.cluster import Cluster

Names = dict[str, Any]


@contextlib.contextmanager
def readme() -> Iterator[Names]:
    """An app with one table, in which two workspaces have a contact each once the page's lines have run."""

    class Base(DeclarativeBase):
        """The app's tables."""

    class Contact(Base):
        """One of them."""

        __tablename__ = "contact"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]

    with Cluster() as server:
        admin, engine = create_engine(server.url()), create_engine(server.url(user="axis_app"))
        Base.metadata.create_all(admin)
        with admin.begin() as connection:
            connection.execute(text("CREATE ROLE axis_app LOGIN"))
        try:
            yield {
                "Base": Base, "Contact": Contact, "admin": admin, "engine": engine, "key": SealKey.generate(1).text(),
                "Principal": Principal, "acting_as": acting_as, "workspace": SimpleNamespace(id=1), "user": SimpleNamespace(id=7),
            }  # fmt: skip
            for tenant in (1, 2):
                with acting_as(Principal(tenant=tenant, user=7, role="member")), Session(engine) as db:
                    db.add(Contact(id=tenant, tenant_id=tenant))
                    db.commit()
                    assert [row.tenant_id for row in db.scalars(select(Contact))] == [tenant]
            with Session(engine) as db, contextlib.suppress(TenantNotBound):
                db.scalars(select(Contact)).all()
                raise AssertionError("a statement without a tenant was sent")
        finally:
            engine.dispose()
            admin.dispose()


@contextlib.contextmanager
def members() -> Iterator[Names]:
    """A database with the tables of members, pools that log in as the app's role, and the people whom the page names."""
    from psycopg_pool import ConnectionPool

    caps = Capabilities(contacts=("read", "write", "export"), users=("manage",))
    policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write], admin=[caps.contacts.export])
    tenancy = Tenancy(
        MetaData(), policy=policy, key_type=KeyType.TEXT, seal=SealKeyring(current=SealKey.generate(1)), parts=[members_part(policy)]
    )
    with Cluster() as server:
        admin = create_engine(server.url())
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE ROLE axis_app LOGIN")
        tenancy.plan(admin).apply(admin)
        admin.dispose()
        as_app = server.dsn(user="axis_app")
        with (
            ConnectionPool(as_app, min_size=1, max_size=2, open=True) as bound,
            ConnectionPool(as_app, min_size=1, max_size=2, open=True) as unbound,
        ):
            people = {name: Principal(tenant="acme", user=name, role="owner") for name in ("ann", "ben")}
            yield {
                "pool": tenancy.install(bound), "plain_pool": unbound, "acting_as": acting_as, "Principal": Principal, "new_id": "acme", "founder": "ann", "owner": people["ann"],
                "admin": people["ann"], "digest": b"1" * 32, "digest_of_another": b"2" * 32, "verified_address": "new@example.org",
                "new_user": "ben", "new_owner": people["ben"],
            }  # fmt: skip


@contextlib.contextmanager
def declared() -> Iterator[Names]:
    """A tenancy with one table on a database of its own, and its administrator's connection."""
    from psycopg_pool import ConnectionPool

    class Base(DeclarativeBase):
        """The app's tables."""

    class Contact(Base):
        """One of them."""

        __tablename__ = "contact"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]

    seal = SealKeyring(current=SealKey.generate(1))
    with Cluster() as server:
        admin = create_engine(server.url())
        Base.metadata.create_all(admin)
        with admin.begin() as connection:
            connection.execute(text("CREATE ROLE axis_app LOGIN"))
        with admin.connect() as connection, ConnectionPool(server.dsn(user="axis_app"), min_size=1, open=False) as pool:
            tenancy = Tenancy(Base.metadata, seal=seal)
            tenancy.protect(Contact)
            yield {
                "Base": Base, "Contact": Contact, "seal": seal, "tenancy": tenancy, "admin": admin, "connection": connection, "pool": pool, "create_engine": create_engine,
            }  # fmt: skip
        admin.dispose()


@contextlib.contextmanager
def over_tls() -> Iterator[Names]:
    """A connection to a PostgreSQL that speaks TLS."""
    from axis_security.ops.tls import secure_dsn
    from axis_security.testing.servers import TlsCluster

    with TlsCluster() as server, psycopg.connect(secure_dsn(server.tls_dsn(), root_certificate=str(server.root_certificate))) as connection:
        yield {"connection": connection}


@contextlib.contextmanager
def keys_elsewhere() -> Iterator[Names]:
    """A key service and a ledger of what was shredded."""
    from axis_security.crypto.ledger import FileShredLedger
    from axis_security.testing.crypto import FakeKms

    with tempfile.TemporaryDirectory() as folder:
        yield {"kms": FakeKms(), "ledger": FileShredLedger(Path(folder) / "ledger", create=True)}


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Names]]] = {
    "README.md": readme,
    "docs/how-to/alembic.md": declared,
    "docs/how-to/audit-log.md": declared,
    "docs/how-to/backups.md": keys_elsewhere,
    "docs/how-to/members.md": members,
    "docs/how-to/scale-out.md": declared,
    "docs/how-to/tls.md": over_tls,
    "docs/how-to/valkey.md": declared,
}
"""By page; the others bring everything themselves."""

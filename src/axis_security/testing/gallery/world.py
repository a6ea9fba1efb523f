"""Two workspaces on one database: what the gallery's attacks are aimed at.

The attacker works for ``globex`` and is after ``acme``'s rows. Everything is set up as a host would: SQLAlchemy tables, a policy, a plan
applied to a real PostgreSQL, an engine with the tenancy installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from typing import Any, Final, Self

import psycopg
from psycopg import sql
from sqlalchemy import ForeignKey, Identity, UniqueConstraint, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from axis_security.core.clock import SYSTEM_CLOCK
from axis_security.core.context import acting_as
from axis_security.core.principal import Principal
from axis_security.core.schema import DatabaseRoles
from axis_security.rbac import Capabilities, standard_policy
from axis_security.rls import Tenancy
from axis_security.rls.sealed import SealKey, SealKeyring, seal
from axis_security.testing.cluster import TestServer

__all__ = ["ALICE", "MALLORY", "VICTIM_EMAIL", "Base", "Contact", "Country", "Deal", "World", "template_database"]

VICTIM_EMAIL: Final = "alice@acme.example"
"""An address that only the victim's tenant holds: where it shows, something leaked."""
ALICE: Final = Principal(tenant="acme", user="alice", role="member")
"""The victim."""
MALLORY: Final = Principal(tenant="globex", user="mallory", role="member")
"""The attacker: a genuine member of the other workspace."""


class Base(DeclarativeBase):
    """The gallery's tables."""


class Contact(Base):
    """A person that a workspace knows."""

    __tablename__ = "contact"
    __table_args__ = (UniqueConstraint("tenant_id", "email"),)
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tenant_id: Mapped[str]
    email: Mapped[str]
    name: Mapped[str]


class Deal(Base):
    """A sale to a contact; goes with it."""

    __tablename__ = "deal"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tenant_id: Mapped[str]
    contact_id: Mapped[int] = mapped_column(ForeignKey("contact.id", ondelete="CASCADE"))
    title: Mapped[str]


class Visit(Base):
    """A partitioned table."""

    __tablename__ = "visit"
    __table_args__ = {"postgresql_partition_by": "HASH (id)"}  # noqa: RUF012  # SQLAlchemy's own shape
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tenant_id: Mapped[str]
    page: Mapped[str]


class Country(Base):
    """Reference data, the same for all."""

    __tablename__ = "country"
    code: Mapped[str] = mapped_column(primary_key=True)


_SAMPLE: Final = (
    """INSERT INTO contact (tenant_id, email, name) SELECT t, who || '@' || t || '.example', initcap(who)
       FROM (VALUES ('acme'), ('globex')) AS w (t), (VALUES ('alice'), ('bob'), ('carol')) AS p (who)""",
    "INSERT INTO deal (tenant_id, contact_id, title) SELECT tenant_id, id, 'Deal with ' || name FROM contact",
    "INSERT INTO visit (tenant_id, page) SELECT t, '/page/' || n FROM (VALUES ('acme'), ('globex')) AS w (t), generate_series(1, 20) n",
    "INSERT INTO country (code) VALUES ('CH'), ('DE'), ('UK')",
)


def tenancy_for(roles: DatabaseRoles, keyring: SealKeyring) -> Tenancy:
    """The host's six lines."""
    caps = Capabilities(contacts=("read", "write"), users=("manage",))
    policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write])
    tenancy = Tenancy(Base.metadata, key="tenant_id", policy=policy, roles=roles, seal=keyring)
    for table in (Contact, Deal, Visit):
        tenancy.protect(table.__table__, read=caps.contacts.read, write=caps.contacts.write)
    tenancy.open(Country.__table__, reason="reference data, the same for all")
    return tenancy


@contextmanager
def template_database(server: TestServer, roles: DatabaseRoles, keyring: SealKeyring) -> Iterator[str]:
    """A database with the plan applied and the sample data in it, to make copies of."""
    with server.database("gallery") as name:
        engine = create_engine(server.url(name))
        Base.metadata.create_all(engine)
        with psycopg.connect(server.dsn(name), autocommit=True) as connection:
            for part in range(2):
                connection.execute(f"CREATE TABLE visit_{part} PARTITION OF visit FOR VALUES WITH (MODULUS 2, REMAINDER {part})".encode())
            for statement in _SAMPLE:
                connection.execute(statement)
            connection.execute("ANALYZE")
        with engine.begin() as connection:
            tenancy_for(roles, keyring).plan(connection).apply(connection)
        with psycopg.connect(server.dsn(name), autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(roles.app)))
        engine.dispose()
        yield name


class World:
    """One copy of the database, and the ways into it.

    Args:
        server: where it is.
        template: copied, so that an attack may break what it likes.
    """

    def __init__(self, server: TestServer, template: str, roles: DatabaseRoles, keyring: SealKeyring) -> None:
        self.server = server
        self.roles = roles
        self.keyring = keyring
        self.undo = ExitStack()
        self.name = self.undo.enter_context(server.database("world", template=template))
        self.acting: Callable[[Principal], AbstractContextManager[object]] = acting_as
        self.make_engine: Callable[..., Engine] = self._guarded_engine
        self.new_session: Callable[[Engine], Session] = Session

    def close(self) -> None:
        """Give everything back."""
        self.undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def superuser(self) -> psycopg.Connection[Any]:
        """A superuser's connection, in autocommit: the operator, and the one who counts the damage."""
        connection = psycopg.connect(self.server.dsn(self.name), autocommit=True)
        self.undo.callback(connection.close)
        return connection

    def admin(self, *statements: str) -> None:
        """Run *statements* as the superuser."""
        with contextlib.closing(psycopg.connect(self.server.dsn(self.name), autocommit=True)) as connection:
            for statement in statements:
                connection.execute(statement.format(**self.names).encode())

    def admin_rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What *statement* answers to the superuser."""
        with contextlib.closing(psycopg.connect(self.server.dsn(self.name), autocommit=True)) as connection:
            return connection.execute(statement.encode()).fetchall()

    @property
    def names(self) -> dict[str, str]:
        """The roles' names, for statements."""
        return {"owner": self.roles.owner, "app": self.roles.app, "system": self.roles.system, "guard": self.roles.guard}

    def app_connection(self) -> psycopg.Connection[Any]:
        """A bare connection as the application's role: what somebody has who took over the application's process but not its key."""
        connection = psycopg.connect(self.server.dsn(self.name, user=self.roles.app))
        self.undo.callback(connection.close)
        return connection

    @contextmanager
    def injected(self, principal: Principal = MALLORY) -> Iterator[psycopg.Connection[Any]]:
        """An open transaction of *principal*'s, genuinely sealed, into which the attacker can inject any SQL. Rolled back at the end."""
        connection = self.app_connection()
        try:
            connection.execute("SELECT set_config('axis.context', %s, true)", (self.sealed(principal),))
            yield connection
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
            connection.close()

    def sealed(self, principal: Principal, *, now: datetime | None = None) -> str:
        """A genuine sealed context."""
        return seal(principal, keyring=self.keyring, now=now or SYSTEM_CLOCK.now())

    def engine(self, **options: Any) -> Engine:
        """The application's engine, as the host made it; one pooled connection unless told."""
        engine = self.make_engine(**{"pool_size": 1, "max_overflow": 0, **options})
        self.undo.callback(engine.dispose)
        return engine

    def bare_engine(self, **options: Any) -> Engine:
        """An engine without any tenancy installed: the ground on which careless bindings are built, for controls."""
        return create_engine(self.server.url(self.name, user=self.roles.app), **options)

    def _guarded_engine(self, **options: Any) -> Engine:
        engine = self.bare_engine(**options)
        tenancy_for(self.roles, self.keyring).install(engine)
        return engine


def new_keyring() -> SealKeyring:
    """A keyring with one fresh key."""
    return SealKeyring(current=SealKey.generate(1))

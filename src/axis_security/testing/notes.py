"""The smallest protected database: one table of notes, its roles and its seal key, for tests of the binding and for benchmarks."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import psycopg
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, text

from axis_security.core.events import EventSink, NullSink
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.bind import TenantBinder
from axis_security.rls.context import base_part
from axis_security.rls.posture import Posture
from axis_security.rls.sealed import Sealer, SealKey, SealKeyring
from axis_security.testing.cluster import TestServer

__all__ = ["NOTE", "Notes", "notes_database"]

NOTE: Final = Table(
    "note",
    MetaData(),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", BigInteger, server_default=text("axis.claimed_tenant_id()")),
    Column("body", Text),
)
"""Key, tenant and one text."""


@dataclass(frozen=True, kw_only=True)
class Notes:
    """One database with the protected table ``note``.

    Args:
        server: where it is.
        dbname: its name.
        roles: its roles; ``app`` and ``system`` may log in.
        keyring: its seal key.
        sink: takes events of the posture check.
    """

    server: TestServer
    dbname: str
    roles: DatabaseRoles
    keyring: SealKeyring
    sink: EventSink = field(default_factory=NullSink)
    _tenants: Iterator[int] = field(default_factory=lambda: itertools.count(1 + secrets.randbelow(2**30) * 1000))

    @property
    def binder(self) -> TenantBinder:
        """Seals with the database's key, for longer than any pause of a busy machine."""
        return TenantBinder(seal=Sealer(self.keyring, lasting=timedelta(hours=1)), key_type=KeyType.INT)

    @property
    def posture(self) -> Posture:
        """The check of the application's login."""
        return Posture(roles=self.roles, sink=self.sink)

    def dsn(self, user: str | None = None) -> str:
        """As the app role, unless told."""
        return self.server.dsn(self.dbname, user=user or self.roles.app)

    def url(self, driver: str = "psycopg", user: str | None = None) -> str:
        """As the app role, unless told."""
        return self.server.url(self.dbname, user=user or self.roles.app, driver=driver)

    def dsn_for_asyncpg(self) -> str:
        """As a URL, which is what asyncpg takes."""
        return self.url().replace("postgresql+psycopg://", "postgresql://")

    def new_tenant(self) -> int:
        """A tenant that nobody used before."""
        return next(self._tenants)


@contextlib.contextmanager
def notes_database(server: TestServer, *, sink: EventSink | None = None) -> Iterator[Notes]:
    """A fresh database with its own roles, gone at the end of the block."""
    roles = DatabaseRoles.prefixed(f"notes_{secrets.token_hex(4)}")
    keyring = SealKeyring(current=SealKey.generate(1))
    inner, outer = keyring.current.blocks()
    with server.database("notes") as dbname:
        with psycopg.connect(server.dsn(dbname), autocommit=True) as admin:
            for login in (roles.owner, roles.app, roles.system):
                admin.execute(f"CREATE ROLE {login} LOGIN")  # plain identifiers
                admin.execute(f"ALTER ROLE {login} SET lock_timeout = '60s'")  # a test that would hang fails
            admin.execute(f"CREATE ROLE {roles.guard}")
            for statement in base_part(KeyType.INT).create(roles):
                admin.execute(statement)  # our own SQL
            admin.execute("INSERT INTO axis.seal_key VALUES (1, %s, %s)", [inner.reveal(), outer.reveal()])
            for statement in _table(roles):
                admin.execute(statement)
        try:
            yield Notes(server=server, dbname=dbname, roles=roles, keyring=keyring, sink=NullSink() if sink is None else sink)
        finally:
            with psycopg.connect(server.dsn(dbname), autocommit=True) as admin:
                # A test that was stopped in the middle leaves transactions open, and dropping would wait for them without end.
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                for role in (roles.app, roles.system, roles.owner, roles.guard):
                    admin.execute(f"DROP OWNED BY {role} CASCADE")
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            admin.execute(f"DROP ROLE {role}")


def _table(roles: DatabaseRoles) -> list[str]:
    return [
        "CREATE TABLE note (id bigint PRIMARY KEY, tenant_id bigint NOT NULL DEFAULT axis.claimed_tenant_id(), body text NOT NULL)",
        "CREATE INDEX ON note (tenant_id)",
        f"ALTER TABLE note OWNER TO {roles.owner}",
        "ALTER TABLE note ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE note FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY floor ON note AS RESTRICTIVE TO {roles.app} USING (tenant_id = (SELECT axis.tenant_id()))",
        f"CREATE POLICY app ON note TO {roles.app} USING (true)",
        f"CREATE POLICY system ON note TO {roles.system} USING (true)",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON note TO {roles.app}, {roles.system}",
    ]

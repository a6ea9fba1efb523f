"""The declared example that the plan's tests share: every shape of table in one small schema."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from axis_security.core.grants import Grant, OwnedByUser
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.plan import Plan
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

ODD = 'odd "name"; %s'


class ExamplePolicy:
    """Members read, and change what is theirs; admins change everything."""

    def grants(self) -> Sequence[Grant]:
        return [
            Grant("member", "contacts.read"),
            Grant("member", "contacts.write", OwnedByUser("owner_id")),
            Grant("admin", "contacts.read"),
            Grant("admin", "contacts.write"),
            Grant("member", "deals.read"),
            Grant("admin", "deals.read"),
            Grant("admin", "deals.write"),
        ]


@dataclass
class Example:
    """A database with the tables, and the tenancy that protects them; nothing is applied yet."""

    cluster: Cluster
    database: str
    engine: sa.Engine
    tenancy: Tenancy
    roles: DatabaseRoles
    keyring: SealKeyring

    def plan(self) -> Plan:
        return self.tenancy.plan(self.engine)

    def execute(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for sql in statements:
                connection.exec_driver_sql(sql)


def declare(
    roles: DatabaseRoles, keyring: SealKeyring | None, key_type: Any = sa.BigInteger, policy: ExamplePolicy | None = None
) -> Tenancy:
    """The tenancy of the example, on metadata of its own."""
    metadata = sa.MetaData()

    def tenant() -> sa.Column[Any]:
        return sa.Column("tenant_id", key_type)

    def key() -> sa.Column[Any]:
        return sa.Column("id", sa.BigInteger, primary_key=True)

    contact = sa.Table("contact", metadata, key(), tenant(), sa.Column("owner_id", sa.BigInteger, index=True), sa.Column("name", sa.Text))
    deal = sa.Table(
        "deal",
        metadata,
        key(),
        tenant(),
        sa.Column("contact_id", sa.ForeignKey("contact.id", ondelete="CASCADE")),
        sa.Column("parent_id", sa.ForeignKey("deal.id", ondelete="SET NULL")),
    )
    event = sa.Table(
        "event",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("day", sa.Date, primary_key=True),
        tenant(),
        sa.Column("contact_id", sa.ForeignKey("contact.id")),
        postgresql_partition_by="RANGE (day)",
    )
    odd = sa.Table(ODD, metadata, key(), tenant(), schema='Odd "s')
    country = sa.Table("country", metadata, sa.Column("code", sa.Text, primary_key=True))
    tenancy = Tenancy(metadata, roles=roles, seal=keyring, policy=policy)
    tenancy.protect(contact, read="contacts.read" if policy else None, write="contacts.write" if policy else None)
    tenancy.protect(deal, read="deals.read" if policy else None, write="deals.write" if policy else None)
    tenancy.protect(event)
    tenancy.protect(odd)
    tenancy.open(country, reason="reference data, same for all")
    return tenancy


@contextmanager
def example(cluster: Cluster, key_type: Any = sa.BigInteger, policy: ExamplePolicy | None = None) -> Iterator[Example]:
    """The example's tables in a fresh database; roles and database go when the block ends."""
    roles = DatabaseRoles.prefixed("rlsplan_" + secrets.token_hex(4))
    keyring = SealKeyring(current=SealKey.generate(1))
    tenancy = declare(roles, keyring, key_type, policy)
    with cluster.database("rlsplan") as database:
        engine = sa.create_engine(cluster.url(database))
        made = Example(cluster, database, engine, tenancy, roles, keyring)
        try:
            made.execute('CREATE SCHEMA "Odd ""s"')
            tenancy.metadata.create_all(engine)
            made.execute("CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')")
            yield made
        finally:
            engine.dispose()
    with sa.create_engine(cluster.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")

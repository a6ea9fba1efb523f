"""A database with the base and the members part, and connections bound by the real seal."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import pytest

from axis_security import Principal
from axis_security.core.context import current_principal
from axis_security.core.events import AuditEvent
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles
from axis_security.rbac import Capabilities, Policy, standard_policy
from axis_security.rbac.members_sql import members_part
from axis_security.rbac.store_postgres import PostgresMembers
from axis_security.rls.context import base_part
from axis_security.rls.sealed import SealKey, SealKeyring, seal
from axis_security.testing.cluster import Cluster

ROLES: Final = ("viewer", "member", "admin", "owner")


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        """Keep it."""
        self.events.append(event)


@dataclass
class World:
    """One database: its policy, its seal, and ways in."""

    cluster: Cluster
    name: str
    roles: DatabaseRoles
    keyring: SealKeyring
    policy: Policy
    sink: Kept

    def bind(self, conn: psycopg.Connection[Any], principal: Principal) -> None:
        """Bind *principal* to the transaction, as the drivers' guard does at BEGIN."""
        conn.execute("SELECT set_config('axis.context', %s, true)", (seal(principal, keyring=self.keyring, now=datetime.now(UTC)),))

    def connect(self, role: str) -> psycopg.Connection[Any]:
        """A connection as database role *role*."""
        return psycopg.connect(self.cluster.dsn(self.name, user=role))

    @contextlib.contextmanager
    def superuser(self) -> Iterator[psycopg.Connection[Any]]:
        """An autocommitting superuser's connection."""
        with psycopg.connect(self.cluster.dsn(self.name), autocommit=True) as conn:
            yield conn

    def members(self) -> PostgresMembers:
        """The store; a connection per call."""
        return PostgresMembers(self.policy, bound=Source(self, bound=True), unbound=Source(self, bound=False))

    def workspace(self, **people: str) -> str:
        """A workspace with *people* (user to role), put there behind the functions' back."""
        tenant = "t" + secrets.token_hex(6)
        with self.superuser() as conn:
            conn.execute("INSERT INTO axis.tenant (tenant, name) VALUES (%s, 'W')", (tenant,))
            for user, role in people.items():
                conn.execute("INSERT INTO axis.membership (tenant, user_id, role) VALUES (%s, %s, %s)", (tenant, user, role))
        return tenant

    def people(self, tenant: str) -> dict[str, str]:
        """Who is in the workspace, seen from above."""
        with self.superuser() as conn:
            return dict(conn.execute("SELECT user_id, role FROM axis.membership WHERE tenant = %s", (tenant,)).fetchall())


@dataclass
class Source:
    """Gives a fresh connection per block, bound to the acting principal."""

    world: World
    bound: bool

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """One transaction."""
        with self.world.connect(self.world.roles.app) as conn:
            if self.bound:
                self.world.bind(conn, current_principal())
            yield conn


@pytest.fixture(scope="session")
def world(cluster: Cluster) -> Iterator[World]:
    """The database, made once; tests use workspaces of their own in it."""
    caps = Capabilities(contacts=("read", "write"), users=("manage",))
    sink = Kept()
    policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write], events=sink)
    roles = DatabaseRoles.prefixed("rbac_" + secrets.token_hex(4))
    key = SealKey.generate(1)
    with cluster.database("rbac") as name:
        with psycopg.connect(cluster.dsn(name), autocommit=True) as conn:
            for role, login in ((roles.owner, "LOGIN"), (roles.app, "LOGIN"), (roles.system, "LOGIN"), (roles.guard, "NOLOGIN")):
                conn.execute(f"CREATE ROLE {role} {login} NOINHERIT")
            for part in (base_part(KeyType.TEXT), members_part(policy), members_part(policy)):
                for statement in part.create(roles):
                    conn.execute(statement)
            inner, outer = key.blocks()
            conn.execute("INSERT INTO axis.seal_key VALUES (1, %s, %s)", (inner.reveal(), outer.reveal()))
        yield World(cluster, name, roles, SealKeyring(current=key), policy, sink)
    with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
        for role in (roles.owner, roles.app, roles.system, roles.guard):
            conn.execute(f"DROP ROLE {role}")

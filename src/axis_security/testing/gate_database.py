"""A :class:`~axis_security.testing.gate_world.GateWorld` whose sessions and members are in a real PostgreSQL."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from axis_security.auth.store_postgres import PostgresVault
from axis_security.auth.vault_sql import VAULT
from axis_security.core.ids import KeyType, UserId
from axis_security.core.schema import DatabaseRoles
from axis_security.rbac.capability import Capabilities
from axis_security.rbac.members_sql import members_part
from axis_security.rbac.policy import standard_policy
from axis_security.rls.context import base_part
from axis_security.testing.auth_world import AuthWorld
from axis_security.testing.cluster import TestServer
from axis_security.testing.gate_world import GateWorld
from axis_security.wiring.identity import VaultIdentity

__all__ = ["GateDatabase", "gate_database"]


class DatabaseMembers:
    """Puts memberships into the table behind the functions' back."""

    def __init__(self, dsn: str) -> None:
        self._dsn: Final = dsn

    def put(self, tenant: str, user: UserId, role: str, state: str = "active") -> None:
        """Make *user* a member, or change what they are."""
        after = datetime.now(UTC) if state == "deleting" else None
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute(
                "INSERT INTO axis.tenant (tenant, name, state, delete_after) VALUES (%s, 'W', %s, %s)"
                " ON CONFLICT (tenant) DO UPDATE SET state = excluded.state, delete_after = excluded.delete_after",
                (tenant, state, after),
            )
            conn.execute(
                "INSERT INTO axis.membership (tenant, user_id, role) VALUES (%s, %s, %s) ON CONFLICT (tenant, user_id) DO UPDATE SET role = excluded.role",
                (tenant, user.text, role),
            )

    def remove(self, tenant: str, user: UserId) -> None:
        """End a membership."""
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute("DELETE FROM axis.membership WHERE tenant = %s AND user_id = %s", (tenant, user.text))


@dataclass(frozen=True)
class GateDatabase:
    """A world, and the way to its database as the app role."""

    world: GateWorld
    dsn: str


@contextlib.contextmanager
def gate_database(server: TestServer) -> Iterator[GateDatabase]:
    """A database with roles, vault and members, and a world over it; dropped afterwards."""
    from psycopg_pool import ConnectionPool

    roles = DatabaseRoles.prefixed("gate_" + secrets.token_hex(4))
    caps = Capabilities(contacts=("read", "write"), users=("manage",))
    policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write])
    with server.database("gate") as name:
        with psycopg.connect(server.dsn(name), autocommit=True) as conn:
            for role, login in ((roles.owner, "LOGIN"), (roles.app, "LOGIN"), (roles.system, "LOGIN"), (roles.guard, "NOLOGIN")):
                conn.execute(f"CREATE ROLE {role} {login} NOINHERIT".encode())
            for part in (base_part(KeyType.TEXT), VAULT, members_part(policy)):
                for statement in part.create(roles):
                    conn.execute(statement.encode())
        dsn = server.dsn(name, user=roles.app)
        members: Any = DatabaseMembers(server.dsn(name))
        with ConnectionPool(dsn, min_size=1, max_size=4) as pool:
            vault = PostgresVault(pool)
            world = AuthWorld(store=vault, start=datetime.now(UTC))
            yield GateDatabase(GateWorld(world=world, members=members, identity=VaultIdentity(vault)), dsn)

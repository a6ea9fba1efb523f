"""A database with the base and the vault part, and pools as its app role."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from axis_security.auth.store_postgres import PostgresVault
from axis_security.auth.vault_sql import VAULT
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.context import base_part
from axis_security.testing.cluster import Cluster


@dataclass
class VaultWorld:
    """One database with a vault."""

    cluster: Cluster
    name: str
    roles: DatabaseRoles
    vault: PostgresVault

    def dsn(self, role: str | None = None) -> str:
        """A connection string as *role*, or as the superuser."""
        return self.cluster.dsn(self.name, user=role) if role else self.cluster.dsn(self.name)

    @contextlib.contextmanager
    def superuser(self) -> Iterator[psycopg.Connection[Any]]:
        """An autocommitting superuser's connection."""
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            yield conn


@contextlib.contextmanager
def vault_world(cluster: Cluster, *, size: int = 8) -> Iterator[VaultWorld]:
    """Make the database and its roles, and drop them at the end."""
    roles = DatabaseRoles.prefixed("vault_" + secrets.token_hex(4))
    with cluster.database("vault") as name:
        with psycopg.connect(cluster.dsn(name), autocommit=True) as conn:
            for role, login in ((roles.owner, "LOGIN"), (roles.app, "LOGIN"), (roles.system, "LOGIN"), (roles.guard, "NOLOGIN")):
                conn.execute(f"CREATE ROLE {role} {login} NOINHERIT")
            for part in (base_part(KeyType.TEXT), VAULT, VAULT):
                for statement in part.create(roles):
                    conn.execute(statement)
        pool = ConnectionPool(cluster.dsn(name, user=roles.app), min_size=1, max_size=size, open=False, timeout=20, reconnect_timeout=20)
        with pool:
            yield VaultWorld(cluster, name, roles, PostgresVault(pool))
    with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
        for role in (roles.owner, roles.app, roles.system, roles.guard):
            conn.execute(f"DROP ROLE {role}")


@pytest.fixture(scope="session")
def world(cluster: Cluster) -> Iterator[VaultWorld]:
    """The vault, made once; tests use accounts of their own in it."""
    with vault_world(cluster) as made:
        yield made

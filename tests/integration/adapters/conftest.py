"""The Flask example's security on a database of its own, for tests of the example and of background tasks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from examples.flask_notes.security import Base, secure
from examples.people import move_in
from sqlalchemy import create_engine

from axis_security.core.schema import DatabaseRoles
from axis_security.core.settings import Environment
from axis_security.testing.cluster import Cluster
from axis_security.wiring.axis import Axis
from axis_security.wiring.keys import AppKeys


@dataclass(frozen=True)
class Notes:
    """Everything wired, with people moved in, and the keys."""

    axis: Axis[Any, Any]
    keys: AppKeys


@pytest.fixture(scope="session")
def notes(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notes]:
    """One database with roles of its own; for the whole session, because the example's policy is a module's and has one place for its events."""
    home: Path = tmp_path_factory.mktemp("notes")
    roles = DatabaseRoles.prefixed(f"fnotes_{secrets.token_hex(4)}")
    with cluster.database("flask_notes") as name:
        admin = create_engine(cluster.url(name))
        keys = AppKeys.generate(environment=Environment.TEST)
        axis = secure(cluster.url(name, user=roles.app), keys, home=home, environment=Environment.DEVELOPMENT, roles=roles)
        Base.metadata.create_all(admin)
        axis.plan(admin).apply(admin)
        with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
            connection.execute(f"ALTER ROLE {roles.app} LOGIN")  # plain identifier
        move_in(axis)
        try:
            yield Notes(axis, keys)
        finally:
            axis.close()
            axis.engine.dispose()
            admin.dispose()
            with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
                for role in (roles.app, roles.system, roles.owner, roles.guard):
                    connection.execute(f"DROP OWNED BY {role} CASCADE")
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            connection.execute(f"DROP ROLE {role}")

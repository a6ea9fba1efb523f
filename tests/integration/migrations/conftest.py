"""An application with an Alembic chain of its own, on a database of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from axis_security.core.events import AuditEvent
from axis_security.core.schema import DatabaseRoles
from axis_security.rbac import Capabilities, standard_policy
from axis_security.rls.migrate import Migrations
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

ENV = """
from alembic import context

settings = context.config.attributes
migrations = settings["migrations"]
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=migrations.tenancy.metadata,
                      **migrations.options(None, output_buffer=context.config.output_buffer))
    context.run_migrations()
else:
    with settings["engine"].connect() as connection:
        context.configure(target_metadata=migrations.tenancy.metadata, compare_server_default=True, **migrations.options(connection))
        with context.begin_transaction():
            context.run_migrations()
"""
SCRIPT = '''"""${message}"""
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
'''


class Kept:
    """A sink that keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        """Keep it."""
        self.events.append(event)


def crm() -> sa.MetaData:
    """Two tables of a tenant's, one pointing at the other, and one for all."""
    metadata = sa.MetaData()
    sa.Table(
        "contact",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("tenant_id", sa.BigInteger),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text),
    )
    sa.Table(
        "deal",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("tenant_id", sa.BigInteger, nullable=False),
        sa.Column("contact_id", sa.BigInteger, sa.ForeignKey("contact.id", ondelete="CASCADE")),
    )
    sa.Table("country", metadata, sa.Column("code", sa.Text, primary_key=True))
    return metadata


@dataclass
class App:
    """The chain, its database and its declaration."""

    cluster: Cluster
    database: str
    roles: DatabaseRoles
    home: Path
    tenancy: Tenancy
    sink: Kept
    engine: sa.Engine
    login: str | None = None

    @property
    def migrations(self) -> Migrations:
        """As env.py makes them."""
        return Migrations(self.tenancy, sink=self.sink)

    def config(self, **attributes: Any) -> Config:
        """Alembic's settings for this chain."""
        config = Config()
        config.set_main_option("script_location", str(self.home))
        config.attributes.update({"migrations": self.migrations, "engine": self.engine, **attributes})
        return config

    def revise(self, number: str, *, body: str | None = None, check: bool = True) -> str:
        """Add a revision, by autogenerate or with *body*; returns the file's text."""
        command.revision(self.config(), message=f"r{number}", autogenerate=body is None, rev_id=number)
        (path,) = (self.home / "versions").glob(f"{number}_*.py")
        source = path.read_text()
        if body is not None:
            head, _, tail = source.partition("def upgrade():\n    pass")
            assert tail
            path.write_text(head + "def upgrade():\n" + "\n".join("    " + line for line in body.splitlines()) + tail)
        if check:
            compile(path.read_text(), str(path), "exec")
        return path.read_text()

    def upgrade(self, to: str = "head") -> None:
        """Run the chain."""
        command.upgrade(self.config(), to)

    def downgrade(self, to: str) -> None:
        """Run it backwards."""
        command.downgrade(self.config(), to)

    def check(self) -> None:
        """``alembic check``."""
        command.check(self.config())

    def superuser(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements from above; the rows of the last."""
        with psycopg.connect(self.cluster.dsn(self.database), autocommit=True) as conn:
            found: list[tuple[Any, ...]] = []
            for sql in statements:
                cursor = conn.execute(sql)
                found = cursor.fetchall() if cursor.description else []
            return found

    @contextmanager
    def as_owner(self) -> Iterator[App]:
        """The same chain, run by the tables' owner, who is no superuser and may make no role."""
        engine = sa.create_engine(self.cluster.url(self.database, user=self.roles.owner))
        try:
            yield App(self.cluster, self.database, self.roles, self.home, self.tenancy, self.sink, engine)
        finally:
            engine.dispose()


@pytest.fixture
def start(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Makes applications, each with a database and roles of its own."""
    made: list[App] = []

    def make(metadata: sa.MetaData | None = None) -> App:
        metadata = crm() if metadata is None else metadata
        home = tmp_path / f"chain{len(made)}"
        (home / "versions").mkdir(parents=True)
        (home / "env.py").write_text(ENV)
        (home / "script.py.mako").write_text(SCRIPT)
        caps = Capabilities(contacts=("read", "write"), users=("manage",))
        policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write])
        roles = DatabaseRoles.prefixed("mig_" + secrets.token_hex(4))
        tenancy = Tenancy(metadata, policy=policy, roles=roles, seal=SealKeyring(current=SealKey.generate(1)))
        if "contact" in metadata.tables:
            tenancy.protect(metadata.tables["contact"], read=caps.contacts.read, write=caps.contacts.write)
            tenancy.protect(metadata.tables["deal"], read=caps.contacts.read)
            tenancy.open(metadata.tables["country"], reason="the same for all")
        database = cluster.create_database("migrate")
        app = App(cluster, database, roles, home, tenancy, Kept(), sa.create_engine(cluster.url(database)))
        made.append(app)
        return app

    yield make
    for app in made:
        app.engine.dispose()
        cluster.drop_database(app.database)
        with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
            for role in (app.roles.owner, app.roles.app, app.roles.system, app.roles.guard):
                conn.execute(f"DROP ROLE IF EXISTS {role}")


@pytest.fixture
def app(start: Callable[..., App]) -> App:
    """The little CRM; nothing is migrated yet."""
    return start()

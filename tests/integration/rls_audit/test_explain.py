"""A refusal is explained to whoever was refused, and nothing is told about rows that they may not see."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from axis_security.core.context import acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.grants import Grant, OwnedByUser
from axis_security.core.principal import Principal
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.explain import Verdict
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster

METADATA = sa.MetaData()
CONTACT = sa.Table(
    "contact",
    METADATA,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("owner_id", sa.Text),
    sa.Column("version", sa.Integer),
)
DOC = sa.Table(
    "doc",
    METADATA,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("tenant_id", sa.Text),
    sa.Column("guest", sa.Text),
    sa.Column("title", sa.Text),
)
COUNTRY = sa.Table("country", METADATA, sa.Column("code", sa.Text, primary_key=True))
STRAY = sa.Table("stray", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))

MINE, COLLEAGUE, THEIRS, MISSING = (uuid.uuid4() for _ in range(4))


class Policy:
    """Members read, and change what is theirs; admins everything; writers add without reading; guests nothing."""

    def grants(self) -> Sequence[Grant]:
        return [
            Grant("member", "contacts.read"),
            Grant("member", "contacts.write", OwnedByUser("owner_id")),
            Grant("admin", "contacts.read"),
            Grant("admin", "contacts.write"),
            Grant("writer", "contacts.write"),
        ]


def who(role: str, user: str = "me") -> Principal:
    """Somebody of the first tenant."""
    return Principal(tenant="acme", user=user, role=role)


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[tuple[Tenancy, sa.Engine]]:
    """Three contacts: mine, a colleague's, and one of another tenant."""
    roles = DatabaseRoles.prefixed("explain_" + secrets.token_hex(4))
    tenancy = Tenancy(METADATA, roles=roles, seal=SealKeyring(current=SealKey.generate(1)), policy=Policy())
    tenancy.protect(CONTACT, read="contacts.read", write="contacts.write")
    tenancy.protect(DOC, visible_to="guest")
    tenancy.open(COUNTRY, reason="the same for all")
    with cluster.database("explain") as database:
        admin = sa.create_engine(cluster.url(database))
        METADATA.create_all(admin)
        tenancy.plan(admin).apply(admin)
        with admin.begin() as connection:
            rows = [(MINE, "acme", "me"), (COLLEAGUE, "acme", "she"), (THEIRS, "globex", "me")]
            connection.execute(sa.insert(CONTACT), [{"id": i, "tenant_id": t, "owner_id": o, "version": 2} for i, t, o in rows])
            connection.execute(
                sa.insert(DOC),
                [{"id": THEIRS, "tenant_id": "globex", "guest": "acme"}, {"id": MINE, "tenant_id": "acme", "guest": "globex"}],
            )
        engine = sa.create_engine(cluster.url(database, user=roles.app))
        tenancy.install(engine)
        yield tenancy, engine
        engine.dispose()
        admin.dispose()
    with sa.create_engine(cluster.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")


def update(row: uuid.UUID, *, version: int | None = None) -> sa.Update:
    """One contact's new version."""
    statement = sa.update(CONTACT).where(CONTACT.c.id == row).values(version=3)
    return statement if version is None else statement.where(CONTACT.c.version == version)


@pytest.mark.parametrize(
    ("role", "statement", "verdict"),
    [
        ("guest", sa.select(CONTACT), Verdict.NOT_ALLOWED),
        ("guest", update(MINE), Verdict.NOT_ALLOWED),
        ("member", sa.select(CONTACT).where(CONTACT.c.id == MINE), Verdict.ALLOWED),
        ("member", update(MINE), Verdict.ALLOWED),
        ("member", update(COLLEAGUE), Verdict.NOT_ALLOWED),
        ("admin", update(COLLEAGUE), Verdict.ALLOWED),
        ("member", update(MINE, version=1), Verdict.STALE),
        ("member", update(MINE, version=2), Verdict.ALLOWED),
        ("member", update(THEIRS), Verdict.HIDDEN),
        ("member", update(MISSING), Verdict.HIDDEN),
        ("member", update(THEIRS, version=1), Verdict.HIDDEN),
        ("member", sa.delete(CONTACT).where(CONTACT.c.id == THEIRS), Verdict.HIDDEN),
        ("writer", update(MINE), Verdict.HIDDEN),
        ("admin", sa.insert(CONTACT).values(id=MISSING, tenant_id="globex"), Verdict.NOT_ALLOWED),
        ("admin", sa.insert(CONTACT).values(id=MISSING), Verdict.ALLOWED),
        ("guest", sa.select(DOC).where(DOC.c.id == THEIRS), Verdict.ALLOWED),
        ("guest", sa.update(DOC).where(DOC.c.id == THEIRS).values(title="x"), Verdict.NOT_ALLOWED),
        ("guest", sa.update(DOC).where(DOC.c.id == MINE).values(title="x"), Verdict.ALLOWED),
        ("guest", sa.select(COUNTRY), Verdict.ALLOWED),
        ("admin", sa.delete(COUNTRY), Verdict.NOT_ALLOWED),
    ],
)
def test_the_reason_is_told(world: tuple[Tenancy, sa.Engine], role: str, statement: Any, verdict: Verdict) -> None:
    """Role, row and version each have their answer, on a connection and in a session."""
    tenancy, engine = world
    with acting_as(who(role)):
        with engine.connect() as connection:
            found = tenancy.explain(statement, connection)
            assert found.verdict is verdict, str(found)
        with Session(engine) as session:
            assert tenancy.explain(statement, session) == found


def test_nobody_is_told_first(world: tuple[Tenancy, sa.Engine]) -> None:
    """Unbound: no probe is sent at all."""
    tenancy, _ = world
    found = tenancy.explain(update(MINE), connection=object())
    assert found.verdict is Verdict.UNBOUND
    assert found.http_status == 401


@pytest.mark.parametrize("role", ["guest", "member", "admin", "writer"])
def test_a_missing_row_and_another_tenant_s_row_are_one(world: tuple[Tenancy, sa.Engine], role: str) -> None:
    """For every command, with and without further conditions: the same words, and the same statements sent."""
    tenancy, engine = world
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda conn, cursor, text, params, context, many: sent.append(text))
    seen: dict[tuple[Any, ...], list[tuple[str, list[str]]]] = {}
    with acting_as(who(role)), engine.connect() as connection:
        for row, extra, command in itertools.product((THEIRS, MISSING), (False, True), ("select", "update", "delete")):
            where = CONTACT.c.id == row
            if extra:
                where = sa.and_(where, CONTACT.c.version == 2, CONTACT.c.owner_id == "me")
            made: Any = {"select": sa.select(CONTACT), "update": sa.update(CONTACT).values(version=1), "delete": sa.delete(CONTACT)}[
                command
            ]
            sent.clear()
            found = tenancy.explain(made.where(where), connection)
            seen.setdefault((extra, command), []).append((str(found), list(sent)))
    for (_, command), (theirs, missing) in seen.items():
        assert theirs == missing, command


def test_strangers_get_one_fixed_sentence(world: tuple[Tenancy, sa.Engine]) -> None:
    """The public form names no table, column, capability or value, and carries a status."""
    tenancy, engine = world
    with acting_as(who("member")), engine.connect() as connection:
        for statement, status in ((update(COLLEAGUE), 403), (update(MINE, version=1), 409), (update(THEIRS), 404)):
            found = tenancy.explain(statement, connection)
            assert found.http_status == status
            told = " ".join(found.public().values())
            assert not any(word in told for word in ("contact", "owner_id", "contacts.write", "globex", str(THEIRS)))
            assert str(MINE) not in str(found)


def test_without_a_connection_the_declaration_answers(world: tuple[Tenancy, sa.Engine]) -> None:
    """Roles are told from the policy alone; rows are not guessed at."""
    tenancy, _ = world
    with acting_as(who("guest")):
        assert tenancy.explain(update(MINE)).verdict is Verdict.NOT_ALLOWED
    with acting_as(who("member")):
        assert tenancy.explain(update(THEIRS)).verdict is Verdict.ALLOWED


@pytest.mark.parametrize(
    "statement", [sa.text("SELECT 1"), "UPDATE contact", sa.select(sa.literal(1)), sa.select(STRAY), sa.select(CONTACT, COUNTRY)]
)
def test_what_cannot_be_explained_is_refused(world: tuple[Tenancy, sa.Engine], statement: Any) -> None:
    """Text, several tables, undeclared ones: an error that says what is taken."""
    tenancy, _ = world
    with acting_as(who("member")), pytest.raises(ConfigError):
        tenancy.explain(statement)

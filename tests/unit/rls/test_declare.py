"""Declaring tables: what is refused, at the line that declares it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from axis_security.core.errors import ConfigError
from axis_security.core.grants import Grant, OwnedByUser, PythonOnly
from axis_security.core.ids import KeyType
from axis_security.rls import SealKey, Tenancy, UndeclaredTable, UnusableTable
from axis_security.rls.keys import made_name
from axis_security.rls.model import quote
from axis_security.rls.predicate import text_literal


class Policy:
    """Grants under every kind of condition."""

    def grants(self) -> Sequence[Grant]:
        return [
            Grant("member", "plain"),
            Grant("member", "own", OwnedByUser("owner_id")),
            Grant("member", "odd", OwnedByUser("elsewhere")),
            Grant("member", "price", OwnedByUser("price")),
            Grant("member", "python", PythonOnly("is_weekday")),
        ]


def table(key: Any = sa.BigInteger, name: str = "contact", metadata: sa.MetaData | None = None) -> sa.Table:
    columns = [sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("owner_id", sa.Uuid), sa.Column("price", sa.Numeric)]
    if key is not None:
        columns.append(sa.Column("tenant_id", key))
    return sa.Table(name, metadata if metadata is not None else sa.MetaData(), *columns)


@pytest.mark.parametrize(
    ("key", "key_type"),
    [
        (sa.BigInteger, KeyType.INT),
        (sa.SmallInteger, KeyType.INT),
        (sa.Uuid, KeyType.UUID),
        (sa.Text, KeyType.TEXT),
        (sa.String(9), KeyType.TEXT),
    ],
)
def test_the_key_type_comes_from_the_column(key: Any, key_type: KeyType) -> None:
    """Nobody states the type twice."""
    made = table(key)
    tenancy = Tenancy(made.metadata)
    tenancy.protect(made)
    assert tenancy.key_type is key_type


def test_a_mapped_class_is_a_table() -> None:
    """protect() takes the class that the host already has."""

    class Base(DeclarativeBase):
        pass

    class Contact(Base):
        __tablename__ = "contact"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]

    tenancy = Tenancy(Base.metadata)
    tenancy.protect(Contact)
    assert [declared.table.name for declared in tenancy.model().tables] == [("public", "contact")]


@pytest.mark.parametrize("key", [None, sa.Numeric, sa.Enum("a", "b", name="e"), sa.Boolean, sa.DateTime])
def test_a_table_without_a_usable_key_is_refused(key: Any) -> None:
    """No tenant column, or one whose equality cannot use an index under row security: refused at protect()."""
    made = table(key)
    with pytest.raises(UnusableTable):
        Tenancy(made.metadata).protect(made)


def test_keys_of_two_types_are_refused() -> None:
    """One tenancy has one type of key."""
    metadata = sa.MetaData()
    tenancy = Tenancy(metadata)
    tenancy.protect(table(sa.Uuid, "a", metadata))
    with pytest.raises(UnusableTable, match="uuid"):
        tenancy.protect(table(sa.Text, "b", metadata))


@pytest.mark.parametrize("capability", ["python", "odd", "price"])
def test_conditions_that_sql_cannot_hold_are_refused(capability: str) -> None:
    """A Python predicate, a column that is not there, or one that holds no id: refused at protect(), with the fix."""
    made = table()
    with pytest.raises(UnusableTable) as caught:
        Tenancy(made.metadata, policy=Policy()).protect(made, write=capability)
    assert caught.value.fix


def test_every_undeclared_table_is_named() -> None:
    """The error lists all of them, and a failed protect() decides nothing."""
    metadata = sa.MetaData()
    for name in "abc":
        table(name=name, metadata=metadata)
    tenancy = Tenancy(metadata)
    tenancy.protect(metadata.tables["a"])
    with pytest.raises(UndeclaredTable, match=r"`public\.b`, `public\.c`"):
        tenancy.model()


def test_misuse_is_refused() -> None:
    """Twice declared, no reason, unknown writes, capabilities without a policy, foreign tables, non-tables."""
    made = table()
    tenancy = Tenancy(made.metadata)
    with pytest.raises(ConfigError):
        tenancy.open(made, reason="  ")
    with pytest.raises(ConfigError):
        tenancy.open(made, reason="why not", writes=["truncate"])
    with pytest.raises(ConfigError):
        tenancy.protect(made, read="contacts.read")
    with pytest.raises(ConfigError):
        tenancy.protect(table())
    with pytest.raises(ConfigError):
        tenancy.protect("contact")
    tenancy.protect(made)
    with pytest.raises(ConfigError):
        tenancy.open(made, reason="changed my mind")
    with pytest.raises(ConfigError):
        tenancy.plan("postgresql://nowhere")


def test_names_and_literals_are_quoted() -> None:
    """Odd names cannot leave their quotes, and long ones stay distinct within PostgreSQL's 63 bytes."""
    assert quote('a"b', "c") == '"a""b"."c"'
    assert text_literal("o'clock") == "'o''clock'"
    assert text_literal("a\\'b") == "E'a\\\\''b'"
    one, two = made_name("axis", "ü" * 60, "a"), made_name("axis", "ü" * 60, "b")
    assert one != two
    assert max(len(one.encode()), len(two.encode())) <= 63


def test_the_front_door_is_cheap() -> None:
    """`import axis_security.rls` and its seal load neither SQLAlchemy nor a driver."""
    code = "import sys, axis_security.rls as r; r.SealKey; print(sorted({'sqlalchemy', 'psycopg', 'asyncpg'} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    assert SealKey.generate(1) != SealKey.generate(1)

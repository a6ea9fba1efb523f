"""Sealed columns for SQLAlchemy: bound to tenant and column (:class:`EncryptedText` and its kin), or to the row as well (:class:`sealed`).

The tenant is the acting principal's; there is no default and no fallback. What cannot work on sealed values (``LIKE``, ``<``, ``ORDER BY``) raises when
the statement is built or compiled, instead of quietly finding nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from sqlalchemy import ColumnElement, LargeBinary, Table, event, false, inspect, select, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import mapped_column
from sqlalchemy.sql import operators
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import TypeDecorator

from axis_security.core.context import maybe_principal
from axis_security.core.encoding import length_prefixed
from axis_security.core.errors import AxisError, ConfigError
from axis_security.core.ids import TenantId
from axis_security.crypto.blindindex import BlindIndex, IndexKeys
from axis_security.crypto.envelope import read_header
from axis_security.crypto.errors import TenantRequired
from axis_security.crypto.keyring import KeyRing

__all__ = [
    "EncryptedBytes",
    "EncryptedJSON",
    "EncryptedText",
    "NotSearchable",
    "SealedBytes",
    "ValueTaken",
    "harden",
    "row_bytes",
    "sealed",
    "use_keys",
]


class NotSearchable(ConfigError):
    """A statement compares or orders by something that is sealed."""

    code = "crypto.not_searchable"

    def __init__(self, *, field: str, operation: str) -> None:
        super().__init__(
            what=f"`{field}` is sealed; `{operation}` cannot work on it",
            why="equal plaintexts have different sealed bytes, and their order says nothing",
            fix="declare sealed(…, index=BlindIndex(…)) and compare with == or in_(); filter and sort the rest after reading",
        )


class ValueTaken(AxisError):
    """A unique sealed field already holds this value in another row of the tenant, under an index key that is being rotated out."""

    code = "crypto.value_taken"
    http_status = 409
    public_text = "This value is already in use."


class _Keys:
    ring: KeyRing | None = None
    index: IndexKeys | None = None


def use_keys(ring: KeyRing, index: IndexKeys | None = None) -> None:
    """Give the columns of this process their keys; call once at start-up, and again only in tests."""
    _Keys.ring, _Keys.index = ring, index


def _ring() -> KeyRing:
    if _Keys.ring is None:
        raise ConfigError(
            what="sealed columns have no keys",
            why="use_keys() was not called",
            fix="call axis_security.crypto.columns.use_keys(ring) at start-up",
        )
    return _Keys.ring


def _index() -> IndexKeys:
    if _Keys.index is None:
        raise ConfigError(
            what="sealed columns have no index keys", why="use_keys() got none", fix="call use_keys(ring, IndexKeys({1: key}, current=1))"
        )
    return _Keys.index


def _tenant(field: str) -> TenantId:
    principal = maybe_principal()
    if principal is None:
        raise TenantRequired(name=field)
    return principal.tenant


class _SealedType(TypeDecorator[Any]):
    """What all sealed types share: the field's name, and a refusal of every comparison but IS NULL."""

    impl = LargeBinary
    cache_ok = True

    class Comparator(TypeDecorator.Comparator[Any]):
        """Refuses what cannot work."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Only IS NULL and IS NOT NULL pass."""
            if op in {operators.is_, operators.is_not} and (not other or other[0] is None or _is_null(other[0])):
                return super().operate(op, *other, **kwargs)
            field = getattr(self.type, "field", "?")
            raise NotSearchable(field=field, operation=getattr(op, "__name__", "this operation"))

    comparator_factory = Comparator

    def __init__(self, field: str) -> None:
        if not field or len(field) > 255:
            raise ConfigError(
                what="a sealed column needs a field name", why="it is part of the key", fix='name it once and for ever, such as "users.ssn"'
            )
        self.field: Final = field
        super().__init__()


class EncryptedBytes(_SealedType):
    """``bytes``, sealed for the acting tenant and this field. Args: field: a name that never changes, whatever becomes of table and column."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """Seal on the way in."""
        if value is None:
            return None
        return _ring().seal(self.to_bytes(value), tenant=_tenant(self.field), field=self.field)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Open on the way out."""
        if value is None:
            return None
        return self.from_bytes(_ring().open(bytes(value), tenant=_tenant(self.field), field=self.field))

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        """:meth:`process_result_value` in one call instead of three: lists of rows spend their time here."""
        field, decode = self.field, self.from_bytes

        def opened(value: Any) -> Any:
            if value is None:
                return None
            principal, ring = maybe_principal(), _Keys.ring
            if principal is None or ring is None:
                tenant, ring = _tenant(field), _ring()  # one of them raises
            else:
                tenant = principal.tenant
            return decode(ring.open(bytes(value), tenant=tenant, field=field))

        return opened

    def to_bytes(self, value: Any) -> bytes:
        """The plaintext of a Python value."""
        return bytes(value)

    def from_bytes(self, data: bytes) -> Any:
        """The Python value of a plaintext."""
        return data


class EncryptedText(EncryptedBytes):
    """``str``, sealed for the acting tenant and this field."""

    cache_ok = True

    def to_bytes(self, value: Any) -> bytes:
        """UTF-8."""
        return str(value).encode()

    def from_bytes(self, data: bytes) -> Any:
        """UTF-8."""
        return data.decode()


class EncryptedJSON(EncryptedBytes):
    """A JSON value, sealed for the acting tenant and this field."""

    cache_ok = True

    def to_bytes(self, value: Any) -> bytes:
        """Compact JSON."""
        return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()

    def from_bytes(self, data: bytes) -> Any:
        """JSON."""
        return json.loads(data)


class SealedBytes(_SealedType):
    """Bytes that were sealed before they came here: what :class:`sealed` keeps. Anything else is refused, so bulk and Core inserts fail closed.

    Args:
        field: as in :class:`sealed`.
        bind_row: whether they are bound to the row's primary key.
    """

    cache_ok = True

    def __init__(self, field: str, *, bind_row: bool = False) -> None:
        self.bind_row: Final = bind_row
        super().__init__(field)

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """Let sealed bytes through.

        Raises:
            UnknownFormat, Truncated: plaintext, or something else.
        """
        if value is not None:
            read_header(bytes(value), name=self.field)
        return value


class sealed:  # noqa: N801  # reads as a declaration: ssn = sealed("users.ssn")
    """A text attribute, sealed and bound to its row; opened when it is read, not when it is loaded.

    Declares two columns: ``<name>`` with the sealed bytes, and with *index* ``<name>_bidx`` for ``==`` and ``in_()``.

    Args:
        field: a name that never changes, whatever becomes of table and column.
        index: find rows by equality.
        bind_row: bind to the primary key too, so that bytes moved to another row do not open. The key must be known before the row is inserted:
            set it, or give it a Python-side default.
    """

    def __init__(self, field: str, *, index: BlindIndex | None = None, bind_row: bool = True) -> None:
        self.field: Final = field
        self.index: Final = index
        self.bind_row: Final = bind_row
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        # Before the class is mapped: SQLAlchemy finds the columns as if they had been written there.
        setattr(owner, self._raw, mapped_column(name, SealedBytes(self.field, bind_row=self.bind_row), nullable=True))
        if self.index is not None:
            setattr(owner, self._bidx, mapped_column(f"{name}_bidx", LargeBinary, nullable=True, index=not self.index.unique))
        event.listen(owner, "before_insert", self._before_flush, propagate=True)
        event.listen(owner, "before_update", self._before_flush, propagate=True)

    @property
    def _raw(self) -> str:
        return f"{self.name}_sealed"

    @property
    def _bidx(self) -> str:
        return f"{self.name}_bidx"

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return _Expression(self, owner)
        state = instance.__dict__
        pending = state.get(f"_{self.name}_pending")
        if pending is not None:
            return pending
        raw = getattr(instance, self._raw)
        if raw is None:
            return None
        opened = state.get(f"_{self.name}_opened")
        if opened is None or opened[0] is not raw:
            row = self._row(instance) if self.bind_row else None
            opened = (raw, _ring().open(bytes(raw), tenant=_tenant(self.field), field=self.field, row=row).decode())
            state[f"_{self.name}_opened"] = opened
        return opened[1]

    def __set__(self, instance: Any, value: str | None) -> None:
        instance.__dict__.pop(f"_{self.name}_opened", None)
        instance.__dict__.pop(f"_{self.name}_pending", None)
        if value is None:
            setattr(instance, self._raw, None)
            if self.index is not None:
                setattr(instance, self._bidx, None)
            return
        if not isinstance(value, str):
            raise TypeError(f"`{self.name}` takes a str")
        if self.bind_row and self._row(instance) is None:
            instance.__dict__[f"_{self.name}_pending"] = value  # sealed at flush, when the key is known
        else:
            self._seal(instance, value)

    def _seal(self, instance: Any, value: str) -> None:
        tenant = _tenant(self.field)
        row = self._row(instance) if self.bind_row else None
        setattr(instance, self._raw, _ring().seal(value.encode(), tenant=tenant, field=self.field, row=row))
        if self.index is not None:
            keys = _index()
            setattr(instance, self._bidx, keys.digest(self.index.normalise(value), tenant=tenant, field=self.field, version=keys.current))

    def _before_flush(self, mapper: Any, connection: Connection, instance: Any) -> None:
        pending = instance.__dict__.pop(f"_{self.name}_pending", None)
        state = inspect(instance)
        if self.bind_row and state.persistent and any(state.attrs[prop.key].history.has_changes() for prop in self._key_props(mapper)):
            raise ConfigError(
                what=f"the primary key of a row with the sealed field `{self.field}` was changed",
                why="the sealed value is bound to it and would never open again",
                fix="make a new row, and copy the attribute",
            )
        if pending is not None:
            for prop in self._key_props(mapper):
                self._give_key(instance, prop)
            if self._row(instance) is None:
                raise ConfigError(
                    what=f"the sealed field `{self.field}` cannot be bound to its row",
                    why="the primary key is made by the database, after the value had to be sealed",
                    fix="give the key a Python-side default such as uuid.uuid4, or declare bind_row=False",
                )
            self._seal(instance, pending)
        if self.index is not None and self.index.unique and state.attrs[self._bidx].history.has_changes():
            self._hold_unique(connection, mapper.local_table, instance)

    def _hold_unique(self, connection: Connection, table: Table, instance: Any) -> None:
        # A unique index compares bytes, and those differ between index versions: while two are live, the value itself is locked and looked for.
        keys = _index()
        value = getattr(instance, self.name)
        if value is None or len(keys.versions) == 1:
            return
        others = _digests(self, value)
        lock = int.from_bytes(min(others)[1:9], "big", signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
        own = [
            column == getattr(instance, prop.key)
            for column, prop in zip(table.primary_key, self._key_props(inspect(type(instance))), strict=True)
        ]
        column = table.c[f"{self.name}_bidx"]
        taken = select(column).where(column.in_(others))
        for part in own:
            taken = taken.where(~part) if len(own) == 1 else taken
        if connection.execute(taken.limit(1)).first() is not None:
            raise ValueTaken(what=f"`{self.field}` is unique", why="another row of the tenant holds this value", fix="choose another value")

    def _key_props(self, mapper: Any) -> list[Any]:
        return [mapper.get_property_by_column(column) for column in mapper.primary_key]

    def _give_key(self, instance: Any, prop: Any) -> None:
        default = prop.columns[0].default
        if getattr(instance, prop.key) is None and default is not None and getattr(default, "is_callable", False):
            setattr(instance, prop.key, default.arg(None))

    def _row(self, instance: Any) -> bytes | None:
        values = [getattr(instance, prop.key) for prop in self._key_props(inspect(type(instance)))]
        return None if any(value is None for value in values) else row_bytes(values)


class _Expression:
    """``User.ssn`` in a statement: ``==`` and ``in_()`` become a look-up in the blind index; everything else raises."""

    __slots__ = ("_owner", "_sealed")
    __hash__ = None  # type: ignore[assignment]  # like a column's ==, this one makes SQL

    def __init__(self, attribute: sealed, owner: type) -> None:
        self._sealed, self._owner = attribute, owner

    def __eq__(self, other: object) -> Any:
        return self.is_(None) if other is None else self.in_([other])

    def is_(self, other: None) -> Any:
        """``IS NULL``."""
        return getattr(self._owner, self._sealed._raw).is_(other)  # noqa: SLF001  # its own declaration

    def is_not(self, other: None) -> Any:
        """``IS NOT NULL``."""
        return getattr(self._owner, self._sealed._raw).is_not(other)  # noqa: SLF001  # its own declaration

    def in_(self, values: Iterable[Any]) -> Any:
        """Rows whose value is one of *values*, after normalising; under every live index key."""
        if self._sealed.index is None:
            raise NotSearchable(field=self._sealed.field, operation="==")
        digests = [digest for value in values for digest in _digests(self._sealed, str(value))]
        return getattr(self._owner, self._sealed._bidx).in_(digests) if digests else false()  # noqa: SLF001  # its own declaration

    def _refuse(self, operation: str) -> NoReturn:
        raise NotSearchable(field=self._sealed.field, operation=operation)

    def __ne__(self, other: object) -> Any:
        return self.is_not(None) if other is None else self._refuse("!=")

    def __lt__(self, other: object) -> Any:
        self._refuse("<")

    def __le__(self, other: object) -> Any:
        self._refuse("<=")

    def __gt__(self, other: object) -> Any:
        self._refuse(">")

    def __ge__(self, other: object) -> Any:
        self._refuse(">=")

    def __getattr__(self, name: str) -> Any:
        if name in {
            "like",
            "ilike",
            "not_like",
            "contains",
            "startswith",
            "endswith",
            "match",
            "between",
            "asc",
            "desc",
            "regexp_match",
            "op",
            "collate",
        }:
            self._refuse(name)
        raise AttributeError(name)

    def __clause_element__(self) -> Any:
        self._refuse("select or ORDER BY")


def row_bytes(key: Iterable[Any]) -> bytes:
    """What a row-bound value is bound to: the text forms of the primary key's values."""
    return length_prefixed(*(str(value).encode() for value in key))


def _digests(attribute: sealed, value: str) -> list[bytes]:
    keys, index = _index(), attribute.index
    if index is None:
        raise NotSearchable(field=attribute.field, operation="==")
    normal, tenant = index.normalise(value), _tenant(attribute.field)
    return [keys.digest(normal, tenant=tenant, field=attribute.field, version=version) for version in keys.versions]


def harden(engine: Engine) -> Engine:
    """Make *engine* safe for sealed columns: parameters out of error texts and logs (``hide_parameters``), ORDER BY, GROUP BY and DISTINCT on them refused.

    For an ``AsyncEngine`` pass its ``sync_engine``.
    """
    engine.hide_parameters = True

    @event.listens_for(engine, "before_execute")
    def refuse_order(connection: Connection, clause: Any, *_: Any) -> None:
        for element in iterate(clause) if hasattr(clause, "get_children") else ():
            for part in ("_order_by_clauses", "_group_by_clauses"):
                for ordered in getattr(element, part, ()):
                    for inner in iterate(ordered):
                        kind = getattr(inner, "type", None)
                        if isinstance(kind, _SealedType):
                            raise NotSearchable(field=kind.field, operation="ORDER BY or GROUP BY")

    return engine


def _is_null(other: Any) -> bool:
    return type(other).__name__ == "Null"

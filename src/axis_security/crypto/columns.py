"""Sealed columns for SQLAlchemy, bound to tenant and column. (For values bound to their row as well: :mod:`axis_security.crypto.attribute`.)

The tenant is the acting principal's; there is no default and no fallback. What cannot work on sealed values (``LIKE``, ``<``, ``ORDER BY``) raises when
the statement is built or compiled, instead of quietly finding nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

from sqlalchemy import BinaryExpression, ColumnElement, LargeBinary, Over, Select, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.sql import operators
from sqlalchemy.sql.selectable import GenerativeSelect
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import TypeDecorator

from axis_security.core.context import maybe_principal
from axis_security.core.errors import ConfigError
from axis_security.core.ids import TenantId
from axis_security.crypto.blindindex import IndexKeys
from axis_security.crypto.envelope import read_header
from axis_security.crypto.errors import TenantRequired
from axis_security.crypto.keyring import KeyRing

__all__ = [
    "EncryptedBytes",
    "EncryptedJSON",
    "EncryptedText",
    "NotSearchable",
    "SealedBytes",
    "harden",
    "use_keys",
]


_NULL_TESTS: Final = frozenset({operators.is_, operators.is_not})


class NotSearchable(ConfigError):
    """A statement compares or orders by something that is sealed."""

    code = "crypto.not_searchable"

    def __init__(self, *, field: str, operation: str) -> None:
        super().__init__(
            what=f"`{field}` is sealed; `{operation}` cannot work on it",
            why="equal plaintexts have different sealed bytes, and their order says nothing",
            fix="declare sealed(…, index=BlindIndex(…)) and compare with == or in_(); filter and sort the rest after reading",
        )


class _Keys:
    ring: KeyRing | None = None
    index: IndexKeys | None = None


def use_keys(ring: KeyRing, index: IndexKeys | None = None) -> None:
    """Give the sealed columns their keys; call once at start-up.

    There is one ring for the whole process, whatever application, engine or thread reads and writes: a second call takes the first one's place at once,
    for everybody. Two applications in one process whose keys differ would seal under each other's; what was sealed under one ring opens under no
    other, so nothing leaks, and nothing is readable either. Give each its own process. (Tests call it anew.) Objects, exports and
    :class:`~axis_security.crypto.sealer.RingSealer` take their ring as an argument, and are not touched by this.
    """
    _Keys.ring, _Keys.index = ring, index


def ring_in_use() -> KeyRing:
    """The ring of :func:`use_keys`. Raises ConfigError without one."""
    if _Keys.ring is None:
        raise ConfigError(
            what="sealed columns have no keys",
            why="use_keys() was not called",
            fix="call axis_security.crypto.columns.use_keys(ring) at start-up",
        )
    return _Keys.ring


def index_in_use() -> IndexKeys:
    """The index keys of :func:`use_keys`. Raises ConfigError without any."""
    if _Keys.index is None:
        raise ConfigError(
            what="sealed columns have no index keys", why="use_keys() got none", fix="call use_keys(ring, IndexKeys({1: key}, current=1))"
        )
    return _Keys.index


def acting_tenant(field: str) -> TenantId:
    """Whose keys *field* is sealed with. Raises TenantRequired when nobody is acting."""
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
            if op in _NULL_TESTS and (not other or other[0] is None or _is_null(other[0])):
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
        return ring_in_use().seal(self.to_bytes(value), tenant=acting_tenant(self.field), field=self.field)

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        """Open on the way out, in one call where ``process_result_value`` would make three: lists of rows spend their time here."""
        field, decode = self.field, self.from_bytes

        def opened(value: Any) -> Any:
            if value is None:
                return None
            principal, ring = maybe_principal(), _Keys.ring
            if principal is None or ring is None:
                tenant, ring = acting_tenant(field), ring_in_use()  # one of them raises
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


def harden(engine: Engine) -> Engine:
    """Make *engine* safe for sealed columns: parameters out of error texts and logs (``hide_parameters``), and refused before it is sent what would quietly
    go by the sealed bytes: ORDER BY, GROUP BY, DISTINCT, windows, and comparisons with another column or expression.

    Opened rows stay out of SQLAlchemy's debug log too, for every engine of the same logging name. For an ``AsyncEngine`` pass its ``sync_engine``.
    """
    engine.hide_parameters = True
    # `echo="debug"`, or a root logger at DEBUG, prints each row after it was opened; hide_parameters does not reach those lines.
    logger = engine.logger if isinstance(engine.logger, logging.Logger) else engine.logger.logger
    logger.addFilter(_hide_rows)

    @event.listens_for(engine, "before_execute")
    def refuse(connection: Connection, clause: Any, *_: Any) -> None:
        for element in iterate(clause) if hasattr(clause, "get_children") else ():
            for operation, parts in _by_bytes(element):
                for part in parts:
                    for inner in iterate(part):
                        kind = getattr(inner, "type", None)
                        if isinstance(kind, _SealedType):
                            raise NotSearchable(field=kind.field, operation=operation)

    return engine


def _by_bytes(element: Any) -> Iterator[tuple[str, Iterable[Any]]]:
    """What *element* of a statement compares or sorts, and how."""
    if isinstance(element, GenerativeSelect):
        yield "ORDER BY or GROUP BY", (*element._order_by_clauses, *element._group_by_clauses)  # noqa: SLF001  # SQLAlchemy offers no other way to them
    if isinstance(element, Select) and element._distinct:  # noqa: SLF001  # the same
        yield "DISTINCT", _distinct_by(element)
    if isinstance(element, Over):
        yield "OVER", [part for part in (element.order_by, element.partition_by) if part is not None]
    if isinstance(element, BinaryExpression) and element.operator not in _NULL_TESTS:
        yield (
            getattr(element.operator, "__name__", "this operation"),
            [side for side in (element.left, element.right) if isinstance(side.type, _SealedType)],
        )


def _distinct_by(statement: Select[Any]) -> Iterable[Any]:
    """What a DISTINCT compares. Of sealed columns only those that stand without their row's primary key: beside it, DISTINCT drops repeated rows."""
    on = list(statement._distinct_on)  # noqa: SLF001  # SQLAlchemy offers no other way to it
    extension = getattr(statement, "_pre_columns_clause", None)  # where postgresql.distinct_on() puts them, from SQLAlchemy 2.1
    if extension is not None:
        on += [part for inner in iterate(extension) for part in getattr(inner, "_distinct_on", ())]
    columns = list(statement.selected_columns)
    plain = {column for column in columns if not isinstance(column.type, _SealedType)}

    def has_key(column: Any) -> bool:
        key = set(getattr(getattr(column, "table", None), "primary_key", ()))
        return bool(key) and key <= plain

    return on or [column for column in columns if isinstance(column.type, _SealedType) and not has_key(column)]


def _hide_rows(record: logging.LogRecord) -> bool:
    if "Row %r" in str(record.msg):
        record.msg, record.args = "Row (hidden: its columns may be sealed)", ()
    return True


def _is_null(other: Any) -> bool:
    return type(other).__name__ == "Null"

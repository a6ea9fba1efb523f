"""A sealed attribute (:class:`sealed`): bound to its row, opened when it is read, found by a blind index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NoReturn

from sqlalchemy import LargeBinary, Table, and_, event, false, inspect, not_, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import mapped_column

from axis_security.core.encoding import length_prefixed
from axis_security.core.errors import AxisError, ConfigError
from axis_security.crypto.blindindex import BlindIndex
from axis_security.crypto.columns import NotSearchable, SealedBytes, acting_tenant, index_in_use, ring_in_use

__all__ = ["ValueTaken", "row_bytes", "sealed"]


class ValueTaken(AxisError):
    """A unique sealed field already holds this value in another row of the tenant, under an index key that is being rotated out."""

    code = "crypto.value_taken"
    http_status = 409
    public_text = "This value is already in use."


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
            opened = (raw, ring_in_use().open(bytes(raw), tenant=acting_tenant(self.field), field=self.field, row=row).decode())
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
        tenant = acting_tenant(self.field)
        row = self._row(instance) if self.bind_row else None
        setattr(instance, self._raw, ring_in_use().seal(value.encode(), tenant=tenant, field=self.field, row=row))
        if self.index is not None:
            keys = index_in_use()
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
        keys = index_in_use()
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
        taken = select(column).where(column.in_(others), not_(and_(*own)))
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
        """Rows whose value is one of *values*, after normalising; under every live index key. ``None`` among them finds nothing, as in SQL."""
        if self._sealed.index is None:
            raise NotSearchable(field=self._sealed.field, operation="==")
        digests = [digest for value in values if value is not None for digest in _digests(self._sealed, str(value))]
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
    keys, index = index_in_use(), attribute.index
    if index is None:
        raise NotSearchable(field=attribute.field, operation="==")
    normal, tenant = index.normalise(value), acting_tenant(attribute.field)
    return [keys.digest(normal, tenant=tenant, field=attribute.field, version=version) for version in keys.versions]

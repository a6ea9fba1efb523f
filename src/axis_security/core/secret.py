"""A value with no text form."""

from __future__ import annotations

import hmac
from typing import Any, Final, Generic, NoReturn, TypeVar

__all__ = ["Secret"]

T = TypeVar("T", str, bytes)

_MASK: Final = "Secret(***)"


class Secret(Generic[T]):
    """Holds a ``str`` or ``bytes`` that must not reach a log, a traceback, a pickle or a query echo.

    ``repr``, ``str`` and ``format`` show a mask; JSON, pickling, copying and hashing raise. :meth:`reveal` is the only way
    out, so uses are easy to grep. ``==`` against another ``Secret`` of the same type takes constant time (ASVS 11.2.4).

    This does not wipe memory: CPython keeps copies that no library can reach.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        if not isinstance(value, (str, bytes)):
            # No repr of the value in the message: it is a secret.
            raise TypeError("a Secret holds str or bytes")
        self._value: Final[T] = value

    def reveal(self) -> T:
        """Return the value. Call it where the value is used, not earlier."""
        return self._value

    def __repr__(self) -> str:
        return _MASK

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_as_bytes(self._value), _as_bytes(other._value))

    def __hash__(self) -> NoReturn:
        raise TypeError("a Secret cannot be hashed; hash() would let it be probed in a dict")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied; call reveal() where it is used")

    def __getstate__(self) -> NoReturn:
        # object's own would hand the slots to any serialiser that asks.
        self.__reduce__()

    def __copy__(self) -> NoReturn:
        self.__reduce__()

    def __deepcopy__(self, memo: Any) -> NoReturn:
        self.__reduce__()


def _as_bytes(value: str | bytes) -> bytes:
    # The leading byte keeps Secret("a") and Secret(b"a") apart.
    return b"s" + value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b"b" + value

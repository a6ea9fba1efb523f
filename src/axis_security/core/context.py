"""The acting principal of the running code, held in a context variable.

A context variable follows ``await``, is copied into tasks at creation, and is *not* copied into plain threads: a thread starts
unbound, and unbound is refused, so a lost context is loud instead of being somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from axis_security.core.errors import PrincipalRequired
from axis_security.core.principal import Principal

__all__ = ["acting_as", "acting_as_nobody", "current_principal", "maybe_principal"]

_PRINCIPAL: Final[ContextVar[Principal | None]] = ContextVar("axis_security.principal", default=None)


@contextmanager
def acting_as(principal: Principal) -> Iterator[Principal]:
    """Act as *principal* inside the block; works in sync and async code alike, and nests.

    A transaction that is already open keeps the principal it began with: the binding happens at BEGIN.
    """
    if not isinstance(principal, Principal):
        raise TypeError("acting_as() takes a Principal")
    token = _PRINCIPAL.set(principal)
    try:
        yield principal
    finally:
        _PRINCIPAL.reset(token)


@contextmanager
def acting_as_nobody() -> Iterator[None]:
    """Act as nobody inside the block, whoever acts around it: for work that was started beside a request and is not part of it."""
    token = _PRINCIPAL.set(None)
    try:
        yield
    finally:
        _PRINCIPAL.reset(token)


def current_principal() -> Principal:
    """The acting principal.

    Raises:
        PrincipalRequired: nobody is acting.
    """
    principal = _PRINCIPAL.get()
    if principal is None:
        raise PrincipalRequired
    return principal


def maybe_principal() -> Principal | None:
    """The acting principal, or ``None``. For code that has its own answer to nobody."""
    return _PRINCIPAL.get()

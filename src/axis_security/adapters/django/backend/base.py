"""``DatabaseWrapper``: Django's own, whose connections refuse what is not bound to the acting principal.

The guard sits on psycopg's connection, below everything Django can do with it. What this module adds is the fit: connections are guarded
before anybody is given one, pings need no principal, and a statement outside ``atomic()`` gets a transaction of its own, because Django
works in autocommit, where a transaction-local context would end before the statement began.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final
from weakref import WeakSet

from axis_security.adapters.django.settings import tenancy
from axis_security.core.errors import ConfigError, MissingExtra

try:
    from django.db.backends.postgresql import base, psycopg_any
except ModuleNotFoundError:
    raise MissingExtra(package="django", extra="django") from None

__all__ = ["DatabaseWrapper"]

_GUARDED: Final[WeakSet[Any]] = WeakSet()
"""Pools that have their guard."""

if not psycopg_any.is_psycopg3:
    raise ConfigError(
        what="Django uses psycopg2 here",
        why="its connections cannot be guarded",
        fix="install psycopg 3 (django uses it where it is there)",
    )


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]  # Django ships no types
    """A connection of Django's ORM, bound at BEGIN. The tenancy is the one that the setting ``AXIS_SECURITY`` names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute_wrappers.append(_in_a_transaction)

    def connect(self) -> None:
        """Connect, as Django does; a connection that could not be guarded is closed and not kept."""
        try:
            super().connect()
        except BaseException:
            half: Any = self.connection
            self.connection: Any = None
            if half is not None:
                half.close()
            raise

    def init_connection_state(self) -> None:
        """Django's own settings first, then the guard; ``connection_created`` is sent after it."""
        super().init_connection_state()
        if not self.pool:
            tenancy().install(self.connection)

    @property
    def pool(self) -> Any:
        """Django's pool, guarded: it hands out bound connections only."""
        pool = super().pool
        if pool is not None and pool not in _GUARDED:
            _GUARDED.add(tenancy().install(pool))
        return pool

    def chunked_cursor(self) -> Any:
        """A server-side cursor inside a transaction; outside, where it would outlive its own, a plain one."""
        return self.cursor() if self.get_autocommit() else super().chunked_cursor()

    def is_usable(self) -> bool:
        """Whether the connection answers; asked as nobody, and nobody's rows can be seen by it."""
        from axis_security.rls.bind_psycopg import upkeep

        with nullcontext() if self.connection is None else upkeep(self.connection):
            usable: bool = super().is_usable()
        return usable


def _in_a_transaction(execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: Any) -> Any:
    wrapper = context["connection"]
    if wrapper.in_atomic_block or not wrapper.get_autocommit():
        return execute(sql, params, many, context)
    # The answer is in memory before COMMIT is sent, so the cursor may be read afterwards.
    with wrapper.wrap_database_errors, wrapper.connection.transaction():
        return execute(sql, params, many, context)

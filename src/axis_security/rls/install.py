"""Which guard fits what the host has: an engine, a connection, a connection class or a pool."""

from __future__ import annotations

from typing import Any, TypeVar

from axis_security.core.errors import ConfigError
from axis_security.rls.bind import Binder
from axis_security.rls.posture import Posture

__all__ = ["install"]

T = TypeVar("T")


def install(target: T, *, binder: Binder, posture: Posture | None) -> T:
    """Guard *target* and return it; for a connection class, return the guarded subclass to use in its place. Idempotent.

    Takes: SQLAlchemy ``Engine`` and ``AsyncEngine`` (psycopg, asyncpg), psycopg ``Connection`` and ``AsyncConnection`` objects and classes,
    ``psycopg_pool`` pools, asyncpg ``Connection`` and ``Pool`` objects.

    Raises:
        ConfigError: anything else; or the target is in use, or guarded by another tenancy. Unknown things are refused, not passed through.
        MissingExtra: the driver's package is not installed.
    """
    kind: Any = target if isinstance(target, type) else type(target)
    # By name, so that asking imports nothing: whoever has such an object has imported its package.
    families = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    psycopg_connection = families & {
        ("psycopg", "Connection"),
        ("psycopg", "AsyncConnection"),
    }
    if isinstance(target, type):
        if psycopg_connection:
            from axis_security.rls.bind_psycopg import guard_class

            guarded: Any = guard_class(target, binder, posture)
            return guarded  # type: ignore[no-any-return]
    elif families & {("sqlalchemy", "Engine"), ("sqlalchemy", "AsyncEngine")}:
        from axis_security.rls.bind_sqlalchemy import install_engine

        install_engine(target, binder=binder, posture=posture)  # type: ignore[arg-type]  # known by name
        return target
    elif psycopg_connection:
        from axis_security.rls import bind_psycopg

        bind_psycopg.guard(target, binder, posture)
        return target
    elif any(package == "psycopg_pool" for package, _ in families):
        from axis_security.rls import bind_psycopg

        bind_psycopg.guard_pool(target, binder, posture)
        return target
    elif families & {("asyncpg", "Connection"), ("asyncpg", "PoolConnectionProxy")}:
        from axis_security.rls import bind_asyncpg

        bind_asyncpg.guard(target, binder, posture)
        return target
    elif ("asyncpg", "Pool") in families:
        from axis_security.rls import bind_asyncpg

        bind_asyncpg.guard_pool(target, binder, posture)
        return target
    raise ConfigError(
        what=f"cannot bind a `{kind.__module__}.{kind.__qualname__}`",
        why="install() knows SQLAlchemy engines, psycopg connections and pools, and asyncpg connections and pools",
        fix="pass the engine (not a session, sessionmaker or URL), the connection, its class or the pool",
    )

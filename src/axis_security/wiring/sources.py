"""psycopg connections out of SQLAlchemy engines, for stores that speak to the driver: the host needs no second kind of pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import exc

from axis_security.core.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["AsyncEngineSource", "EngineSource"]


class EngineSource:
    """Gives the psycopg connections of *engine*; a block is one transaction.

    Raises:
        ConfigError: the engine's driver is not psycopg.
    """

    def __init__(self, engine: Engine) -> None:
        _check(engine.dialect.driver)
        self._engine: Final = engine

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of the pool; commits on leaving the block, rolls back on an exception."""
        with _as_psycopg():
            pooled = self._engine.raw_connection()
        try:
            driver: Any = pooled.driver_connection
            yield driver
            driver.commit()
        finally:
            pooled.close()  # the pool rolls back what is open, and replaces what is broken


class AsyncEngineSource:
    """:class:`EngineSource` for async code."""

    def __init__(self, engine: AsyncEngine) -> None:
        _check(engine.dialect.driver)
        self._engine: Final = engine

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection of the pool; commits on leaving the block, rolls back on an exception."""
        pooled = self._engine.connect()
        with _as_psycopg():
            await pooled.start()
        try:
            driver: Any = (await pooled.get_raw_connection()).driver_connection
            yield driver
            await driver.commit()
        finally:
            await pooled.close()


@contextmanager
def _as_psycopg() -> Iterator[None]:
    # The stores know psycopg's errors, and turn them into Unavailable.
    try:
        yield
    except exc.DBAPIError as error:
        raise (error.orig if isinstance(error.orig, psycopg.Error) else psycopg.OperationalError("no connection")) from None
    except exc.TimeoutError:
        raise psycopg.OperationalError("every connection of the pool is in use") from None


def _check(driver: str) -> None:
    if driver not in ("psycopg", "psycopg_async"):
        raise ConfigError(
            what="the stores cannot use this engine",
            why=f"its driver is `{driver}`, and they speak psycopg 3",
            fix="make one with postgresql+psycopg://",
        )

"""Password work as requests, and the runner that carries out a login flow: store operations by the store, hashing by the bounded pool.

Every flow of this package yields operations of :mod:`axis_security.auth.ports` and the four requests below, and nothing else. One
runner fits them all::

    runner = AuthRunner(store=vault, passwords=PasswordService(Passwords()))
    outcome = runner.run(login.password(...))              # AsyncAuthRunner: await runner.run(...)
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from axis_security.auth.kdf_pool import PasswordService
from axis_security.auth.passwords import Derived
from axis_security.auth.ports import StoredHash
from axis_security.core.flow import adrive, drive
from axis_security.core.secret import Secret

__all__ = [
    "AnyStore",
    "AsyncAnyStore",
    "AsyncAuthRunner",
    "AuthFlow",
    "AuthRunner",
    "DerivePassword",
    "HashPassword",
    "RenewPassword",
    "SpendPassword",
]

R = TypeVar("R")

AuthFlow = Generator[Any, Any, R]
"""A flow of this package: yields store operations and password work, returns an ``R``."""


@dataclass(frozen=True, slots=True)
class DerivePassword:
    """What *password* derives to under *settings*. Answer: :class:`~axis_security.auth.passwords.Derived` or ``PasswordRefused``."""

    password: Secret[str]
    settings: str | None


@dataclass(frozen=True, slots=True)
class RenewPassword:
    """The better stored form after a right password. Answer: :class:`~axis_security.auth.ports.StoredHash` or ``None``."""

    password: Secret[str]
    derived: Derived


@dataclass(frozen=True, slots=True)
class HashPassword:
    """A new stored form. Answer: :class:`~axis_security.auth.ports.StoredHash`."""

    password: Secret[str]


@dataclass(frozen=True, slots=True)
class SpendPassword:
    """The work of one password check, and nothing else. Answer: ``None``."""


class AnyStore(Protocol):
    """A store of accounts, factors, sessions, tokens and throttles."""

    def perform(self, op: Any) -> Any:
        """Carry out *op*."""
        ...


class AsyncAnyStore(Protocol):
    """:class:`AnyStore` for async code."""

    async def perform(self, op: Any) -> Any:
        """Carry out *op*."""
        ...


class AuthRunner:
    """Runs flows in synchronous code.

    Args:
        store: carries out store operations.
        passwords: hashes, in its bounded pool.
    """

    def __init__(self, *, store: AnyStore, passwords: PasswordService) -> None:
        self._store: Final = store
        self._passwords: Final = passwords

    def run(self, flow: AuthFlow[R]) -> R:
        """Run *flow* to its result.

        Raises:
            Unavailable: a store or the pool did not answer; nobody was let in.
        """
        return drive(flow, self.perform)

    def perform(self, request: Any) -> Any:
        """Carry out one request of a flow."""
        service = self._passwords
        match request:
            case DerivePassword(password, settings):
                return service.derive(password=password, settings=settings)
            case RenewPassword(password, derived):
                return _split(service, service.renew(password=password, derived=derived))
            case HashPassword(password):
                return _split(service, service.hash(password))
            case SpendPassword():
                return service.spend()
            case _:
                return self._store.perform(request)


class AsyncAuthRunner:
    """Runs flows in async code; the event loop never waits for a hash.

    Args:
        store: carries out store operations.
        passwords: hashes, in its bounded pool.
    """

    def __init__(self, *, store: AsyncAnyStore, passwords: PasswordService) -> None:
        self._store: Final = store
        self._passwords: Final = passwords

    async def run(self, flow: AuthFlow[R]) -> R:
        """Run *flow* to its result.

        Raises:
            Unavailable: a store or the pool did not answer; nobody was let in.
        """
        return await adrive(flow, self.perform)

    async def perform(self, request: Any) -> Any:
        """Carry out one request of a flow."""
        service = self._passwords
        match request:
            case DerivePassword(password, settings):
                return await service.aderive(password=password, settings=settings)
            case RenewPassword(password, derived):
                return _split(service, await service.arenew(password=password, derived=derived))
            case HashPassword(password):
                return _split(service, await service.ahash(password))
            case SpendPassword():
                return await service.aspend()
            case _:
                return await self._store.perform(request)


def _split(service: PasswordService, stored: Secret[str] | None) -> StoredHash | None:
    return None if stored is None else service.passwords.split(stored)

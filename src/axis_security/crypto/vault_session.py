"""An authenticated connection to OpenBao or HashiCorp Vault (extra ``vault``), shared by the key service and the secrets provider."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import MissingExtra, Unavailable
from axis_security.core.secret import Secret

__all__ = ["AppRoleLogin", "TokenLogin", "VaultLogin", "VaultSession", "VaultUnavailable"]

T = TypeVar("T")

_RENEW_AT: Final = 2 / 3
"""Renew a token when this part of its life has passed."""


class VaultUnavailable(Unavailable):
    """The server did not answer, or refused us."""

    code = "vault.unavailable"

    def __init__(self, *, url: str, why: str) -> None:
        super().__init__(
            what="OpenBao or Vault did not do what was asked",
            why=f"{url}: {why}",
            fix="check the server and this service's policy there",
            facts={"url": url},
        )
        self.reason: Final = why


class VaultLogin(Protocol):
    """How this service proves itself to the server."""

    def login(self, client: Any) -> None:
        """Give *client* (an ``hvac.Client``) a token."""
        ...


class TokenLogin:
    """A token that somebody else issued and replaces: an agent's sink file, or a test's root token."""

    def __init__(self, read: Callable[[], Secret[str]]) -> None:
        self._read = read

    def login(self, client: Any) -> None:
        """Read the token again and use it."""
        client.token = self._read().reveal()


class AppRoleLogin:
    """An AppRole: a role id and a secret id, exchanged for a short-lived token."""

    def __init__(self, *, role_id: str, secret_id: Callable[[], Secret[str]], mount: str = "approle") -> None:
        self._role_id = role_id
        self._secret_id = secret_id
        self._mount = mount

    def login(self, client: Any) -> None:
        """Log in and use the token that comes back."""
        client.auth.approle.login(role_id=self._role_id, secret_id=self._secret_id().reveal(), mount_point=self._mount)


class VaultSession:
    """An authenticated connection whose token is renewed before it lapses, and replaced after it has.

    Args:
        url: of the server, ``https`` outside development.
        login: how to get a token.
        verify: path of the authority's certificate; the system's store if ``None``. Verification can't be turned off here.
        timeout_seconds: of each request.
        namespace: where the server has them.
    """

    def __init__(
        self,
        *,
        url: str,
        login: VaultLogin,
        verify: str | None = None,
        timeout_seconds: int = 5,
        namespace: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        try:
            import hvac
            import hvac.exceptions
            import requests
        except ImportError:
            raise MissingExtra(package="hvac", extra="vault") from None
        self.url = url
        self._login = login
        self._clock = clock
        client: Any = hvac.Client(url=url, verify=verify if verify is not None else True, timeout=timeout_seconds, namespace=namespace)
        # hvac takes a token from the environment or the home directory unasked; ours comes from `login` and nowhere else.
        client.token = None
        self._client = client
        self._errors = hvac.exceptions
        self._network_errors = (requests.exceptions.RequestException,)
        self._renew_at: datetime | None = None
        self._renewable = False
        self._lock = threading.Lock()

    def call(self, work: Callable[[Any], T]) -> T:
        """Run *work* with the authenticated client; a refused token is replaced once and the work run again.

        Raises:
            VaultUnavailable: the server did not answer, or refused the new token as well.
        """
        try:
            self._freshen()
            try:
                return work(self._client)
            except (self._errors.Forbidden, self._errors.Unauthorized):
                # Expired, revoked, or the server was restarted without its memory: one new login, one more try.
                with self._lock:
                    self._sign_in()
                return work(self._client)
        except self._errors.InvalidPath:
            raise
        except self._errors.VaultError as error:
            raise VaultUnavailable(url=self.url, why=type(error).__name__) from None
        except self._network_errors as error:
            raise VaultUnavailable(url=self.url, why=type(error).__name__) from None

    @property
    def missing(self) -> type[Exception]:
        """What :meth:`call` raises where the path doesn't exist; the caller knows what that means."""
        error: type[Exception] = self._errors.InvalidPath
        return error

    def _freshen(self) -> None:
        now = self._clock.now()
        if self._client.token is not None and (self._renew_at is None or now < self._renew_at):
            return
        with self._lock:
            if self._client.token is None or not self._renewable:
                self._sign_in()
            elif self._renew_at is not None and now >= self._renew_at:
                try:
                    self._note(self._client.auth.token.renew_self()["auth"]["lease_duration"], renewable=True)
                except self._errors.VaultError:
                    self._sign_in()

    def _sign_in(self) -> None:
        self._login.login(self._client)
        data = self._client.auth.token.lookup_self()["data"]
        self._note(int(data["ttl"]), renewable=bool(data.get("renewable")))

    def _note(self, ttl_seconds: int, *, renewable: bool) -> None:
        self._renewable = renewable
        # A ttl of 0 means a token without an end (a root token of a development server).
        self._renew_at = self._clock.now() + timedelta(seconds=ttl_seconds) * _RENEW_AT if ttl_seconds else None

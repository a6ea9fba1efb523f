"""OpenBao or Vault Transit as the key service (extra ``vault``): the key-encryption key never leaves the server."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final

from axis_security.core.secret import Secret
from axis_security.crypto.errors import KmsRefused, KmsUnavailable
from axis_security.crypto.vault_session import VaultSession, VaultUnavailable

__all__ = ["TransitKms"]

_REFUSALS: Final = frozenset({"Forbidden", "InvalidPath", "InvalidRequest", "Unauthorized", "UnsupportedOperation"})
"""The server's answers that are a decision; the others (sealed, rate-limited, its own faults) are a service that does not answer."""


class TransitKms:
    """Wraps with a Transit key of type ``aes256-gcm96``; the wrap context is authenticated as associated data.

    Args:
        session: the authenticated connection.
        key: the Transit key's name.
        mount: where the engine is mounted.
    """

    def __init__(self, session: VaultSession, *, key: str, mount: str = "transit") -> None:
        self._session, self._key, self._mount = session, key, mount

    @property
    def kek(self) -> str:
        """``transit/<key>``. Rotation inside Transit keeps the name, and opens what earlier versions wrapped until ``min_decryption_version`` is raised."""
        return f"{self._mount}/{self._key}"

    def wrap(self, key: Secret[bytes], context: Mapping[str, str]) -> bytes:
        """See :meth:`KeyService.wrap <axis_security.crypto.keys.KeyService.wrap>`."""
        body = {"plaintext": base64.b64encode(key.reveal()).decode(), "associated_data": _aad(context)}
        return self._call("encrypt", body, "ciphertext").encode("ascii", "replace")

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> Secret[bytes]:
        """See :meth:`KeyService.unwrap <axis_security.crypto.keys.KeyService.unwrap>`."""
        text = self._call("decrypt", {"ciphertext": wrapped.decode("ascii", "replace"), "associated_data": _aad(context)}, "plaintext")
        try:
            return Secret(base64.b64decode(text, validate=True))
        except ValueError:
            raise self._odd() from None

    def _call(self, action: str, body: Mapping[str, str], wanted: str) -> str:
        try:
            answer = self._session.call(lambda client: client.adapter.post(f"/v1/{self._mount}/{action}/{self._key}", json=dict(body)))
            return str(answer["data"][wanted])
        except (KeyError, TypeError):
            raise self._odd() from None
        except VaultUnavailable as error:
            raise (KmsRefused if error.reason in _REFUSALS else KmsUnavailable)(kek=self.kek, why=error.reason) from None
        except self._session.missing:
            raise KmsRefused(kek=self.kek, why="there is no such key") from None

    def _odd(self) -> KmsUnavailable:
        return KmsUnavailable(kek=self.kek, why="it answered something else than a key")


def _aad(context: Mapping[str, str]) -> str:
    return base64.b64encode(json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()).decode()

"""Secrets from OpenBao or HashiCorp Vault, KV version 2 (extra ``vault``)."""

from __future__ import annotations

from typing import Any

from axis_security.core.secret import Secret
from axis_security.crypto.vault_session import VaultSession, VaultUnavailable
from axis_security.ops.secrets.provider import SecretMissing, SecretRefused, SecretsUnavailable, SecretVersion, Stage, check_name

__all__ = ["VaultKv2"]


class VaultKv2:
    """Reads ``<mount>/<prefix><name>``, field ``value``, from a KV version 2 engine; the version before is ``PREVIOUS``.

    Args:
        session: the authenticated connection.
        mount: where the engine is mounted.
        prefix: put before each name, such as ``crm/production/``.
        field: which key of the secret holds the text.
    """

    def __init__(self, session: VaultSession, *, mount: str = "secret", prefix: str = "", field: str = "value") -> None:
        self._session = session
        self._mount = mount
        self._prefix = prefix
        self._field = field

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return f"KV2 `{self._mount}` at {self._session.url}"

    def fetch(self, name: str, stage: Stage = Stage.CURRENT) -> SecretVersion:
        """Ask the server now. See :meth:`SecretProvider.fetch`."""
        path = self._prefix + check_name(name)

        def read(client: Any) -> dict[str, Any]:
            kv = client.secrets.kv.v2
            version: int | None = None
            if stage is Stage.PREVIOUS:
                version = int(kv.read_secret_metadata(path=path, mount_point=self._mount)["data"]["current_version"]) - 1
                if version < 1:
                    raise SecretMissing(name=name, stage=stage, provider=self.label)
            answer: dict[str, Any] = kv.read_secret_version(
                path=path, version=version, mount_point=self._mount, raise_on_deleted_version=True
            )["data"]
            return answer

        try:
            data = self._session.call(read)
        except self._session.missing:
            raise SecretMissing(name=name, stage=stage, provider=self.label) from None
        except VaultUnavailable as error:
            refused = error.reason in {"Forbidden", "Unauthorized"}
            raise (SecretRefused if refused else SecretsUnavailable)(name=name, provider=self.label, why=error.reason) from None
        text = data["data"].get(self._field)
        if not isinstance(text, str) or not text:
            raise SecretsUnavailable(name=name, provider=self.label, why=f"it has no text field `{self._field}`")
        return SecretVersion(value=Secret(text), version=str(data["metadata"]["version"]))

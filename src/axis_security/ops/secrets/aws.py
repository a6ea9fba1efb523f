"""Secrets from AWS Secrets Manager (extra ``aws``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from axis_security.core.errors import MissingExtra
from axis_security.core.secret import Secret
from axis_security.ops.secrets.provider import SecretMissing, SecretRefused, SecretsUnavailable, SecretVersion, Stage, check_name

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

__all__ = ["AwsSecretsManager"]

_REFUSALS: Final = frozenset({"AccessDeniedException", "DecryptionFailure", "InvalidRequestException"})
"""AWS' codes for a decision: no right to it, the key it is under is disabled or deleted, the secret is marked for deletion."""
_STAGES: Final = {Stage.CURRENT: "AWSCURRENT", Stage.PREVIOUS: "AWSPREVIOUS"}


class AwsSecretsManager:
    """Reads ``<prefix><name>`` from AWS Secrets Manager, by stage.

    Args:
        prefix: put before each name, such as ``crm/production/``.
        client: a boto3 ``secretsmanager`` client; made from the ambient configuration if ``None``.

    Raises:
        MissingExtra: boto3 is not installed.
    """

    def __init__(self, *, prefix: str = "", client: SecretsManagerClient | None = None) -> None:
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise MissingExtra(package="boto3", extra="aws") from None
        self._prefix = prefix
        self._client: Any = client if client is not None else boto3.client("secretsmanager")
        self._client_error = ClientError
        self._core_error = BotoCoreError

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return f"AWS Secrets Manager, {self._client.meta.region_name}"

    def fetch(self, name: str, stage: Stage = Stage.CURRENT) -> SecretVersion:
        """Ask AWS now. See :meth:`SecretProvider.fetch`."""
        try:
            answer = self._client.get_secret_value(SecretId=self._prefix + check_name(name), VersionStage=_STAGES[stage])
        except self._client_error as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code == "ResourceNotFoundException":
                raise SecretMissing(name=name, stage=stage, provider=self.label) from None
            raise (SecretRefused if code in _REFUSALS else SecretsUnavailable)(name=name, provider=self.label, why=code) from None
        except self._core_error as error:
            raise SecretsUnavailable(name=name, provider=self.label, why=type(error).__name__) from None
        text = answer.get("SecretString")
        if not isinstance(text, str) or not text:
            raise SecretsUnavailable(name=name, provider=self.label, why="it holds no text")
        return SecretVersion(value=Secret(text), version=str(answer["VersionId"]))

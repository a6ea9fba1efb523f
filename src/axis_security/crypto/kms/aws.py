"""AWS KMS as the key service (extra ``aws``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from axis_security.core.errors import MissingExtra
from axis_security.core.secret import Secret
from axis_security.crypto.errors import KmsRefused, KmsUnavailable

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

__all__ = ["AwsKms"]

_REFUSALS: Final = frozenset(
    {
        "AccessDeniedException",
        "DisabledException",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",
        "NotFoundException",
    }
)
"""AWS' codes for a decision; all others (throttling, timeouts, its own faults) are a service that does not answer."""


class AwsKms:
    """Wraps with an AWS KMS key; the wrap context is the encryption context, which shows in CloudTrail (it holds ids, no secrets).

    Args:
        key_id: the key's ARN, or an alias; pointed at another key, an alias no longer opens what the key before wrapped.
        client: a boto3 ``kms`` client; made from the ambient configuration if ``None``.

    Raises:
        MissingExtra: boto3 is not installed.
    """

    def __init__(self, key_id: str, *, client: KMSClient | None = None) -> None:
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise MissingExtra(package="boto3", extra="aws") from None
        self._key_id = key_id
        self._client: Any = client if client is not None else boto3.client("kms")
        self._client_error, self._core_error = ClientError, BotoCoreError

    @property
    def kek(self) -> str:
        """``aws:<key id>``."""
        return f"aws:{self._key_id}"

    def wrap(self, key: Secret[bytes], context: Mapping[str, str]) -> bytes:
        """See :meth:`KeyService.wrap <axis_security.crypto.keys.KeyService.wrap>`."""
        return bytes(self._call("encrypt", KeyId=self._key_id, Plaintext=key.reveal(), EncryptionContext=dict(context))["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> Secret[bytes]:
        """See :meth:`KeyService.unwrap <axis_security.crypto.keys.KeyService.unwrap>`. The key is named: a blob of another key is refused."""
        answer = self._call("decrypt", KeyId=self._key_id, CiphertextBlob=wrapped, EncryptionContext=dict(context))
        return Secret(bytes(answer["Plaintext"]))

    def _call(self, method: str, **arguments: Any) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = getattr(self._client, method)(**arguments)
        except self._client_error as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            raise (KmsRefused if code in _REFUSALS else KmsUnavailable)(kek=self.kek, why=code) from None
        except self._core_error as error:
            raise KmsUnavailable(kek=self.kek, why=type(error).__name__) from None
        return answer

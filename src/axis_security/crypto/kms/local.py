"""A key-encryption key in a local file: for development. Whoever has the disk has the key."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind, EventSink, Outcome
from axis_security.core.minted import MINTED_BYTES, minted_text, parse_minted
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.crypto.errors import KmsRefused

__all__ = ["LocalFileKms"]

_LABEL: Final = b"axis-security/local-kek/v1\0"


class LocalFileKms:
    """Wraps with a minted key read from *path*, which is made on first use.

    Args:
        path: mode 0600, outside the repository.
        environment: where the code runs.
        sink: gets a DEVELOPMENT_KEK event each time one is opened.
        production_reason: why production has no key service; without it, production is refused.

    Raises:
        ConfigError: production without a reason, or a file that is not a key of ours or that others can read.
    """

    def __init__(
        self, path: Path, *, environment: Environment, sink: EventSink, production_reason: str | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        if environment is Environment.PRODUCTION and len((production_reason or "").strip()) < 8:
            raise ConfigError(
                what="a local file cannot hold production's key-encryption key",
                why="whoever copies the disk or a backup of it can open every tenant's data",
                fix="use TransitKms or AwsKms; if there is truly no key service, name the reason in production_reason=",
            )
        self._path = path
        self._cipher = AESGCM(self._read().reveal())
        sink.emit(
            AuditEvent(
                kind=EventKind.DEVELOPMENT_KEK,
                at=clock.now(),
                outcome=Outcome.ALLOWED,
                reason=production_reason,
                detail={"path": str(path)[-200:]},
            )
        )

    @property
    def kek(self) -> str:
        """``file:<name>``."""
        return f"file:{self._path.name}"

    def wrap(self, key: Secret[bytes], context: Mapping[str, str]) -> bytes:
        """See :meth:`KeyService.wrap <axis_security.crypto.keys.KeyService.wrap>`."""
        nonce = secrets.token_bytes(12)
        return nonce + self._cipher.encrypt(nonce, key.reveal(), _aad(context))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> Secret[bytes]:
        """See :meth:`KeyService.unwrap <axis_security.crypto.keys.KeyService.unwrap>`."""
        try:
            return Secret(self._cipher.decrypt(wrapped[:12], wrapped[12:], _aad(context)))
        except (InvalidTag, ValueError):
            raise KmsRefused(kek=self.kek, why="the wrapped key does not open with this file's key and context") from None

    def _read(self) -> Secret[bytes]:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            pass
        except OSError as error:
            raise _unusable(error.strerror or "it cannot be made") from None
        else:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(minted_text("kek", secrets.token_bytes(MINTED_BYTES)).reveal() + "\n")
        try:
            if self._path.stat().st_mode & 0o077:
                raise _unusable("others can read it; its mode must be 0600")
            return parse_minted("kek", Secret(self._path.read_text(encoding="ascii")))
        except (OSError, UnicodeDecodeError):
            raise _unusable("it cannot be read") from None


def _aad(context: Mapping[str, str]) -> bytes:
    return _LABEL + json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()


def _unusable(why: str) -> ConfigError:
    return ConfigError(
        what="the local key file is not usable", why=why, fix="give a path that only this user can read; it is made on first use"
    )

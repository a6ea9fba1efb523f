"""Secrets from mounted files (Kubernetes, systemd credentials, Docker), and from the environment in development."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from axis_security.core.errors import ConfigError
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.ops.secrets.provider import SecretMissing, SecretsUnavailable, SecretVersion, Stage, check_name

__all__ = ["EnvironmentSecrets", "MountedFiles"]

_TOO_OPEN = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
_MAX_BYTES = 64 * 1024


class MountedFiles:
    """One file per secret in a directory that the platform mounts; ``<name>.previous`` holds the version before.

    A file that others can read, or that leads out of the directory, is refused: symbolic links are followed (Kubernetes swaps
    versions with one) only as long as they stay inside.

    Args:
        directory: such as ``/run/secrets`` or ``$CREDENTIALS_DIRECTORY``.

    Raises:
        ConfigError: it is not a directory.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise ConfigError(
                what="the secrets directory is not there",
                why=f"`{directory}` is not a directory",
                fix="mount the secrets, or correct the path",
            )
        self._directory = directory

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return f"files in {self._directory}"

    def fetch(self, name: str, stage: Stage = Stage.CURRENT) -> SecretVersion:
        """Read the file now. See :meth:`SecretProvider.fetch`."""
        path = self._directory / (check_name(name) + (".previous" if stage is Stage.PREVIOUS else ""))
        try:
            root = self._directory.resolve(strict=True)
            target = path.resolve(strict=True)
            if not target.is_relative_to(root):
                raise SecretsUnavailable(name=name, provider=self.label, why="the file is a link that leads out of the directory")
            # Opened once and judged by its descriptor, so that no swap can come between the check and the read.
            with open(target, "rb", opener=_opened) as file:  # Path.open takes no opener
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise SecretsUnavailable(name=name, provider=self.label, why="it is no file")
                if status.st_mode & _TOO_OPEN:
                    raise SecretsUnavailable(
                        name=name,
                        provider=self.label,
                        why=f"its mode {stat.S_IMODE(status.st_mode):04o} lets others at it; it must be 0400 or 0440",
                    )
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            raise SecretMissing(name=name, stage=stage, provider=self.label) from None
        except OSError as error:
            raise SecretsUnavailable(name=name, provider=self.label, why=error.strerror or "unreadable") from None
        return _version(name, self.label, data)


class EnvironmentSecrets:
    """Secrets from environment variables: for development only (ASVS 13.3.1; every child process inherits them).

    Args:
        environment: where the code runs; production is refused.
        prefix: put before the upper-cased name: with ``AXIS_``, ``seal-key`` is ``AXIS_SEAL_KEY``.

    Raises:
        ConfigError: in production.
    """

    def __init__(self, *, environment: Environment, prefix: str = "AXIS_", variables: Mapping[str, str] | None = None) -> None:
        if environment is Environment.PRODUCTION:
            raise ConfigError(
                what="environment variables cannot hold production secrets",
                why="they are inherited by every child process, and show in crash reports and process listings",
                fix="use VaultKv2, AwsSecretsManager or MountedFiles",
            )
        self._prefix = prefix
        self._variables = os.environ if variables is None else variables

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return "environment variables"

    def fetch(self, name: str, stage: Stage = Stage.CURRENT) -> SecretVersion:
        """Read the variable now. See :meth:`SecretProvider.fetch`."""
        variable = (
            self._prefix + check_name(name).upper().replace("-", "_").replace(".", "_") + ("_PREVIOUS" if stage is Stage.PREVIOUS else "")
        )
        value = self._variables.get(variable)
        if not value:
            raise SecretMissing(name=name, stage=stage, provider=self.label)
        return _version(name, self.label, value.encode("utf-8", "surrogateescape"))


def _opened(path: str, flags: int) -> int:
    # Not waiting: a named pipe would hold us until somebody writes to it.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _version(name: str, label: str, data: bytes) -> SecretVersion:
    data = data.removesuffix(b"\n")
    if not data or len(data) > _MAX_BYTES:
        raise SecretsUnavailable(name=name, provider=label, why="it is empty or larger than 64 KiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretsUnavailable(name=name, provider=label, why="it is not UTF-8 text") from None
    # The version only has to change when the value does. Truncated: it is logged, and must not serve to confirm a guess.
    return SecretVersion(value=Secret(text), version=hashlib.blake2b(data, digest_size=2, person=b"axis-secret-ver").hexdigest())

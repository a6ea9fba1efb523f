"""What a secrets manager must answer, and how it may refuse."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from axis_security.core.errors import ConfigError, Unavailable
from axis_security.core.secret import Secret

__all__ = ["SecretMissing", "SecretProvider", "SecretRefused", "SecretVersion", "SecretsUnavailable", "Stage", "check_name"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class Stage(enum.Enum):
    """Which version of a secret: the one in force, or the one before it (still accepted while a rotation spreads)."""

    CURRENT = "current"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """One version of a secret, as the provider gave it.

    Args:
        value: the secret.
        version: the provider's own name for this version; changes exactly when the value does.
        ttl: how long the provider lets it be kept, or ``None`` where it doesn't say.
    """

    value: Secret[str]
    version: str
    ttl: timedelta | None = None


class SecretMissing(ConfigError):
    """The provider answered, and has no such secret."""

    code = "secrets.missing"

    def __init__(self, *, name: str, stage: Stage, provider: str) -> None:
        super().__init__(
            what=f"there is no {stage.value} secret `{name}`",
            why=f"{provider} answered that it has none",
            fix="create it there, or correct the name",
            facts={"name": name, "provider": provider},
        )


class SecretsUnavailable(Unavailable):
    """The provider did not answer, or gave something that is no secret."""

    code = "secrets.unavailable"

    def __init__(self, *, name: str, provider: str, why: str) -> None:
        super().__init__(
            what=f"the secret `{name}` could not be fetched",
            why=f"{provider}: {why}",
            fix="check that the secrets manager is up and that this service may read the secret",
            facts={"name": name, "provider": provider},
        )


class SecretRefused(SecretsUnavailable):
    """The provider answered, and the answer was no: the secret is on its way out, its key is disabled, or this service lost its right to it.

    Unlike silence this is somebody's decision, so a secret in memory does not outlive its ttl on it.
    """

    code = "secrets.refused"


class SecretProvider(Protocol):
    """A secrets manager. Sync: hosts with an event loop go through :class:`SecretManager`, which keeps it off the loop."""

    @property
    def label(self) -> str:
        """What it is, for messages and checks, such as ``OpenBao KV2 at https://bao.internal``; never a credential."""
        ...

    def fetch(self, name: str, stage: Stage = Stage.CURRENT) -> SecretVersion:
        """Ask for one secret, now.

        Raises:
            SecretMissing: it answered that there is none.
            SecretsUnavailable: it did not answer.
            SecretRefused: it answered no.
        """
        ...


def check_name(name: str) -> str:
    """*name*, if it is one plain path-free word.

    Raises:
        ConfigError: it has a slash, a space, a leading dot, or more than 128 characters.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            what="malformed secret name",
            why="a name is letters, digits, dot, dash and underscore, at most 128 characters",
            fix="rename the secret",
        )
    return name

"""pgBackRest's configuration, rendered from the settings; it holds no secret."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

from axis_security.core.errors import ConfigError
from axis_security.ops.backup.settings import BackupSettings

__all__ = ["render_configuration"]

_OPTIONS: Final = re.compile(
    r"repo1-(type|bundle|s3-(bucket|endpoint|region|uri-style|key-type|role|kms-key-id)|azure-(account|container|endpoint|key-type|uri-style)"
    r"|gcs-(bucket|endpoint|key-type)|storage-(ca-file|ca-path|host|port))"
    r"|compress-(type|level)|buffer-size|(io|db|protocol)-timeout|archive-timeout|job-retry(-interval)?",
    re.ASCII,
)
"""What a host may set. By a list of what is allowed: among the rest are options that drop WAL (``archive-push-queue-max``), count instead of date
(``repo-retention-*``), or skip checks."""

_SECRET_OPTIONS: Final = re.compile(r"repo1-(s3-(key|key-secret|token)|azure-key|gcs-key)", re.ASCII)


def render_configuration(settings: BackupSettings, generation: int) -> str:
    """pgBackRest's configuration for one generation of the repository.

    Raises:
        ConfigError: an option that is not on the list of allowed ones.
    """
    for name in settings.options:
        if _OPTIONS.fullmatch(name) is None:
            raise ConfigError(
                what=f"the pgBackRest option `{name}` cannot be set here",
                why="it is ours (path, encryption, retention by time), would drop WAL or skip a check, or is a secret",
                fix="remove it; secrets go to `secret_options`, retention to the policy",
            )
    for name in settings.secret_options:
        if _SECRET_OPTIONS.fullmatch(name) is None:
            raise ConfigError(what=f"`{name}` is no secret option of pgBackRest", why="only access keys are passed so", fix="remove it")
    days = max(1, math.ceil(settings.policy.retention / timedelta(days=1)))
    chosen = {
        "repo1-path": str(settings.root(generation)),
        "repo1-cipher-type": "aes-256-cbc",
        "repo1-retention-full-type": "time",
        "repo1-retention-full": str(days),
        "compress-type": "zst",
        "process-max": str(settings.processes),
        "start-fast": "y",
        "archive-timeout": "600",  # the limit for a backlog, not for a failure: `run` has seen the archiver work
        "lock-path": str(settings.state / "lock"),
        "spool-path": str(settings.state / "spool"),
        "log-level-file": "off",
        "log-level-console": "off",
        "log-level-stderr": "warn",
        **settings.options,
    }
    stanza = {
        "pg1-path": str(settings.data_dir),
        "pg1-port": str(settings.port),
        "pg1-socket-path": str(settings.socket_dir),
        "pg1-user": settings.user,
        "pg1-database": settings.database,
    }
    lines = ["# Written by axis-security. The passphrase is not here: it comes from the secrets manager, by environment.", "[global]"]
    lines += [f"{name}={_one_line(value)}" for name, value in chosen.items()]
    lines += ["", f"[{settings.stanza}]", *(f"{name}={_one_line(value)}" for name, value in stanza.items())]
    return "\n".join(lines) + "\n"


def _one_line(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ConfigError(what="a backup setting spans lines", why="it would add options to pgBackRest's configuration", fix="correct it")
    return value

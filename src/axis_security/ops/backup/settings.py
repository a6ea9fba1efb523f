"""Where the cluster and its backups are, and with which keys; read from a TOML file that holds no secret."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from axis_security.core.errors import ConfigError
from axis_security.core.minted import parse_minted
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.ops.backup.policy import BackupPolicy
from axis_security.ops.secrets.local import EnvironmentSecrets, MountedFiles
from axis_security.ops.secrets.provider import SecretProvider

__all__ = ["KEY_KIND", "BackupKeys", "BackupSettings", "load_settings"]

KEY_KIND: Final = "backup"
"""The kind of a backup key's text form (``axis-security secrets mint backup``)."""

HELPER: Final = (sys.executable, "-m", "axis_security.cli", "backup")

_STANZA: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_DURATION: Final = re.compile(r"(\d{1,5}) ?(s|min|h|d)", re.ASCII)
_SAID: Final = {
    "timedelta": 'duration such as "7 d", "2 h" or "1 min"',
    "Path": "path, in quotes",
    "str": "text",
    "str | None": "text",
    "int": "whole number",
    "datetime | None": "moment with its zone, without quotes, such as 2026-05-01T00:00:00Z",
    "tuple[int, ...]": "list of whole numbers",
    "tuple[str, ...]": "list of texts",
    "Mapping[str, str]": "table of texts",
}
"""What a value is called, by its field's type."""
_UNIT: Final = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """One cluster and its repository.

    Args:
        stanza: the cluster's name in the repository; one cluster, one stanza.
        repository: where backups and WAL go: a directory, or for pgBackRest a path inside the bucket.
        data_dir: the cluster's data directory.
        bin_dir: its version's programs.
        socket_dir, port, user, database: how to reach it. Over its socket: peer authentication needs no password that could leak.
        driver: ``pgbackrest``, or ``native`` where that is not installed.
        generations: numbers of the keys, the active one last; those before are kept until their backups have left retention.
        secret: the keys' name in the secrets manager, to which ``-<generation>`` is added.
        run_as: the account that owns the data, for a service that starts as root.
        scratch: where drills restore to; needs room for one copy of the database.
        state: where locks and rendered configuration lie.
        helper: what PostgreSQL calls for each WAL segment, before ``wal-push`` or ``wal-get``.
        processes: how many processes pgBackRest may use.
        options: further pgBackRest options for other kinds of repository (``repo1-type``, ``repo1-s3-bucket``, …), none of them secret.
        secret_options: pgBackRest options whose values are secrets, with the secrets' names (``repo1-s3-key-secret``).
        began: see :class:`BackupPolicy`.

    Raises:
        ConfigError: a value is out of range.
    """

    stanza: str
    repository: Path
    data_dir: Path
    bin_dir: Path
    socket_dir: Path = Path("/var/run/postgresql")
    port: int = 5432
    user: str = "postgres"
    database: str = "postgres"
    driver: str = "pgbackrest"
    generations: tuple[int, ...] = (1,)
    secret: str = "backup-key"  # noqa: S105  # the name under which the manager keeps it
    run_as: str | None = None
    scratch: Path = Path("/var/lib/axis-security/scratch")
    state: Path = Path("/var/lib/axis-security/backup")
    helper: tuple[str, ...] = HELPER
    processes: int = 2
    options: Mapping[str, str] = field(default_factory=dict)
    secret_options: Mapping[str, str] = field(default_factory=dict)
    policy: BackupPolicy = field(default_factory=BackupPolicy)

    def __post_init__(self) -> None:
        absolute = all(
            path.is_absolute() for path in (self.repository, self.data_dir, self.bin_dir, self.socket_dir, self.scratch, self.state)
        )
        rules = (
            (
                _STANZA.fullmatch(self.stanza) is not None,
                "`stanza` is a lower-case word of at most 63 letters, digits, dashes, underscores",
            ),
            (absolute, "every path must be absolute"),
            (0 < self.port < 65_536, "`port` is no port"),
            (self.driver in {"pgbackrest", "native"}, "`driver` is `pgbackrest` or `native`"),
            (
                bool(self.generations) and list(self.generations) == sorted(set(self.generations)) and self.generations[0] >= 1,
                "`generations` are rising numbers from 1, the active one last",
            ),
            (1 <= self.processes <= 64, "`processes` lies in 1 to 64"),
            (bool(self.helper), "`helper` is a command"),
            (not self.repository.is_relative_to(self.data_dir), "the repository lies inside the data directory that it is to outlive"),
        )
        for holds, why in rules:
            if not holds:
                raise ConfigError(what="the backup settings are not usable", why=why, fix="correct the backup configuration")

    @property
    def active(self) -> int:
        """The generation that new backups and WAL are sealed with."""
        return self.generations[-1]

    def root(self, generation: int) -> Path:
        """The repository of one generation: a new key is a new repository beside the old."""
        return self.repository / f"g{generation}"

    def program(self, name: str) -> str:
        """The path of one of PostgreSQL's programs."""
        return str(self.bin_dir / name)

    @property
    def conninfo(self) -> str:
        """How to connect, in libpq's words; holds no password."""
        parts = {"host": str(self.socket_dir), "port": str(self.port), "user": self.user, "dbname": self.database}
        return " ".join(f"{name}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" for name, value in parts.items())

    def command(self, verb: str, *placeholders: str) -> str:
        """*verb* as PostgreSQL's ``archive_command`` or ``restore_command``."""
        return " ".join((*(shlex.quote(word).replace("%", "%%") for word in (*self.helper, verb)), *placeholders))

    @property
    def archive_command(self) -> str:
        """The server's ``archive_command``."""
        # The driver's name is no option: `wal-push` refuses another driver's, and pgBackRest refuses a command without its own.
        return self.command("wal-push", "--driver", self.driver, "%p")

    @property
    def restore_command(self) -> str:
        """A restored server's ``restore_command``."""
        return self.command("wal-get", "%f", "%p")

    def server_settings(self) -> Mapping[str, str]:
        """What the server must be set to; ``wal_level`` and ``archive_mode`` need a restart."""
        return {
            "wal_level": "replica",
            "archive_mode": "on",
            "archive_command": self.archive_command,
            "archive_timeout": f"{int(self.policy.archive_timeout.total_seconds())}s",
            "wal_keep_size": "1GB",
            "full_page_writes": "on",
        }


class BackupKeys:
    """The keys of all generations, from the secrets manager; fetched when used, and not kept."""

    def __init__(self, provider: SecretProvider, settings: BackupSettings) -> None:
        self._provider = provider
        self._secret = settings.secret

    @property
    def label(self) -> str:
        """Where they come from, for messages."""
        return self._provider.label

    def text(self, generation: int) -> Secret[str]:
        """The key's text form, which is pgBackRest's passphrase: 256 random bits behind a prefix and before a checksum.

        Raises:
            SecretMissing, SecretsUnavailable: as the provider says.
            ConfigError: what it gave is no whole backup key.
        """
        value = self._provider.fetch(f"{self._secret}-{generation}").value
        parse_minted(KEY_KIND, value)
        return Secret(value.reveal().strip())

    def key(self, generation: int) -> Secret[bytes]:
        """The key's 32 bytes. Raises as :meth:`text` does."""
        return parse_minted(KEY_KIND, self._provider.fetch(f"{self._secret}-{generation}").value)

    def option(self, name: str) -> Secret[str]:
        """Another secret, such as a bucket's access key."""
        return self._provider.fetch(name).value


def load_settings(path: Path) -> tuple[BackupSettings, BackupKeys]:
    """Read a TOML file: ``[backup]``, ``[policy]`` (durations as ``"7 d"``), ``[secrets]`` (``provider`` and its arguments).

    Raises:
        ConfigError: unreadable, an unknown name, or a value that is refused.
    """
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise _unusable(path, error.strerror or "unreadable") from None
    except tomllib.TOMLDecodeError as error:
        raise _unusable(path, str(error)) from None
    unknown = document.keys() - {"backup", "policy", "secrets"}
    if unknown:
        raise _unusable(path, f"unknown sections {sorted(unknown)}")
    wrong = [name for name, table in document.items() if not isinstance(table, dict)]
    if wrong:
        raise _unusable(path, f"`{wrong[0]}` is a value, not a section")
    policy = BackupPolicy(**_values(path, BackupPolicy, document.get("policy", {})))
    values = _values(path, BackupSettings, document.get("backup", {}))
    missing = [each.name for each in fields(BackupSettings) if each.default is each.default_factory is MISSING and each.name not in values]
    if missing:
        raise _unusable(path, f"[backup] needs {', '.join(missing)}")
    values.setdefault("helper", (*HELPER, "--config", str(path.resolve())))
    settings = BackupSettings(**values, policy=policy)
    return settings, BackupKeys(_provider(path, dict(document.get("secrets", {}))), settings)


def _values(path: Path, cls: type[Any], table: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {each.name: str(each.type) for each in fields(cls) if each.name != "policy"}
    unknown = table.keys() - kinds.keys()
    if unknown:
        raise _unusable(path, f"unknown names {sorted(unknown)}")
    return {name: _value(path, name, kinds[name], value) for name, value in table.items()}


def _value(path: Path, name: str, kind: str, value: object) -> object:
    match kind, value:
        case "timedelta", str():
            match = _DURATION.fullmatch(value)
            if match is not None:
                return timedelta(seconds=int(match[1]) * _UNIT[match[2]])
        case "Path", str():
            return Path(value)
        case ("str", str()) | ("str | None", str()) | ("datetime | None", datetime()):
            return value
        case "int", int() if not isinstance(value, bool):
            return value
        case "tuple[int, ...]", list() if all(type(each) is int for each in value):
            return tuple(value)
        case "tuple[str, ...]", list() if all(isinstance(each, str) for each in value):
            return tuple(value)
        case "Mapping[str, str]", dict() if all(isinstance(each, str) for each in value.values()):
            return value
    raise _unusable(path, f"`{name}` is no {_SAID[kind]}")


def _provider(path: Path, table: dict[str, Any]) -> SecretProvider:
    wrong = [name for name, value in table.items() if not isinstance(value, str)]
    if wrong:
        raise _unusable(path, f"`{wrong[0]}` is no text")
    made: SecretProvider | None = None
    try:
        match table.pop("provider", None):
            case "files":
                made = MountedFiles(Path(table.pop("directory")))
            case "environment":
                made = EnvironmentSecrets(environment=_environment(path, table.pop("environment", "production")))
            case "vault":
                from axis_security.ops.secrets import AppRoleLogin, VaultKv2, VaultSession

                files, role, secret = (
                    MountedFiles(Path(table.pop("credentials"))),
                    table.pop("role_id"),
                    table.pop("secret_id", "secret-id"),
                )
                login = AppRoleLogin(role_id=role, secret_id=lambda: files.fetch(secret).value)
                session = VaultSession(
                    url=table.pop("url"), login=login, verify=table.pop("ca", None), namespace=table.pop("namespace", None)
                )
                made = VaultKv2(session, mount=table.pop("mount", "secret"), prefix=table.pop("prefix", ""))
            case "aws":
                from axis_security.ops.secrets import AwsSecretsManager

                made = AwsSecretsManager(prefix=table.pop("prefix", ""))
    except KeyError as missing:
        raise _unusable(path, f"[secrets] needs {missing}") from None
    if made is None:
        raise _unusable(path, "[secrets] names no `provider`: files, vault, aws, or environment in development")
    if table:
        raise _unusable(path, f"unknown names in [secrets] {sorted(table)}")
    return made


def _environment(path: Path, text: str) -> Environment:
    try:
        return Environment(text)
    except ValueError:
        raise _unusable(path, f"`environment` is one of {', '.join(each.value for each in Environment)}") from None


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(what=f"the backup configuration `{path}` is not usable", why=why, fix="compare it with docs/how-to/backups.md")

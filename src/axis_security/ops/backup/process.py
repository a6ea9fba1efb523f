"""Programs: started with a clean environment and no shell, as the account that owns the data, and never with a secret in their arguments."""

from __future__ import annotations

import os
import pwd
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from axis_security.core.errors import ConfigError
from axis_security.ops.backup.errors import ProgramFailed

__all__ = ["Account"]

_TAIL: Final = 4_000
_KEPT: Final = frozenset({
    "PATH", "HOME", "PGPASSFILE", "PYTHONPATH", "CREDENTIALS_DIRECTORY",
    # How boto3 finds out who it is and where: a drill's server calls `wal-get`, which asks the secrets manager. None of them holds a secret.
    "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
})  # fmt: skip
"""What programs inherit of the environment."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL's programs: *name* when we are root, else ourselves.

    Raises:
        ConfigError: we are root and no account is named (PostgreSQL refuses to run as root), or there is none of that name.
    """

    name: str | None = None

    def __post_init__(self) -> None:
        if os.geteuid() == 0 and self.name is None:
            raise ConfigError(
                what="backups do not run as root", why="PostgreSQL refuses to", fix="run as the account that owns the data, or set `run_as`"
            )
        if os.geteuid() == 0:
            try:
                pwd.getpwnam(str(self.name))
            except KeyError:
                raise ConfigError(
                    what="`run_as` names no account", why=f"there is no `{self.name}` here", fix="name the account that owns the data"
                ) from None

    def own(self, path: Path) -> None:
        """Make *path* that account's; does nothing unless we are root."""
        if os.geteuid() == 0 and self.name is not None:
            entry = pwd.getpwnam(self.name)
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)

    def directory(self, path: Path) -> Path:
        """Make *path* a directory that only that account can enter, if it is none yet."""
        made = [parent for parent in (path, *path.parents) if not parent.exists()]
        for each in reversed(made):
            each.mkdir(mode=0o700, exist_ok=True)
            self.own(each)
        return path

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """A clean one: PGHOST or PGBACKREST_* of the caller must not steer our programs, and messages are read in English."""
        kept = {name: value for name, value in os.environ.items() if name in _KEPT}
        return {
            "PATH": "/usr/bin:/bin",
            **kept,
            "LC_ALL": "C",
            "TZ": "UTC",
            "PGTZ": "UTC",
            "PGAPPNAME": "axis-security backup",
            **(extra or {}),
        }

    def popen(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start *command*.

        Raises:
            ConfigError: the program is not installed, or may not be run.
        """
        who: dict[str, Any] = {}
        if os.geteuid() == 0 and self.name is not None:
            who = {"user": self.name, "group": pwd.getpwnam(self.name).pw_gid, "extra_groups": []}
        try:
            return subprocess.Popen(list(command), env=self.environment(env), cwd="/", **who, **options)
        except (FileNotFoundError, PermissionError) as error:
            raise _not_started(command[0], error) from None

    def run(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, on_line: Callable[[str], None] | None = None) -> str:
        """Run *command* to its end and return what it printed; *on_line* sees each line as it comes.

        Raises:
            ProgramFailed: it ended with an error.
        """
        with self.streaming(command, env=env, stdin=subprocess.DEVNULL) as process:
            lines = []
            for raw in process.stdout or ():
                line = raw.decode(errors="replace")
                lines.append(line)
                if on_line is not None:
                    on_line(line)
        return "".join(lines)

    @contextmanager
    def streaming(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        on_error_line: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run *command* with its output (and, if asked for, its input) as pipes; its end is awaited, and it is killed if the block raises.

        Raises:
            ProgramFailed: it ended with an error.
        """
        process = self.popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **options)
        said: list[str] = []
        listener = threading.Thread(target=_listen, args=(process.stderr, said, on_error_line), daemon=True)
        listener.start()
        try:
            with process.stdout or open(os.devnull, "rb"):  # noqa: PTH123
                yield process
            status = process.wait()
        except BrokenPipeError:
            # It went away while we wrote: its own message says why.
            status = process.wait() or -1
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            listener.join(5)
            for pipe in (process.stdin, process.stderr):
                if pipe is not None:
                    _close(pipe)
        if status:
            raise ProgramFailed(program=Path(command[0]).name, status=status, tail="".join(said)[-_TAIL:])


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return


def _listen(stream: IO[bytes] | None, said: list[str], on_line: Callable[[str], None] | None) -> None:
    for raw in stream or ():
        line = raw.decode(errors="replace")
        said.append(line)
        del said[:-200]
        if on_line is not None:
            on_line(line)


def _not_started(program: str, error: OSError) -> ConfigError:
    fix = (
        "apt-get install pgbackrest" if Path(program).name == "pgbackrest" else "install PostgreSQL's server programs, or correct `bin_dir`"
    )
    why = "it is not installed" if isinstance(error, FileNotFoundError) else "this account may not run it"
    return ConfigError(what=f"`{program}` cannot be started", why=why, fix=fix)

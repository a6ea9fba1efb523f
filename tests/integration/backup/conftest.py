"""A cluster that archives, with a repository, keys and settings of its own, for each driver."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conftest import service_missing

import axis_security
from axis_security.core.minted import minted_text
from axis_security.ops.backup import Backups, BackupSettings, load_settings
from axis_security.testing.cluster import Cluster, clean_env, give_to_server, unprivileged
from axis_security.testing.servers import ServiceMissing, debian_bin_dir

NEEDED = ("cryptography", "cffi", "_cffi_backend", "click", "psycopg", "psycopg_binary", "typing_extensions")
RUN_AS = "nobody" if os.geteuid() == 0 else None


@dataclass(frozen=True)
class Site:
    """One cluster with its backups."""

    driver: str
    home: Path
    config: Path
    cluster: Cluster
    helper: tuple[str, ...]

    @property
    def settings(self) -> BackupSettings:
        return load_settings(self.config)[0]

    @property
    def backups(self) -> Backups:
        """Fresh, as a new process would have it."""
        return Backups.from_file(self.config)

    @property
    def repository(self) -> Path:
        return self.home / "repo"

    def key_file(self, generation: int = 1) -> Path:
        return self.home / "secrets" / f"backup-key-{generation}"

    def mint(self, generation: int) -> str:
        """A fresh key in the secrets' directory."""
        path = self.key_file(generation)
        text = minted_text("backup", secrets.token_bytes(32)).reveal()
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o400)
        give_to_server(path)
        return text

    def write_config(self, **changes: str) -> None:
        """The TOML file; *changes* are right-hand sides in [backup]."""
        cluster = self.cluster
        values = {
            "stanza": '"site"',
            "driver": f'"{self.driver}"',
            "repository": f'"{self.repository}"',
            "data_dir": f'"{cluster.data_dir}"',
            "bin_dir": f'"{cluster.program("postgres").parent}"',
            "socket_dir": f'"{cluster.home / "s"}"',
            "port": str(cluster.port),
            "scratch": f'"{self.home / "scratch"}"',
            "state": f'"{self.home / "state"}"',
            "helper": str([*self.helper, "--config", str(self.config)]),
            # A damaged file stays damaged: no second try, after 15 s, within a test.
            **({"options": '{"job-retry" = "0"}'} if self.driver == "pgbackrest" else {}),
            **({"run_as": f'"{RUN_AS}"'} if RUN_AS else {}),
            **changes,
        }
        lines = ["[backup]", *(f"{name} = {value}" for name, value in values.items())]
        lines += ["[secrets]", 'provider = "files"', f'directory = "{self.home / "secrets"}"']
        self.config.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def helper() -> Iterator[tuple[str, ...]]:
    """A command that the server's account can run: this interpreter, or a copy where that lies below a closed directory."""
    command = (sys.executable, "-m", "axis_security.cli", "backup")
    if _runs(command):
        yield command
        return
    home = Path(tempfile.mkdtemp(prefix="axis-py-"))
    home.chmod(0o755)
    try:
        yield _copied(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _runs(command: tuple[str, ...]) -> bool:
    try:
        return subprocess.run([*command, "--help"], capture_output=True, cwd="/", env=clean_env(), **unprivileged()).returncode == 0
    except PermissionError:
        return False


def _copied(home: Path) -> tuple[str, ...]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    packages = home / "packages"
    skip = shutil.ignore_patterns("test", "tests", "site-packages", "idlelib", "tkinter", "ensurepip", "config-*")
    shutil.copytree(sysconfig.get_path("stdlib"), home / "lib" / version, ignore=skip)
    for library in base.glob("lib/libpython*.so*"):
        shutil.copy2(library, home / "lib" / library.name)
    (home / "bin").mkdir()
    shutil.copy2(Path(sys.executable).resolve(), home / "bin" / version)
    packages.mkdir()
    shutil.copytree(Path(axis_security.__file__).parent, packages / "axis_security", ignore=skip)
    site = Path(sysconfig.get_path("purelib"))
    for name in NEEDED:
        for path in site.glob(f"{name}*"):
            if path.name.split(".")[0] in {name, name.split("-")[0]}:
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, packages / path.name)
    for path in home.rglob("*"):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
    environment = (f"PYTHONHOME={home}", f"PYTHONPATH={packages}", f"LD_LIBRARY_PATH={home / 'lib'}", "PYTHONDONTWRITEBYTECODE=1")
    command = ("/usr/bin/env", *environment, str(home / "bin" / version), "-m", "axis_security.cli", "backup")
    if not _runs(command):
        pytest.fail("the server's account cannot run this interpreter, nor a copy of it")
    return command


@contextlib.contextmanager
def make_site(
    driver: str, helper: tuple[str, ...], *, bin_dir: Path | None = None, server: Callable[[dict[str, str]], Cluster] | None = None
) -> Iterator[Site]:
    """A cluster of its own that archives through our command; *server* makes it from its settings."""
    home = Path(tempfile.mkdtemp(prefix="axis-bk-"))
    home.chmod(0o755)
    give_to_server(home)
    config = home / "backup.toml"
    for name in ("secrets",):
        (home / name).mkdir(mode=0o700)
        give_to_server(home / name)
    command = " ".join((*helper, "--config", str(config), "wal-push", "--driver", driver, "%p"))
    wanted = {
        "archive_mode": "on",
        "wal_level": "replica",
        "wal_keep_size": "256MB",
        "archive_command": command,
        "shared_buffers": "32MB",
    }
    cluster = Cluster(bin_dir=bin_dir, settings=wanted) if server is None else server(wanted)
    site = Site(driver=driver, home=home, config=config, cluster=cluster, helper=helper)
    try:
        site.mint(1)
        # The server archives from its first second: its configuration must be there before it.
        with cluster:
            site.write_config()
            yield site
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def make_archive() -> Callable[..., contextlib.AbstractContextManager[Site]]:
    """Makes sites, for tests in other files that want one of their own."""
    return make_site


@pytest.fixture(scope="session")
def debian_programs() -> Callable[[], Path]:
    """Finds Debian's programs, or skips."""
    return debian


@pytest.fixture(params=["native", "pgbackrest"], scope="module")
def site(request: pytest.FixtureRequest, helper: tuple[str, ...]) -> Iterator[Site]:
    """Both drivers, one after the other: PostgreSQL 18 with the native one, Debian's 15 with its pgBackRest."""
    with make_site(request.param, helper, bin_dir=debian() if request.param == "pgbackrest" else None) as made:
        yield made


@pytest.fixture
def own_site(helper: tuple[str, ...]) -> Iterator[Site]:
    """The native driver with a cluster that one test has for itself."""
    with make_site("native", helper) as made:
        yield made


def debian() -> Path:
    """Debian's PostgreSQL 15, beside a pgBackRest that knows it."""
    if shutil.which("pgbackrest") is None:
        service_missing(ServiceMissing(program="pgbackrest", install="apt-get install pgbackrest"))
    try:
        return debian_bin_dir(15)
    except ServiceMissing as missing:
        service_missing(missing)

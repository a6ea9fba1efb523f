"""Backups and restores through our drivers, against the bare programs they drive: pgBackRest, and ``pg_basebackup`` with ``tar``.

The bare side has what a careful operator types and nothing else: no canary, no catalogue, no encryption with ``pg_basebackup``. ``--full``: a 1 GB database.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import psycopg

from axis_security.core.minted import minted_text
from axis_security.ops.backup import BackupKeys, BackupKind, BackupPolicy, BackupSettings
from axis_security.ops.backup.native import NativeDriver
from axis_security.ops.backup.pgbackrest import PgBackRestDriver
from axis_security.ops.backup.server import switch_and_wait
from axis_security.ops.secrets import MountedFiles
from axis_security.testing.cluster import Cluster, clean_env, give_to_server, unprivileged
from axis_security.testing.servers import ServiceMissing, debian_bin_dir
from benchmarks.harness import Row, Settings, interleaved, measured

_ROW_BYTES = 640
_NATIVE, _PGBACKREST = 1.3, 1.1


def run(settings: Settings) -> Iterable[Row]:
    """Both drivers; without Debian's pgBackRest and PostgreSQL 15, the native one alone."""
    mebibytes = 1024 if settings.full else 64 if settings.quick else 256
    rounds = settings.rounds(5)
    with _site(None, "native") as (cluster, made):
        _fill(cluster, mebibytes)
        yield from _native(cluster, made, rounds, mebibytes)
    if shutil.which("pgbackrest") is None:
        return
    try:
        programs = debian_bin_dir(15)
    except ServiceMissing:
        return
    with _site(programs, "pgbackrest") as (cluster, made):
        _fill(cluster, mebibytes)
        yield from _pgbackrest(cluster, made, rounds, mebibytes)


@contextlib.contextmanager
def _site(bin_dir: Path | None, driver: str) -> Iterator[tuple[Cluster, BackupSettings]]:
    home = Path(tempfile.mkdtemp(prefix="axis-bench-"))
    try:
        for path in (home, home / "secrets", home / "out", home / "wal"):
            path.mkdir(mode=0o755, exist_ok=True)
            path.chmod(0o755)
            give_to_server(path)
        key = home / "secrets" / "backup-key-1"
        key.write_text(minted_text("backup", secrets.token_bytes(32)).reveal())
        key.chmod(0o400)
        give_to_server(key)
        archive = home / "archive-pgbackrest"
        archive.write_text(f'#!/bin/sh\ncp "$1" {home}/wal/\n')
        archive.chmod(0o755)
        options = {"archive_mode": "on", "wal_level": "replica", "archive_command": f"{archive} %p", "max_wal_size": "4GB"}
        with Cluster(bin_dir=bin_dir, settings=options) as cluster:
            yield (
                cluster,
                BackupSettings(
                    stanza="bench",
                    driver=driver,
                    repository=home / "repo",
                    data_dir=cluster.data_dir,
                    bin_dir=cluster.program("postgres").parent,
                    socket_dir=cluster.home / "s",
                    port=cluster.port,
                    run_as="nobody" if unprivileged() else None,
                    scratch=home / "scratch",
                    state=home / "state",
                    policy=BackupPolicy(),
                ),
            )
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _fill(cluster: Cluster, mebibytes: int) -> None:
    rows = mebibytes * 2**20 // _ROW_BYTES
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        # Half of it compresses, as business data does.
        connection.execute(
            "CREATE TABLE bulk AS SELECT i AS id, repeat(md5(i::text), 8) || encode(sha256(i::text::bytea) || sha256((i * 7)::text::bytea)"
            " || sha256((i * 11)::text::bytea) || sha256((i * 13)::text::bytea) || sha256((i * 17)::text::bytea), 'hex') AS text"
            " FROM generate_series(1, %s) i",
            (rows,),
        )
        connection.execute("VACUUM (FREEZE) bulk")
        connection.execute("CHECKPOINT")
        switch_and_wait(connection)


def _native(cluster: Cluster, made: BackupSettings, rounds: int, mebibytes: int) -> Iterable[Row]:
    driver = NativeDriver(made, _keys(made))
    home, numbers = made.repository.parent, itertools.count()
    bare_tar = home / "out" / "bare.tar"

    def ours() -> None:
        for backup in driver.inventory().backups[:-1]:
            shutil.rmtree(made.root(1) / "backups" / backup.label)
        driver.run(BackupKind.FULL)

    def bare() -> None:
        bare_tar.unlink(missing_ok=True)
        command = [cluster.program("pg_basebackup"), "-d", cluster.dsn(), "-D", "-", "-F", "t", "-X", "fetch", "-c", "fast"]
        with bare_tar.open("wb") as file:
            subprocess.run(
                [*map(str, command), "--manifest-checksums", "CRC32C"], check=True, stdout=file, stderr=subprocess.DEVNULL, env=clean_env()
            )
        _on_disk(bare_tar)

    yield _row(
        f"native: back up {mebibytes} MiB, sealed",
        interleaved({"ours": ours, "bare": bare}, rounds=rounds),
        _NATIVE,
        "pg_basebackup to a file, synced",
    )

    def restore() -> None:
        into = home / "out" / f"ours-{next(numbers)}"
        driver.restore(into, target=None)
        shutil.rmtree(into)

    def unpack() -> None:
        into = home / "out" / f"bare-{next(numbers)}"
        into.mkdir()
        give_to_server(into)
        with bare_tar.open("rb") as file:
            subprocess.run(["tar", "-x", "-C", str(into)], check=True, stdin=file, **unprivileged())
        subprocess.run([str(cluster.program("pg_verifybackup")), "--quiet", str(into)], check=True, env=clean_env(), **unprivileged())
        shutil.rmtree(into)

    _wal_is_there(cluster, driver, home / "wal")
    yield _row(
        f"native: restore {mebibytes} MiB, opened and verified",
        interleaved({"ours": restore, "bare": unpack}, rounds=rounds),
        _NATIVE,
        "tar and pg_verifybackup",
    )


def _wal_is_there(cluster: Cluster, driver: NativeDriver, kept: Path) -> None:
    """Bring the segments that the newest backup needs; the server's archive_command only put them aside."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        switch_and_wait(connection)
    newest = driver.inventory().newest
    if newest is None:
        raise RuntimeError("no backup was taken")
    for path in sorted(kept.glob("0000*")):
        if newest.first_wal <= path.name <= newest.last_wal:
            driver.push_wal(path)


def _pgbackrest(cluster: Cluster, made: BackupSettings, rounds: int, mebibytes: int) -> Iterable[Row]:
    driver = PgBackRestDriver(made, _keys(made))
    home, numbers = made.repository.parent, itertools.count()
    for path, text in driver.files().items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
        give_to_server(Path(path))
        give_to_server(Path(path).parent)
    command, environment = driver.command(1, "archive-push")
    # The server's own push, without our helper between: what is measured is the backup. The key is this run's and goes with it.
    exported = "".join(f"export {name}={value}\n" for name, value in environment.items())
    script = home / "archive-pgbackrest"
    script.write_text(f'#!/bin/sh\n{exported}exec {" ".join(command)} "$1"\n')
    script.chmod(0o700)
    give_to_server(script)
    driver.prepare()

    def call(verb: str, *words: str) -> None:
        words_of, env = driver.command(1, verb, *words)
        subprocess.run(words_of, check=True, env={**clean_env(), **env}, stdout=subprocess.DEVNULL, **unprivileged())

    cases: Mapping[str, Callable[[], object]] = {"ours": lambda: driver.run(BackupKind.FULL), "bare": lambda: call("backup", "--type=full")}
    yield _row(
        f"pgBackRest: back up {mebibytes} MiB, with its check before",
        interleaved(cases, rounds=rounds),
        _PGBACKREST,
        "pgbackrest backup alone",
    )

    def restore() -> None:
        into = home / "out" / f"ours-{next(numbers)}"
        driver.restore(into, target=None)
        shutil.rmtree(into)

    def bare_restore() -> None:
        into = home / "out" / f"bare-{next(numbers)}"
        into.mkdir(mode=0o700)
        give_to_server(into)
        call("restore", f"--pg1-path={into}", "--type=default")
        shutil.rmtree(into)

    times = interleaved({"ours": restore, "bare": bare_restore}, rounds=rounds)
    yield _row(f"pgBackRest: restore {mebibytes} MiB, with the look for gaps", times, _PGBACKREST, "pgbackrest restore alone")


def _keys(made: BackupSettings) -> BackupKeys:
    return BackupKeys(MountedFiles(made.repository.parent / "secrets"), made)


def _on_disk(path: Path) -> None:
    import os

    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _row(case: str, times: Mapping[str, list[float]], most: float, against: str) -> Row:
    bare = statistics.median(times["bare"])
    return measured(
        "backup", case, "s", times["ours"], limit=bare, target=f"at most {most} x {against}", met=statistics.median(times["ours"]) <= most * bare
    )  # fmt: skip

"""Both drivers on real servers: what is written while a backup runs comes back to the moment, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from psycopg_pool import ConnectionPool
from sqlalchemy import MetaData

from axis_security.core.checks import CheckResult
from axis_security.core.events import NullSink
from axis_security.core.ids import KeyType, TenantId
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.keystore import KEYSTORE_PART, PostgresKeyStore
from axis_security.crypto.ledger import FileShredLedger
from axis_security.ops.audit_postgres import AUDIT_PART
from axis_security.ops.backup import Backups, RestoredSite
from axis_security.ops.backup.errors import BackupDamaged, BackupError, ProgramFailed, WalConflict, WalMissing, WrongBackupKey, WrongCluster
from axis_security.ops.backup.invariants import audit_chains_hold, keys_open, shredded_stay_shredded
from axis_security.ops.backup.records import append_record, verify_records
from axis_security.ops.backup.server import connected, plant_canary, server_time, switch_and_wait
from axis_security.rls import Tenancy
from axis_security.testing.crypto import FakeKms

MARKER = "zebra-quartz-canal-7719"


Site = Any  # tests/integration/backup/conftest.py


class Writers:
    """Sessions that insert row after row, and know when each was begun and when it was surely committed."""

    def __init__(self, dsn: str, count: int = 2) -> None:
        self.dsn, self.count = dsn, count
        self.rows: dict[tuple[int, int], tuple[datetime, datetime]] = {}
        self._stop = threading.Event()

    def _write(self, writer: int) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            number = 0
            while not self._stop.is_set():
                number += 1
                began = datetime.now(UTC)
                connection.execute("INSERT INTO ledger VALUES (%s, %s, %s)", (writer, number, f"{MARKER}-{writer}-{number}"))
                self.rows[writer, number] = (began, datetime.now(UTC))
                time.sleep(0.002)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._write, args=(number,)) for number in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def exact(self, site: RestoredSite) -> CheckResult:
        """Each row committed by the target is there; none that was begun after it is; and nothing else."""
        with psycopg.connect(site.dsn("postgres")) as connection:
            found = {(writer, number): text for writer, number, text in connection.execute("SELECT writer, number, text FROM ledger")}
            # Rows from before the writers began: the bulk of the database.
            bulk = connection.execute("SELECT count(*), sum(id) FROM bulk").fetchone()
        due = {key for key, (_, committed) in self.rows.items() if committed < site.target}
        later = {key for key, (began, _) in self.rows.items() if began > site.target}
        right = due <= found.keys() and not later & found.keys() and found.keys() <= self.rows.keys()
        whole = all(found[writer, number] == f"{MARKER}-{writer}-{number}" for writer, number in found)
        return CheckResult(
            name="ledger",
            ok=right and whole and bulk == (BULK, BULK * (BULK + 1) // 2),
            seen=f"{len(due)} due, {len(later)} later, {len(found)} found",
        )


BULK = 60_000


@pytest.fixture(scope="module")
def busy(site: Site) -> Writers:
    """A backup taken while writers were at work, who went on after it."""
    with psycopg.connect(site.cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE ledger (writer int, number int, text text, PRIMARY KEY (writer, number))")
        connection.execute("CREATE TABLE bulk AS SELECT i AS id, repeat(md5(i::text), 4) AS text FROM generate_series(1, %s) i", (BULK,))
    writers = Writers(site.cluster.dsn())
    with writers.at_work():
        time.sleep(0.2)
        site.backups.run()
        time.sleep(0.4)
    return writers


def data_file(site: Site) -> Path:
    """The largest data file of the newest backup itself, as stored: what a restore cannot do without. Other tests take backups of their own before this one."""
    newest: str = site.backups.driver.inventory().newest.label
    folder: Path = next(path for path in site.repository.rglob(newest) if path.is_dir())
    files: list[Path] = [
        path for path in folder.rglob("*") if path.is_file() and path.name != "catalogue" and not path.name.startswith("backup.")
    ]
    return max(files, key=lambda path: path.stat().st_size)


@contextmanager
def flipped(path: Path, *, at: int, bit: int) -> Iterator[None]:
    """One bit of *path* changed, for the block."""
    whole, status = path.read_bytes(), path.stat()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_drill_brings_back_the_moment_and_nothing_later(site: Site, busy: Writers, tmp_path: Path) -> None:
    """Random moment while writers ran: their rows are exact at it, later ones absent, the record is hashed, and nothing is left behind."""
    inventory = site.backups.driver.inventory()
    first, last = inventory.backups[0].finished, max(committed for _, committed in busy.rows.values())
    target = first + (last - first) * random.random()
    report = site.backups.drill(invariants={"ledger": busy.exact}, target=target)
    assert report.ok, [check.as_dict() for check in report.checks]
    assert int(report.checks[1].seen.split()[0]) > 0, "no row was due: the target shows nothing"
    body = {name: value for name, value in report.evidence.items() if name != "sha256"}
    assert report.evidence["sha256"] == hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert report.rto_seconds > 0
    assert list(site.settings.scratch.iterdir()) == []
    records = tmp_path / "drills.jsonl"
    assert append_record(records, report.evidence) == report.evidence
    assert verify_records(records).ok
    records.write_text(records.read_text().replace('"ok":true', '"ok":false', 1))
    assert not verify_records(records).ok


def test_a_drill_sees_what_does_not_hold(site: Site, busy: Writers) -> None:
    """Control: an invariant that raises, and one that asks for rows of another moment, turn the drill red; it cleans up all the same."""

    def raises(_: RestoredSite) -> CheckResult:
        raise RuntimeError("row 4711 of Ms Doe")

    def of_another_moment(restored: RestoredSite) -> CheckResult:
        wrong = RestoredSite(data_dir=restored.data_dir, conninfo=restored.conninfo, target=datetime.now(UTC))
        return busy.exact(wrong)

    target = site.backups.driver.inventory().backups[0].finished
    report = site.backups.drill(invariants={"raises": raises, "later": of_another_moment}, target=target)
    assert [check.ok for check in report.checks] == [True, False, False]
    assert "Doe" not in json.dumps(report.evidence)
    assert list(site.settings.scratch.iterdir()) == []


def test_nothing_stored_can_be_read(site: Site, busy: Writers) -> None:
    """No file of the repository holds the marker that fills the table, every one has the sealed format's magic, and neither configuration nor state holds the key."""
    driver, marker, key = site.backups.driver, MARKER.encode(), site.key_file().read_bytes()
    files = [path for path in site.repository.rglob("*") if path.is_file() and path.name != "lock"]
    assert len(files) > 5
    for path in files:
        data = path.read_bytes()
        assert data.startswith(driver.magic), path
        assert marker not in data, path
    live = [path for path in (site.cluster.data_dir / "base").rglob("*") if path.is_file() and marker in path.read_bytes()]
    assert live, "control: the marker is in the clear in the live database"
    for path in (site.config, *(site.home / "state").rglob("*")):
        assert not path.is_file() or key not in path.read_bytes()
    by_name = {result.name: result for result in site.backups.check()}
    assert by_name["backup.encryption"].ok
    plain = site.repository / "g1" / ("wal" if site.driver == "native" else "archive") / "copy.sql"
    plain.write_bytes(b"INSERT INTO ledger ...")
    plain.chmod(0o644)
    try:
        result = next(result for result in site.backups.check() if result.name == "backup.encryption")
        assert [finding.code for finding in result.findings] == ["backup.plaintext"], "control: a plain file is seen"
    finally:
        plain.unlink()


def test_a_flipped_bit_is_caught(site: Site, busy: Writers) -> None:
    """Any one bit of the newest backup's data changed: verification names the damage, and a restore refuses and leaves an empty directory."""
    assert site.backups.driver.verify().ok
    into = site.home / "flipped"
    path = data_file(site)
    at, bit = random.randrange(path.stat().st_size), random.randrange(8)
    with flipped(path, at=at, bit=bit):
        result = site.backups.driver.verify()
        assert not result.ok, (path, at, bit)
        assert result.findings[0].code in {"backup.damaged", "backup.wrong_key"}
        with pytest.raises((BackupDamaged, ProgramFailed)):
            site.backups.restore(into)
        assert list(into.iterdir()) == []
    assert site.backups.driver.verify().ok


def kind_of(path: Path) -> str:
    """The sort of thing that *path* is: its name without numbers, and for lists kept twice which of them."""
    return re.sub(r"[0-9A-Fa-f_-]{4,}|\d+", "#", f"{path.parent.name}/{path.name}" if path.suffix in {".info", ".copy"} else path.name)


def test_no_stored_bit_is_beyond_verification(site: Site, busy: Writers) -> None:
    """One bit changed in one file of each kind that the repository holds (lists and their copies, identity, data, WAL): verification is red each time."""
    # pgBackRest itself reads neither in a restore, so neither carries a check: the driver says so.
    unread = ("backup.history", ".backup") if site.driver == "pgbackrest" else ()
    files = [
        path
        for path in site.repository.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != "lock" and not any(word in str(path) for word in unread)
    ]
    random.shuffle(files)
    kinds = {kind_of(path): path for path in files}
    chosen = sorted(kinds.values(), key=lambda path: path.suffix not in {".copy", ".info", ".manifest"})[:9]
    missed = []
    for path in chosen:
        at, bit = random.randrange(path.stat().st_size), random.randrange(8)
        with flipped(path, at=at, bit=bit):
            try:
                result = site.backups.driver.verify()
            except BackupError:
                continue
            if result.ok:
                missed.append((str(path.relative_to(site.repository)), at, bit))
    assert not missed, sorted(kinds)
    assert site.backups.driver.verify().ok


def test_a_missing_segment_is_named(site: Site, busy: Writers) -> None:
    """A WAL segment gone from the archive: the check and the restore name it; a target before it can still be restored to."""
    with connected(site.settings.conninfo) as connection:
        for _ in range(2):
            plant_canary(connection)
            switch_and_wait(connection)
    inventory = site.backups.driver.inventory()
    later = [wal.name for wal in inventory.wal if wal.name > inventory.backups[-1].last_wal]
    assert len(later) > 1
    gone = later[0]
    stored = next(path for path in site.repository.rglob(f"{gone}*") if path.is_file())
    aside = site.home / "aside"
    stored.rename(aside)
    try:
        by_name = {result.name: result for result in site.backups.check()}
        assert gone in [finding.object for finding in by_name["backup.wal_gap"].findings]
        with pytest.raises(WalMissing, match=gone):
            site.backups.restore(site.home / "gap")
    finally:
        aside.rename(stored)
    assert next(result for result in site.backups.check() if result.name == "backup.wal_gap").ok


def test_another_backup_comes_back_beside_a_damaged_one(site: Site, busy: Writers) -> None:
    """A backup whose catalogue (with pgBackRest: whose manifests) is gone is named, and moments after it come back from the one before, row for row. The next run
    is a full one; the native driver's deletes nothing of what is left of it, pgBackRest removes what it can never read again."""
    before = site.backups.driver.inventory()
    lost = site.backups.run()
    folder = next(path for path in site.repository.rglob(lost.label) if path.is_dir())
    aside = site.home / "lost"
    aside.mkdir()
    gone = [folder / "catalogue"] if site.driver == "native" else sorted(folder.glob("backup.manifest*"))
    assert gone
    for path in gone:
        path.rename(aside / path.name)
    left = {path for path in folder.rglob("*") if path.is_file()}
    assert left, "control: there is something that could be thrown away"
    try:
        inventory = site.backups.driver.inventory()
        assert [backup.label for backup in inventory.backups] == [backup.label for backup in before.backups]
        assert [lost.label in str(error.facts["name"]) for error in inventory.damaged] == [True]
        assert not next(result for result in site.backups.check() if result.name == "backup.catalogue").ok
        with connected(site.settings.conninfo) as connection:
            target = server_time(connection)
        report = site.backups.drill(invariants={"ledger": busy.exact}, target=target)
        assert report.ok, report.evidence
        assert report.label == before.newest.label
        assert site.backups.run().kind == "full"
        if site.driver == "native":
            assert {path for path in folder.rglob("*") if path.is_file()} == left
    finally:
        for path in gone if folder.exists() else ():
            (aside / path.name).rename(path)
    assert site.backups.driver.inventory().damaged == []


def test_a_wrong_key_opens_nothing(site: Site, busy: Writers) -> None:
    """With another key under the generation's number nothing is listed, verified or restored, and the archive takes no further segment under it."""
    right = site.key_file().read_text()
    site.mint(1)
    try:
        with pytest.raises(WrongBackupKey):
            site.backups.restore(site.home / "wrong-key")
        assert not any(result.ok for result in site.backups.check() if result.name in {"backup.age", "backup.wal_gap", "backup.window"})
        if site.driver == "native":
            stored = next(path for path in (site.repository / "g1" / "wal").rglob("0*") if path.is_file())
            with pytest.raises(WrongBackupKey):
                site.backups.driver.fetch_wal(stored.name, site.home / "x")
            assert not (site.home / "x").exists()
    finally:
        path = site.key_file()
        path.chmod(0o600)
        path.write_text(right)
        path.chmod(0o400)
    assert site.backups.driver.inventory().backups


def spawn(code: str, site: Site) -> subprocess.Popen[bytes]:
    """Python in a process of its own, to be killed."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    text = f"import sys; from pathlib import Path; from axis_security.ops.backup import Backups; site = Backups.from_file(Path({str(site.config)!r})); {code}"
    return subprocess.Popen([sys.executable, "-c", text], env=env, stderr=subprocess.DEVNULL, start_new_session=True)


def kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """At once, as the machine's end would: the process and whatever it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(what: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


def test_killed_in_the_middle_the_next_run_is_clean(site: Site, busy: Writers) -> None:
    """A backup and a restore killed half-way leave no backup that counts; the next ones finish, and what was half-written is gone."""
    known = [backup.label for backup in site.backups.driver.inventory().backups]
    folder = site.repository / "g1" / ("backups" if site.driver == "native" else "backup/site")
    before = {path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()}
    process = spawn("site.driver.run(__import__('axis_security.ops.backup.driver', fromlist=['x']).BackupKind.FULL)", site)
    wait_for(
        lambda: {path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()} - before or process.poll() is not None
    )
    time.sleep(0.05)
    kill_with_children(process)
    half = {path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()} - before
    assert half, "control: something half-written was there"
    assert [backup.label for backup in site.backups.driver.inventory().backups] == known
    backup = site.backups.run()
    whole = {path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name != "backup.history"}
    assert whole == {*known, backup.label}
    into = site.home / "restored"
    process = spawn(f"site.restore(Path({str(into)!r}))", site)
    wait_for(lambda: (into / "base").exists() or process.poll() is not None)
    kill_with_children(process)
    assert any(into.iterdir()), "control: something half-restored was there"
    assert not (into / "recovery.signal").exists()
    site.backups.restore(into)
    assert (into / "recovery.signal").exists()
    assert not into.with_name(".restored.restoring").exists()


def test_the_command_line_does_it_all(site: Site, busy: Writers, tmp_path: Path, command_line: Callable[..., Result]) -> None:
    """plan holds no key; check is red only where it must be and says so by its status; a target out of the window is refused with what, why and fix."""
    cli = partial(command_line, "backup", "--config", site.config)
    plan = cli("plan", "--json")
    files = json.loads(plan.stdout)
    assert "axis-backup.timer" in files
    assert "archive_command" in files["postgresql.conf"]
    assert site.key_file().read_text() not in plan.stdout
    checked = cli("check", "--json")
    assert checked.exit_code == 1
    assert [each["name"] for each in json.loads(checked.stdout) if not each["ok"]] == ["backup.window"]
    refused = cli("restore", str(tmp_path / "new"), "--target", "2020-01-01T00:00:00+0000")
    assert refused.exit_code == 2
    assert "[backup.target]" in refused.stderr
    missing = cli("wal-get", "000000010000000000000FFF", str(tmp_path / "wal"))
    assert missing.exit_code == 1
    shown = cli("plan").stdout
    assert all(f"### {name}" in shown for name in files)
    assert cli("check", "--verify").stdout.count("FAIL") == 1
    other = "native" if site.driver == "pgbackrest" else "pgbackrest"
    wrong = cli("wal-push", "--driver", other, tmp_path / "wal")
    assert wrong.exit_code == 2
    assert "another driver's repository" in wrong.stderr


@pytest.mark.parametrize("site", ["native"], indirect=True, scope="module")
def test_the_command_line_backs_up_drills_and_restores(
    site: Site, busy: Writers, tmp_path: Path, command_line: Callable[..., Result]
) -> None:
    """run, drill and restore print what a person reads or what a machine does; the drill's record goes to a file whose chain holds."""
    cli = partial(command_line, "backup", "--config", site.config)
    told = json.loads(cli("run", "--kind", "full", "--json").stdout)
    assert told["kind"] == "full"
    assert told["bytes"] > 1_000_000
    text = cli("run").stdout
    assert re.fullmatch(r"\w+ backup \S+: \d+ MB in [\d.]+ s, key generation 1\n", text), text
    with connected(site.settings.conninfo) as connection:
        switch_and_wait(connection)
    evidence = tmp_path / "drills.jsonl"
    for words in ((), ("--json",)):
        drilled = cli("drill", "--evidence", evidence, *words)
        assert drilled.exit_code == 0, drilled.output
    assert json.loads(drilled.stdout)["ok"] is True
    assert len(evidence.read_text().splitlines()) == 2
    assert verify_records(evidence).ok
    into = site.home / "by-hand"
    restored = cli("restore", into)
    assert restored.exit_code == 0, restored.output
    assert (into / "recovery.signal").exists()


def test_a_damaged_archive_ends_the_recovery(own_site: Site, tmp_path: Path, command_line: Callable[..., Result]) -> None:
    """`wal-get` that cannot read what is there exits above 125: PostgreSQL stops in place of taking the archive's end for reached."""
    own_site.backups.run()
    segment = next(path for path in sorted(own_site.repository.rglob("0000000100000*")) if path.is_file())
    get = partial(command_line, "backup", "--config", own_site.config, "wal-get", segment.name[:24])
    assert get(tmp_path / "whole").exit_code == 0
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o600)
    segment.write_bytes(data)
    damaged = get(tmp_path / "damaged")
    assert damaged.exit_code == 200
    assert "[backup." in damaged.stderr


@pytest.mark.parametrize("site", ["native"], indirect=True, scope="module")  # pgBackRest has a lock of its own
def test_two_runs_do_not_meet(site: Site, busy: Writers) -> None:
    """A second run while one is at work is refused; it does not clean the first one's files away."""
    backups: list[Backups] = [site.backups, site.backups]
    errors: list[BaseException] = []

    def run(one: Backups) -> None:
        try:
            from axis_security.ops.backup import BackupKind

            one.driver.run(BackupKind.FULL)
        except BackupError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in backups]
    before = len(site.backups.driver.inventory().backups)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = len(site.backups.driver.inventory().backups)
    assert after - before + len(errors) == 2
    assert after > before


def test_a_new_key_is_a_new_generation_and_the_audit_chain_comes_back(own_site: Site) -> None:
    """After a rotation new backups and WAL lie under the new key, and moments of the old one can still be restored; audit chains verify at each."""
    with psycopg.connect(own_site.cluster.dsn()) as connection:
        tenancy = Tenancy(MetaData(), key_type=KeyType.TEXT)
        tenancy.plan(connection, parts=[AUDIT_PART]).apply(connection)
    with psycopg.connect(own_site.cluster.dsn(), autocommit=True) as connection:
        for number in range(30):
            connection.execute("SELECT axis.audit_append('acme', %s)", (json.dumps({"tenant": "acme", "number": number}),))
    chains = {"audit": audit_chains_hold("postgres")}
    first = own_site.backups.run()
    own_site.mint(2)
    own_site.write_config(generations="[1, 2]")
    second = own_site.backups.run()
    assert (first.generation, second.generation) == (1, 2)
    for number in (1, 2):
        stored = [path for path in (own_site.repository / f"g{number}").rglob("*") if path.is_file() and path.name != "lock"]
        assert len(stored) > 3
        assert {path.read_bytes()[2:6] for path in stored} == {bytes((0, 0, 0, number))}, "each file names its key"
    before = own_site.backups.drill(invariants=chains, target=first.finished)
    assert before.ok, before.evidence
    assert before.evidence["generation"] == 1
    with psycopg.connect(own_site.cluster.dsn(), autocommit=True) as connection:
        connection.execute("UPDATE axis.audit_event SET body = replace(body, '7', '8') WHERE number = 8")
    with connected(own_site.settings.conninfo) as connection:
        now = server_time(connection)
    after = own_site.backups.drill(invariants=chains, target=now)
    assert after.evidence["generation"] == 2
    assert [check.ok for check in after.checks] == [True, False], "control: an event that was changed by then turns the drill red"


def test_restored_keys_open_and_shredded_ones_stay_shredded(own_site: Site) -> None:
    """A tenant's keys open after a restore; those of a tenant that was shredded since the target come back in the table and are destroyed again from the ledger,
    which the backup does not hold. Controls: another key service, and a ledger that forgot."""
    dsn = own_site.cluster.dsn()
    with psycopg.connect(dsn) as connection:
        Tenancy(MetaData(), key_type=KeyType.TEXT).plan(connection, parts=[KEYSTORE_PART]).apply(connection)
    service, ledger = FakeKms(), FileShredLedger(own_site.home / "ledger", create=True)
    with ConnectionPool(dsn, min_size=1, max_size=2, open=True) as pool:
        ring = KeyRing(store=PostgresKeyStore(pool), service=service, ledger=ledger, sink=NullSink())
        kept, erased = TenantId("kept"), TenantId("erased")
        for tenant in (kept, erased):
            ring.create(tenant)
        ring.rotate(kept)
        target = own_site.backups.run().finished
        assert ring.shred(erased, reason="erasure was asked for") == 1
        invariants = {
            "keys": keys_open("postgres", service=service, ledger=ledger),
            "shredded": shredded_stay_shredded("postgres", service=service, ledger=ledger),
            "another service": keys_open("postgres", service=FakeKms("another/1"), ledger=ledger),
            "a ledger that forgot": keys_open("postgres", service=service, ledger=FileShredLedger(own_site.home / "empty", create=True)),
        }
        report = own_site.backups.drill(invariants=invariants, target=target)
    seen = dict(zip(["canaries", *invariants], report.checks, strict=True))
    assert seen["keys"].ok, seen["keys"].as_dict()
    assert seen["keys"].seen == "2 keys of 2 tenants opened"
    assert seen["shredded"].ok, seen["shredded"].as_dict()
    assert seen["shredded"].seen == "1 keys on the ledger, 1 had come back and were destroyed again"
    assert not seen["another service"].ok
    assert seen["a ledger that forgot"].seen == "2 keys of 2 tenants opened", (
        "the row is shredded by then: the replay reached the table, too"
    )


@pytest.mark.parametrize("site", ["native"], indirect=True, scope="module")
def test_a_segment_is_archived_once(site: Site, busy: Writers) -> None:
    """It comes back at full size; archived again it is accepted; with other contents, or of another cluster, it is refused and nothing changes."""
    driver = site.backups.driver
    name = driver.inventory().wal[-1].name
    stored = next(path for path in site.repository.rglob(name) if path.is_file())
    sealed = stored.read_bytes()
    segment = site.home / name
    assert driver.fetch_wal(name, segment)
    data = segment.read_bytes()
    assert len(data) == 16 << 20
    assert len(sealed) < len(data) // 2, "the zeros at its end are not stored"
    driver.push_wal(segment)
    segment.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    with pytest.raises(WalConflict):
        driver.push_wal(segment)
    segment.write_bytes(data[:24] + bytes([data[24] ^ 1]) + data[25:])
    with pytest.raises(WrongCluster):
        driver.push_wal(segment)
    segment.unlink()
    assert stored.read_bytes() == sealed
    assert not driver.fetch_wal("0000000100000FFF00000001", segment)
    assert not segment.exists()


def test_no_argument_of_any_program_holds_the_key(site: Site, busy: Writers) -> None:
    """While a backup runs, no process on the machine shows the key in its arguments."""
    key = site.key_file().read_bytes()
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        site.backups.driver.inventory()
        site.backups.driver.verify()
        with connected(site.settings.conninfo) as connection:
            plant_canary(connection)
            switch_and_wait(connection)
    finally:
        done.set()
        watcher.join()
    assert any(b"wal-push" in line for line in seen), "control: the programs were seen"
    assert not [line for line in seen if key in line]


@pytest.mark.nightly
@pytest.mark.parametrize("driver", ["native", "pgbackrest"])
def test_a_gigabyte_comes_back_to_the_moment(driver: str, helper: tuple[str, ...], make_archive: Any, debian_programs: Any) -> None:
    """1 GB, writers at work while it is backed up and after, a random moment: rows exact at it, no byte of the marker in the repository, a flipped bit caught."""
    with make_archive(driver, helper, bin_dir=debian_programs() if driver == "pgbackrest" else None) as site:
        with psycopg.connect(site.cluster.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE ledger (writer int, number int, text text, PRIMARY KEY (writer, number))")
            connection.execute("CREATE TABLE bulk AS SELECT i AS id FROM generate_series(1, %s) i", (BULK,))
            connection.execute(
                "CREATE TABLE big AS SELECT i AS id, %s || repeat(md5(i::text), 30) AS text FROM generate_series(1, 1050000) i", (MARKER,)
            )
            size = connection.execute("SELECT pg_total_relation_size('big')").fetchone()
            assert size is not None
            assert size[0] > 10**9
        writers = Writers(site.cluster.dsn())
        with writers.at_work():
            first = site.backups.run().finished
            time.sleep(2)
        last = max(committed for _, committed in writers.rows.values())

        def whole(restored: RestoredSite) -> CheckResult:
            with psycopg.connect(restored.dsn("postgres")) as connection:
                row = connection.execute("SELECT count(*), bool_and(text = %s || repeat(md5(id::text), 30)) FROM big", (MARKER,)).fetchone()
            return CheckResult(name="big", ok=row == (1_050_000, True), seen=str(row))

        report = site.backups.drill(invariants={"ledger": writers.exact, "big": whole}, target=first + (last - first) * random.random())
        assert report.ok, [check.as_dict() for check in report.checks]
        print(f"{driver}: RPO {report.rpo_seconds:.1f} s, RTO {report.rto_seconds:.1f} s")
        marker = MARKER.encode()
        for path in site.repository.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    before = b""
                    while block := file.read(1 << 24):
                        assert marker not in before + block, path
                        before = block[-len(marker) :]
        path = data_file(site)
        at = random.randrange(path.stat().st_size)
        with flipped(path, at=at, bit=random.randrange(8)):
            assert not site.backups.driver.verify().ok

"""What can be promised, and what a segment's name says."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.errors import ConfigError
from axis_security.ops.backup import BackupPolicy, BackupSettings
from axis_security.ops.backup.driver import ArchivedWal, Backup, BackupKind, Inventory
from axis_security.ops.backup.errors import NoUsableBackup, TargetOutsideWindow, WalMissing
from axis_security.ops.backup.pgbackrest_config import render_configuration
from axis_security.ops.backup.process import Account
from axis_security.ops.backup.restoring import empty_directory, plan_restore
from axis_security.ops.backup.settings import load_settings
from axis_security.ops.backup.wal import SegmentHeader, check_archived_name, first_missing, lsn_segment, segment_position

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SIZE = 16 << 20


def settings(**changes: object) -> BackupSettings:
    """Settings that hold."""
    paths = {name: Path("/srv") / name for name in ("repository", "data_dir", "bin_dir", "state", "scratch")}
    return BackupSettings(**{"stanza": "main", **paths, **changes})  # type: ignore[arg-type]


def inventory(*finished: datetime, names: list[str] | None = None, at: datetime = NOW) -> Inventory:
    """Backups that finished then, each beginning in segment 10, 20, …, and WAL from 10 to 40."""
    backups = [
        Backup(
            label=f"b{number}", kind=BackupKind.FULL, generation=1, started=when - timedelta(minutes=5), finished=when,
            first_wal=f"{1:08X}{0:08X}{10 * number:08X}", last_wal=f"{1:08X}{0:08X}{10 * number:08X}", database_bytes=1,
        )
        for number, when in enumerate(finished, 1)
    ]  # fmt: skip
    wal = [f"{1:08X}{0:08X}{number:08X}" for number in range(10, 41)] if names is None else names
    return Inventory(backups=backups, wal=[ArchivedWal(name=name, at=at) for name in wal], segment_bytes=SIZE)


@pytest.mark.parametrize(
    "change",
    [
        {"every": 2 * DAY},
        {"every": timedelta(0)},
        {"full_every": timedelta(hours=1)},
        {"window": timedelta(hours=1)},
        {"retention": 8 * DAY},
        {"archive_timeout": timedelta(hours=1)},
        {"max_loss": 2 * DAY},
        {"began": datetime(2026, 1, 1)},
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(change: dict[str, object]) -> None:
    """Backups are daily at least, retention covers the window and the full backup before it, and archiving is faster than the loss allowed."""
    with pytest.raises(ConfigError):
        BackupPolicy(**change)  # type: ignore[arg-type]


def test_there_is_no_count_and_no_switch() -> None:
    """The policy has no retention by count, and neither it nor the settings can turn encryption off."""
    names = {*BackupPolicy.__dataclass_fields__, *BackupSettings.__dataclass_fields__}
    assert not [name for name in names if "count" in name or "encrypt" in name or "cipher" in name]


@pytest.mark.parametrize(
    "option",
    [
        "archive-push-queue-max", "repo1-retention-full", "repo1-retention-full-type", "repo1-cipher-type", "repo1-cipher-pass", "repo1-path",
        "archive-check", "repo1-s3-key-secret", "repo1-storage-verify-tls", "online", "config-include-path", "repo2-path",
    ],
)  # fmt: skip
def test_options_that_weaken_pgbackrest_are_refused(option: str) -> None:
    """No option can drop WAL, count backups, change the cipher, skip a check or put a secret in the file."""
    with pytest.raises(ConfigError):
        render_configuration(settings(options={option: "1"}), 1)


def test_the_configuration_is_encrypted_by_time_and_one_option_a_line() -> None:
    """Every rendered configuration has AES-256 and retention by time; a value cannot smuggle a second option in."""
    lines = render_configuration(settings(options={"repo1-type": "s3"}), 3).splitlines()
    for line in (
        "repo1-cipher-type=aes-256-cbc",
        "repo1-retention-full-type=time",
        "repo1-retention-full=15",
        "repo1-path=/srv/repository/g3",
        "repo1-type=s3",
    ):
        assert line in lines
    with pytest.raises(ConfigError):
        render_configuration(settings(options={"compress-type": "none\narchive-push-queue-max=1"}), 1)


@pytest.mark.parametrize(
    "change",
    [
        {"stanza": "../x"}, {"repository": Path("relative")}, {"repository": Path("/srv/data_dir/inside")}, {"driver": "tar"},
        {"generations": ()}, {"generations": (2, 1)}, {"port": 0},
    ],
)  # fmt: skip
def test_settings_that_would_not_survive_the_server_are_refused(change: dict[str, object]) -> None:
    """Among others: a repository inside the data directory, and generations out of order."""
    with pytest.raises(ConfigError):
        settings(**change)


def test_paths_are_quoted_for_shell_and_server() -> None:
    """A blank, a quote or a percent sign in the helper's path reaches PostgreSQL as it is."""
    command = settings(helper=("/opt/50% it's/axis",), driver="native").archive_command
    assert command == "'/opt/50%% it'\"'\"'s/axis' wal-push --driver native %p"


def test_a_file_of_settings_is_read_strictly(tmp_path: Path) -> None:
    """An unknown name, a bare number for a duration, and a file without secrets are refused, each by what is wrong."""
    good = '[backup]\nstanza="a"\nrepository="/r"\ndata_dir="/d"\nbin_dir="/b"\n[policy]\nwindow="7 d"\n[secrets]\nprovider="files"\ndirectory="."\n'
    path = tmp_path / "backup.toml"
    path.write_text(good)
    loaded, _ = load_settings(path)
    assert loaded.helper[-2:] == ("--config", str(path))
    for bad in (
        good.replace("stanza", "stanzas"),
        good.replace('"7 d"', "7"),
        good.replace('provider="files"', ""),
        good.replace("[policy]", "[polity]"),
        "backup = 5",
    ):
        path.write_text(bad)
        with pytest.raises(ConfigError):
            load_settings(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "none.toml")
    path.write_text("[")
    with pytest.raises(ConfigError, match="not usable"):
        load_settings(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("repository = 5", "`repository` is no path"),
        ('port = "5432"', "`port` is no whole number"),
        ("port = true", "`port` is no whole number"),
        ("stanza = 1", "`stanza` is no text"),
        ('generations = "1"', "`generations` is no list of whole numbers"),
        ("generations = [1, true]", "`generations` is no list of whole numbers"),
        ('helper = "axis-security"', "`helper` is no list of texts"),
        ('options = { "repo1-bundle" = true }', "`options` is no table of texts"),
        ("run_as = 0", "`run_as` is no text"),
        ("[policy]\nbegan = 2026-05-01", "`began` is no moment"),
        ("[policy]\nbegan = 2026-05-01T00:00:00", "must carry a time zone"),
        ("[policy]\nwindow = 7", "`window` is no duration"),
        ('[secrets]\nprovider = "files"\ndirectory = 5', "`directory` is no text"),
        ('[secrets]\nprovider = "files"\ndirectory = "."\nprefix = "crm/"', r"unknown names in \[secrets\] \['prefix'\]"),
        ('[secrets]\nprovider = "vault"\nurl = "https://bao"', "needs 'credentials'"),
        ('[secrets]\nprovider = "environment"', "cannot hold production secrets"),
        ('[secrets]\nprovider = "environment"\nenvironment = "laptop"', "`environment` is one of"),
        ('[secrets]\nprovider = "keychain"', "names no `provider`"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_name(tmp_path: Path, line: str, said: str) -> None:
    """A mistake in the file is told as one: by the value's name and what it should be, never as a crash, and never passed over."""
    path = tmp_path / "backup.toml"
    wanted = {"stanza": '"a"', "repository": '"/r"', "data_dir": '"/d"', "bin_dir": '"/b"'}
    wanted.pop(line.partition(" ")[0], None)
    own = "\n".join(f"{name} = {value}" for name, value in wanted.items())
    path.write_text(f"[backup]\n{own}\n{line}\n")
    with pytest.raises(ConfigError, match=said):
        load_settings(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Each of the four that have no default, and only those."""
    path = tmp_path / "backup.toml"
    path.write_text('[backup]\nstanza = "a"\ndata_dir = "/d"\n')
    with pytest.raises(ConfigError, match="needs repository, bin_dir"):
        load_settings(path)


@given(st.integers(0, 2**40), st.sampled_from([1 << 20, SIZE, 1 << 30]), st.integers(1, 9))
def test_positions_are_dense(number: int, size: int, timeline: int) -> None:
    """The segment that follows in the log has the next position, across every carry, and a hole is found and named."""
    lsn = [f"{place >> 32:X}/{place & 0xFFFFFFFF:X}" for place in (number * size, (number + 1) * size, (number + 2) * size)]
    names = [lsn_segment(text, timeline, size) for text in lsn if int(text.partition("/")[0], 16) < 2**32]
    if len(names) == 3:
        first, second, third = names
        assert segment_position(second, size) == segment_position(first, size) + 1
        assert first_missing([first, third], first=first, size=size) == second
        assert first_missing(names, first=first, size=size) is None


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "000000010000000000000001/x", "0" * 23, "00000001000000000000000g", "", "000000010000000000000001\n"]
)
def test_only_wal_names_reach_the_archive(name: str) -> None:
    """A name that PostgreSQL would not archive is refused before any path is built from it."""
    with pytest.raises(ConfigError):
        check_archived_name(name)


@given(st.binary(max_size=80))
def test_any_bytes_are_judged_as_a_page_header(data: bytes) -> None:
    """Whatever a file holds, reading its header answers and never raises; a size that no segment has is none."""
    header = SegmentHeader.read(data)
    assert header is None or (1 << 20 <= header.size <= 1 << 30 and header.size & (header.size - 1) == 0)


def test_a_restore_starts_from_the_newest_backup_before_the_moment() -> None:
    """Not the newest of all, and never one that was not finished by then."""
    held = inventory(NOW - 3 * DAY, NOW - 2 * DAY, NOW - DAY)
    assert plan_restore(held, NOW - DAY - timedelta(seconds=1)).label == "b2"
    assert plan_restore(held, None).label == "b3"


def test_a_moment_that_cannot_be_had_is_refused() -> None:
    """Before the oldest backup, after the newest WAL, or past a hole, whose name is told."""
    with pytest.raises(NoUsableBackup):
        plan_restore(inventory(), NOW)
    held = inventory(NOW - DAY)
    for target in (NOW - 2 * DAY, NOW + timedelta(seconds=1)):
        with pytest.raises(TargetOutsideWindow):
            plan_restore(held, target)
    hole = f"{1:08X}{0:08X}{25:08X}"
    names = [wal.name for wal in held.wal if wal.name != hole]
    with pytest.raises(WalMissing, match=hole):
        plan_restore(inventory(NOW - DAY, names=names), None)


def test_the_keys_come_from_the_manager_that_the_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each provider by its word, with nothing asked of it yet; what is said of it in messages is where it is, and no credential."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    path = tmp_path / "backup.toml"
    own = '[backup]\nstanza = "a"\nrepository = "/r"\ndata_dir = "/d"\nbin_dir = "/b"\n[secrets]\n'
    for lines, label in (
        (f'provider = "files"\ndirectory = "{tmp_path}"', f"files in {tmp_path}"),
        ('provider = "environment"\nenvironment = "development"', "environment variables"),
        (
            f'provider = "vault"\nurl = "https://bao.internal"\nrole_id = "backup"\ncredentials = "{tmp_path}"',
            "KV2 `secret` at https://bao.internal",
        ),
        ('provider = "aws"\nprefix = "crm/"', "AWS Secrets Manager, eu-central-1"),
    ):
        path.write_text(own + lines + "\n")
        assert load_settings(path)[1].label == label


def test_a_restore_overwrites_nothing_and_starts_over_what_was_killed(tmp_path: Path) -> None:
    """A file, or a directory that holds anything, is refused and stays; a restore that fails leaves an empty directory; what a killed one left is known by its mark,
    and the next begins anew."""
    account = Account("nobody" if os.geteuid() == 0 else None)
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "PG_VERSION").write_text("18")
    for name in ("file", "full"):
        with pytest.raises(ConfigError, match="overwrites nothing"), empty_directory(tmp_path / name, account):
            pytest.fail("it was let in")
    assert (tmp_path / "full" / "PG_VERSION").read_text() == "18"
    into = tmp_path / "new"
    with pytest.raises(KeyError), empty_directory(into, account):
        (into / "base").mkdir()
        (into / "link").symlink_to(tmp_path / "full")
        raise KeyError
    assert list(into.iterdir()) == []
    assert (tmp_path / "full" / "PG_VERSION").exists(), "what a link leads to is not ours"
    (into / "base").mkdir()
    (tmp_path / ".new.restoring").touch()
    with empty_directory(into, account):
        assert list(into.iterdir()) == []
        (into / "PG_VERSION").write_text("18")
    assert [path.name for path in into.iterdir()] == ["PG_VERSION"]
    assert not (tmp_path / ".new.restoring").exists()

"""Each check sees the fault it is for."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from axis_security.core.errors import ConfigError
from axis_security.ops.backup import BackupPolicy, backup_age
from axis_security.ops.backup.checks import check_age, check_archiver, check_encryption, check_gap, check_loss, check_window
from axis_security.ops.backup.driver import ArchivedWal, Artefact, Backup, BackupKind, Inventory
from axis_security.ops.backup.server import ArchiverState, Canary

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
POLICY = BackupPolicy()


def held(*ages: timedelta, without: int | None = None, wal_age: timedelta = timedelta(minutes=1)) -> Inventory:
    """Backups of those ages, oldest first, beginning in segments 10, 20, …; WAL from 10 to 40, one left out."""
    backups = [
        Backup(
            label=f"b{number}", kind=BackupKind.FULL, generation=1, started=NOW - age - HOUR, finished=NOW - age,
            first_wal=f"{1:08X}{0:08X}{10 * number:08X}", last_wal=f"{1:08X}{0:08X}{10 * number:08X}", database_bytes=1,
        )
        for number, age in enumerate(ages, 1)
    ]  # fmt: skip
    wal = [ArchivedWal(name=f"{1:08X}{0:08X}{number:08X}", at=NOW - wal_age) for number in range(10, 41) if number != without]
    return Inventory(backups=backups, wal=wal, segment_bytes=16 << 20)


def codes(result: Any) -> list[str]:
    return [finding.code for finding in result.findings]


def test_a_stale_backup_is_seen() -> None:
    """Older than a day and the grace: red; at the limit: green; none at all: red."""
    assert check_age(held(8 * DAY, DAY + 2 * HOUR), POLICY, now=NOW).ok
    assert codes(check_age(held(8 * DAY, DAY + 3 * HOUR), POLICY, now=NOW)) == ["backup.stale"]
    assert codes(check_age(held(), POLICY, now=NOW)) == ["backup.none"]


def test_a_hole_in_the_wal_is_named_wherever_it_is() -> None:
    """Between two old backups as after the newest; each hole by its segment."""
    assert check_gap(held(9 * DAY, DAY)).ok
    for number in (13, 25):
        result = check_gap(held(9 * DAY, DAY, without=number))
        assert [finding.object for finding in result.findings] == [f"{1:08X}{0:08X}{number:08X}"]
    assert not check_gap(held()).ok


def test_a_segment_on_its_way_is_no_hole() -> None:
    """A backup's first segment that has not been archived yet is not missing, as long as nothing after it is there; how late it may be is another check's."""
    inventory = held(9 * DAY, DAY)
    reached = [wal for wal in inventory.wal if int(wal.name[-2:], 16) < 20]
    assert check_gap(dataclasses.replace(inventory, wal=reached)).ok
    later = [wal for wal in inventory.wal if int(wal.name[-2:], 16) != 20]
    assert [finding.object for finding in check_gap(dataclasses.replace(inventory, wal=later)).findings] == [f"{1:08X}{0:08X}{20:08X}"]
    assert not check_gap(dataclasses.replace(inventory, wal=[])).ok


def test_lagging_archiving_is_seen() -> None:
    """The newest segment is older than the loss that is allowed."""
    assert check_loss(held(DAY), POLICY, now=NOW).ok
    assert codes(check_loss(held(DAY, wal_age=HOUR), POLICY, now=NOW)) == ["backup.loss"]


def test_the_window_is_covered_or_said_not_to_be() -> None:
    """A backup from before the window's start is there; a young repository says when it began, and only then may lack it."""
    assert check_window(held(8 * DAY, DAY), POLICY, now=NOW).ok
    young = held(2 * DAY, DAY)
    assert codes(check_window(young, POLICY, now=NOW)) == ["backup.window"]
    assert check_window(young, BackupPolicy(began=NOW - 3 * DAY), now=NOW).ok
    assert not check_window(young, BackupPolicy(began=NOW - 30 * DAY), now=NOW).ok, "`began` excuses nothing once the window has passed"


def test_a_failing_archiver_is_seen() -> None:
    """The last attempt failed, or there are none to be."""
    fine = ArchiverState(archived_at=NOW, failed_at=NOW - HOUR, failed_wal="x")
    assert check_archiver(fine, archive_mode="on").ok
    assert codes(check_archiver(fine, archive_mode="off")) == ["backup.archive_off"]
    failing = ArchiverState(archived_at=NOW - HOUR, failed_at=NOW, failed_wal="000000010000000000000009")
    assert codes(check_archiver(failing, archive_mode="on")) == ["backup.archiver_fails"]


CANARY = Canary(number=1, token="5a" * 32, begun_at=NOW)


def stored(*contents: bytes) -> Sequence[Artefact]:
    return [Artefact(name=f"f{number}", bytes=len(data), open=partial(io.BytesIO, data)) for number, data in enumerate(contents)]


@pytest.mark.parametrize(
    ("content", "ok"),
    [
        (b"\xa2\x01" + bytes(5_000_000), True),
        (b"\x28\xb5\x2f\xfd" + bytes(100), False),
        (b"", False),
        (b"\xa2\x01" + bytes((1 << 20) - 40) + CANARY.token.encode() + bytes(100), False),
        (b"\xa2\x01" + bytes(50) + bytes.fromhex(CANARY.token), False),
    ],
)
def test_what_is_not_sealed_is_seen(content: bytes, ok: bool) -> None:
    """No magic, or a canary in the clear, also across a block's border and as raw bytes."""
    assert check_encryption(stored(content), magic=b"\xa2\x01", canaries=[CANARY]).ok is ok


def test_the_search_for_canaries_reads_no_more_than_its_sample() -> None:
    """A base backup is as large as the database, and a check runs every few minutes: what is beyond the sample is not read, in the same file or in the next."""
    content = b"\xa2\x01" + bytes(3_000_000)
    files = [io.BytesIO(content), io.BytesIO(content)]
    artefacts = [Artefact(name=f"f{n}", bytes=len(content), open=lambda file=file: file) for n, file in enumerate(files)]  # type: ignore[misc]
    for file in files:
        file.close = lambda: None  # type: ignore[method-assign]  # its place is looked at below
    result = check_encryption(artefacts, magic=b"\xa2\x01", canaries=[CANARY], sample_bytes=2 << 20)
    assert result.ok
    assert [file.tell() for file in files] == [2, 2 + (2 << 20)], "newest first"
    assert "2 MiB searched" in result.seen


def test_a_proof_without_a_canary_or_a_file_is_none() -> None:
    """What cannot be measured is not ok."""
    assert not check_encryption(stored(b"\xa2\x01"), magic=b"\xa2\x01", canaries=[]).ok
    assert not check_encryption([], magic=b"\xa2\x01", canaries=[CANARY]).ok


def test_the_health_look_answers_whatever_happens() -> None:
    """It is green on a sound repository, and red, without a raise, on one that cannot be read."""

    class Clock:
        def now(self) -> datetime:
            return NOW

    class Driver:
        def inventory(self) -> Inventory:
            return held(8 * DAY, DAY)

    class Broken:
        def inventory(self) -> Inventory:
            raise ConfigError(what="secret text", why="w", fix="f")

    assert backup_age(Driver(), POLICY, clock=Clock())().ok  # type: ignore[arg-type]
    result = backup_age(Broken(), POLICY, clock=Clock())()  # type: ignore[arg-type]
    assert codes(result) == ["backup.unreadable"]

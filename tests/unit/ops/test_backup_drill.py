"""A drill's judgement, without a server: the rows of the moment and no others, and a recovery that says what it lacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from axis_security.core.checks import CheckResult
from axis_security.ops.backup import RestoredSite
from axis_security.ops.backup import drill as module
from axis_security.ops.backup.errors import BackupError, WalMissing
from axis_security.ops.backup.scratch import _why_not
from axis_security.ops.backup.server import Canary

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
KNOWN = [Canary(number=n, token=f"{n:064x}", begun_at=NOON + timedelta(minutes=n)) for n in range(1, 6)]


def judged(monkeypatch: pytest.MonkeyPatch, restored: Sequence[Canary], *, minute: float) -> CheckResult:
    """What is said of *restored* at *minute* past noon."""

    @contextmanager
    def connected(_: str) -> Iterator[None]:
        yield None

    monkeypatch.setattr(module, "connected", connected)
    monkeypatch.setattr(module, "newest_canaries", lambda _: restored)
    site = RestoredSite(data_dir=Path("/x"), conninfo="", target=NOON + timedelta(minutes=minute))
    return module.canaries_exact(KNOWN)(site)


@pytest.mark.parametrize(
    ("restored", "minute", "code"),
    [
        (KNOWN[:3], 3.5, None),
        (KNOWN[:2], 3.5, None),
        (KNOWN[:4], 3.5, "backup.canary"),
        (KNOWN[:1], 3.5, "backup.canary"),
        (KNOWN[1:3], 3.5, "backup.canary"),
        ([replace(KNOWN[0], token="0" * 64), *KNOWN[1:3]], 3.5, "backup.canary"),
        ([], 3.5, "backup.canary"),
        ([], 0.5, "backup.canary_none"),
        (KNOWN[:1], 1.5, "backup.canary_none"),
        (KNOWN, 9.0, None),
    ],
    ids=[
        "exact",
        "the one being written may lack",
        "one too late",
        "one lost",
        "the first lost",
        "another's content",
        "empty",
        "none was due",
        "one at work",
        "all",
    ],
)
def test_the_rows_of_the_moment_are_there_and_no_others(
    monkeypatch: pytest.MonkeyPatch, restored: Sequence[Canary], minute: float, code: str | None
) -> None:
    """What was committed by the target must be there, what began after it must not; only the one that was being written may be either. With none due nothing is
    shown, and that is not ok."""
    result = judged(monkeypatch, restored, minute=minute)
    assert result.ok is (code is None)
    assert {finding.code for finding in result.findings} == ({code} if code else set())


def test_a_recovery_that_stopped_names_the_first_segment_that_it_lacked() -> None:
    """Of all that were asked for in vain the first is the one to look for."""
    ended = "FATAL:  recovery ended before configured recovery target was reached\n"
    asked = "".join(f"WAL 0000000100000000000000{n} is not in the archive\n" for n in ("0B", "0A", "0C"))
    error = _why_not(asked + ended)
    assert isinstance(error, WalMissing)
    assert error.facts["segment"] == "00000001000000000000000A"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("LOG:  starting\nFATAL:  could not open file\nPANIC:  bad page\n", "FATAL:  could not open file / PANIC:  bad page"),
        ("LOG:  starting\n", "LOG:  starting"),
        ("", "it said nothing"),
        ("FATAL:  recovery ended before configured recovery target was reached\n", "recovery ended before"),
    ],
)
def test_a_server_that_did_not_recover_is_quoted(log: str, said: str) -> None:
    """By its last fatal lines, else by its last words."""
    error = _why_not(log)
    assert type(error) is BackupError
    assert said in error.why

"""Secrets: local providers, the refreshing cache, and the scanner."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.errors import ConfigError
from axis_security.core.events import AuditEvent, EventKind
from axis_security.core.minted import minted_text
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.ops.secrets import (
    EnvironmentSecrets,
    MountedFiles,
    RefreshPolicy,
    SecretManager,
    SecretMissing,
    SecretPair,
    SecretRefused,
    SecretsUnavailable,
    SecretVersion,
    Stage,
    scan_files,
    scan_text,
)
from axis_security.ops.secrets.scan import tracked_files

START = datetime(2026, 1, 1, tzinfo=UTC)


class Time:
    """A clock that stands still until moved."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at


class Sink:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def emit(self, event: AuditEvent) -> None:
        self.events.append(event)


class Scripted:
    """A provider whose answer, slowness and health the test sets: the faults that no real one shows on demand."""

    label = "scripted"

    def __init__(self, value: str = "one") -> None:
        self.value, self.before, self.up, self.calls = value, "", True, 0
        self.refuses = self.forgets = self.gone = False
        self.gate: threading.Event | None = None

    def fetch(self, name: str, stage: Stage = Stage.CURRENT) -> SecretVersion:
        if self.refuses:
            raise SecretRefused(name=name, provider=self.label, why="AccessDenied")
        if self.gone:
            raise SecretMissing(name=name, stage=stage, provider=self.label)
        if stage is Stage.PREVIOUS:
            if self.forgets:
                raise SecretsUnavailable(name=name, provider=self.label, why="no answer")
            if not self.before:
                raise SecretMissing(name=name, stage=stage, provider=self.label)
            return SecretVersion(value=Secret(self.before), version=self.before)
        self.calls += 1
        if self.gate is not None:
            self.gate.wait(5)
        if not self.up:
            raise SecretsUnavailable(name=name, provider=self.label, why="down")
        return SecretVersion(value=Secret(self.value), version=self.value)


def make(provider: Scripted, on_rotate: Callable[[str, SecretPair], None] | None = None) -> tuple[SecretManager, Time, Sink]:
    """A manager over *provider* with a still clock and no jitter."""
    clock, sink = Time(), Sink()
    policy = RefreshPolicy(ttl=timedelta(minutes=3))
    return SecretManager(provider, sink=sink, clock=clock, uniform=lambda: 0.0, policy=policy, on_rotate=on_rotate), clock, sink


def test_a_secret_is_fetched_once_until_two_thirds_of_its_ttl() -> None:
    """Within two thirds of the ttl the provider is not asked again; at two thirds it is."""
    provider = Scripted()
    manager, clock, _ = make(provider)
    for _ in range(10):
        assert manager.get("k").reveal() == "one"
    clock.at += timedelta(seconds=119)
    manager.get("k")
    assert provider.calls == 1
    clock.at += timedelta(seconds=1)
    manager.get("k")
    assert provider.calls == 2


def test_rotation_is_noticed_with_event_callback_and_previous_value() -> None:
    """A changed secret writes one event, calls back once, and gives the version before it beside it."""
    provider, seen = Scripted(), list[tuple[str, SecretPair]]()
    manager, clock, sink = make(provider, on_rotate=lambda name, pair: seen.append((name, pair)))
    manager.get("k")
    provider.value, provider.before = "two", "one"
    clock.at += timedelta(minutes=2)
    pair = manager.pair("k")
    assert (pair.current.reveal(), pair.previous.reveal() if pair.previous else None) == ("two", "one")
    assert [event.kind for event in sink.events] == [EventKind.SECRET_ROTATED]
    assert [name for name, _ in seen] == ["k"]
    assert "two" not in repr(sink.events[0].detail.get("name"))


def test_stale_serves_within_its_limit_and_never_beyond() -> None:
    """While the provider is down the old secret serves, with an event per attempt, until ttl + stale; then it is refused."""
    provider = Scripted()
    manager, clock, sink = make(provider)
    manager.get("k")
    provider.up = False
    clock.at += timedelta(minutes=10)
    assert manager.get("k").reveal() == "one"
    assert [event.kind for event in sink.events] == [EventKind.SECRET_STALE]
    assert manager.get("k").reveal() == "one"
    assert provider.calls == 2, "a failed attempt is not repeated at every call"
    clock.at = START + timedelta(minutes=63, seconds=1)
    with pytest.raises(SecretsUnavailable):
        manager.get("k")
    provider.up = True
    assert manager.get("k").reveal() == "one"


def test_a_refused_secret_does_not_outlive_its_ttl() -> None:
    """A decision is not bridged as silence is: the old value serves to the end of its ttl (3 min here), where silence would have had 60 more."""
    provider = Scripted()
    manager, clock, sink = make(provider)
    manager.get("k")
    provider.refuses = True
    clock.at = START + timedelta(minutes=2, seconds=30)
    assert manager.get("k").reveal() == "one"
    assert [event.kind for event in sink.events] == [EventKind.SECRET_STALE]
    clock.at = START + timedelta(minutes=3, seconds=1)
    with pytest.raises(SecretRefused):
        manager.get("k")
    provider.refuses = False
    assert manager.get("k").reveal() == "one"


def test_no_limit_is_passed_between_two_attempts() -> None:
    """A failed attempt is not repeated at once, and what serves until the next does not serve beyond its limit: 3 min for a refusal, 63 for silence."""
    for refuses, limit in ((True, timedelta(minutes=3)), (False, timedelta(minutes=63))):
        provider = Scripted()
        manager, clock, _ = make(provider)
        manager.get("k")
        provider.refuses, provider.up = refuses, False
        clock.at = START + limit - timedelta(seconds=1)
        assert manager.get("k").reveal() == "one"
        clock.at = START + limit
        with pytest.raises(SecretsUnavailable):
            manager.get("k")
        with pytest.raises(SecretsUnavailable):
            asyncio.run(_with_limit(manager))


def test_a_secret_that_is_gone_does_not_come_back() -> None:
    """Taken out of the manager it serves no more, and the manager's silence afterwards does not bring it back as a stale one."""
    provider = Scripted()
    manager, clock, _ = make(provider)
    manager.get("k")
    clock.at += timedelta(minutes=2, seconds=30)
    provider.gone = True
    with pytest.raises(SecretMissing):
        manager.get("k")
    provider.gone, provider.up = False, False
    with pytest.raises(SecretsUnavailable):
        manager.get("k")


def test_the_version_in_force_does_not_wait_for_the_one_before() -> None:
    """If only the previous version cannot be fetched, the new current one serves, beside the one that we had."""
    provider = Scripted()
    manager, clock, _ = make(provider)
    manager.get("k")
    provider.value, provider.forgets = "two", True
    for _ in range(2):
        clock.at += timedelta(minutes=2)
        pair = manager.pair("k")
        assert (pair.current.reveal(), pair.previous.reveal() if pair.previous else None) == ("two", "one")


def test_nothing_fetched_yet_and_provider_down_is_refused() -> None:
    """With nothing in hand there is no answer but no."""
    provider = Scripted()
    provider.up = False
    manager, _, _ = make(provider)
    with pytest.raises(SecretsUnavailable):
        manager.get("k")


def test_a_cold_stampede_asks_once_and_a_refresh_blocks_nobody() -> None:
    """Sixteen first callers make one fetch; while a refresh hangs, other callers go on with the old value."""
    provider = Scripted()
    provider.gate = threading.Event()
    manager, clock, _ = make(provider)
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(manager.get("k").reveal())) for _ in range(16)]
    for thread in threads:
        thread.start()
    provider.gate.set()
    for thread in threads:
        thread.join()
    assert (len(got), provider.calls) == (16, 1)
    provider.gate = threading.Event()
    clock.at += timedelta(minutes=2)
    slow = threading.Thread(target=lambda: manager.get("k"))
    slow.start()
    while provider.calls < 2:
        pass
    assert manager.get("k").reveal() == "one"
    assert asyncio.run(_with_limit(manager)) == "one"
    provider.gate.set()
    slow.join()


async def _with_limit(manager: SecretManager) -> str:
    return (await asyncio.wait_for(manager.aget("k"), 2)).reveal()


def test_unusable_policies_are_refused() -> None:
    """A policy that would never refresh, or serve for days, can't be built."""
    bads: list[dict[str, Any]] = [{"ttl": timedelta(0)}, {"jitter": 0.9}, {"stale": timedelta(days=9)}, {"retry": timedelta(0)}]
    for bad in bads:
        with pytest.raises(ConfigError):
            RefreshPolicy(**bad)


def test_mounted_files_read_current_and_previous(tmp_path: Path) -> None:
    """A 0400 file is read without its final newline; `.previous` is the version before; a missing one is typed."""
    provider = MountedFiles(tmp_path)
    _write(tmp_path / "k", "new\n")
    _write(tmp_path / "k.previous", "old")
    assert provider.fetch("k").value.reveal() == "new"
    assert provider.fetch("k", Stage.PREVIOUS).value.reveal() == "old"
    with pytest.raises(SecretMissing):
        provider.fetch("absent")


@pytest.mark.parametrize("mode", [0o444, 0o644, 0o460, 0o402])
def test_mounted_files_that_others_can_reach_are_refused(tmp_path: Path, mode: int) -> None:
    """A file that others can read, or the group can write, is not a secret."""
    _write(tmp_path / "k", "x", mode)
    with pytest.raises(SecretsUnavailable, match="mode"):
        MountedFiles(tmp_path).fetch("k")


def test_a_mounted_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """What is no file is told as that, at once."""
    os.mkfifo(tmp_path / "pipe", 0o400)
    (tmp_path / "folder").mkdir(mode=0o500)
    for name in ("pipe", "folder"):
        with pytest.raises(SecretsUnavailable, match=r"no file|a directory"):
            MountedFiles(tmp_path).fetch(name)


def test_mounted_files_follow_links_inside_only(tmp_path: Path) -> None:
    """Kubernetes' own links work; a link out of the directory, a folder, an empty, a binary and a huge file are refused."""
    root = tmp_path / "secrets"
    (root / "..data").mkdir(parents=True)
    _write(root / "..data" / "k", "inside")
    (root / "k").symlink_to(Path("..data") / "k")
    provider = MountedFiles(root)
    assert provider.fetch("k").value.reveal() == "inside"
    _write(tmp_path / "outside", "x")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "folder").mkdir()
    _write(root / "empty", "\n")
    _write(root / "huge", "x" * 70_000)
    (root / "binary").write_bytes(b"\xff\xfe")
    (root / "binary").chmod(0o400)
    for name in ("out", "folder", "empty", "huge", "binary"):
        with pytest.raises(SecretsUnavailable):
            provider.fetch(name)


@given(st.text())
def test_no_name_escapes_the_directory(name: str) -> None:
    """Whatever the name, the answer is typed, and none with a slash reaches the file system."""
    provider = MountedFiles(Path(__file__).parent)
    with pytest.raises((ConfigError, SecretsUnavailable)):
        provider.fetch("../" + name)
    with pytest.raises((ConfigError, SecretMissing, SecretsUnavailable)):
        provider.fetch(name)


def test_environment_is_for_development_only() -> None:
    """EnvironmentSecrets can't be built in production; elsewhere it reads prefixed variables."""
    with pytest.raises(ConfigError):
        EnvironmentSecrets(environment=Environment.PRODUCTION)
    provider = EnvironmentSecrets(environment=Environment.DEVELOPMENT, variables={"AXIS_SEAL_KEY": "v", "AXIS_SEAL_KEY_PREVIOUS": "u"})
    assert provider.fetch("seal-key").value.reveal() == "v"
    assert provider.fetch("seal-key", Stage.PREVIOUS).value.reveal() == "u"
    with pytest.raises(SecretMissing):
        provider.fetch("other")


PLANTED = {
    "minted_key": f"KEY = '{minted_text('seal', bytes(range(32))).reveal()}'",
    "private_key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "aws_access_key": "id = AK" + "IAIOSFODNN7EXAMPLE",
    "github_token": "token: gh" + "p_" + "a1" * 18,
    "slack_token": "xo" + "xb-123456789012-abcdef",
    "stripe_key": "sk_" + "live_" + "a" * 24,
    "vault_token": "hv" + "s." + "CAESIJ" + "x" * 24,
    "google_api_key": "AI" + "za" + "S" * 35,
    "url_password": "postgresql://app:" + "hunter22@db.internal/crm",
    "framework_secret": "SECRET_" + "KEY = 'django-insecure-abcdefgh'",
}


@pytest.mark.parametrize("code", PLANTED)
def test_each_kind_of_planted_secret_is_found_and_not_shown(code: str) -> None:
    """Every kind is found at its line, and the finding does not repeat the secret."""
    findings = list(scan_text(f"first\n{PLANTED[code]}\n", name="settings.py"))
    assert f"secrets.{code}" in {finding.code for finding in findings}
    assert findings[0].object == "settings.py:2"
    assert PLANTED[code][-12:] not in repr(findings)


def test_a_marked_line_needs_a_reason() -> None:
    """The marker with a reason silences its own line only; without a reason it does nothing."""
    line = PLANTED["url_password"]
    assert not list(scan_text(f"{line}  # axis-security: not-a-secret sample in the docs", name="x"))
    assert list(scan_text(f"{line}  # axis-security: not-a-secret", name="x"))


@pytest.mark.parametrize(
    "harmless",
    [
        "postgresql://app@db/crm",
        "postgresql://{user}:{password}@db/x",
        "SECRET_KEY = os.environ['SECRET_KEY']",
        "axis_seal_" + "a" * 43 + "_00000000",
        "sha256:" + "ab" * 32,
    ],
)
def test_harmless_lines_are_passed(harmless: str) -> None:
    """Placeholders, look-alikes and plain digests are no findings."""
    assert not list(scan_text(harmless, name="x"))


def test_files_are_scanned_as_git_lists_them(tmp_path: Path) -> None:
    """Text files are read, binary ones passed over, names shown relative."""
    (tmp_path / "a.py").write_text(PLANTED["stripe_key"], encoding="utf-8")
    (tmp_path / "b.bin").write_bytes(b"\0" + PLANTED["stripe_key"].encode())
    findings = list(scan_files(tracked_files(tmp_path), root=tmp_path))
    assert [finding.object for finding in findings] == ["a.py:1"]


@pytest.mark.parametrize("before", [0, 18_990, 19_000, 19_999, 25_000, 1_000_000])
def test_a_long_line_hides_nothing(before: int) -> None:
    """Generated code can be one line: a secret is found wherever it stands in it, once."""
    line = "x " * (before // 2) + PLANTED["stripe_key"] + " x" * 30_000
    assert [finding.code for finding in scan_text(line, name="bundle.js")] == ["secrets.stripe_key"]


def test_a_scan_without_git_sees_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without it as outside a checkout."""
    (tmp_path / "a.py").write_text("x")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tracked_files(tmp_path) == [tmp_path / "a.py"]


def test_a_path_that_is_not_there_is_no_clean_scan(command_line: Callable[..., Result], tmp_path: Path) -> None:
    """A mistyped path in a pipeline must not pass for one without secrets; a file that is named is scanned, and what it holds is status 1."""
    assert command_line("secrets", "scan", tmp_path / "scr").exit_code == 2
    (tmp_path / "a.py").write_text(PLANTED["stripe_key"])
    found = command_line("secrets", "scan", "--json", tmp_path)
    assert found.exit_code == 1
    assert [each["code"] for each in json.loads(found.stdout)] == ["secrets.stripe_key"]
    assert command_line("secrets", "scan", tmp_path / "a.py").exit_code == 1
    (tmp_path / "a.py").write_text("x")
    assert command_line("secrets", "scan", tmp_path).exit_code == 0
    assert command_line("secrets", "mint", "not a kind").exit_code == 2


def test_this_repository_holds_no_secret() -> None:
    """The scanner runs clean over our own tree."""
    root = Path(__file__).parents[3]
    assert [finding.object for finding in scan_files(tracked_files(root), root=root)] == []


def _write(path: Path, text: str, mode: int = 0o400) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)

"""security.txt on the command line: what it writes it accepts, from a file and from standard input."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from click.testing import Result

TODAY = f"{datetime.now(UTC):%Y-%m-%d}"


def test_what_it_writes_it_accepts(command_line: Callable[..., Result], tmp_path: Path) -> None:
    """Status 0 for a file that was reviewed today, 1 with the reason for one that nobody reviews or that is none, 2 for words that make no file."""
    words = (
        "disclosure",
        "write",
        "--contact",
        "mailto:security@example.com",
        "--canonical",
        "https://example.com/.well-known/security.txt",
    )
    written = command_line(*words, "--reviewed-on", TODAY)
    assert written.exit_code == 0
    path = tmp_path / "security.txt"
    path.write_bytes(written.stdout_bytes)
    good = command_line("disclosure", "check", path, "--json")
    assert (good.exit_code, json.loads(good.stdout)["ok"]) == (0, True)
    assert command_line("disclosure", "check", "-", input=written.stdout_bytes).exit_code == 0
    old = command_line(*words, "--reviewed-on", f"{datetime.now(UTC) - timedelta(days=400):%Y-%m-%d}")
    path.write_bytes(old.stdout_bytes)
    bad = command_line("disclosure", "check", path)
    assert bad.exit_code == 1
    assert "[disclosure.expired]" in bad.stdout
    assert command_line("disclosure", "check", "-", input=b"\xff").exit_code == 1
    assert command_line(*words, "--reviewed-on", TODAY, "--days", "365").exit_code == 2
    assert command_line("disclosure", "write", "--contact", "security@example.com", "--reviewed-on", TODAY).exit_code == 2

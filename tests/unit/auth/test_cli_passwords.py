"""The command line for passwords."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from axis_security.auth.breach import BreachFilter, sha1_of
from axis_security.cli.passwords import command


def test_a_filter_built_on_the_command_line_works(tmp_path: Path, command_line: Callable[..., Result]) -> None:
    """Build, then find what was listed; a broken download is an error with a fix, not a traceback."""
    source, target = tmp_path / "in.txt", tmp_path / "out"
    source.write_text("".join(f"{h.hex().upper()}:2\n" for h in sorted(sha1_of(f"p{i}".encode()) for i in range(100))))
    result = command_line("passwords", "breach-filter", "build", source, target)
    assert result.exit_code == 0, result.output
    assert "100 entries" in result.output
    breach = BreachFilter(target)
    assert breach.contains(sha1_of(b"p5"))
    breach.close()
    source.write_text("nonsense\n")
    result = command_line("passwords", "breach-filter", "build", source, target)
    assert result.exit_code == 2
    assert "fix:" in result.stderr


def test_calibrate_measures_every_preset() -> None:
    """One row for each preset, exactly one of them the default."""
    rows = json.loads(CliRunner().invoke(command, ["calibrate", "--rounds", "1", "--json"]).output)
    assert [row["preset"] for row in rows if row["default"]] == ["OWASP_46_MIB"]
    assert all(row["ms"] > 0 for row in rows)

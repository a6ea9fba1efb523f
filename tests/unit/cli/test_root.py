"""The root of the command line: quick, lazy, and plain about what went wrong."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

import axis_security
from axis_security import cli
from axis_security.core.errors import ConfigError

FOLDER = Path(cli.__file__).parent


def test_every_module_is_a_command_and_every_command_a_module() -> None:
    """The table and the folder say the same, and no name stands twice in the table."""
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "__main__", "loading"}
    assert modules == set(cli.COMMANDS)
    table = next(
        node.value
        for node in ast.walk(ast.parse(Path(cli.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "COMMANDS"
    )
    assert isinstance(table, ast.Dict)
    assert len(table.keys) == len(cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    """`axis-security NAME --help` works for each."""
    assert isinstance(import_module(f"axis_security.cli.{name}").command, click.Command)
    done = CliRunner().invoke(cli._root(), [name, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_help_loads_no_driver() -> None:
    """The list of commands is printed from the table: nothing that a command needs is imported."""
    code = (
        "import sys, axis_security.cli as cli\n"
        "try: cli._root().main(['--help'], prog_name='axis-security')\n"
        "except SystemExit: pass\n"
        "print(sorted({'psycopg', 'sqlalchemy', 'cryptography', 'rich', 'argon2'} & sys.modules.keys()))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.strip().endswith("[]")
    assert all(name in out for name in cli.COMMANDS)


def test_an_error_is_three_lines_and_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """What, why and fix on stderr, nothing on stdout, no traceback; any other failure is a bug and stays one."""

    @click.command("broken")
    @click.option("--bug", is_flag=True)
    def broken(*, bug: bool) -> None:
        if bug:
            raise ZeroDivisionError
        raise ConfigError(what="no key", why="`SEAL` is empty", fix="set it")

    module = ModuleType("axis_security.cli.broken")
    module.command = broken  # type: ignore[attr-defined]  # made up for the test
    monkeypatch.setitem(sys.modules, "axis_security.cli.broken", module)
    monkeypatch.setattr(cli, "COMMANDS", {**cli.COMMANDS, "broken": "Fails."})
    done = CliRunner().invoke(cli._root(), ["broken"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["no key", "  why: `SEAL` is empty", "  fix: set it", "  [axis.config]"]
    assert isinstance(CliRunner().invoke(cli._root(), ["broken", "--bug"]).exception, ZeroDivisionError)


def test_an_unknown_command_is_a_usage_error() -> None:
    """Status 2, and it says which name it did not know."""
    done = CliRunner().invoke(cli._root(), ["nonsense"])
    assert done.exit_code == 2
    assert "nonsense" in done.stderr


def test_the_version_is_the_package_s() -> None:
    """--version prints it and nothing else."""
    assert CliRunner().invoke(cli._root(), ["--version"]).stdout.strip() == axis_security.__version__


@pytest.mark.parametrize(("gone", "clear"), [("click", True), ("axis_security.core.errors", False)])
def test_a_missing_extra_is_named(gone: str, *, clear: bool) -> None:
    """Without click the user is told which extra to install; a broken installation of our own is not blamed on it."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{gone!r}] = None\nfrom axis_security.cli import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert ("pip install 'axis-security[cli]'" in done.stderr) is clear
    assert ("Traceback" in done.stderr) is not clear

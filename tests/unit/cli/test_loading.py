"""What a word on the command line names: the host's own object, or a plain no that says what is wrong with the word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from axis_security.cli.loading import HostObject

MODULE = """
from axis_security.rbac import Capabilities, standard_policy
from axis_security.core.events import NullSink
caps = Capabilities(contacts=("read",), users=("manage",))
policy = standard_policy(caps, viewer=[caps.contacts.read], events=NullSink())
class inside:
    policy = policy
"""


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with the host's module, which is on no path."""
    (tmp_path / "the_host.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("/nowhere")  # sys.path is put back afterwards


KIND = "axis_security.rbac.policy.Policy"


@pytest.mark.parametrize("word", ["the_host:policy", "the_host", "the_host:inside.policy"])
def test_an_object_of_the_working_directory_is_found(word: str) -> None:
    """By its name, by the usual one, and inside another, as a server finds an app."""
    found = HostObject(default="policy", kind=KIND).convert(word, None, None)
    assert type(found).__name__ == "Policy"
    assert HostObject(kind=KIND).convert(found, None, None) is found


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("", "MODULE:NAME"),
        (":policy", "MODULE:NAME"),
        ("the_host:", "MODULE:NAME"),
        ("no_such_host:policy", "No module named 'no_such_host'"),
        ("the_host:polity", "no attribute 'polity'"),
        ("the_host:caps", "is a Capabilities, not a Policy"),
        ("..:policy", "cannot load"),
    ],
)
def test_what_names_nothing_is_told_as_that(word: str, said: str) -> None:
    """A usage error with the word and the reason; never a crash."""
    with pytest.raises(click.BadParameter, match=said):
        HostObject(kind=KIND).convert(word, None, None)


COMMANDS = (
    ("keys", "status", "the_host:policy"),
    ("rbac", "matrix", "the_host:caps"),
    ("report", "--asvs", "--auth", "the_host:policy"),
    ("rls", "audit", "--tenancy", "the_host:policy"),
    ("tenant", "suspend", "the_host:policy", "t", "--reason", "unpaid"),
    ("verify", "the_host:policy"),
    ("backup", "drill", "--invariant", "the_host:caps"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_every_command_refuses_an_object_of_another_kind(words: tuple[str, ...], command_line: Callable[..., Result]) -> None:
    """Status 2 and the reason, before anything is done with it."""
    done = command_line(*words)
    assert done.exit_code == 2
    assert "the_host" in done.stderr
    assert "Traceback" not in done.output

"""The policy as a table, on the command line and in every format."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from axis_security.cli.rbac import command

CODE = """\
from axis_security.rbac import Capabilities, allow, owns, standard_policy
caps = Capabilities(notes=("read", "write"), users=("manage",))
policy = standard_policy(caps, viewer=[caps.notes.read], member=[allow(caps.notes.write, when=owns("owner_id"))], admin=[caps.notes.write])
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs the command in a directory that holds a policy."""
    (tmp_path / "shop_policy.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shop_policy", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*args: str) -> Result:
        return CliRunner().invoke(command, args)

    return run


def test_matrix_says_the_same_in_every_format(call) -> None:  # type: ignore[no-untyped-def]
    """Text, Markdown, HTML and SVG carry each capability, role and condition; markup is well formed."""
    assert call("matrix", "shop_policy:policy").output == (
        "capability    viewer  member               admin  owner\n"
        "------------  ------  -------------------  -----  -----\n"
        "notes.read    yes     yes                  yes    yes\n"
        "notes.write           when owns(owner_id)  yes    yes\n"
        "users.manage                               yes    yes\n"
    )
    assert "| `notes.write` |  | when owns(owner_id) | yes | yes |" in call("matrix", "shop_policy", "--format", "markdown").output
    for form in ("html", "svg"):
        text = call("matrix", "shop_policy", "--format", form).output
        ET.fromstring(text)
        assert all(word in text for word in ("notes.write", "member", "when owns(owner_id)"))


def test_explain_answers_with_reason_and_status(call) -> None:  # type: ignore[no-untyped-def]
    """A no says what is missing and who has it, with exit status 1; a condition is evaluated on the given object."""
    no = call("explain", "shop_policy", "--user", "u", "--role", "viewer", "--cap", "users.manage")
    assert (no.exit_code, no.output) == (1, "no: role `viewer` lacks `users.manage`; allowed for: admin, owner\n")
    mine = call(
        "explain", "shop_policy", "--user", "u", "--role", "member", "--cap", "notes.write", "--resource", '{"owner_id": "u"}', "--json"
    )
    assert mine.exit_code == 0
    assert json.loads(mine.output)["rule"] == "member when owns(owner_id)"
    assert call("explain", "shop_policy", "--role", "member", "--cap", "notes.wirte").exit_code == 1
    assert call("explain", "ghost:policy", "--role", "member", "--cap", "x").exit_code == 2
    assert "no  admin       remove      owner" in call("transitions", "shop_policy").output

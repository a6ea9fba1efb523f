"""mypy rejects a misspelt capability, and accepts the README's form."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

CODE = """\
from axis_security.rbac import Capabilities, Capability, requires, standard_policy
caps = Capabilities(contacts=("read", "write"), users=("manage",))
policy = standard_policy(caps, viewer=[caps.contacts.read], member=[caps.contacts.write])
@requires(caps.users.manage)
def invite(email: str) -> int: return 1
number: int = invite("a@b.example")
"""
TYPOS = {
    "caps.contacts.raed": 'no capability "contacts.raed"',
    "caps.user.manage": 'no resource "user"',
    "requires('users.manage')": "incompatible type",
    "invite(1)": "incompatible type",
}


def test_mypy_rejects_a_misspelt_capability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the plugin, every typo is an error on its own line, across modules too; correct code is clean under --strict."""
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nplugins = axis_security.rbac.mypy_plugin\n")
    (tmp_path / "good.py").write_text(CODE)
    (tmp_path / "typos.py").write_text("from good import caps, invite\nfrom axis_security.rbac import requires\n" + "\n".join(TYPOS) + "\n")
    monkeypatch.chdir(tmp_path)
    options = ["--config-file", "mypy.ini", "--cache-dir", str(tmp_path / "cache"), "--no-error-summary"]
    shown, trouble, _ = api.run([*options, "good.py", "typos.py"])
    assert not trouble
    lines = shown.splitlines()
    for number, said in enumerate(TYPOS.values(), start=3):
        assert any(line.startswith(f"typos.py:{number}:") and said in line for line in lines), (number, said, lines)
    assert all(line.startswith("typos.py:") for line in lines), lines
    assert len([line for line in lines if ": error:" in line]) == len(TYPOS), lines

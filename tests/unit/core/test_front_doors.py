"""Front doors: every name offered can be had, is what the type checker believes, and loads nothing early."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

DOORS = (
    "axis_security",
    "axis_security.rls",
    "axis_security.auth",
    "axis_security.crypto",
    "axis_security.ops.backup",
    "axis_security.testing",
)


@pytest.mark.parametrize("door", DOORS)
def test_every_name_offered_is_there(door: str) -> None:
    """What ``__all__`` lists, what loads, and what a type checker sees are one set, and each name comes from where its home says."""
    module = import_module(door)
    offered = set(module.__all__) - {"__version__"}
    assert offered == set(module._HOME)
    assert offered <= set(dir(module))
    for name in offered:
        assert getattr(module, name) is getattr(import_module(module._HOME[name]), name)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    [typed] = [node for node in tree.body if isinstance(node, ast.If)]
    assert {(f.module, f.names[0].name) for f in typed.body if isinstance(f, ast.ImportFrom)} == {(module._HOME[n], n) for n in offered}


@pytest.mark.parametrize("door", DOORS)
def test_another_name_is_an_attribute_error(door: str) -> None:
    """A name that nobody offers fails as it does in any module."""
    with pytest.raises(AttributeError, match=f"module '{door}' has no attribute 'nothing'"):
        _ = import_module(door).nothing


@pytest.mark.parametrize("door", DOORS)
def test_opening_a_door_loads_no_driver(door: str) -> None:
    """Importing the package alone loads neither an ORM nor a driver nor a cipher."""
    code = f"import sys, {door}; print([m for m in ('sqlalchemy', 'psycopg', 'cryptography', 'argon2', 'valkey') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

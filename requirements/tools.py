"""Prints the pins of requirements/dev.txt but for the packages that pyproject.toml names for hosts: the constraints of the lowest versions."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """See the module."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name not in {"docs", "bench"}}
    named = {re.split(r"[<>=\[]", each)[0] for wanted in (project["dependencies"], *extras.values()) for each in wanted}
    # psycopg-binary is psycopg's other half, and has its version.
    for line in (HERE / "dev.txt").read_text(encoding="utf-8").splitlines():
        pin = re.match(r"([a-z0-9-]+)==[^\\]+", line)
        if pin and pin[1] not in {*named, "psycopg-binary"}:
            sys.stdout.write(f"{pin[0].strip()}\n")


if __name__ == "__main__":
    main()

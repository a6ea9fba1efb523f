"""Coverage-guided fuzzing of one target with atheris: ``python tests/fuzz/run.py TARGET [libFuzzer options]``; ``make fuzz`` runs them all.

What libFuzzer finds new goes into a folder of its own, never into the committed corpus; ``-merge=1`` by hand keeps that small.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # it has no types

HERE = Path(__file__).parent


def main() -> None:
    """Until a finding, or the limits given."""
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["axis_security"]):
        targets = importlib.import_module("targets")  # beside this file
    found = Path(options.pop(0)) if options and not options[0].startswith("-") else HERE / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.SEEDS[name]):
        (found / f"seed-{number}").write_bytes(seed)
    corpus = HERE / "corpus" / name
    folders = [str(found), *([str(corpus)] if corpus.is_dir() else [])]
    atheris.Setup([sys.argv[0], *options, *folders], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()

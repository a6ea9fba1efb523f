"""What ``import axis_security`` costs over a bare interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterable

from benchmarks.harness import Row, Settings, interleaved, measured


def run(settings: Settings) -> Iterable[Row]:
    """Whole processes, taking turns."""

    def process(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    times = interleaved(
        {
            "bare": lambda: process("pass"),
            "ours": lambda: process("import axis_security"),
            "used": lambda: process("from axis_security import Principal, Secret, acting_as"),
        },
        rounds=settings.rounds(41),
        scale=1000,
    )
    bare = statistics.median(times["bare"])
    for case, name in (("import axis_security", "ours"), ("import and use Principal, Secret, acting_as", "used")):
        over = [value - bare for value in times[name]]
        yield measured(
            "import_time", case, "ms", over, limit=30.0, target="at most 30 ms over a bare interpreter", met=statistics.median(over) <= 30
        )

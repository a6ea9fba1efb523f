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
    over = {name: [value - bare for value in times[name]] for name in ("ours", "used")}
    yield measured(
        "import_time",
        "import axis_security",
        "ms",
        over["ours"],
        limit=30.0,
        target="at most 30 ms over a bare interpreter",
        met=statistics.median(over["ours"]) <= 30,
    )
    # What an app pays once it uses the core; no promise is made about it.
    yield measured("import_time", "import and use Principal, Secret, acting_as", "ms", over["used"], target="told, not promised", met=True)

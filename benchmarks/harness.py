"""Measuring that survives a noisy machine: cases take turns, medians are compared, and every row says what it was held against.

A benchmark is a module of this folder with ``run(settings) -> Iterable[Row]``. Smaller is better, unless the unit ends in ``/s``.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Row", "Settings", "interleaved", "machine", "measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long to look. ``quick`` is for trying a benchmark out; its figures are not for quoting. ``full`` takes the large size where there are two."""

    quick: bool = False
    full: bool = False

    def rounds(self, normal: int) -> int:
        """How many rounds, for one that normally takes *normal*."""
        return max(3, normal // 5) if self.quick else normal


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, and what it is held against.

    Args:
        case: what was measured.
        unit: of ``ours``, ``limit`` and the peers.
        ours: the median.
        target: what was promised, in words.
        met: whether it was kept.
        spread: smallest and largest round.
        limit: the figure that the target compares with (a bare call, a literal query, a budget).
        peers: other software's figure for the same work in the same run.
    """

    bench: str
    case: str
    unit: str
    ours: float
    target: str
    met: bool
    spread: tuple[float, float]
    limit: float | None = None
    peers: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio_to_limit(self) -> float | None:
        """Ours by the limit."""
        return None if not self.limit else self.ours / self.limit

    @property
    def ratio_to_best_peer(self) -> float | None:
        """Ours by the best peer's."""
        if not self.peers:
            return None
        best = max(self.peers.values()) if self.unit.endswith("/s") else min(self.peers.values())
        return self.ours / best if best else None

    def as_dict(self) -> dict[str, Any]:
        """The machine-readable form."""
        return {
            "bench": self.bench,
            "case": self.case,
            "unit": self.unit,
            "ours": _short(self.ours),
            "limit": _short(self.limit),
            "peers": {name: _short(value) for name, value in self.peers.items()},
            "ratio_to_limit": _short(self.ratio_to_limit),
            "ratio_to_best_peer": _short(self.ratio_to_best_peer),
            "target": self.target,
            "met": self.met,
            "spread": [_short(value) for value in self.spread],
        }


def interleaved(cases: Mapping[str, Callable[[], object]], *, rounds: int, scale: float = 1.0) -> dict[str, list[float]]:
    """Seconds times *scale* of each case, one value a round. Cases take turns, so that a noisy moment hits them all alike, and every
    second round runs the other way, so that none always follows the same neighbour.

    One round of each is thrown away first. The garbage collector is off while a case runs.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    forth = list(cases.items())
    for turn in range(rounds):
        for name, case in forth if turn % 2 == 0 else reversed(forth):
            gc.collect()
            gc.disable()
            try:
                began = time.perf_counter()
                case()
                times[name].append((time.perf_counter() - began) * scale)
            finally:
                gc.enable()
    return times


def measured(
    bench: str,
    case: str,
    unit: str,
    times: Sequence[float],
    *,
    target: str,
    met: bool,
    limit: float | None = None,
    peers: Mapping[str, Sequence[float]] | None = None,
) -> Row:
    """A row from rounds: medians, and the spread of ours."""
    return Row(
        bench=bench,
        case=case,
        unit=unit,
        ours=statistics.median(times),
        limit=limit,
        peers={name: statistics.median(values) for name, values in (peers or {}).items()},
        target=target,
        met=met,
        spread=(min(times), max(times)),
    )


def machine() -> dict[str, Any]:
    """What it ran on: enough to judge a figure by, nothing that names the machine."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
    }


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")

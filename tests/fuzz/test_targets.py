"""The fuzz targets: seeds, the kept corpus, and bytes near them hold what each target promises; nightly, libFuzzer looks for more."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import needs
from tests.fuzz import targets

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds_and_the_kept_corpus_hold(name: str) -> None:
    """What was once interesting stays so."""
    kept = [path.read_bytes() for path in sorted((HERE / "corpus" / name).glob("*"))]
    assert kept, "no corpus"
    for data in (*targets.SEEDS[name], *kept):
        targets.TARGETS[name](data)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_bytes_near_the_seeds_hold(name: str) -> None:
    """A thousand changes of each kind a fuzzer makes first: flips, cuts, repeats, splices."""
    chance = random.Random(name)
    seeds = targets.SEEDS[name]
    for _ in range(1000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(4):
                case 0 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    del data[at : at + chance.randint(1, 64)]
                case 2:
                    data[at:at] = data[at : at + chance.randint(1, 64)]
                case _:
                    other = chance.choice(seeds)
                    data[at:] = other[chance.randrange(len(other) + 1) :]
        targets.TARGETS[name](bytes(data))


@given(st.binary(max_size=400))
def test_any_bytes_hold(data: bytes) -> None:
    """No target minds what it is given."""
    for target in targets.TARGETS.values():
        target(data)


def test_a_broken_target_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a target whose promise does not hold raises."""
    monkeypatch.setattr(targets, "_FIELDS", ())
    with pytest.raises(AssertionError, match="nobody sealed"):
        for seed in targets.SEEDS["field"]:
            targets.TARGETS["field"](seed)


@pytest.mark.nightly
@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_fuzzer_finds_nothing_in_a_minute(name: str, tmp_path: Path) -> None:
    """libFuzzer, guided by coverage, for 60 s and from the kept corpus."""
    needs("atheris", install="pip install atheris")
    command = [sys.executable, str(HERE / "run.py"), name, str(tmp_path), "-max_total_time=60", "-timeout=5", "-rss_limit_mb=1024"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

"""The fuzz targets: seeds, the kept corpus, and bytes near them hold what each target promises; nightly, libFuzzer looks for more."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent


def _targets() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_targets", HERE / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


T = _targets()


@pytest.mark.parametrize("name", T.TARGETS)
def test_seeds_and_the_kept_corpus_hold(name: str) -> None:
    """What was once interesting stays so."""
    kept = [path.read_bytes() for path in sorted((HERE / "corpus" / name).glob("*"))]
    assert kept, "no corpus"
    for data in (*T.SEEDS[name], *kept):
        T.TARGETS[name](data)


@pytest.mark.parametrize("name", T.TARGETS)
def test_bytes_near_the_seeds_hold(name: str) -> None:
    """A thousand changes of each kind a fuzzer makes first: flips, cuts, repeats, splices."""
    chance = random.Random(name)
    seeds = T.SEEDS[name]
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
        T.TARGETS[name](bytes(data))


@given(st.binary(max_size=400))
def test_any_bytes_hold(data: bytes) -> None:
    """No target minds what it is given."""
    for target in T.TARGETS.values():
        target(data)


def test_a_broken_target_is_noticed() -> None:
    """The control: a target whose promise does not hold raises."""
    original, T._FIELDS = T._FIELDS, ()
    try:
        with pytest.raises(AssertionError, match="nobody sealed"):
            for seed in T.SEEDS["field"]:
                T.TARGETS["field"](seed)
    finally:
        T._FIELDS = original


@pytest.mark.nightly
@pytest.mark.parametrize("name", T.TARGETS)
def test_the_fuzzer_finds_nothing_in_a_minute(name: str, tmp_path: Path) -> None:
    """libFuzzer, guided by coverage, for 60 s and from the kept corpus."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed; pip install atheris")
    command = [sys.executable, str(HERE / "run.py"), name, str(tmp_path), "-max_total_time=60", "-timeout=5", "-rss_limit_mb=1024"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

"""Every store keeps the one contract, one caller at a time and fifty at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import pytest
from tests.integration.auth.conftest import VaultWorld

from axis_security.testing.factors import MemoryFactors
from axis_security.testing.stores import FACTOR_CASES, FACTOR_RACES, Perform

ROUNDS: Final = 200 if os.environ.get("AXIS_TEST_PROFILE") == "nightly" else 3
Case = Callable[[Perform], None]


def named(case: Case) -> str:
    return case.__name__


@pytest.mark.parametrize("case", FACTOR_CASES, ids=named)
def test_postgres_factors(world: VaultWorld, case: Case) -> None:
    """The vault keeps the contract of factors."""
    case(world.vault.perform)


@pytest.mark.parametrize("case", FACTOR_RACES, ids=named)
def test_postgres_factors_race(world: VaultWorld, case: Case) -> None:
    """The vault has one winner among fifty."""
    for _ in range(ROUNDS):
        case(world.vault.perform)


@pytest.mark.parametrize("case", [*FACTOR_CASES, *FACTOR_RACES], ids=named)
def test_memory_factors(case: Case) -> None:
    """The store for tests keeps the contract too, so that tests on it mean something."""
    case(MemoryFactors().perform)

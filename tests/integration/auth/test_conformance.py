"""Every store keeps the one contract, one caller at a time and fifty at once."""

from __future__ import annotations

import os
from typing import Final

import pytest
from tests.integration.auth.conftest import VaultWorld

from axis_security.testing.factors import MemoryFactors
from axis_security.testing.session_store_cases import SESSION_CASES, SESSION_RACES, THROTTLE_CASES, THROTTLE_RACES
from axis_security.testing.store_cases import ACCOUNT_CASES, ACCOUNT_RACES
from axis_security.testing.stores import FACTOR_CASES, FACTOR_RACES, Case

ROUNDS: Final = 200 if os.environ.get("AXIS_TEST_PROFILE") == "nightly" else 3
CASES: Final = (*FACTOR_CASES, *ACCOUNT_CASES, *SESSION_CASES, *THROTTLE_CASES)
RACES: Final = (*FACTOR_RACES, *ACCOUNT_RACES, *SESSION_RACES, *THROTTLE_RACES)


def named(case: Case) -> str:
    return case.__name__


@pytest.mark.parametrize("case", CASES, ids=named)
def test_postgres(world: VaultWorld, case: Case) -> None:
    """The vault keeps the contract."""
    case(world.vault.perform)


@pytest.mark.parametrize("case", RACES, ids=named)
def test_postgres_race(world: VaultWorld, case: Case) -> None:
    """The vault has one winner among fifty."""
    for _ in range(ROUNDS):
        case(world.vault.perform)


@pytest.mark.parametrize("case", [*CASES, *RACES], ids=named)
def test_memory(case: Case) -> None:
    """The store for tests keeps the contract too, so that tests on it mean something."""
    case(MemoryFactors().perform)

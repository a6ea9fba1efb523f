"""Every store keeps the one contract, one caller at a time and fifty at once."""

from __future__ import annotations

import copy
import os
from datetime import timedelta
from typing import Any, Final

import pytest
from tests.integration.auth.conftest import VaultWorld, vault_world

from axis_security.auth.factors import ClaimStep, ConsumeRecovery
from axis_security.auth.ports import Budget, ConsumeToken, IssueToken, LoadSettings, Prune, Register, Reserve, StoredHash
from axis_security.auth.store_memory import MemoryVault
from axis_security.auth.vault_sql import VAULT
from axis_security.core.errors import ConfigError
from axis_security.core.ids import UserId
from axis_security.core.settings import Environment
from axis_security.testing.cluster import Cluster
from axis_security.testing.factors import MemoryFactors
from axis_security.testing.session_store_cases import SESSION_CASES, SESSION_RACES, THROTTLE_CASES, THROTTLE_RACES
from axis_security.testing.store_cases import ACCOUNT_CASES, ACCOUNT_RACES, START, at, digest, is_live, registered, start
from axis_security.testing.stores import FACTOR_CASES, FACTOR_RACES, Case, NotConforming

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


class Careless:
    """A store that checks and then writes, as many do: reads first, and decides on what it read a moment ago."""

    def __init__(self, *, forgets: type) -> None:
        self._store = MemoryFactors()
        self._forgets = forgets

    def perform(self, request: Any) -> Any:
        """Everybody who asks at one time sees the state from before."""
        if type(request) is not self._forgets:
            return self._store.perform(request)
        before = copy.deepcopy(self._store.__dict__["_factors"]), copy.deepcopy(self._store.__dict__["_tokens"])
        answer = self._store.perform(request)
        if answer:
            self._store.__dict__["_factors"], self._store.__dict__["_tokens"] = before
        return answer


@pytest.mark.parametrize(
    ("case", "forgets"),
    [
        ("one_caller_claims_a_step", ClaimStep),
        ("one_caller_uses_a_recovery_code", ConsumeRecovery),
        ("one_caller_consumes_a_token", ConsumeToken),
    ],
)
def test_control_a_store_that_checks_and_then_writes_is_caught(case: str, forgets: type) -> None:
    """The races bite: a store whose writes come late has more than one winner, and the case says so."""
    race = next(one for one in RACES if one.__name__ == case)
    with pytest.raises(NotConforming):
        race(Careless(forgets=forgets).perform)


def test_the_store_in_memory_is_refused_outside_tests() -> None:
    """Production and development get a ConfigError, not sessions that vanish with the process."""
    for environment in Environment:
        if environment is not Environment.TEST:
            with pytest.raises(ConfigError, match="for tests only"):
                MemoryVault(environment=environment)


def test_the_part_applies_twice_and_drops_whole(cluster: Cluster) -> None:
    """Idempotent, and its drop leaves no object of the vault behind; a second apply keeps the key of made-up settings."""
    with vault_world(cluster) as world, world.superuser() as conn:
        name = "vault-nobody"
        world.vault.perform(
            Register(user=UserId("a"), identifier="a", hash=StoredHash("axis1$-$-$m=1,t=1,p=1$" + "s" * 22 + "$AA", b"d" * 32))
        )
        before = world.vault.perform(LoadSettings(name))
        for statement in VAULT.create(world.roles):
            conn.execute(statement)
        assert world.vault.perform(LoadSettings(name)) == before
        for statement in VAULT.drop(world.roles):
            conn.execute(statement)
        left = conn.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'axis'::regnamespace AND relname LIKE 'vault%' "
            "UNION SELECT proname::text FROM pg_proc WHERE pronamespace = 'axis'::regnamespace AND proname LIKE 'vault%'"
        ).fetchall()
        assert left == []


def test_pruning_takes_what_is_over_and_nothing_else(cluster: Cluster) -> None:
    """Expired sessions, remember tokens, purpose tokens and idle budgets go; live ones stay; the second time nothing is left to do."""
    with vault_world(cluster) as world:
        do = world.vault.perform
        user = registered(do)
        _, short = start(do, user)
        other = registered(do)
        _, long = start(do, other, seconds=3000)
        token = digest()
        do(IssueToken(purpose="verify_email", user=user, digest=token, now=START, lasting=timedelta(minutes=1)))
        do(Reserve((Budget(b"k", 1, timedelta(minutes=1)),), START))
        assert do(Prune(START)) == 0
        assert do(Prune(at(3600))) == 3
        assert do(Prune(at(3600))) == 0
        assert [is_live(do, user, short, 3601), is_live(do, other, long, 3601)] == [False, True]

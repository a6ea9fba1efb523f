"""A whole life of an account on real stores: the flows that unit tests run in memory, on PostgreSQL alone and with Valkey beside it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from tests.integration.auth.conftest import VaultWorld

from axis_security.auth.lifecycle import Answered, PasswordSet
from axis_security.auth.login_states import NeedsSecondFactor, RefusalCode, Refused, SignedIn
from axis_security.auth.sessions import Anonymous, Authenticated
from axis_security.auth.stepup import SteppedUp
from axis_security.auth.store_split import SplitStore
from axis_security.auth.store_valkey import ValkeyStore
from axis_security.auth.work import AnyStore
from axis_security.core.secret import Secret
from axis_security.testing.auth_world import GOOD_PASSWORD, AuthWorld
from axis_security.testing.servers import Valkey

NEW = Secret("another uncommon sentence")


@pytest.fixture(params=["postgres", "postgres and valkey"])
def store(request: pytest.FixtureRequest, world: VaultWorld) -> Iterator[AnyStore]:
    """Each real store."""
    if request.param == "postgres":
        yield world.vault
        return
    valkey: Valkey = request.getfixturevalue("valkey")
    sessions = ValkeyStore(valkey.url, replicas=0)
    try:
        yield SplitStore(accounts=world.vault, sessions=sessions)
    finally:
        sessions.close()


def named(store: AnyStore) -> tuple[AuthWorld, str]:
    """A world with an account of its own. The clock starts now: Valkey expires by its own."""
    made = AuthWorld(store=store, start=datetime.now(UTC))
    name = f"ann-{secrets.token_hex(6)}@example.com"
    made.account(name)
    return made, name


def test_a_life_of_an_account(store: AnyStore) -> None:
    """Sign in, enrol, sign in with two factors, step up, rotate, reset, and be gone everywhere; each answer as the machine's table says."""
    made, name = named(store)
    first = made.browser()
    user = first.sign_in(name, remember=True).user
    assert isinstance(first.resolve(), Authenticated)
    assert isinstance(made.browser().login(name, Secret("wrong")), Refused)
    phone = made.phone(user)
    second = made.browser("2001:db8::1")
    assert isinstance(second.login(name), NeedsSecondFactor)
    assert second.code("000000") == Refused(RefusalCode.CODE)
    assert isinstance(second.code(phone.at(made.time)), SignedIn)
    assert len(second.devices()) == 2
    made.later(seconds=30)
    old = second.copy()
    stepped = second.run(
        made.auth.step_up.confirm(second.session(), password=GOOD_PASSWORD, visitor=second.visitor, code=phone.at(made.time))
    )
    assert isinstance(stepped, SteppedUp)
    assert old.session().live.superseded
    made.later(seconds=20)
    assert isinstance(old.resolve(), Anonymous)
    assert isinstance(second.resolve(), Anonymous), "reuse after the grace ended the session"
    assert isinstance(first.resolve(), Authenticated)
    answer = made.run(made.auth.lifecycle.forgot(identifier=name.upper(), visitor=first.visitor))
    assert isinstance(answer, Answered)
    assert answer.letter is not None
    assert isinstance(made.run(made.auth.lifecycle.reset(token=answer.letter.token, password=NEW, visitor=first.visitor)), PasswordSet)
    assert isinstance(first.resolve(), Anonymous)
    assert isinstance(first.run(made.auth.login.remembered(visitor=first.visitor)), Refused)
    assert isinstance(made.browser().login(name, NEW), NeedsSecondFactor)


def test_parallel_requests_with_one_pending_login_make_one_session(store: AnyStore) -> None:
    """Eight requests with the same pending cookie and the same right code: one is signed in."""
    made, name = named(store)
    phone = made.phone(made.browser().sign_in(name).user)
    browser = made.browser()
    browser.login(name)
    code = phone.at(made.time)
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: browser.copy().code(code), range(8)))
    assert [isinstance(outcome, SignedIn) for outcome in outcomes].count(True) == 1
    assert all(isinstance(outcome, SignedIn | Refused) for outcome in outcomes)


def test_the_throttle_counts_across_parallel_guesses(store: AnyStore) -> None:
    """Twenty guesses at once from twenty networks: ten are compared."""
    made, name = named(store)

    def guess(number: int) -> RefusalCode | None:
        outcome = made.browser(f"198.51.100.{number}").login(name, Secret("wrong"))
        return outcome.code if isinstance(outcome, Refused) else None

    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(guess, range(20)))
    assert codes.count(RefusalCode.THROTTLED) == 10
    assert codes.count(RefusalCode.MISMATCH) == 10

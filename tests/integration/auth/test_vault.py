"""What the vault's own SQL promises beyond the contract of stores: no deadlocks, no empty digests, any isolation, the real password flow."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.integration.auth.conftest import VaultWorld, vault_world

from axis_security.auth import ports as p
from axis_security.auth import session_ports as s
from axis_security.auth import store_postgres
from axis_security.auth.factors import ReplaceRecovery
from axis_security.auth.passwords import Derived, Passwords
from axis_security.auth.peppers import PepperRing
from axis_security.auth.store_postgres import PostgresVault
from axis_security.auth.vault import vault_call
from axis_security.core.errors import AxisError, ConfigError, Unavailable
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance
from axis_security.core.secret import Secret
from axis_security.testing.cluster import Cluster
from axis_security.testing.kdf import CountingKdf
from axis_security.testing.session_store_cases import SESSION_RACES, THROTTLE_RACES
from axis_security.testing.store_cases import ACCOUNT_RACES, START, at, digest, key, name_of, registered, start, stored
from axis_security.testing.stores import FACTOR_RACES, Case, Perform, attempts_are_exact_under_parallel_guessing, codes


def test_nothing_deadlocks_under_mixed_load(world: VaultWorld) -> None:
    """Eight threads do everything at once to three accounts; nobody is told "unavailable", and every session has one current id."""
    perform = world.vault.perform
    users = [registered(perform, stored()) for _ in range(3)]
    known: list[tuple[Any, p.Digest]] = [(user, start(perform, user)[1]) for user in users]
    failures: list[AxisError] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(150):
            user, presented = rng.choice(known)
            account, made, handle = rng.choice(users), digest(), uuid4()
            epoch = getattr(perform(p.AccountOf(account)), "epoch", 0)
            request: Any = rng.choice((
                s.RotateSession(key=key(user, presented), digest=made, now=at(1)),
                s.ResolveSession(key=key(user, presented), now=at(rng.choice((1, 100)))),
                s.EndSession(key(user, presented)),
                s.RevokeSessions(user=account, keep=handle),
                s.IssueRemember(user=account, handle=handle, digest=made, epoch=epoch, now=START, lasting=timedelta(1)),
                s.UseRemember(candidates=(presented,), digest=made, handle=handle, now=at(1)),
                p.IssueToken(purpose="password_reset", user=account, digest=made, now=START, lasting=timedelta(1)),
                p.ResetPassword(candidates=(presented,), new=stored(), now=at(1)),
                p.ConsumeToken(purpose="password_reset", candidates=(presented,), now=at(1)),
                p.BumpEpoch(account),
                p.SetActive(account, True),
                p.Prune(at(1)),
                ReplaceRecovery(account, codes(3)),
                s.StartSession(
                    user=account, handle=handle, digest=made, epoch=epoch, now=START, idle=timedelta(1), lifetime=timedelta(2), max_live=3,
                    assurance=Assurance.AAL1, methods=(), ends=key(user, presented),
                ),
            ))  # fmt: skip
            try:
                if perform(request):
                    known.append((account if isinstance(request, s.StartSession) else user, made))
            except AxisError as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with world.superuser() as conn:
        odd = conn.execute(
            "SELECT handle FROM axis.vault_session LEFT JOIN axis.vault_session_id USING (handle) GROUP BY handle "
            "HAVING count(digest) FILTER (WHERE superseded_at IS NULL) <> 1"
        ).fetchall()
    assert odd == []


@pytest.mark.parametrize("case", [*FACTOR_RACES, *ACCOUNT_RACES, *SESSION_RACES, *THROTTLE_RACES], ids=lambda case: case.__name__)
def test_one_winner_at_a_stricter_isolation(world: VaultWorld, case: Case) -> None:
    """A server that defaults to repeatable read aborts some of the fifty; they are tried again, and there is one winner all the same."""
    stricter = {"options": "-c default_transaction_isolation=repeatable\\ read"}
    with ConnectionPool(world.dsn(world.roles.app), min_size=1, max_size=8, open=True, timeout=10, kwargs=stricter) as pool:
        case(PostgresVault(pool).perform)


def test_cve_2019_16109_and_2026_34531_an_empty_token_matches_nothing(world: VaultWorld) -> None:
    """No empty, short or missing digest can be stored, in any column, and none can be asked for."""
    with world.superuser() as conn:
        columns = conn.execute(
            "SELECT attrelid::regclass::text, attname::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
            "WHERE relnamespace = 'axis'::regnamespace AND relname LIKE 'vault%' AND relkind = 'r' AND attname IN ('digest', 'sealed', 'pending', 'key') "
            "AND attnum > 0 ORDER BY 1"
        ).fetchall()
        checks = {
            (table, column): " ".join(
                row[0]
                for row in conn.execute(
                    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'", (table,)
                )
            )
            for table, column in columns
        }
    assert len(columns) >= 9
    for (_, column), check in checks.items():
        assert f"octet_length({column})" in check
    for empty in ((), (("k", b""),), (("k", b" "),)):
        request = p.PeekToken(purpose="password_reset", candidates=empty, now=START)
        if empty:
            with pytest.raises(ConfigError):
                world.vault.perform(request)
        else:
            assert world.vault.perform(request) is None


def test_cve_2026_32700_two_racing_changes_of_address_never_cross(world: VaultWorld) -> None:
    """A change binds the exact new address: whatever races, the account ends with an address whose own token was presented."""
    perform: Perform = world.vault.perform
    for _ in range(10):
        user = registered(perform)
        tokens = {name: digest() for name in (f"x-{name_of(user)}", f"y-{name_of(user)}")}

        def change(name: str, token: p.Digest, user: Any = user) -> Any:
            perform(p.IssueToken(purpose="change_email", user=user, digest=token, payload=name, now=START, lasting=timedelta(1)))
            return perform(p.ChangeIdentifier(candidates=(token,), now=at(1)))

        threads = [threading.Thread(target=change, args=pair) for pair in tokens.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with world.superuser() as conn:
            row = conn.execute("SELECT identifier FROM axis.vault_account WHERE account = %s", (f"text:{user.text}",)).fetchone()
        assert row is not None
        assert row[0] in {name_of(user), *tokens}


@pytest.mark.parametrize("text", ["", "\0", "\ud800", "x" * 100_000, "é" * 400, "' OR 1=1 --", "a\u0301"])
def test_any_identifier_is_answered_like_an_unknown_one(world: VaultWorld, text: str) -> None:
    """Names that none can have cost and answer what unknown names do; only registering one is an error of the caller's."""
    registered(world.vault.perform, stored())
    settings = world.vault.perform(p.LoadSettings(text))
    assert settings == world.vault.perform(p.LoadSettings(text))
    assert settings.startswith("axis1$")
    assert world.vault.perform(p.CheckPassword(account=text, settings=settings, digest=b"x" * 32)).verdict == "mismatch"
    assert world.vault.perform(p.FindAccount(text)) is None


def test_a_login_against_the_vault(world: VaultWorld) -> None:
    """The whole way with real pieces: hash, split, register; settings out, digest in; an upgrade that replaces the hash; the same work for nobody."""
    kdf = CountingKdf()
    right, wrong = Secret("correct horse battery"), Secret("incorrect horse")
    passwords = Passwords(kdf=kdf, peppers=PepperRing(active="p1", keys={"p1": Secret(b"1" * 32)}))
    user = registered(world.vault.perform, passwords.split(passwords.hash(right)))

    def login(name: str, password: Secret[str], by: Passwords) -> tuple[str, Derived]:
        settings = world.vault.perform(p.LoadSettings(name))
        derived = by.derive(password=password, settings=settings)
        assert isinstance(derived, Derived)
        return world.vault.perform(p.CheckPassword(account=name, settings=settings, digest=derived.digest.reveal())).verdict, derived

    kdf.take()
    assert login(name_of(user), right, passwords)[0] == "match"
    work = kdf.take()
    assert login(name_of(user), wrong, passwords)[0] == "mismatch"
    assert kdf.take() == work
    assert login("nobody@example.org", right, passwords)[0] == "mismatch"
    assert kdf.take() == work
    rotated = Passwords(kdf=kdf, peppers=PepperRing(active="p2", keys={"p1": Secret(b"1" * 32), "p2": Secret(b"2" * 32)}))
    verdict, derived = login(name_of(user), right, rotated)
    better = rotated.renew(password=right, derived=derived)
    assert verdict == "match"
    assert better is not None
    old = p.StoredHash(world.vault.perform(p.LoadSettings(user)), derived.digest.reveal())
    assert world.vault.perform(p.Rehash(user=user, old=old, new=rotated.split(better))).verdict == "match"
    assert world.vault.perform(p.LoadSettings(user)).startswith("axis1$p2$")
    verdict, derived = login(name_of(user), right, rotated)
    assert verdict == "match"
    assert rotated.renew(password=right, derived=derived) is None


def test_the_vault_asks_for_no_context(world: VaultWorld) -> None:
    """Every function runs on a connection with nothing bound, and none runs for PUBLIC, the owner or the system role."""
    with psycopg.connect(world.dsn(world.roles.owner), autocommit=True) as conn:
        for role in (world.roles.owner, world.roles.system):
            with psycopg.connect(world.dsn(role), autocommit=True) as stranger, pytest.raises(psycopg.errors.InsufficientPrivilege):
                stranger.execute("SELECT axis.vault_load_totp('text:ann', false)")
        assert conn.execute("SELECT current_setting('axis.context', true)").fetchone() == (None,)


def test_control_without_trying_again_the_stricter_isolation_refuses(world: VaultWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above runs where it says: with one try, some of fifty callers are told "unavailable"."""
    monkeypatch.setattr(store_postgres, "_TRIES", 1)
    stricter = {"options": "-c default_transaction_isolation=repeatable\\ read"}
    with ConnectionPool(world.dsn(world.roles.app), min_size=8, max_size=8, open=True, timeout=10, kwargs=stricter) as pool:
        pool.wait()
        with pytest.raises(Unavailable, match="40001"):
            for _ in range(5):
                attempts_are_exact_under_parallel_guessing(PostgresVault(pool).perform)


def test_a_step_up_in_the_middle_of_a_resolution_lifts_no_old_id(cluster: Cluster) -> None:
    """ASVS 7.2.4, to the statement: the old id is presented, and while that is being answered the person steps up. The answer is about the old
    id, so whoever copied it never sees what the new one proves. (The function is stopped between its statements by a lock of the test's.)"""
    with vault_world(cluster) as world, world.superuser() as gate:
        signature = "axis.vault_resolve_session(text, bytea[], timestamptz, interval, interval)"
        row = gate.execute("SELECT pg_get_functiondef(%s::regprocedure)", [signature]).fetchone()
        assert row is not None
        seam = "IF v_seen + p_touch"
        assert row[0].count(seam) == 1
        gate.execute(row[0].replace(seam, f"PERFORM pg_advisory_xact_lock_shared(7);\n    {seam}"))
        user = registered(world.vault.perform)
        _, old = start(world.vault.perform, user)
        gate.execute("SELECT pg_advisory_lock(7)")
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(world.vault.perform, s.ResolveSession(key=key(user, old), now=at(1)))
            while gate.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone() == (0,):
                assert not asked.done(), "control: it stopped where it should"
            stepped = world.vault.perform(
                s.RotateSession(key=key(user, old), digest=digest(), now=at(1), assurance=Assurance.AAL2, auth_time=at(1))
            )
            gate.execute("SELECT pg_advisory_unlock(7)")
            answer = asked.result()
        assert (stepped.assurance, stepped.auth_time) == (Assurance.AAL2, at(1))
        assert (answer.assurance, answer.auth_time, answer.superseded) == (Assurance.AAL1, START, True)


def test_whoever_has_no_account_costs_a_write_too(world: VaultWorld) -> None:
    """A commit that wrote waits for the disk and for replicas, which takes milliseconds: a wrong password, a letter and a registration write
    whether there is such an account or not. Nothing is left of a write for nobody."""
    perform, right = world.vault.perform, stored()
    known, bare, locked, gone = registered(perform, right), registered(perform), registered(perform, stored()), registered(perform, right)
    for _ in range(100):
        perform(p.CheckPassword(account=locked, settings=perform(p.LoadSettings(locked)), digest=b"\1" * 32))
    perform(p.SetActive(gone, False))
    token: dict[str, Any] = {"purpose": "password_reset", "now": START, "lasting": timedelta(1)}

    def wrote(request: Any) -> bool:
        call = vault_call(request).statement
        with psycopg.connect(world.dsn(world.roles.app)) as conn:
            conn.execute(call.sql, call.params)
            row = conn.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetchone()
            return row == (True,)

    names = [name_of(known), name_of(bare), name_of(locked), name_of(gone), "nobody@example.org", "\0 no name"]
    with world.superuser() as conn:
        before = conn.execute("SELECT count(*) FROM axis.vault_throttle").fetchone()
        for name in names:
            assert wrote(p.CheckPassword(account=name, settings=right.settings, digest=b"\1" * 32)), name
        for user in (known, gone, UserId("nobody-at-all")):
            assert wrote(p.IssueToken(user=user, digest=digest(), **token)), user
        for name in (name_of(known), "free@example.org"):
            assert wrote(p.Register(user=UserId("fresh"), identifier=name, hash=right)), name
        assert not wrote(p.FindAccount(name_of(known))), "control: what only reads is seen as such"
        assert conn.execute("SELECT count(*) FROM axis.vault_throttle").fetchone() == before

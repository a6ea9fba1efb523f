"""SQL injected through the app role: every object of the schema is tried, and no hash, seed, code or digest comes out."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from tests.integration.auth.conftest import VaultWorld, vault_world

from axis_security.auth import ports as p
from axis_security.auth import session_ports as s
from axis_security.auth.factors import BeginEnrolment, ConfirmEnrolment, ReplaceRecovery
from axis_security.core.ids import UserId
from axis_security.core.principal import Assurance
from axis_security.testing.cluster import Cluster
from axis_security.testing.factors import TestSealer

NOW: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
SEED: Final = secrets.token_bytes(20)


@dataclass(frozen=True)
class Planted:
    """A vault with one of everything in it, and the values that must never come out."""

    world: VaultWorld
    secrets: dict[str, bytes]
    user: UserId

    def leaks(self, seen: object) -> set[str]:
        """Which of them are in *seen*, in any of the ways in which PostgreSQL writes bytes."""
        text = seen if isinstance(seen, str) else repr(seen)
        raw = b"".join(bytes(part) for part in seen if isinstance(part, bytes | memoryview)) if isinstance(seen, tuple) else b""
        return {name for name, value in self.secrets.items() if value in raw or value.hex() in text or repr(value)[2:-1] in text}


@pytest.fixture(scope="module")
def planted(cluster: Cluster) -> Iterator[Planted]:
    """One account with a password, a factor, recovery codes, a session, a remember token and a purpose token."""
    with vault_world(cluster, size=2) as world:
        user, handle, do = UserId("ann"), uuid4(), world.vault.perform
        values = {name: secrets.token_bytes(32) for name in ("hash", "recovery", "session", "remember", "token")}
        settings = f"axis1$-$-$m=47104,t=1,p=1${secrets.token_urlsafe(16)}${'A' * 43}"
        do(p.Register(user=user, identifier="ann@example.org", hash=p.StoredHash(settings, values["hash"])))
        sealed = TestSealer().seal(SEED, b"ann")
        do(BeginEnrolment(user, sealed))
        do(ConfirmEnrolment(user, sealed, 5))
        do(ReplaceRecovery(user, (("k1", values["recovery"]),)))
        live: dict[str, Any] = {"epoch": 0, "now": NOW}
        do(
            s.StartSession(
                user=user, handle=handle, digest=("k1", values["session"]), idle=timedelta(1), lifetime=timedelta(1),
                assurance=Assurance.AAL2, methods=("password",), **live,
            )
        )  # fmt: skip
        do(s.IssueRemember(user=user, handle=handle, digest=("k1", values["remember"]), lasting=timedelta(1), **live))
        do(p.IssueToken(purpose="verify_email", user=user, digest=("k1", values["token"]), now=NOW, lasting=timedelta(1)))
        with world.superuser() as conn:
            key = conn.execute("SELECT key FROM axis.vault_secret").fetchone()
            conn.execute("ANALYZE")
        assert key is not None
        yield Planted(world, {**values, "seed": SEED, "key": bytes(key[0])}, user)


PLAUSIBLE: Final[dict[str, tuple[str, ...]]] = {
    "text": ("'text:ann'", "'ann@example.org'", "NULL"),
    "bytea": ("'\\x00'", "NULL"),
    "bytea[]": ("'{}'", "ARRAY['\\x00'::bytea]"),
    "text[]": ("'{}'", "ARRAY['k1']"),
    "uuid": ("gen_random_uuid()", "NULL"),
    "boolean": ("true", "false"),
    "integer": ("0", "100"),
    "smallint": ("1",),
    "bigint": ("1",),
    "double precision": ("0",),
    "double precision[]": ("'{}'", "ARRAY[1.0]"),
    "timestamp with time zone": ("'2026-11-24 12:00+00'",),
    "interval": ("interval '1 day'",),
}


def attempts(conn: psycopg.Connection[Any], *, most: int = 24) -> Iterator[tuple[str, str]]:
    """Every object in the schema, read in every way there is."""
    relations = conn.execute(
        "SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c WHERE c.relnamespace = 'axis'::regnamespace ORDER BY 1"
    ).fetchall()
    for name, kind in relations:
        if kind in "rvmpf":
            yield name, f"SELECT * FROM {name}"
            yield name, f"SELECT t::text FROM {name} t"
            yield name, f"COPY {name} TO STDOUT"
            yield name, f"COPY (SELECT * FROM {name}) TO STDOUT"
            yield name, f"DELETE FROM {name} RETURNING *"
            yield name, f"UPDATE {name} SET ctid = ctid RETURNING *"
            yield name, f"CREATE TEMP TABLE stolen AS TABLE {name}"
            yield name, f"CREATE TEMP VIEW peek AS TABLE {name}; SELECT * FROM peek"
            yield name, f"SELECT query_to_xml('TABLE {name}', true, false, '')"
            yield name, f"SELECT table_to_xml('{name}', true, false, '')"
            yield name, f"LOCK TABLE {name}"
            yield name, f"EXPLAIN ANALYZE SELECT * FROM {name}"
    columns = conn.execute(
        "SELECT attrelid::regclass::text, quote_ident(attname) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "WHERE relnamespace = 'axis'::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'f') AND attnum > 0 ORDER BY 1, 2"
    ).fetchall()
    for name, column in columns:
        yield name, f"SELECT {column} FROM {name}"
        yield name, f"COPY {name} ({column}) TO STDOUT"
    for catalogue in (
        "pg_stats",
        "pg_stats_ext",
        "pg_statistic",
        "pg_stat_activity",
        "pg_prepared_statements",
        "pg_proc",
        "pg_attrdef",
        "pg_description",
    ):
        yield catalogue, f"SELECT * FROM {catalogue}"
    yield "files", "SELECT pg_read_file('PG_VERSION')"
    yield "dump", "SELECT schema_to_xml('axis', true, false, '')"
    yield "pages", "CREATE EXTENSION pageinspect"
    functions = conn.execute(
        "SELECT p.oid::regproc::text, array(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) t) FROM pg_proc p "
        "WHERE p.pronamespace = 'axis'::regnamespace ORDER BY 1"
    ).fetchall()
    for name, types in functions:
        choices = itertools.product(*(PLAUSIBLE.get(kind, ("NULL",)) for kind in types))
        for arguments in itertools.islice(choices, most):
            typed = ", ".join(f"{value}::{kind}" for value, kind in zip(arguments, types, strict=True))
            yield name, f"SELECT * FROM {name}({typed})"


def rob(planted: Planted) -> tuple[dict[str, set[str]], int]:
    """Try everything as the app role, each in a transaction that is rolled back; returns what leaked from where, and how many answered."""
    found: dict[str, set[str]] = {}
    answered = 0
    with psycopg.connect(planted.world.dsn(planted.world.roles.app)) as conn:
        for name, statement in attempts(conn):
            try:
                seen: list[Any] = []
                with conn.cursor() as cursor:
                    if statement.startswith("COPY"):
                        with cursor.copy(statement) as out:
                            seen = [bytes(part) for part in out]
                        seen = [part.decode() for part in seen]
                    else:
                        cursor.execute(statement)
                        seen = cursor.fetchall() if cursor.description else []
                answered += 1
            except psycopg.Error as error:
                seen = [str(error)]
            finally:
                conn.rollback()
            leaked = set().union(*(planted.leaks(row) for row in seen)) if seen else set()
            if leaked:
                found.setdefault(name, set()).update(leaked)
    return found, answered


def test_injected_sql_reads_no_hash_seed_code_or_digest(planted: Planted) -> None:
    """The app role calls what it may, selects, copies and explains the rest, and sees none of the planted values anywhere."""
    found, answered = rob(planted)
    assert found == {}
    assert answered > 50  # functions did answer: the search was not blind


@pytest.mark.parametrize(
    ("grant", "revoke", "wanted"),
    [
        ("GRANT SELECT ON axis.vault_account TO {app}", "REVOKE SELECT ON axis.vault_account FROM {app}", {"hash"}),
        ("GRANT SELECT (digest) ON axis.vault_recovery TO {app}", "REVOKE SELECT (digest) ON axis.vault_recovery FROM {app}", {"recovery"}),
        (
            (
                "CREATE FUNCTION axis.handy(p text) RETURNS SETOF axis.vault_session_id LANGUAGE sql SECURITY DEFINER RETURN "
                "(SELECT i FROM axis.vault_session_id i LIMIT 1)"
            ),
            "DROP FUNCTION axis.handy",
            {"session"},
        ),
        (
            "CREATE VIEW axis.handy AS SELECT key FROM axis.vault_secret; GRANT SELECT ON axis.handy TO {app}",
            "DROP VIEW axis.handy",
            {"key"},
        ),
    ],
    ids=["table", "column", "function", "view"],
)
def test_control_a_planted_grant_is_found(planted: Planted, grant: str, revoke: str, wanted: set[str]) -> None:
    """The search bites: a careless grant, column grant, definer function or view is found, each with what it gives away."""
    app = planted.world.roles.app
    with planted.world.superuser() as conn:
        conn.execute(grant.format(app=app))
        try:
            found, _ = rob(planted)
        finally:
            conn.execute(revoke.format(app=app))
    assert set().union(*found.values()) == wanted


def test_only_the_guard_owns_and_only_the_app_executes(planted: Planted) -> None:
    """Rights as PostgreSQL holds them: no relation is granted to anybody, no function to PUBLIC, none runs with an open search path."""
    with planted.world.superuser() as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'axis'::regnamespace AND relname LIKE 'vault%%' AND relkind = 'r' AND "
            "(relowner <> %s::regrole OR EXISTS (SELECT FROM aclexplode(relacl) a WHERE a.grantee <> relowner))",
            (planted.world.roles.guard,),
        ).fetchall()
        functions = conn.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'axis'::regnamespace AND proname LIKE 'vault%%' AND (proowner <> %s::regrole "
            "OR NOT prosecdef OR NOT 'search_path=pg_catalog, pg_temp' = ANY (proconfig) OR proacl IS NULL "
            "OR EXISTS (SELECT FROM aclexplode(proacl) a WHERE a.grantee NOT IN (proowner, %s::regrole)))",
            (planted.world.roles.guard, planted.world.roles.app),
        ).fetchall()
    assert (tables, functions) == ([], [])


def test_no_seed_is_anywhere_in_the_database(planted: Planted) -> None:
    """The whole database, read as its superuser, holds the seed in no form but sealed."""
    with planted.world.superuser() as conn:
        rows = conn.execute("SELECT f::text FROM axis.vault_factor f").fetchall()
        with conn.cursor() as cursor, cursor.copy("COPY axis.vault_factor TO STDOUT") as out:
            dumped = b"".join(bytes(part) for part in out).decode()
    assert rows
    assert SEED.hex() not in dumped + repr(rows)

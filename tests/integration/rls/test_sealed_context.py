"""The database's half of the sealed context, attacked as the application's own role."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import errors

from axis_security.core.principal import Principal
from axis_security.rls.sealed import Sealer, SealKey, SealKeyring, seal
from axis_security.testing.cluster import Cluster

from .declared import Example, ExamplePolicy, declare, example

ALICE = Principal(tenant=1, user=10, role="member")
ADMIN = Principal(tenant=1, user=11, role="admin")
EVE = Principal(tenant=2, user=20, role="admin")


@pytest.fixture(scope="module")
def applied(cluster: Cluster) -> Iterator[Example]:
    """The example, applied, with rows of two tenants."""
    with example(cluster, policy=ExamplePolicy()) as made:
        made.plan().apply(made.engine)
        made.execute(
            "INSERT INTO contact (id, tenant_id, owner_id, name) VALUES (1, 1, 10, 'a'), (2, 1, 11, 'b'), (3, 2, 20, 'c')",
            "INSERT INTO deal (id, tenant_id, contact_id) VALUES (1, 1, 1), (2, 2, 3)",
            "SELECT setval('contact_id_seq', 100), setval('deal_id_seq', 100)",
        )
        yield made


@pytest.fixture
def app(applied: Example) -> Iterator[psycopg.Connection]:
    """A connection of the application's role, in a transaction that is rolled back."""
    with psycopg.connect(applied.cluster.dsn(applied.database, user=applied.roles.app)) as connection:
        yield connection
        connection.rollback()


def bind(connection: psycopg.Connection, sealed: str) -> None:
    connection.execute("SELECT set_config('axis.context', %s, true)", (sealed,))


def sealed_by(made: Example, principal: Principal, **overrides: object) -> str:
    now = overrides.get("now", datetime.now(UTC))
    assert isinstance(now, datetime)
    return seal(principal, keyring=made.keyring, now=now)


def test_the_getters_answer_what_was_sealed(applied: Example, app: psycopg.Connection) -> None:
    """Tenant, user, role and capabilities come back as sealed; the user of a task is NULL."""
    question = "SELECT axis.tenant_id(), axis.tenant_text(), axis.user_id(), axis.role_name(), axis.may('contacts.read'), axis.may('deals.write'), axis.may('x')"
    bind(app, sealed_by(applied, ALICE))
    assert app.execute(question).fetchone() == (1, "1", "10", "member", True, False, False)
    bind(app, sealed_by(applied, Principal(tenant=1, role="admin")))
    assert app.execute(question).fetchone() == (1, "1", None, "admin", True, True, False)


def test_unbound_and_leftover_empty_settings_are_unbound(applied: Example, app: psycopg.Connection) -> None:
    """No setting, and the empty one that a past transaction leaves, both give AX001."""
    with pytest.raises(psycopg.DatabaseError) as caught:
        app.execute("SELECT axis.tenant_id()")
    assert caught.value.sqlstate == "AX001"
    app.rollback()
    bind(app, sealed_by(applied, ALICE))
    app.commit()
    assert app.execute("SELECT current_setting('axis.context')").fetchone() == ("",)
    with pytest.raises(psycopg.DatabaseError) as caught:
        app.execute("SELECT count(*) FROM contact")
    assert caught.value.sqlstate == "AX001"


def _field(text: str, number: int, value: str) -> str:
    parts = text.split(" ")
    parts[number] = value
    return " ".join(parts)


FORGERIES: dict[str, Callable[[str], str]] = {
    "tenant": lambda text: _field(text, 3, "2"),
    "user": lambda text: _field(text, 4, "11"),
    "role": lambda text: _field(text, 5, "admin"),
    "expiry": lambda text: _field(text, 2, str(int(text.split(" ")[2]) + 1)),
    "key id": lambda text: _field(text, 1, "2"),
    "key id spelled otherwise": lambda text: _field(text, 1, "01"),
    "version": lambda text: _field(text, 0, "axis2"),
    "truncated": lambda text: text[:-1],
    "only a mac": lambda text: text[-64:],
    "upper-case mac": lambda text: text[:-64] + text[-64:].upper() if text[-64:].upper() != text[-64:] else text[:-1] + "!",
    "last space": lambda text: text[:-65] + "x" + text[-64:],
    "appended": lambda text: text + " ",
    "mac of zeros": lambda text: text[:-64] + "0" * 64,
    "field shifted": lambda text: text.replace(" 1 10 ", " 11 0 "),
    "quotes": lambda text: "'" + text,
    "not ascii": lambda text: text.replace("member", "mémber"),
    "random": lambda _: "axis1 1 " + secrets.token_hex(50),
    "one space": lambda _: " ",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_context_is_refused(applied: Example, app: psycopg.Connection, forge: Callable[[str], str]) -> None:
    """Any change to the sealed text, made through SQL on the app role, is answered with AX002."""
    bind(app, forge(sealed_by(applied, ALICE)))
    with pytest.raises(psycopg.DatabaseError) as caught:
        app.execute("SELECT count(*) FROM contact")
    assert caught.value.sqlstate == "AX002"


def test_an_expired_context_is_refused_and_a_long_transaction_is_not(applied: Example, app: psycopg.Connection) -> None:
    """Replay after the expiry gives AX003; expiry is held against the transaction's start."""
    bind(app, sealed_by(applied, ALICE, now=datetime.now(UTC) - timedelta(minutes=5)))
    with pytest.raises(psycopg.DatabaseError) as caught:
        app.execute("SELECT axis.tenant_id()")
    assert caught.value.sqlstate == "AX003"
    app.rollback()
    bind(app, seal(ALICE, keyring=applied.keyring, now=datetime.now(UTC), lasting=timedelta(seconds=1)))
    app.execute("SELECT pg_sleep(2.1)")
    assert app.execute("SELECT axis.tenant_id()").fetchone() == (1,)


def test_rotation_logs_nobody_out_and_retires_the_old_key(cluster: Cluster) -> None:
    """During the change both keys are good; after it, a text of the old key is refused."""
    with example(cluster) as made:
        made.plan().apply(made.engine)
        new = SealKey.generate(2)
        texts = [Sealer(made.keyring)(ALICE), Sealer(SealKeyring(current=new))(ALICE)]
        declare(made.roles, SealKeyring(current=new, previous=made.keyring.current)).plan(made.engine).apply(made.engine)
        with psycopg.connect(cluster.dsn(made.database, user=made.roles.app)) as connection:
            for text in texts:
                bind(connection, text)
                assert connection.execute("SELECT axis.tenant_id()").fetchone() == (1,)
        declare(made.roles, SealKeyring(current=new)).plan(made.engine).apply(made.engine)
        with psycopg.connect(cluster.dsn(made.database, user=made.roles.app)) as connection:
            bind(connection, texts[1])
            assert connection.execute("SELECT axis.tenant_id()").fetchone() == (1,)
            bind(connection, texts[0])
            with pytest.raises(psycopg.DatabaseError) as caught:
                connection.execute("SELECT axis.tenant_id()")
            assert caught.value.sqlstate == "AX002"


def test_the_database_computes_the_hmac_of_python(cluster: Cluster) -> None:
    """Over many random keys and principals, the two halves agree (and disagree for any other key)."""
    with example(cluster, policy=None) as made:
        made.plan().apply(made.engine)
        with psycopg.connect(cluster.dsn(made.database), autocommit=False) as connection:
            for number in range(2, 120):
                key, other = SealKey.generate(number), SealKey.generate(number)
                inner, outer = (block.reveal() for block in key.blocks())
                connection.execute("INSERT INTO axis.seal_key VALUES (%s, %s, %s)", (number, inner, outer))
                who = Principal(tenant=secrets.randbelow(2**62), user=secrets.token_urlsafe(20), role="r" + secrets.token_hex(10))
                bind(connection, Sealer(SealKeyring(current=key))(who))
                assert connection.execute("SELECT axis.tenant_text(), axis.user_id(), axis.role_name()").fetchone() == (
                    who.tenant.text,
                    who.user and who.user.text,
                    who.role,
                )
                bind(connection, Sealer(SealKeyring(current=other))(who))
                with pytest.raises(psycopg.DatabaseError) as caught, connection.transaction():
                    connection.execute("SELECT axis.tenant_text()")
                assert caught.value.sqlstate == "AX002"


OUT_OF_REACH = [
    "SELECT * FROM axis.seal_key",
    "SELECT * FROM axis.role_capability",
    "INSERT INTO axis.role_capability (role, capability) VALUES ('member', 'x')",
    "UPDATE axis.seal_key SET inner_block = outer_block",
    "CREATE TABLE axis.mine ()",
    "CREATE OR REPLACE FUNCTION axis.tenant_id() RETURNS bigint LANGUAGE sql RETURN 2",
    "TRUNCATE contact",
    "SELECT * FROM event_2026",
    "ALTER TABLE contact DISABLE ROW LEVEL SECURITY",
    "INSERT INTO country VALUES ('xx')",
    "SET ROLE {guard}",
    "SET ROLE {owner}",
    "SET ROLE {system}",
]


@pytest.mark.parametrize("statement", OUT_OF_REACH)
def test_the_app_role_reaches_nothing_of_ours(applied: Example, app: psycopg.Connection, statement: str) -> None:
    """Keys, capabilities, functions, other roles, TRUNCATE and partitions are closed to the application's role."""
    bind(app, sealed_by(applied, ADMIN))
    roles = applied.roles
    with pytest.raises(errors.InsufficientPrivilege):
        app.execute(statement.format(guard=roles.guard, owner=roles.owner, system=roles.system).encode())


def test_shadowing_names_does_not_fool_the_check(applied: Example, app: psycopg.Connection) -> None:
    """Temporary tables (were they allowed) and a hostile search_path change nothing: every name in the check is qualified."""
    applied.execute(f'GRANT TEMPORARY ON DATABASE "{applied.database}" TO {applied.roles.app}')
    app.execute(
        "CREATE TEMPORARY TABLE seal_key (id int, inner_block bytea, outer_block bytea); SET LOCAL search_path = pg_temp, public, pg_catalog"
    )
    bind(app, sealed_by(applied, ALICE))
    assert app.execute("SELECT axis.tenant_id()").fetchone() == (1,)
    bind(app, FORGERIES["tenant"](sealed_by(applied, ALICE)))
    with pytest.raises(psycopg.DatabaseError) as caught:
        app.execute("SELECT axis.tenant_id()")
    assert caught.value.sqlstate == "AX002"


def test_rows_follow_tenant_role_and_ownership(applied: Example, app: psycopg.Connection) -> None:
    """A member changes its own rows, an admin those of its tenant, nobody those of another; defaults name the tenant."""
    bind(app, sealed_by(applied, ALICE))
    assert app.execute("SELECT id FROM contact ORDER BY id").fetchall() == [(1,), (2,)]
    assert app.execute("UPDATE contact SET name = 'x'").rowcount == 1
    assert app.execute("DELETE FROM deal").rowcount == 0
    assert app.execute("INSERT INTO contact (owner_id, name) VALUES (10, 'n') RETURNING tenant_id").fetchone() == (1,)
    bind(app, sealed_by(applied, ADMIN))
    assert app.execute("UPDATE contact SET name = 'y'").rowcount == 3
    bind(app, sealed_by(applied, EVE))
    assert app.execute("SELECT id FROM contact").fetchall() == [(3,)]
    assert app.execute("SELECT id FROM deal").fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("who", "statement", "sqlstate"),
    [
        (ADMIN, "INSERT INTO contact (tenant_id, name) VALUES (2, 'x')", "42501"),
        (ADMIN, "UPDATE contact SET tenant_id = 2", "42501"),
        (ALICE, "INSERT INTO contact (owner_id, name) VALUES (11, 'not mine')", "42501"),
        (ALICE, "UPDATE contact SET owner_id = 11 WHERE id = 1", "42501"),
        (ALICE, "INSERT INTO deal (contact_id) VALUES (1)", "42501"),
        (ADMIN, "INSERT INTO deal (contact_id) VALUES (3)", "23503"),
        (ADMIN, "INSERT INTO deal (contact_id) VALUES (999)", "23503"),
        (Principal(tenant=1, role="stranger"), "INSERT INTO contact (name) VALUES ('x')", "42501"),
    ],
)
def test_what_crosses_is_refused(applied: Example, app: psycopg.Connection, who: Principal, statement: str, sqlstate: str) -> None:
    """Writing for, moving to, or pointing at another tenant is refused, the same for a hidden row as for one that does not exist."""
    bind(app, sealed_by(applied, who))
    with pytest.raises(psycopg.DatabaseError) as caught:
        app.execute(statement.encode())
    assert caught.value.sqlstate == sqlstate


def test_the_system_policy_is_not_inherited(applied: Example) -> None:
    """The system login sees all tenants without a context; a login that inherits the role sees none."""
    member = f"{applied.roles.app}_aide"
    applied.execute(f"CREATE ROLE {member} LOGIN INHERIT", f"GRANT {applied.roles.system} TO {member}")
    try:
        with psycopg.connect(applied.cluster.dsn(applied.database, user=applied.roles.system)) as connection:
            assert connection.execute("SELECT count(*) FROM contact").fetchone() == (3,)
        with psycopg.connect(applied.cluster.dsn(applied.database, user=member)) as connection:
            assert connection.execute("SELECT count(*) FROM contact").fetchone() == (0,)
    finally:
        applied.execute(f"DROP ROLE {member}")


def test_the_index_is_used(applied: Example, app: psycopg.Connection) -> None:
    """The policy's predicate is an index condition, evaluated once per statement."""
    bind(app, sealed_by(applied, ALICE))
    app.execute("SET LOCAL enable_seqscan = off")
    plan = "\n".join(row[0] for row in app.execute("EXPLAIN SELECT * FROM contact WHERE id = 1"))
    assert "InitPlan" in plan
    assert "Index Cond" in plan

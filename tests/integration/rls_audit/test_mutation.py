"""The guards hold on the demo's schema, every policy mutant is noticed, and every guard earns its keep."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from axis_security.core.schema import DatabaseRoles
from axis_security.rls.audit.ground import Scope
from axis_security.rls.tenancy import Tenancy
from axis_security.testing.cluster import Cluster
from axis_security.testing.gallery.world import new_keyring, template_database, tenancy_for
from axis_security.testing.kit import Actor, KitError, PolicyLab
from axis_security.testing.kit_guards import GUARDS, Broken, check_isolation
from axis_security.testing.mutation import Mutant, assert_not_vacuous, mutants_of, mutated, mutation_score
from axis_security.testing.plugin import MakePolicyLab

from .corpus import base_database

DEMO_GUARDS = [guard.name for guard in GUARDS if guard.name != "users are apart"]
TENANCY: dict[str, Tenancy] = {}
"""The demo's declaration, for whoever needs it besides the lab."""


@pytest.fixture(scope="module")
def demo(cluster: Cluster) -> Iterator[PolicyLab]:
    """A lab on the demo's schema, with its declaration."""
    roles, keyring = DatabaseRoles.prefixed("kit_" + secrets.token_hex(4)), new_keyring()
    with template_database(cluster, roles, keyring) as database:
        with psycopg.connect(cluster.dsn(database)) as connection:
            TENANCY["demo"] = tenancy_for(roles, keyring)
            yield PolicyLab.of(TENANCY["demo"], connection)
        with psycopg.connect(cluster.dsn(database), autocommit=True) as admin:
            for role in (roles.app, roles.system, roles.owner, roles.guard):
                admin.execute(f"DROP OWNED BY {role} CASCADE")
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        for role in (roles.app, roles.system, roles.owner, roles.guard):
            admin.execute(f"DROP ROLE {role}")


def test_the_demo_holds_every_promise(demo: PolicyLab) -> None:
    """All guards apply to what the plan makes (but the one for rows of one's own, which the demo has none of), and all hold."""
    with demo.opened():
        assert check_isolation(demo) == DEMO_GUARDS


def test_every_mutant_of_the_demo_is_noticed(demo: PolicyLab) -> None:
    """A score of 100 %, over every kind of mistake."""
    report = assert_not_vacuous(demo)
    assert report.score == 1.0
    kinds = {verdict.mutant.kind for verdict in report.verdicts}
    assert kinds >= {
        "drop",
        "true",
        "force off",
        "row security off",
        "to widened",
        "permissive",
        "cast changed",
        "capability dropped",
        "function replaced",
    }
    assert len(report.verdicts) > 80


def test_the_score_drops_when_a_guard_is_deleted(demo: PolicyLab) -> None:
    """Each of these guards notices something that no other one does."""
    with demo.opened():
        mutants = mutants_of(demo)
        for name in (
            "owner is bound too",
            "floor holds",
            "ways in hold alone",
            "strangers have no policy",
            "system sees all",
            "forged is refused",
        ):
            without = [guard for guard in GUARDS if guard.name != name]
            report = mutation_score(demo, guards=without, mutants=[m for m in mutants if relevant(m, name)])
            assert report.score < 1.0, f"nothing survives without `{name}`"


def relevant(mutant: Mutant, guard: str) -> bool:
    """The mutants of one table that this guard is there for: hunting them all would take as long as the whole score."""
    if mutant.kind == "function replaced":
        return "seal" in mutant.name and guard == "forged is refused"
    kinds = {
        "owner is bound too": "force off",
        "floor holds": "drop",
        "ways in hold alone": "true",
        "strangers have no policy": "to widened",
        "system sees all": "drop",
    }
    return "contact" in mutant.name and mutant.kind == kinds.get(guard)


def test_nothing_stays(demo: PolicyLab) -> None:
    """Rows, roles and policies are as before."""
    count = "SELECT (SELECT count(*) FROM contact), (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_policy)"
    before = demo.connection.execute(count).fetchone()
    demo.connection.rollback()
    with demo.opened():
        check_isolation(demo)
    assert demo.connection.execute(count).fetchone() == before
    demo.connection.rollback()


def test_a_suite_that_tests_nothing_is_found_out(demo: PolicyLab) -> None:
    """A suite that passes on every mutant fails here, with the survivors named; the schema is whole again afterwards."""
    with pytest.raises(AssertionError, match="survived: drop axis_floor"):
        assert_not_vacuous(demo, lambda: None, kinds=["drop"])
    with demo.opened():
        check_isolation(demo)


def test_a_suite_of_the_host_s_is_scored(demo: PolicyLab) -> None:
    """Mutants are committed for a suite with connections of its own, and undone."""

    def suite() -> None:
        with psycopg.connect(demo.connection.info.dsn) as mine:
            forced = mine.execute(
                "SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relname IN ('contact', 'deal', 'visit')"
            ).fetchone()
            assert forced == (True,)

    report = assert_not_vacuous(demo, suite, kinds=["force off"])
    assert report.score == 1.0
    assert {verdict.by for verdict in report.verdicts} == {"the host's suite"}


def test_a_mutant_is_undone_when_the_suite_raises(demo: PolicyLab) -> None:
    """Whatever happens in between, the statements that undo it run."""
    with demo.opened():
        mutant = next(m for m in mutants_of(demo) if m.kind == "function replaced")
    with pytest.raises(ZeroDivisionError), mutated(demo.connection, mutant):
        raise ZeroDivisionError
    with demo.opened():
        check_isolation(demo)


# A schema that does not use our emitter


@pytest.fixture
def plain(cluster: Cluster) -> Iterator[PolicyLab]:
    """A lab on the corpus' schema: other policies, another way of binding, no seal."""
    with base_database(cluster) as connection:
        scope = Scope(key="tenant_id", app=frozenset({"corpus_app"}), system=frozenset({"corpus_system"}))
        tenants = (uuid.UUID(int=2**64 + 1), uuid.UUID(int=2**64 + 2))
        for tenant in tenants:
            connection.execute(
                "INSERT INTO ctx.ticket VALUES (sha256(%s), %s, gen_random_uuid())", [f"ticket of {tenant}".encode(), tenant]
            )
        connection.commit()
        yield PolicyLab(
            connection=connection,
            scope=scope,
            bind=lambda actor: [("SELECT set_config('ctx.ticket', %s, true)", [f"ticket of {actor.tenant}"])],
            forge=lambda actor: [("SELECT set_config('ctx.ticket', 'a guess', true)", [])],
            tenants=tenants,
        )


def test_other_schemas_are_judged_too(plain: PolicyLab) -> None:
    """What a schema does not promise (a floor) is not asked; what it promises is held, and its mutants are noticed."""
    with plain.opened():
        held = check_isolation(plain)
        assert "tenants apart" in held
        assert "floor holds" not in held
        report = mutation_score(plain)
        assert report.score == 1.0, str(report)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER POLICY tenant ON shop.task USING (true)", "another tenant's rows were read"),
        ("ALTER POLICY tenant ON shop.task WITH CHECK (true)", "inserted for another tenant"),
        ("ALTER TABLE shop.task NO FORCE ROW LEVEL SECURITY", "the owner `corpus_owner` reads rows"),
        ("DROP POLICY tenant ON shop.task", "own rows were hidden"),
        ("ALTER POLICY tenant ON shop.project TO PUBLIC", "the owner `corpus_owner` reads rows"),
        ("ALTER TABLE shop.event DISABLE ROW LEVEL SECURITY", "another tenant's rows were read"),
    ],
)
def test_a_broken_schema_is_told_in_words(plain: PolicyLab, change: str, said: str) -> None:
    """The guard names the table and what happened."""
    plain.connection.execute(change)
    plain.connection.commit()
    with plain.opened(), pytest.raises(Broken, match=said):
        check_isolation(plain)


def test_what_cannot_be_made_is_asked_for(plain: PolicyLab) -> None:
    """A column of a type that nobody can invent: the error says what to pass, and passing it helps."""
    plain.connection.execute("ALTER TABLE shop.task ADD COLUMN place point NOT NULL")
    plain.connection.commit()
    with pytest.raises(KitError, match=r"fill=\{\(\"task\", \"place\"\)"), plain.opened():
        pass
    plain.fill = {("task", "place"): lambda: "(1,2)"}
    with plain.opened():
        check_isolation(plain)


def test_the_lab_refuses_an_open_transaction(plain: PolicyLab) -> None:
    """It would roll back what is not its own."""
    plain.connection.execute("SELECT 1")
    with pytest.raises(KitError, match="without an open transaction"), plain.opened():
        pass


def test_a_schema_without_guarded_tables_is_refused(cluster: Cluster) -> None:
    """Nothing to guard is not a pass."""
    with cluster.database("kitempty") as database, psycopg.connect(cluster.dsn(database)) as connection:
        lab = PolicyLab(connection=connection, scope=Scope(key="tenant_id", app=frozenset({"nobody"})), bind=nothing, tenants=("a", "b"))
        with pytest.raises(KitError, match="no guarded table"), lab.opened():
            pass


def nothing(actor: Actor) -> list[Any]:
    """Binds nobody."""
    return []


def test_the_plugin_makes_labs(demo: PolicyLab, axis_policy_lab: MakePolicyLab, cluster: Cluster) -> None:
    """The fixture takes a declaration and a DSN, and closes its connection itself."""
    lab = axis_policy_lab(TENANCY["demo"], cluster.dsn(demo.connection.info.dbname))
    with lab.opened():
        assert check_isolation(lab) == DEMO_GUARDS

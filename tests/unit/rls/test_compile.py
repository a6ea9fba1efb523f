"""The compiler against a database that is as declared but for one thing: that thing is mended, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from axis_security.core.checks import Finding
from axis_security.core.grants import Grant, OwnedByUser, PythonOnly
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.rls.catalog import LiveIndex, LivePolicy, LiveRole, LiveTable, Snapshot
from axis_security.rls.compile import compile_steps, held_tables, shadow_of
from axis_security.rls.dialect import Dialect
from axis_security.rls.model import Access, ColumnModel, Declared, Model, Open, Protected, TableModel, Via
from axis_security.rls.sealed import SealKey, SealKeyring
from axis_security.rls.step import Step

KEYRING = SealKeyring(current=SealKey.generate(1))
ROLES = DatabaseRoles.prefixed("t")
APP, SYSTEM, OWNER, GUARD = ROLES.app, ROLES.system, ROLES.owner, ROLES.guard
ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
DEFAULT = "axis.claimed_tenant_id()"
NOTE, PAGE, LIST, DRAWN, CHILD = (("app", name) for name in ("note", "page", "list", "note_id_seq", "note_2026"))


def model(dialect: Dialect = Dialect.POSTGRESQL) -> Model:
    """A protected table, one whose rows are found through it, and an open one that may be added to."""
    columns = tuple(ColumnModel(name, KeyType.INT) for name in ("id", "tenant", "owner"))
    return Model(
        key="tenant",
        key_type=KeyType.INT,
        roles=ROLES,
        dialect=dialect,
        grants=(Grant("member", "read"), Grant("member", "write", OwnedByUser("owner")), Grant("member", "other", PythonOnly("weather"))),
        tables=(
            Declared(TableModel(name=NOTE, columns=columns, primary_key=("id",)), Protected(Access(select="read", update="write"))),
            Declared(
                TableModel(name=PAGE, columns=(columns[0],), primary_key=("id",)), Protected(via=Via(target=NOTE, pairs=(("id", "id"),)))
            ),
            Declared(TableModel(name=LIST, columns=(columns[0],)), Open("the same for all", frozenset({"INSERT"}))),
        ),
    )


def sound() -> tuple[Snapshot, dict[Any, Any]]:
    """The database as declared, and the server's wording of the policies."""
    login = LiveRole(superuser=False, bypassrls=False, createdb=False, createrole=False, replication=False, inherit=False, login=True)
    live = Snapshot(
        current_user="planner",
        roles={APP: login, SYSTEM: login, OWNER: replace(login, inherit=True), GUARD: replace(login, login=False)},
        schemas={"app": {("", "USAGE"), (OWNER, "USAGE"), (OWNER, "CREATE")}},
        temporary={OWNER, SYSTEM},
        seal_keys={1: KEYRING.current.fingerprint()},
        capabilities={("member", "read", ""), ("member", "write", "owned by owner")},
        children={NOTE: [CHILD]},
    )
    rights = {(who, what) for who in (APP, SYSTEM) for what in ALL}
    tenant, number = ("bigint", True, DEFAULT), ("bigint", True, None)
    for name, columns, acl in (
        (NOTE, {"tenant": tenant, "owner": number}, set(rights)),
        (CHILD, {"tenant": tenant, "owner": number}, set()),
        (PAGE, {"id": number}, set(rights)),
        (LIST, {}, {(APP, "SELECT"), (APP, "INSERT"), *((SYSTEM, what) for what in ALL)}),
    ):
        live.tables[name] = LiveTable(name, "r", OWNER, enabled=True, forced=True, acl=acl, columns=dict(columns))
    live.tables[NOTE].indexes.append(LiveIndex("by_tenant", ("tenant", "id"), unique=True, primary=False))
    live.tables[PAGE].indexes.append(LiveIndex("pk", ("id",), unique=True, primary=True))
    live.tables[DRAWN] = LiveTable(DRAWN, "S", OWNER, acl={(APP, "USAGE"), (SYSTEM, "USAGE")})
    live.tables[LIST].sequences.append(DRAWN)
    worded = {}
    for declared, table in held_tables(model(), live):
        shadow = shadow_of(model(), declared, table)
        words = {p.name: LivePolicy(p.command, p.permissive, (p.role,), p.using, p.check) for p in shadow[0]}
        worded[shadow] = (words, DEFAULT)
        table.policies = dict(words)
    return live, worded


def compiled(
    live: Snapshot, worded: Any, *, keyring: SealKeyring | None = KEYRING, parts: Sequence[SchemaPart] = ()
) -> tuple[list[Step], tuple[Finding, ...]]:
    """What the compiler makes of it."""
    steps, findings = compile_steps(model(), live, deparsed=worded, stale_parts=parts, keyring=keyring)
    return list(steps), findings


def test_what_is_as_declared_gets_no_step() -> None:
    """An empty plan is what says that all is well, so nothing may be in it."""
    assert compiled(*sound()) == ([], ())


def changed(name: tuple[str, str], **attributes: Any) -> Callable[[Snapshot], None]:
    """A change of one table."""

    def change(live: Snapshot) -> None:
        for attribute, value in attributes.items():
            setattr(live.tables[name], attribute, value)

    return change


def role(name: str, **attributes: bool) -> Callable[[Snapshot], None]:
    """A change of one role's attributes."""
    return lambda live: live.roles.update({name: replace(live.roles[name], **attributes)})


def policy(table: tuple[str, str], name: str, **attributes: Any) -> Callable[[Snapshot], None]:
    """A change of one policy."""
    return lambda live: live.tables[table].policies.update({name: replace(live.tables[table].policies[name], **attributes)})


def on_database(words: str) -> str:
    """How a statement on the database of the moment is written."""
    return f"DO $axis$BEGIN EXECUTE pg_catalog.format('{words}', pg_catalog.current_database()); END$axis$"


STRAY = ("app", "stray")
SEALS = (
    "INSERT INTO axis.seal_key (id, inner_block, outer_block) VALUES (1, %s, %s) "
    "ON CONFLICT (id) DO UPDATE SET inner_block = excluded.inner_block, outer_block = excluded.outer_block"
)
DRIFT: dict[str, tuple[Callable[[Snapshot], Any], list[str], list[str | None], bool]] = {
    # what was changed; the statements; what undoes them; whether to look twice
    "app bypasses": (role(APP, bypassrls=True), [f"ALTER ROLE {APP} NOBYPASSRLS"], [None], True),
    "app inherits": (role(APP, inherit=True), [f"ALTER ROLE {APP} NOINHERIT"], [None], True),
    "guard logs in": (role(GUARD, login=True), [f"ALTER ROLE {GUARD} NOLOGIN"], [None], True),
    "owner is a superuser and more": (
        role(OWNER, superuser=True, createdb=True, createrole=True, replication=True),
        [f"ALTER ROLE {OWNER} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"], [None], True,
    ),
    "owner inherits nothing": (role(OWNER, inherit=False), [], [], False),
    "app is a member": (lambda live: live.memberships.append(("anybody", APP)), [f'REVOKE "anybody" FROM "{APP}"'], [None], True),
    "somebody is of the guard": (lambda live: live.memberships.append((GUARD, "ann")), [f'REVOKE "{GUARD}" FROM "ann"'], [None], True),
    "whoever plans is of the guard": (lambda live: live.memberships.append((GUARD, "planner")), [], [], False),
    "somebody is of the application": (lambda live: live.memberships.append((APP, "ann")), [], [], False),
    "everybody makes temporary objects": (
        lambda live: live.temporary.add(""),
        [on_database("REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC")], [on_database("GRANT TEMPORARY ON DATABASE %I TO PUBLIC")], True,
    ),
    "the application makes temporary objects": (
        lambda live: live.temporary.add(APP),
        [on_database(f"REVOKE TEMPORARY ON DATABASE %I FROM {APP}")], [on_database(f"GRANT TEMPORARY ON DATABASE %I TO {APP}")], True,
    ),
    "the system login makes none": (
        lambda live: live.temporary.remove(SYSTEM),
        [on_database(f"GRANT TEMPORARY ON DATABASE %I TO {SYSTEM}")], [on_database(f"REVOKE TEMPORARY ON DATABASE %I FROM {SYSTEM}")], False,
    ),
    "key replaced": (
        lambda live: live.seal_keys.update({1: "x"}),
        [SEALS], ["DELETE FROM axis.seal_key WHERE id = 1"], False,
    ),
    "old key left": (lambda live: live.seal_keys.update({7: "x"}), ["DELETE FROM axis.seal_key WHERE id = 7"], [None], True),
    "capability added": (
        lambda live: live.capabilities.add(("viewer", "write", "")),
        ["DELETE FROM axis.role_capability WHERE tenant = '' AND (role, capability, condition) IN (\n  ('viewer', 'write', ''))"],
        ["INSERT INTO axis.role_capability (role, capability, condition) VALUES\n  ('viewer', 'write', '')\nON CONFLICT DO NOTHING"], True,
    ),
    "capability removed": (
        lambda live: live.capabilities.remove(("member", "write", "owned by owner")),
        ["INSERT INTO axis.role_capability (role, capability, condition) VALUES\n  ('member', 'write', 'owned by owner')\nON CONFLICT DO NOTHING"],
        ["DELETE FROM axis.role_capability WHERE tenant = '' AND (role, capability, condition) IN (\n  ('member', 'write', 'owned by owner'))"], False,
    ),
    "everybody creates": (
        lambda live: live.schemas["app"].add(("", "CREATE")),
        ['REVOKE CREATE ON SCHEMA "app" FROM PUBLIC'], ['GRANT CREATE ON SCHEMA "app" TO PUBLIC'], True,
    ),
    "the application creates": (
        lambda live: live.schemas["app"].add((APP, "CREATE")),
        [f'REVOKE CREATE ON SCHEMA "app" FROM {APP}'], [f'GRANT CREATE ON SCHEMA "app" TO {APP}'], True,
    ),
    "the owner creates nothing": (
        lambda live: live.schemas["app"].remove((OWNER, "CREATE")),
        [f'GRANT CREATE ON SCHEMA "app" TO {OWNER}'], [f'REVOKE CREATE ON SCHEMA "app" FROM {OWNER}'], False,
    ),
    "a schema that not everybody may use": (
        lambda live: live.schemas.update(app={(OWNER, "USAGE"), (OWNER, "CREATE"), (SYSTEM, "USAGE")}),
        [f'GRANT USAGE ON SCHEMA "app" TO {APP}'], [f'REVOKE USAGE ON SCHEMA "app" FROM {APP}'], False,
    ),
    "owned by somebody": (
        changed(NOTE, owner="ann", acl={("ann", "TRUNCATE"), *((who, what) for who in (APP, SYSTEM) for what in ALL)}),
        [f'ALTER TABLE "app"."note" OWNER TO {OWNER}'], ['ALTER TABLE "app"."note" OWNER TO "ann"'], False,
    ),
    "owned by the application": (
        changed(LIST, owner=APP, acl={(APP, "SELECT"), (APP, "INSERT"), (APP, "TRUNCATE"), *((SYSTEM, what) for what in ALL)}),
        [f'ALTER TABLE "app"."list" OWNER TO {OWNER}', f'GRANT SELECT, INSERT ON TABLE "app"."list" TO {APP}'],
        [f'ALTER TABLE "app"."list" OWNER TO "{APP}"', f'REVOKE SELECT, INSERT ON TABLE "app"."list" FROM {APP}'], False,
    ),
    "row security off": (
        changed(NOTE, enabled=False), ['ALTER TABLE "app"."note" ENABLE ROW LEVEL SECURITY'], ['ALTER TABLE "app"."note" DISABLE ROW LEVEL SECURITY'], False,
    ),
    "not forced on a partition": (
        changed(CHILD, forced=False),
        ['ALTER TABLE "app"."note_2026" FORCE ROW LEVEL SECURITY'], ['ALTER TABLE "app"."note_2026" NO FORCE ROW LEVEL SECURITY'], False,
    ),
    "no default": (
        lambda live: live.tables[NOTE].columns.update(tenant=("bigint", True, None)),
        [f'ALTER TABLE "app"."note" ALTER COLUMN "tenant" SET DEFAULT {DEFAULT}'], ['ALTER TABLE "app"."note" ALTER COLUMN "tenant" DROP DEFAULT'], False,
    ),
    "another default": (
        lambda live: live.tables[NOTE].columns.update(tenant=("bigint", True, "1")),
        [f'ALTER TABLE "app"."note" ALTER COLUMN "tenant" SET DEFAULT {DEFAULT}'], ['ALTER TABLE "app"."note" ALTER COLUMN "tenant" SET DEFAULT 1'], False,
    ),
    "null allowed": (
        lambda live: live.tables[NOTE].columns.update(tenant=("bigint", False, DEFAULT)),
        ['ALTER TABLE "app"."note" ALTER COLUMN "tenant" SET NOT NULL'], ['ALTER TABLE "app"."note" ALTER COLUMN "tenant" DROP NOT NULL'], False,
    ),
    "a policy more": (
        lambda live: live.tables[NOTE].policies.update(helper=LivePolicy("ALL", True, ("", "ann"), "true", None)),
        ['DROP POLICY "helper" ON "app"."note"'], ['CREATE POLICY "helper" ON "app"."note" AS PERMISSIVE FOR ALL TO PUBLIC, "ann" USING (true)'], True,
    ),
    "a policy more on a partition": (
        lambda live: live.tables[CHILD].policies.update(helper=LivePolicy("SELECT", False, ("ann",), "true", None)),
        ['DROP POLICY "helper" ON "app"."note_2026"'], ['CREATE POLICY "helper" ON "app"."note_2026" AS RESTRICTIVE FOR SELECT TO "ann" USING (true)'], True,
    ),
    "a grant to everybody": (
        lambda live: live.tables[NOTE].acl.update({("", "SELECT"), ("", "INSERT")}),
        ['REVOKE INSERT, SELECT ON TABLE "app"."note" FROM PUBLIC'], ['GRANT INSERT, SELECT ON TABLE "app"."note" TO PUBLIC'], True,
    ),
    "truncate granted": (
        lambda live: live.tables[NOTE].acl.add((APP, "TRUNCATE")),
        [f'REVOKE TRUNCATE ON TABLE "app"."note" FROM {APP}'], [f'GRANT TRUNCATE ON TABLE "app"."note" TO {APP}'], True,
    ),
    "a partition granted": (
        lambda live: live.tables[CHILD].acl.add((APP, "SELECT")),
        [f'REVOKE SELECT ON TABLE "app"."note_2026" FROM {APP}'], [f'GRANT SELECT ON TABLE "app"."note_2026" TO {APP}'], True,
    ),
    "an open table written": (
        lambda live: live.tables[LIST].acl.add((APP, "DELETE")),
        [f'REVOKE DELETE ON TABLE "app"."list" FROM {APP}'], [f'GRANT DELETE ON TABLE "app"."list" TO {APP}'], True,
    ),
    "a grant to somebody else": (lambda live: live.tables[NOTE].acl.add(("ann", "SELECT")), [], [], False),
    "a grant missing": (
        lambda live: live.tables[LIST].acl.remove((APP, "INSERT")),
        [f'GRANT INSERT ON TABLE "app"."list" TO {APP}'], [f'REVOKE INSERT ON TABLE "app"."list" FROM {APP}'], False,
    ),
    "a sequence that cannot be drawn from": (
        changed(DRAWN, acl={(SYSTEM, "USAGE")}),
        [f'GRANT USAGE ON SEQUENCE "app"."note_id_seq" TO {APP}'], [f'REVOKE USAGE ON SEQUENCE "app"."note_id_seq" FROM {APP}'], False,
    ),
    "a stray table": (
        lambda live: live.tables.update({STRAY: LiveTable(STRAY, "r", "ann", acl={(APP, "SELECT")})}),
        [f'REVOKE SELECT ON TABLE "app"."stray" FROM {APP}'], [f'GRANT SELECT ON TABLE "app"."stray" TO {APP}'], True,
    ),
    "a stray view": (lambda live: live.tables.update({STRAY: LiveTable(STRAY, "v", "ann", acl={(APP, "SELECT")})}), [], [], False),
    "a table of another schema": (
        lambda live: live.tables.update({("else", "where"): LiveTable(("else", "where"), "r", "ann", acl={(APP, "SELECT")})}), [], [], False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", DRIFT)
def test_one_change_gives_its_own_steps_and_no_other(change: str) -> None:
    """Each has its undoing, and is flagged where somebody could do more than declared; what is not ours to decide is left alone."""
    make, statements, undoing, flagged = DRIFT[change]
    live, worded = sound()
    make(live)
    steps, findings = compiled(live, worded)
    assert [step.sql for step in steps] == statements
    assert [step.reverse for step in steps] == undoing
    assert [step.flagged for step in steps] == [flagged] * len(steps)
    assert findings == ()


def test_a_changed_policy_is_dropped_and_made_again() -> None:
    """The drop is what to look at, and undoing it brings the change by hand back; a policy that is missing is made, and is no alarm."""
    live, worded = sound()
    policy(NOTE, "axis_select", using="true")(live)
    steps, _ = compiled(live, worded)
    assert [(step.sql.split(" ON ")[0], step.flagged) for step in steps] == [
        ('DROP POLICY "axis_select"', True),
        ('CREATE POLICY "axis_select"', False),
    ]
    assert steps[0].reverse == f'CREATE POLICY "axis_select" ON "app"."note" AS PERMISSIVE FOR SELECT TO "{APP}" USING (true)'
    assert steps[1].reverse == steps[0].sql
    live, worded = sound()
    del live.tables[PAGE].policies["axis_delete"]
    (step,), _ = compiled(live, worded)
    assert step.sql.startswith('CREATE POLICY "axis_delete" ON "app"."page" AS PERMISSIVE FOR DELETE')
    assert '= "page"."id"' in step.sql, "inside the sub-select the table's own column is named with its table"
    assert not step.flagged


def test_a_role_that_is_missing_is_made() -> None:
    """With nothing that lifts row security."""
    live, worded = sound()
    del live.roles[APP]
    (step,), _ = compiled(live, worded)
    assert step.sql == f"CREATE ROLE {APP} NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION LOGIN NOINHERIT"
    assert (step.reverse, step.flagged) == (f"DROP ROLE {APP}", False)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_part_is_made_with_its_record(recorded: bool) -> None:
    """What was there before is not undone by dropping it; what was not, is."""
    part = SchemaPart(name="extra", create=lambda _: ["CREATE TABLE axis.extra ()"], drop=lambda _: ["DROP TABLE axis.extra", "SELECT 1"])
    live, worded = sound()
    if recorded:
        live.parts["extra"] = "an older digest"
    (step,), _ = compiled(live, worded, parts=[part])
    assert step.sql.startswith("CREATE TABLE axis.extra ();\nINSERT INTO axis.part AS p (name, digest) VALUES ('extra', ")
    assert step.reverse == (None if recorded else "DROP TABLE axis.extra;\nSELECT 1")
    assert step.flagged is recorded
    assert step.why.endswith("differs from what this release declares" if recorded else "does not exist")


def test_without_a_keyring_the_keys_are_left_alone() -> None:
    """Who plans without keys does not retire those of who binds."""
    live, worded = sound()
    live.seal_keys = {9: "x"}
    assert compiled(live, worded, keyring=None) == ([], ())


@pytest.mark.parametrize(("kind", "words"), [("v", "a view reads"), ("m", "a materialized view reads")])
def test_a_view_past_the_policies_is_reported(kind: str, words: str) -> None:
    """What no step can mend is told, with the statement that does; a view of an open table is none of it."""
    live, worded = sound()
    live.views = [(("app", "all"), kind, NOTE), (("app", "lists"), kind, LIST)]
    steps, (finding,) = compiled(live, worded)
    assert steps == []
    assert finding.object == "app.all"
    assert finding.what.startswith(words)
    assert finding.why.startswith("it holds every tenant's rows" if kind == "m" else "row security is applied for the view's owner")
    assert finding.fix == (
        f'REVOKE ALL ON "app"."all" FROM {APP}' if kind == "m" else 'ALTER VIEW "app"."all" SET (security_invoker = true)'
    )


def test_cockroachdb_has_no_right_to_temporary_objects() -> None:
    """A statement that the server does not know would stop the script."""
    live, _ = sound()
    live.temporary = {""}
    bare = replace(model(), tables=(), dialect=Dialect.COCKROACHDB)
    steps, _ = compile_steps(bare, live, deparsed={}, stale_parts=[], keyring=KEYRING)
    assert not any("TEMPORARY" in step.sql for step in steps)


def test_tables_alike_are_worded_once() -> None:
    """A thousand tables of one shape cost one look-alike; a table that its policies name needs one under its own name."""
    live, _ = sound()
    shadows = {table.name: shadow_of(model(), declared, table) for declared, table in held_tables(model(), live)}
    assert list(shadows) == [NOTE, CHILD, PAGE]
    assert shadows[NOTE] == shadows[CHILD]
    assert shadows[NOTE][1:] == ((("owner", "bigint"), ("tenant", "bigint")), "")
    assert shadows[PAGE][1:] == ((("id", "bigint"),), "page")


def test_a_child_that_is_declared_by_itself_keeps_its_own_declaration() -> None:
    """A partition that is protected in its own right is no door to be closed: its own shape decides about its policies and grants."""
    live, worded = sound()
    live.children[NOTE] = [PAGE, CHILD]
    assert [table.name for _, table in held_tables(model(), live)] == [NOTE, CHILD, PAGE]
    assert compiled(live, worded) == ([], ())

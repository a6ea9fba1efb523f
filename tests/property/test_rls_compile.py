"""The compiler is a function: equal declarations give equal bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.grants import Grant, OwnedByUser
from axis_security.core.ids import KeyType
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.catalog import LiveForeignKey, LiveIndex, LiveTable, Snapshot
from axis_security.rls.compile import compile_steps
from axis_security.rls.context import base_part
from axis_security.rls.model import Access, ColumnModel, Declared, ForeignKeyModel, Model, Open, Protected, TableModel
from axis_security.rls.sealed import SealKey, SealKeyring

KEYRING = SealKeyring(current=SealKey.generate(1))
NAMES = st.lists(st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text), min_size=1, max_size=6, unique=True)
CAPABILITIES = st.sampled_from([None, "read", "write", "it's"])
GRANTS = st.lists(
    st.builds(
        Grant, st.sampled_from(["owner", "member"]), st.sampled_from(["read", "write", "it's"]), st.none() | st.just(OwnedByUser("owner"))
    ),
    max_size=6,
)


@st.composite
def declarations(draw: st.DrawFn) -> list[Declared]:
    """Tables of any name, protected or open, with foreign keys between them."""
    names = draw(NAMES)
    made = []
    for name in names:
        keys = tuple(
            ForeignKeyModel(columns=("ref",), target=("public", target), target_columns=("id",), on_delete="CASCADE")
            for target in draw(st.sets(st.sampled_from(names), max_size=1))
        )
        columns = tuple(ColumnModel(column, KeyType.UUID) for column in ("id", "tenant", "owner", "ref"))
        table = TableModel(name=("public", name), columns=columns, primary_key=("id",), foreign_keys=keys)
        shape = draw(
            st.builds(Protected, st.builds(Access, select=CAPABILITIES, insert=CAPABILITIES, update=CAPABILITIES, delete=CAPABILITIES))
            | st.just(Open("why"))
        )
        made.append(Declared(table, shape))
    return made


def snapshot(tables: list[Declared]) -> Snapshot:
    """The database as `create_all` would have made it."""
    live = Snapshot(current_user="postgres", schemas={"public": {("", "USAGE")}})
    for declared in tables:
        table = LiveTable(declared.table.name, "r", "postgres", columns={"tenant": ("uuid", False, None), "owner": ("uuid", False, None)})
        table.indexes.append(LiveIndex("pk", ("id",), unique=True, primary=True))
        for key in declared.table.foreign_keys:
            table.foreign_keys.append(
                LiveForeignKey("fk", key.columns, key.target, key.target_columns, "CASCADE", "NO ACTION", False, False, True, ())
            )
        live.tables[table.name] = table
    return live


def compiled(tables: list[Declared], grants: list[Grant]) -> str:
    model = Model(key="tenant", key_type=KeyType.UUID, roles=DatabaseRoles(), tables=tuple(tables), grants=tuple(grants))
    steps, findings = compile_steps(model, snapshot(tables), deparsed={}, stale_parts=[base_part(KeyType.UUID)], keyring=KEYRING)
    return repr((steps, findings))


@given(st.data())
def test_the_order_of_declaration_does_not_show(data: st.DataObject) -> None:
    """Any order of tables and grants gives the same bytes."""
    tables, grants = data.draw(declarations()), data.draw(GRANTS)
    assert compiled(tables, grants) == compiled(data.draw(st.permutations(tables)), data.draw(st.permutations(grants)))


@given(declarations(), GRANTS)
def test_every_protected_table_gets_the_whole_set(tables: list[Declared], grants: list[Grant]) -> None:
    """ENABLE, FORCE, a restrictive floor and a policy per command for each protected table; no policy is TO PUBLIC; none on open tables."""
    model = Model(key="tenant", key_type=KeyType.UUID, roles=DatabaseRoles(), tables=tuple(tables), grants=tuple(grants))
    steps, _ = compile_steps(model, snapshot(tables), deparsed={}, stale_parts=[], keyring=None)
    texts = [step.sql for step in steps]
    count = len(model.protected())
    assert sum(text.endswith("ENABLE ROW LEVEL SECURITY") for text in texts) == count
    assert sum(text.endswith("FORCE ROW LEVEL SECURITY") for text in texts) == count
    policies = [text for text in texts if text.startswith("CREATE POLICY")]
    assert len(policies) == 6 * count
    assert sum(" AS RESTRICTIVE FOR ALL TO axis_app USING " in text for text in policies) == count
    assert all(" TO axis_app " in text or " TO axis_system " in text for text in policies)
    assert all(step.reverse is not None for step in steps)

"""Which tables a statement writes rows of."""

from __future__ import annotations

import pytest

from axis_security.rls.dml import UNCLEAR, written_tables

WRITES = {
    "INSERT INTO contact VALUES (1)": ("contact",),
    "insert into  public . contact (a) select 1": ("public.contact",),
    'UPDATE ONLY "Odd ""name" AS c SET a = 1': ('"Odd ""name"',),
    "UPDATE contact * SET a = 1": ("contact",),
    "/* UPDATE a SET b */ DELETE FROM ONLY contact": ("contact",),
    "-- insert into a\nMERGE INTO contact c USING b ON true WHEN MATCHED THEN UPDATE SET a = 1": ("contact",),
    "WITH x AS (DELETE FROM a RETURNING *), y AS (INSERT INTO b SELECT * FROM x RETURNING 1) SELECT count(*) FROM y": ("b", "a"),
    "SELECT 1; UPDATE contact SET a = 'x;y'": ("contact",),
    "COPY contact (a, b) FROM STDIN": ("contact",),
    "DO $$ BEGIN UPDATE contact SET a = $x$ y $x$; END $$": ("contact",),
    "DO $do$ BEGIN EXECUTE 'anything'; END $do$": (UNCLEAR,),
    "EXPLAIN ANALYZE DELETE FROM contact": ("contact",),
    "PREPARE p AS DELETE FROM contact": ("contact",),
    "UPDATE 1": (UNCLEAR,),
    # What begins a comment inside a quote begins none, and the other way round; comments nest.
    "SELECT '--'; UPDATE contact SET a = 1": ("contact",),
    "SELECT '/*'; UPDATE contact SET a = 1; SELECT '*/'": ("contact",),
    "SELECT $$ /* $$; DELETE FROM contact /* */": ("contact",),
    "/* it's */ UPDATE contact SET a = 'b'": ("contact",),
    "-- it's\nDELETE FROM contact": ("contact",),
    "/* a /* b */ c */ UPDATE contact SET a = 1": ("contact",),
    'UPDATE "a--b" SET c = 1': ('"a--b"',),
    'WITH "x;y" AS (SELECT 1) DELETE FROM contact': ("contact",),
    'INSERT INTO "a;b" VALUES (1)': ('"a;b"',),
    "UPDATE a$b$c SET d = 1; DELETE FROM contact WHERE b = '$b$'": ("a$b$c", "contact"),
    # A DO block's body may be quoted in any way.
    "DO 'BEGIN UPDATE contact SET a = ''b''; END'": ("contact",),
    "DO LANGUAGE 'plpgsql' 'BEGIN DELETE FROM contact; END'": ("contact",),
    r"DO E'BEGIN UPDATE contact SET a = \'b\'; END'": ("contact",),
    r"UPDATE contact SET a = E'it\'s; DELETE FROM x'": ("contact",),
}
HARMLESS = [
    "CREATE TABLE a (b int DEFAULT 0)",
    "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES c ON DELETE CASCADE ON UPDATE SET NULL",
    "CREATE POLICY p ON a FOR UPDATE USING (true)",
    "CREATE TRIGGER t BEFORE UPDATE OF b ON a EXECUTE FUNCTION f()",
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ UPDATE contact SET a = 1 $$",
    "CREATE RULE r AS ON INSERT TO a DO NOTHING",
    "GRANT INSERT, UPDATE, DELETE ON a TO b",
    "COMMENT ON TABLE a IS 'DELETE FROM b'",
    "SELECT * FROM a FOR UPDATE",
    "COPY a TO STDOUT",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "DO $$ BEGIN CREATE TABLE a (b int); END $$",
    "SELECT 'INSERT INTO contact VALUES (1)'",
    "/* a /* b */ DELETE FROM contact; */ SELECT 1",
    "SELECT 1 /* DELETE FROM contact; UPDATE contact SET a = 1",
    "",
]


@pytest.mark.parametrize("sql", WRITES)
def test_what_is_written_is_named(sql: str) -> None:
    """Every verb, in every place where it runs: alone, after another statement, in WITH, in a DO block, behind EXPLAIN and PREPARE."""
    assert written_tables(sql) == WRITES[sql]


@pytest.mark.parametrize("sql", HARMLESS)
def test_what_only_speaks_of_writing_is_let_through(sql: str) -> None:
    """Definitions, grants, comments, quoted text and reads."""
    assert written_tables(sql) == ()

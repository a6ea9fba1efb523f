"""Attacks through what a statement may do or tell: moves, oracles, keys, cascades, locks, bulk paths."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg

from axis_security.testing.gallery.attack import Attack, Layer, Verdict, held, leaked, refused_by
from axis_security.testing.gallery.runtime import policies
from axis_security.testing.gallery.world import ALICE, MALLORY, VICTIM_EMAIL, World

__all__ = ["STATEMENT_ATTACKS"]

_OWN = "tenant_id = (SELECT axis.tenant_id())"


def _writes(statement: str, loot: str, table: str = "contact") -> Callable[[World], Verdict]:
    """Run *statement* and commit; loot if it changed anything of acme's."""

    def strike(world: World) -> Verdict:
        count = f"SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM {table} t WHERE tenant_id = 'acme'"
        before = world.admin_rows(count)
        with world.injected() as connection:
            try:
                connection.execute(statement.encode())
                connection.commit()
            except psycopg.Error as error:
                return refused_by(error)
        return leaked(loot) if world.admin_rows(count) != before else held(Layer.POLICY, "no row of another tenant was touched")

    return strike


def _tells_apart(statement: str, known: str, unknown: str, layer: Layer) -> Callable[[World], Verdict]:
    """Run *statement* for a value that another tenant has and for one that nobody has; loot if the answers differ."""

    def answer(world: World, value: str) -> tuple[str, str]:
        with world.injected() as connection:
            try:
                cursor = connection.execute(statement.replace("$value", value).encode())
            except psycopg.Error as error:
                # The constraint's name and the detail are part of what a caller sees.
                return error.sqlstate or "", f"{error.diag.constraint_name} {(error.diag.message_detail or '').replace(value, '$value')}"
            return "", f"{cursor.rowcount} rows"

    def strike(world: World) -> Verdict:
        ids = world.admin_rows("SELECT min(id) FROM contact WHERE tenant_id = 'acme'")
        of_acme, of_nobody = answer(world, known.replace("$id", str(ids[0][0]))), answer(world, unknown)
        if of_acme != of_nobody:
            return leaked(f"tells them apart: {' '.join(of_acme)} / {' '.join(of_nobody)}")
        return held(layer, f"same answer for both: {' '.join(of_acme)}")

    return strike


def _cascade(world: World) -> Verdict:
    own = world.admin_rows("SELECT min(id) FROM contact WHERE tenant_id = 'globex'")[0][0]
    count = "SELECT count(*) FROM deal WHERE tenant_id = 'acme'"
    with world.injected(ALICE) as connection:  # the victim points at the attacker's row, by mistake or by invitation
        try:
            connection.execute("INSERT INTO deal (tenant_id, contact_id, title) VALUES ('acme', %s, 'Joint venture')", (own,))
            connection.commit()
        except psycopg.Error as error:
            return refused_by(error)
    before = world.admin_rows(count)
    with world.injected(MALLORY) as connection:
        connection.execute("DELETE FROM contact WHERE id = %s", (own,))
        connection.commit()
    return (
        leaked("deleting its own contact deleted acme's deal")
        if world.admin_rows(count) != before
        else held(Layer.FOREIGN_KEY, "nothing of acme's went")
    )


def _single_column_key(world: World) -> None:
    keys = world.admin_rows("SELECT quote_ident(conname) FROM pg_constraint WHERE conrelid = 'deal'::regclass AND contype = 'f'")
    drop = [f"ALTER TABLE deal DROP CONSTRAINT {name}" for (name,) in keys]
    world.admin(*drop, "ALTER TABLE deal ADD CONSTRAINT deal_contact FOREIGN KEY (contact_id) REFERENCES contact (id) ON DELETE CASCADE")


def _lock(world: World) -> Verdict:
    with world.injected() as connection:
        connection.execute("SELECT id FROM contact FOR UPDATE")
        free = world.admin_rows("SELECT count(*) FROM (SELECT 1 FROM contact WHERE tenant_id = 'acme' FOR UPDATE SKIP LOCKED) AS f")[0][0]
    total = world.admin_rows("SELECT count(*) FROM contact WHERE tenant_id = 'acme'")[0][0]
    return leaked(f"locked {total - free} rows of acme's") if free != total else held(Layer.POLICY, "no row of another tenant was locked")


def _copy_out(world: World) -> Verdict:
    with world.injected() as connection:
        try:
            with connection.cursor() as cursor, cursor.copy("COPY contact (tenant_id, email) TO STDOUT") as copy:
                data = b"".join(bytes(block) for block in copy)
        except psycopg.Error as error:
            return refused_by(error)
    return (
        leaked("acme's addresses are in the dump")
        if VICTIM_EMAIL.encode() in data
        else held(Layer.POLICY, f"{data.count(b'@')} rows, all its own")
    )


def _copy_in(world: World) -> Verdict:
    with world.injected() as connection:
        try:
            with connection.cursor() as cursor, cursor.copy("COPY contact (tenant_id, email, name) FROM STDIN") as copy:
                copy.write_row(("acme", "planted@acme.example", "Planted"))
            connection.commit()
        except psycopg.Error as error:
            return refused_by(error)
    return leaked("planted a row in acme")


def _row_security_off(*tables: str) -> Callable[[World], None]:
    def remove(world: World) -> None:
        world.admin(*(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY" for table in tables))

    return remove


def _global_unique(world: World) -> None:
    world.admin("ALTER TABLE contact ADD CONSTRAINT contact_email_everywhere UNIQUE (email)")


def _statistics(world: World) -> Verdict:
    with world.injected() as connection, contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(
            "SELECT coalesce(histogram_bounds::text, '') || coalesce(most_common_vals::text, '') FROM pg_stats WHERE tablename = 'contact' AND attname = 'email'"
        )
        text = " ".join(str(row[0]) for row in cursor.fetchall())
    return (
        leaked("acme's addresses stand in the planner's statistics")
        if VICTIM_EMAIL in text
        else held(Layer.SERVER, "the statistics of the table are not shown")
    )


STATEMENT_ATTACKS = (
    Attack(
        "tenant move",
        "UPDATE its own rows into another tenant",
        _writes("UPDATE visit SET tenant_id = 'acme'", "moved rows into acme", "visit"),
        lambda world: policies(world, "visit", using=_OWN, check="true"),
    ),
    Attack(
        "insert returning",
        "INSERT a row for another tenant, with RETURNING",
        _writes(
            "INSERT INTO contact (tenant_id, email, name) VALUES ('acme', 'planted@acme.example', 'Planted') RETURNING id",
            "planted a row in acme",
        ),
        lambda world: policies(world, "contact", using="true"),
    ),
    Attack(
        "mass update",
        "UPDATE and DELETE without WHERE",
        _writes("UPDATE contact SET name = 'Defaced'", "defaced acme"),
        lambda world: policies(world, "contact", using="true"),
    ),
    Attack(
        "on conflict oracle",
        "learn whether an address exists elsewhere from ON CONFLICT DO NOTHING",
        _tells_apart(
            "INSERT INTO contact (tenant_id, email, name) VALUES ('globex', '$value', 'x') ON CONFLICT DO NOTHING",
            VICTIM_EMAIL,
            "nobody@nowhere.example",
            Layer.UNIQUE_KEY,
        ),
        _global_unique,
    ),
    Attack(
        "merge oracle",
        "the same with MERGE, which stumbles over rows it cannot see",
        _tells_apart(
            "MERGE INTO contact c USING (VALUES ('$value')) AS v (email) ON c.email = v.email"
            " WHEN NOT MATCHED THEN INSERT (tenant_id, email, name) VALUES ('globex', v.email, 'x')",
            VICTIM_EMAIL,
            "nobody@nowhere.example",
            Layer.UNIQUE_KEY,
        ),
        _global_unique,
    ),
    Attack(
        "foreign key oracle",
        "learn whether a row exists elsewhere by pointing a foreign key at it",
        _tells_apart(
            "INSERT INTO deal (tenant_id, contact_id, title) VALUES ('globex', $value, 'x')", "$id", "987654321", Layer.FOREIGN_KEY
        ),
        _single_column_key,
    ),
    Attack("cascade", "delete a parent row that another tenant's row points at", _cascade, _single_column_key),
    Attack("lock", "SELECT … FOR UPDATE to stall another tenant", _lock, _row_security_off("contact")),
    Attack("copy out", "COPY the table to the client", _copy_out, _row_security_off("contact")),
    Attack("copy in", "COPY rows of another tenant into the table", _copy_in, _row_security_off("contact")),
    Attack("planner statistics", "read other tenants' values from pg_stats", _statistics, _row_security_off("contact")),
)
"""Statements that ask for, or write, another tenant's rows."""

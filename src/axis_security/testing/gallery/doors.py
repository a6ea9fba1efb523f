"""Attacks through doors beside the policy: partitions, views, functions, grants, policies that somebody added."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from axis_security.testing.gallery.attack import Attack, Layer, Verdict, held, leaked, refused_by
from axis_security.testing.gallery.world import VICTIM_EMAIL, World

__all__ = ["DOOR_ATTACKS"]


def _reads(statement: str, layer: Layer, *prepare: str) -> Callable[[World], Verdict]:
    """The operator prepares something careless; the attacker reads through it."""

    def strike(world: World) -> Verdict:
        world.admin(*prepare)
        with world.injected() as connection:
            try:
                rows = connection.execute(statement.encode()).fetchall()
            except psycopg.Error as error:
                return refused_by(error)
        foreign = {str(row[0]) for row in rows} - {"globex"}
        return leaked(f"read {', '.join(sorted(foreign))}") if foreign else held(layer, f"{len(rows)} rows, none of another tenant")

    return strike


def _truncate(world: World) -> Verdict:
    with world.injected() as connection:
        try:
            connection.execute("TRUNCATE deal")
            connection.commit()
        except psycopg.Error as error:
            return refused_by(error)
    return leaked("emptied the table for every tenant")


_BAIT = "CREATE FUNCTION public.bait(value text) RETURNS boolean LANGUAGE plpgsql {} COST 0.0000001 AS $$ BEGIN RAISE NOTICE '%', value; RETURN true; END $$"


def _leakproof(world: World) -> Verdict:
    heard: list[str] = []
    if not world.admin_rows("SELECT 1 FROM pg_proc WHERE proname = 'bait'"):
        world.admin(_BAIT.format(""))  # the app's role may make none, not even a temporary one
    with world.injected() as connection:
        connection.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
        try:
            connection.execute("SELECT id FROM contact WHERE public.bait(email)")
        except psycopg.Error as error:
            return refused_by(error)
    return (
        leaked("a cheap function was shown acme's rows before the policy was")
        if VICTIM_EMAIL in heard
        else held(Layer.POLICY, "the function saw its own tenant's rows only")
    )


def _admin(*statements: str) -> Callable[[World], None]:
    return lambda world: world.admin(*statements)


def _no_floor(world: World) -> None:
    floors = world.admin_rows("SELECT quote_ident(polname), polrelid::regclass::text FROM pg_policy WHERE NOT polpermissive")
    world.admin(*(f"DROP POLICY {name} ON {table}" for name, table in floors))


_NO_FORCE = _admin("ALTER TABLE contact NO FORCE ROW LEVEL SECURITY")
_VIEW = (
    "CREATE VIEW everybody AS SELECT tenant_id FROM contact",
    "ALTER VIEW everybody OWNER TO {owner}",
    "GRANT SELECT ON everybody TO {app}",
)
_DEFINER = (
    "CREATE FUNCTION everyone() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS $$ SELECT tenant_id FROM public.contact $$",
    "ALTER FUNCTION everyone() OWNER TO {owner}",
    "GRANT EXECUTE ON FUNCTION everyone() TO {app}",
)
_GROUP = ("CREATE POLICY colleagues ON contact FOR SELECT TO PUBLIC USING (true)",)

DOOR_ATTACKS = (
    Attack(
        "direct partition",
        "read a partition by its own name",
        _reads("SELECT tenant_id FROM visit_0", Layer.POLICY),
        _admin("ALTER TABLE visit_0 DISABLE ROW LEVEL SECURITY", "GRANT SELECT ON visit_0 TO {app}"),
    ),
    Attack("truncate", "TRUNCATE, which knows no row security", _truncate, _admin("GRANT TRUNCATE ON deal TO {app}")),
    Attack(
        "owner-rights view",
        "read through a view that runs with its owner's rights",
        _reads("SELECT tenant_id FROM everybody", Layer.FORCE, *_VIEW),
        _NO_FORCE,
    ),
    Attack(
        "definer function",
        "call a SECURITY DEFINER function of the tables' owner",
        _reads("SELECT * FROM everyone()", Layer.FORCE, *_DEFINER),
        _NO_FORCE,
    ),
    Attack(
        "inherited group policy",
        "profit from a permissive policy for everybody that somebody added",
        _reads("SELECT tenant_id FROM contact", Layer.FLOOR, *_GROUP),
        _no_floor,
    ),
    Attack(
        "policy added by hand",
        "profit from USING (true), added for the application's role to debug something",
        _reads("SELECT tenant_id FROM contact", Layer.FLOOR, "CREATE POLICY debugging ON contact FOR SELECT TO {app} USING (true)"),
        _no_floor,
    ),
    Attack(
        "leakproof bait",
        "put a cheap function into WHERE that prints every row it is shown",
        _leakproof,
        _admin(_BAIT.format("LEAKPROOF")),
    ),
)
"""Ways around the policies: owners, views, functions, partitions."""

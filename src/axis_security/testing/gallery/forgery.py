"""Attacks by injected SQL on the identity itself: become another tenant, another role, or another database user.

The attacker runs any SQL inside a genuine transaction of the application's, as the application's role.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg

from axis_security.core.clock import SYSTEM_CLOCK
from axis_security.core.principal import Principal
from axis_security.testing.gallery import careless
from axis_security.testing.gallery.attack import Attack, Layer, Verdict, held, leaked, refused_by
from axis_security.testing.gallery.world import ALICE, MALLORY, World

__all__ = ["FORGERY_ATTACKS"]


def _injects(*statements: str, principal: Principal = MALLORY, layer: Layer = Layer.POLICY) -> Callable[[World], Verdict]:
    """Run *statements*; the last one reads tenants. Loot is any tenant but the attacker's."""

    def strike(world: World) -> Verdict:
        with world.injected(principal) as connection:
            try:
                rows: list[tuple[object, ...]] = []
                for statement in statements:
                    cursor = connection.execute(statement.format(**world.names).encode())
                    rows = cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                return refused_by(error)
        foreign = {str(row[0]) for row in rows} - {principal.tenant.text}
        return leaked(f"read {', '.join(sorted(foreign))}") if foreign else held(layer, f"{len(rows)} rows, none of another tenant")

    return strike


def _seals(
    forge: Callable[[World, str], str], then: str = "SELECT tenant_id FROM contact", principal: Principal = MALLORY
) -> Callable[[World], Verdict]:
    """Replace the transaction's sealed context with a forgery made from the genuine one, then read or write."""

    def strike(world: World) -> Verdict:
        with world.injected(principal) as connection:
            try:
                genuine = connection.execute("SELECT current_setting('axis.context')").fetchone()
                forged = forge(world, str(genuine[0]) if genuine else "")
                connection.execute("SELECT set_config('axis.context', %s, true)", (forged,))
                rows = connection.execute(then.encode()).fetchall()
            except psycopg.Error as error:
                return refused_by(error)
        foreign = {str(row[0]) for row in rows} - {principal.tenant.text}
        return leaked(f"acted as {', '.join(sorted(foreign))}") if foreign else held(Layer.SEAL, "the forgery gave nothing")

    return strike


def _edit(position: int, value: str) -> Callable[[World, str], str]:
    def forge(_: World, genuine: str) -> str:
        fields = genuine.split(" ")
        fields[position] = value
        return " ".join(fields)

    return forge


def _made_up(world: World, genuine: str) -> str:
    return f"axis1 1 9999999999 acme mallory owner {'0' * 64}"


def _old(world: World, genuine: str) -> str:
    return world.sealed(ALICE, now=SYSTEM_CLOCK.now() - timedelta(hours=2))


def _grant(statement: str, undo: str | None = None) -> Callable[[World], None]:
    def remove(world: World) -> None:
        if undo is not None:  # roles are the whole server's, not this database's: put back what was changed
            world.undo.callback(world.admin, undo)
        world.admin(statement)

    return remove


def _give_getter_away(world: World) -> None:
    world.admin(
        "ALTER FUNCTION axis.context() OWNER TO {app}",
        "GRANT EXECUTE ON FUNCTION axis.context() TO {guard}",
        "GRANT CREATE ON SCHEMA axis TO {app}",
    )


_VIEWER = Principal(tenant="globex", user="victor", role="viewer")
_WRITE = "UPDATE contact SET name = 'Defaced' RETURNING 'globex (written by a viewer)'"

FORGERY_ATTACKS = (
    Attack("made-up context", "set_config('axis.context', 'acme …') with an invented seal", _seals(_made_up), careless.trust_the_setting),
    Attack(
        "edited tenant",
        "take the genuine sealed context and write another tenant into it",
        _seals(_edit(3, "acme")),
        careless.trust_the_setting,
    ),
    Attack(
        "edited role",
        "take a viewer's sealed context, make it an owner's, and write",
        _seals(_edit(5, "owner"), _WRITE, _VIEWER),
        careless.trust_the_setting,
    ),
    Attack(
        "replayed seal", "use a genuine context of another tenant that was caught two hours ago", _seals(_old), careless.trust_the_setting
    ),
    Attack(
        "no context at all",
        "clear the context and hope for a default tenant",
        _seals(lambda world, genuine: ""),
        lambda world: careless.trust_the_setting(world, fallback="acme"),
    ),
    Attack(
        "read the seal key",
        "SELECT the key that seals contexts",
        _injects("SELECT 'the key ' || id::text FROM axis.seal_key"),
        _grant("GRANT SELECT ON axis.seal_key TO {app}"),
    ),
    Attack(
        "replace the getter",
        "CREATE OR REPLACE the function that says who the tenant is",
        _injects(
            "CREATE OR REPLACE FUNCTION axis.context() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'axis1 1 0 acme nobody owner x' $$",
            "SELECT tenant_id FROM contact",
        ),
        _give_getter_away,
    ),
    Attack(
        "become the system role",
        "SET ROLE to the role that sees all tenants",
        _injects("SET ROLE {system}", "SELECT tenant_id FROM contact"),
        _grant("GRANT {system} TO {app}", "REVOKE {system} FROM {app}"),
    ),
    Attack(
        "become the owner",
        "SET ROLE to the tables' owner and drop the policies",
        _injects("SET ROLE {owner}", "ALTER TABLE contact DISABLE ROW LEVEL SECURITY", "SELECT tenant_id FROM contact"),
        _grant("GRANT {owner} TO {app}", "REVOKE {owner} FROM {app}"),
    ),
    Attack(
        "row_security off",
        "SET row_security = off",
        _injects("SET row_security = off", "SELECT tenant_id FROM contact"),
        _grant("ALTER ROLE {app} BYPASSRLS", "ALTER ROLE {app} NOBYPASSRLS"),
    ),
)
"""Contexts that nobody sealed, or that were sealed for somebody else."""

"""What the library keeps in the host's database: the roles, and the parts of schema ``axis``.

Several packages (rls, auth, rbac, crypto, ops) each own a part of the one schema; none imports another. A part is pure data:
idempotent statements for the roles it is given. The planner applies parts in order and records each one's digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from axis_security.core.errors import ConfigError

__all__ = ["SCHEMA", "DatabaseRoles", "SchemaPart"]

SCHEMA: Final = "axis"
"""The one schema that holds everything of ours."""

_ROLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
# Unquoted, these are not names in GRANT and ALTER ROLE: `TO public` is everybody, `TO current_user` whoever runs the statement.
_NOT_ROLES: Final = frozenset({"public", "none", "user", "current_user", "current_role", "session_user", "all"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseRoles:
    """The four PostgreSQL roles. Names are plain identifiers, so they need no quoting in the emitted SQL.

    Args:
        owner: owns the host's tables and runs its migrations.
        app: what the application connects as; owns nothing, bypasses nothing.
        system: another login, for declared cross-tenant work.
        guard: owns schema ``axis`` and all in it; nobody logs in as it and nobody may become it.

    Raises:
        ConfigError: a name is malformed or used twice.
    """

    owner: str = "axis_owner"
    app: str = "axis_app"
    system: str = "axis_system"
    guard: str = "axis_guard"

    def __post_init__(self) -> None:
        names = [getattr(self, f.name) for f in fields(self)]
        if any(_ROLE.fullmatch(name) is None or name.startswith("pg_") or name in _NOT_ROLES for name in names) or len(set(names)) != len(
            names
        ):
            raise ConfigError(
                what="unusable database role names",
                why="each must be a distinct plain lower-case identifier, at most 63 characters, not starting with `pg_` and no word of SQL for a role",
                fix="use names such as axis_owner, axis_app, axis_system, axis_guard",
            )

    @classmethod
    def prefixed(cls, prefix: str) -> DatabaseRoles:
        """Roles named ``<prefix>_owner`` and so on; roles are cluster-wide, so two products on one server need two prefixes."""
        return cls(owner=f"{prefix}_owner", app=f"{prefix}_app", system=f"{prefix}_system", guard=f"{prefix}_guard")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaPart:
    """One package's objects in schema ``axis``.

    Args:
        name: short and stable, such as ``vault``.
        create: idempotent SQL statements (``IF NOT EXISTS``, ``OR REPLACE``) that leave every object owned by ``roles.guard`` and
            ``roles.app`` with EXECUTE on its functions only. The planner has already made the roles and the schema.
        drop: statements that undo it, data included.
    """

    name: str
    create: Callable[[DatabaseRoles], Sequence[str]]
    drop: Callable[[DatabaseRoles], Sequence[str]]

    def statements(self, roles: DatabaseRoles) -> Sequence[str]:
        """What *create* says, worded so that running it where all is in place waits for nobody: see :func:`gently`."""
        return [gently(sql) for sql in self.create(roles)]

    def digest(self, roles: DatabaseRoles) -> str:
        """SHA-256 over the statements; recorded when applied, compared by the planner."""
        return hashlib.sha256("\0".join(self.create(roles)).encode()).hexdigest()


_OWNER: Final = re.compile(r"ALTER TABLE (axis\.\w+) OWNER TO (\w+)")
_INDEX: Final = re.compile(r"CREATE (?:UNIQUE )?INDEX IF NOT EXISTS (\w+) ON axis\..*", re.DOTALL)


def gently(sql: str) -> str:
    """*sql*, asking first whether there is anything to do.

    ``ALTER TABLE … OWNER`` and ``CREATE INDEX IF NOT EXISTS`` lock the table before they find that nothing is to be done. Such a lock waits for every
    open transaction that has read the table (each bound transaction reads ``axis.seal_key``), and all later ones wait behind it: a plan, even one
    that changes nothing, would hold up a live application.
    """
    text = sql.strip()
    if owner := _OWNER.fullmatch(text):
        table, role = owner.groups()
        asked = f"(SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = '{table}'::pg_catalog.regclass) <> '{role}'::pg_catalog.regrole"
    elif index := _INDEX.fullmatch(text):
        asked = f"pg_catalog.to_regclass('axis.{index[1]}') IS NULL"
    else:
        return sql
    return f"DO $gently$ BEGIN IF {asked} THEN {text}; END IF; END $gently$"

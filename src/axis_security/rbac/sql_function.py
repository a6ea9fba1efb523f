"""How a function of the members' part is written: a body, and everything around it that must never be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from axis_security.core.schema import DatabaseRoles

__all__ = ["SqlFunction"]


class SqlFunction(NamedTuple):
    """One definer function: the whole of one request, in one round trip, whose result is the answer."""

    signature: str
    """Name and arguments."""
    result: str
    """What it returns."""
    body: str
    """PL/pgSQL, a whole block."""
    audience: str
    """Who may call it: ``app``, ``system``, or nobody (called by the others only)."""

    @property
    def bare(self) -> str:
        """The signature with argument types only, as ALTER, GRANT and DROP take it."""
        name, _, arguments = self.signature.removesuffix(")").partition("(")
        return f"{name}({', '.join(argument.split()[1] for argument in arguments.split(', ') if argument)})"

    def statements(self, roles: DatabaseRoles) -> Sequence[str]:
        """Definition, owner and rights."""
        made = [
            (
                f"CREATE OR REPLACE FUNCTION axis.{self.signature} RETURNS {self.result}\nLANGUAGE plpgsql VOLATILE SECURITY DEFINER "
                f"SET search_path = pg_catalog, pg_temp AS $axis$\n#variable_conflict use_column\n{self.body.strip()}\n$axis$"
            ),
            f"ALTER FUNCTION axis.{self.bare} OWNER TO {roles.guard}",
            f"REVOKE ALL ON FUNCTION axis.{self.bare} FROM PUBLIC, {roles.app}, {roles.system}, {roles.owner}",
        ]
        if self.audience:
            made.append(f"GRANT EXECUTE ON FUNCTION axis.{self.bare} TO {getattr(roles, self.audience)}")
        return made

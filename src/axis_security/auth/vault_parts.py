"""How a function of the vault is written: a body, and everything around it that must never be forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from axis_security.core.schema import DatabaseRoles

__all__ = ["VaultFunction", "table_statements"]


@dataclass(frozen=True, slots=True)
class VaultFunction:
    """One definer function: the whole of one request, in one round trip, whose result is the answer.

    Args:
        signature: name and arguments, such as ``vault_claim_step(p_account text, p_step bigint)``.
        result: what it returns.
        body: PL/pgSQL; statements, or a whole block with ``DECLARE``.
        audience: who may call it: ``app``, ``system``, or nobody (called by other functions only).
    """

    signature: str
    result: str
    body: str
    audience: str = "app"

    @property
    def bare(self) -> str:
        """The signature with argument types only, as ALTER, GRANT and DROP take it."""
        name, _, arguments = self.signature.removesuffix(")").partition("(")
        return f"{name}({', '.join(argument.split()[1] for argument in arguments.split(', ') if argument)})"

    def statements(self, roles: DatabaseRoles) -> list[str]:
        """Definition, owner and rights."""
        body = self.body.strip("\n")
        block = body if body.lstrip().startswith("DECLARE") else f"BEGIN\n{body}\nEND"
        made = [
            # lock_timeout: a caller that leaves its transaction open can hold up others of the same account, but not for long.
            (
                f"CREATE OR REPLACE FUNCTION axis.{self.signature} RETURNS {self.result}\nLANGUAGE plpgsql VOLATILE SECURITY DEFINER "
                f"SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS $axis$\n#variable_conflict use_column\n{block}\n$axis$"
            ),
            f"ALTER FUNCTION axis.{self.bare} OWNER TO {roles.guard}",
            f"REVOKE ALL ON FUNCTION axis.{self.bare} FROM PUBLIC, {roles.app}, {roles.system}, {roles.owner}",
        ]
        if self.audience:
            made.append(f"GRANT EXECUTE ON FUNCTION axis.{self.bare} TO {getattr(roles, self.audience)}")
        return made


def table_statements(name: str, columns: str, roles: DatabaseRoles) -> list[str]:
    """A table that the guard owns and nobody else may touch."""
    return [
        f"CREATE TABLE IF NOT EXISTS axis.{name} ({columns}\n)",
        f"ALTER TABLE axis.{name} OWNER TO {roles.guard}",
        f"REVOKE ALL ON axis.{name} FROM PUBLIC, {roles.app}, {roles.system}, {roles.owner}",
    ]

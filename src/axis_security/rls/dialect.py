"""Which server the policies are written for, and what each of them cannot do."""

from __future__ import annotations

import enum

__all__ = ["Dialect"]


class Dialect(enum.StrEnum):
    """The server that the statements are for.

    PostgreSQL is planned against, applied and tested. The other two are written only (:meth:`Tenancy.script <axis_security.rls.Tenancy.script>`): this
    project has run neither, and says so at the head of each script.
    """

    POSTGRESQL = "postgresql"
    CITUS = "citus"
    """Distributed tables. No sub-select may stand in a policy; keys must hold the tenant column; the context must be on every node."""
    COCKROACHDB = "cockroachdb"
    """From v25.2, which has policies. No sub-select may stand in one; functions are evaluated for each row."""

    def once(self, call: str) -> str:
        """*call* as it stands in a policy: in a sub-select, where that is allowed, so that it runs once a statement and not once a row."""
        return f"(SELECT {call})" if self is Dialect.POSTGRESQL else call

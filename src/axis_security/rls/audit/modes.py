"""The 32 ways in which row-level security fails, by number. Rules name the ones they close; some happen at run time, and a rule then names
what in the schema lets them happen."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

__all__ = ["MODES"]

MODES: Final = MappingProxyType(
    {
        1: "a session's first flush writes under the previous tenant",
        2: "a plain pooled connection sees the last tenant",
        3: "a rollback drops the role that stood for the tenant",
        4: "a commit hands over to a connection that was never bound",
        5: "the tenant's identity is mangled on its way into a name",
        6: "a context set in a savepoint is kept or lost; an unset one falls back to somebody",
        7: "in autocommit a transaction-local context is gone before the query",
        8: "SQL on the application's role forges the context",
        9: "the context does not follow into a thread, task or callback",
        10: "a stale handle runs in somebody else's transaction",
        11: "an unbound query is silent, or tells what exists",
        12: "a write to a hidden row reports 0 rows and nothing else",
        13: "row security is off, not forced, widened or edited under its name",
        14: "two predicates look the same and differ by a cast",
        15: "an UPDATE moves a row to another tenant",
        16: "RETURNING and soft deletes fail for want of a policy for reading",
        17: "SELECT … FOR UPDATE finds nothing for want of a policy for UPDATE",
        18: "ON CONFLICT and MERGE answer differently for a hidden row",
        19: "a unique or foreign key tells whether a hidden row exists",
        20: "a cascade deletes another tenant's row",
        21: "a partition or child is reached by its own name",
        22: "TRUNCATE and its kind, which no policy holds",
        23: "views, materialised views and definer functions run as somebody else",
        24: "a policy for a group reaches every member that inherits",
        25: "leakproof functions and operators see hidden rows, or cost the index",
        26: "an immutable function freezes one tenant into a plan",
        27: "policies read each other in a circle, or a sub-select for each row",
        28: "dumps, replication and bulk copies go around policies, or stop at them",
        29: "counters and statistics tell how much others have",
        30: "a migration under FORCE changes no rows and says nothing",
        31: "the tests would pass without any policy",
        32: "the server lacks fixes that row security needs",
    }
)
"""What each number stands for."""

"""Which tables a statement writes rows of, as far as its text tells. For migrations: under FORCE an owner's UPDATE changes nothing, and says nothing.

Not a parser of SQL: it errs towards naming too much. Quoted text and comments are taken out first, so that a word inside them counts for nothing.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["UNCLEAR", "written_tables"]

UNCLEAR: Final = "?"
"""Stands for a table whose name cannot be told."""

_PART = r'(?:[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|"(?:[^"]|"")+")'
_NAME = rf"({_PART}(?:\s*\.\s*{_PART})*)"
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_QUOTED: Final = re.compile(r"(?<![\w$])[Ee]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$(\w*)\$(.*?)\$\1\$", re.DOTALL)
_WRITES: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\bINSERT\s+INTO\s+{_NAME}",
        rf"\bDELETE\s+FROM\s+(?:ONLY\s+)?{_NAME}",
        rf"\bMERGE\s+INTO\s+(?:ONLY\s+)?{_NAME}",
        rf"\bUPDATE\s+(?:ONLY\s+)?{_NAME}\s*\*?\s+(?:(?:AS\s+)?{_PART}\s+)?SET\b",
        rf"\bCOPY\s+{_NAME}\s*(?:\([^)]*\))?\s+FROM\b",
    )
)
_STATEMENT: Final = re.compile(r"\s*(?:EXPLAIN\b.*?\b)?(INSERT|UPDATE|DELETE|MERGE|COPY|WITH|DO|PREPARE)\b", re.IGNORECASE | re.DOTALL)


def written_tables(sql: str) -> tuple[str, ...]:
    """Names, as written, of the tables that *sql* inserts into, updates, deletes from, merges or copies into; :data:`UNCLEAR` among them where a
    statement writes and does not say where. Empty for whatever writes no rows: DDL, grants, functions that are only defined.
    """
    bodies: list[str] = []

    def blank(match: re.Match[str]) -> str:
        # Only a DO block runs its body; what a function's would do, it does when it is called.
        bodies.append(match.group(2) or "")
        return f" '{len(bodies) - 1}' "

    found: list[str] = []
    plain = _QUOTED.sub(blank, _COMMENT.sub(" ", sql)) if "'" in sql or "$" in sql else _COMMENT.sub(" ", sql)
    for statement in plain.split(";"):
        head = _STATEMENT.match(statement)
        if head is None:
            continue
        verb = head.group(1).upper()
        if verb == "DO":
            text = "".join(bodies[int(number)] for number in re.findall(r"'(\d+)'", statement))
            found += _names(_QUOTED.sub(" ", _COMMENT.sub(" ", text)))
            if re.search(r"\bEXECUTE\b", text, re.IGNORECASE):
                found.append(UNCLEAR)
            continue
        names = _names(statement)
        if not names and verb in ("INSERT", "UPDATE", "DELETE", "MERGE"):
            names = [UNCLEAR]
        found += names
    return tuple(dict.fromkeys(found))


def _names(text: str) -> list[str]:
    return [re.sub(r"\s*\.\s*", ".", match.group(1)) for pattern in _WRITES for match in pattern.finditer(text)]

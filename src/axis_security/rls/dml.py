"""Which tables a statement writes rows of, as far as its text tells. For migrations: under FORCE an owner's UPDATE changes nothing, and says nothing.

Not a parser of SQL: it errs towards naming too much. Quoted text and comments are taken out first, so that a word inside them counts for nothing; in one pass,
for a quote may stand in a comment, and what begins a comment in a quote.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["UNCLEAR", "written_tables"]

UNCLEAR: Final = "?"
"""Stands for a table whose name cannot be told."""

_PART = r'(?:[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|"(?:[^"]|"")+")'
_NAME = rf"({_PART}(?:\s*\.\s*{_PART})*)"
_TOKEN: Final = re.compile(
    r"""--[^\n]*|/\*|"(?:[^"]|"")*"|(?<![\w$])[Ee]'(?P<escaped>(?:[^'\\]|\\.|'')*)'|'(?P<plain>(?:[^']|'')*)'"""
    r"""|(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$(?P<body>.*?)\$(?P=tag)\$""",
    re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
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
    plain, bodies = _plain(sql)
    found: list[str] = []
    for statement in plain.split(";"):
        head = _STATEMENT.match(statement)
        if head is None:
            continue
        verb = head.group(1).upper()
        if verb == "DO":
            # Only a DO block runs its body; what a function's would do, it does when it is called.
            text = "\n".join(bodies[int(number)] for number in re.findall(r"'(\d+)'", statement))
            found += _names(_plain(text)[0])
            if re.search(r"\bEXECUTE\b", text, re.IGNORECASE):
                found.append(UNCLEAR)
            continue
        names = _names(statement)
        if not names and verb in ("INSERT", "UPDATE", "DELETE", "MERGE"):
            names = [UNCLEAR]
        found += names
    return tuple(dict.fromkeys(found))


def _plain(sql: str) -> tuple[str, list[str]]:
    """*sql* without comments and with a number in the place of each quoted text; and those texts. A semicolon in a quoted name becomes NUL."""
    kept: list[str] = []
    bodies: list[str] = []
    at = 0
    while (token := _TOKEN.search(sql, at)) is not None:
        kept.append(sql[at : token.start()])
        text, at = token.group(), token.end()
        if text == "/*":
            kept.append(" ")
            at = _comment_end(sql, at)
        elif text.startswith("--"):
            kept.append(" ")
        elif text.startswith('"'):
            kept.append(text.replace(";", "\0"))
        else:
            quoted = next(part for part in (token["plain"], token["escaped"], token["body"]) if part is not None)
            kept.append(f" '{len(bodies)}' ")
            bodies.append(quoted if token["body"] is not None else quoted.replace("''", "'").replace("\\'", "'"))
    return "".join([*kept, sql[at:]]), bodies


def _comment_end(sql: str, at: int) -> int:
    """Where the comment that began before *at* ends; comments nest."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(sql, at)) is not None:
        depth += 1 if edge.group() == "/*" else -1
        at = edge.end()
    return len(sql) if depth else at


def _names(text: str) -> list[str]:
    return [re.sub(r"\s*\.\s*", ".", match.group(1)).replace("\0", ";") for pattern in _WRITES for match in pattern.finditer(text)]

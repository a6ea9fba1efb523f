"""Reading the server's own wording of a predicate. Deparsed text is regular: literals quoted, sub-selects in parentheses, names qualified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

__all__ = [
    "asks_not_null",
    "calls_outside_selects",
    "coerced_settings",
    "column_pattern",
    "compares",
    "correlated_exists",
    "is_true",
    "mentions",
    "opens_unbound",
    "outside_selects",
    "reads_setting_itself",
    "selects",
    "settings_read",
    "without_literals",
]

_LITERAL: Final = re.compile(r"E?'(?:[^'\\]|''|\\.)*'")
_CALL: Final = re.compile(r'(?<![\w".])((?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?)\(')
_NOT_CALLS: Final = frozenset(
    {"and", "or", "not", "in", "any", "all", "exists", "values", "coalesce", "nullif", "array", "row", "case", "when", "then"}
)
_SELECT: Final = re.compile(r"\(\s*SELECT\b")
_SETTING: Final = re.compile(r"\bcurrent_setting\('((?:[^']|'')*)'")


@lru_cache(4096)
def without_literals(text: str) -> str:
    """*text* with every string literal empty."""
    return _LITERAL.sub("''", text)


def selects(text: str) -> Iterator[str]:
    """The outermost sub-selects, without their parentheses."""
    at = 0
    while found := _SELECT.search(text, at):
        end = _closing(text, found.start())
        yield text[found.start() + 1 : end]
        at = end


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)


@lru_cache(4096)
def outside_selects(text: str) -> str:
    """*text* without literals and without what is inside sub-selects."""
    text = without_literals(text)
    kept, at = "", 0
    while found := _SELECT.search(text, at):
        kept += text[at : found.start()] + "()"
        at = _closing(text, found.start()) + 1
    return kept + text[at:]


@lru_cache(256)
def column_pattern(column: str) -> str:
    """A pattern for the column as the server writes it: bare where it is plain, else quoted."""
    quoted = re.escape('"' + column.replace('"', '""') + '"')
    return rf'(?:(?<![\w"]){re.escape(column)}(?![\w"(])|{quoted})'


def mentions(text: str | None, column: str) -> bool:
    """Whether a column of that name is used."""
    return text is not None and re.search(column_pattern(column), without_literals(text)) is not None


def compares(text: str | None, column: str) -> bool:
    """Whether a column of that name is used otherwise than in asking whether it is NULL."""
    return text is not None and mentions(re.sub(rf"{column_pattern(column)} IS (?:NOT )?NULL", "", text), column)


def asks_not_null(text: str | None, column: str) -> bool:
    """Whether it asks that the column is not NULL."""
    return text is not None and re.search(rf"{column_pattern(column)} IS NOT NULL", text) is not None


def is_true(text: str | None) -> bool:
    """Whether it lets every row through."""
    return text is not None and text.strip("() ").lower() in ("true", "1 = 1", "not false")


def calls_outside_selects(text: str) -> list[str]:
    """Functions that the filter calls for each row, as written."""
    return sorted({name for name in _CALL.findall(outside_selects(text)) if name.lower() not in _NOT_CALLS})


def settings_read(text: str) -> list[str]:
    """The settings whose names it gives as literals."""
    return sorted({name.replace("''", "'") for name in _SETTING.findall(text)})


_COERCED: Final = re.compile(
    r"(?<!nullif\()(?:pg_catalog\.)?current_setting\([^()]*,\s*true\)\)?::(?:bigint|int|integer|int4|int8|smallint|uuid|numeric)\b",
    re.IGNORECASE,
)


def coerced_settings(text: str) -> bool:
    """Whether a setting that may be missing is cast to a type that has no empty value, without ``nullif`` in between."""
    return _COERCED.search(text) is not None


_OPENS: Final = (
    re.compile(r"current_setting\([^()]*\)\)?(?:::\w+)?\)? IS NULL\)*\s+OR\b", re.IGNORECASE),
    re.compile(
        r"\bOR\s+\(*(?:pg_catalog\.)?(?:nullif\()?current_setting\([^()]*\)(?:, ''(?:::text)?\))?\)?(?:::\w+)? IS NULL", re.IGNORECASE
    ),
    re.compile(r"current_setting\([^()]*\) = ''(?:::text)?\)?\s+OR\b", re.IGNORECASE),
    re.compile(r"\bcoalesce\(\(*(?:nullif\()?\(*(?:pg_catalog\.)?current_setting\([^()]*\)", re.IGNORECASE),
)


def opens_unbound(text: str) -> bool:
    """Whether an unset setting counts as permission, or as somebody."""
    return any(found.search(text) for found in _OPENS)


_SESSION_STATE: Final = re.compile(r"\b(?:current_setting|current_user|session_user|current_role|set_config|pg_has_role)\b", re.IGNORECASE)


def reads_setting_itself(text: str) -> bool:
    """Whether it depends on the session's state."""
    return _SESSION_STATE.search(text) is not None


def correlated_exists(text: str, table: str) -> bool:
    """Whether a sub-select of it must be run for each row of *table*, because it names that table's columns."""
    own = re.compile(rf'(?<![\w"])"?{re.escape(table)}"?\.')
    return any(
        own.search(without_literals(inner)) and not re.search(rf'\bFROM\s+(?:\(*)(?:"?\w+"?\.)?"?{re.escape(table)}"?\b', inner)
        for inner in selects(text)
    )

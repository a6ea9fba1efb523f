"""Why did a statement reach nothing? Explained for the acting principal, with that principal's own rights.

Row-level security answers with zero rows, whatever the reason. Here the reasons are told apart as far as the principal may know: nobody is
bound, the role lacks the capability, the row changed since it was read. What must not be told apart is not: a row that is missing and
a row of another tenant get the same answer, for the probes run under the same policies as the statement itself.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import ColumnElement, Delete, Insert, Select, Table, Update, and_, func, select, true
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, Grouping

from axis_security.core.context import maybe_principal
from axis_security.core.errors import ConfigError
from axis_security.core.grants import OwnedByUser
from axis_security.core.principal import Principal
from axis_security.rls.metadata import name_of
from axis_security.rls.model import Declared, Model, Open, Protected

__all__ = ["Explanation", "Verdict", "explain_statement"]


class Verdict(enum.StrEnum):
    """The reason."""

    UNBOUND = "unbound"
    """Nobody is acting; the statement would not be sent."""
    NOT_ALLOWED = "not allowed"
    """The acting role lacks the capability, or may not do it to this row."""
    STALE = "stale"
    """The row is there, and other conditions of the statement do not hold for it any more."""
    HIDDEN = "hidden"
    """No such row among those that the principal may see: missing, or another tenant's, and nobody is told which."""
    ALLOWED = "allowed"
    """Nothing of ours stands in the way."""


_STATUS: Final = MappingProxyType(
    {Verdict.UNBOUND: 401, Verdict.NOT_ALLOWED: 403, Verdict.STALE: 409, Verdict.HIDDEN: 404, Verdict.ALLOWED: 200}
)
_PUBLIC: Final = MappingProxyType(
    {
        Verdict.UNBOUND: "Please sign in.",
        Verdict.NOT_ALLOWED: "You may not do this.",
        Verdict.STALE: "This was changed by somebody else. Please reload.",
        Verdict.HIDDEN: "Not found.",
        Verdict.ALLOWED: "",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer.

    Args:
        verdict: the reason.
        command, table: what was asked.
        why, fix: for the developer; they name tables, columns and capabilities, never a value.
    """

    verdict: Verdict
    command: str
    table: str
    why: str
    fix: str

    @property
    def http_status(self) -> int:
        """A hint for adapters."""
        return _STATUS[self.verdict]

    def public(self) -> Mapping[str, str]:
        """The answer for a stranger: the code and one fixed sentence."""
        return {"code": f"rls.{self.verdict.replace(' ', '_')}", "message": _PUBLIC[self.verdict]}

    def __str__(self) -> str:
        return f"{self.command} on {self.table}: {self.verdict}. {self.why}. Fix: {self.fix}"


def explain_statement(model: Model, statement: object, connection: Any = None) -> Explanation:
    """Explain *statement* for whoever is acting.

    Raises:
        ConfigError: not a SQLAlchemy SELECT, INSERT, UPDATE or DELETE of one declared table.
    """
    command, table, where = _parts(statement)
    declared = next((one for one in model.tables if one.table.name == name_of(table)), None)
    if declared is None:
        raise ConfigError(
            what=f"`{table.name}` is not declared",
            why="explain() knows the tables of the tenancy",
            fix="protect it, or open it with a reason",
        )
    label = ".".join(name_of(table))

    def answer(verdict: Verdict, why: str, fix: str) -> Explanation:
        return Explanation(verdict=verdict, command=command, table=label, why=why, fix=fix)

    principal = maybe_principal()
    if principal is None:
        return answer(Verdict.UNBOUND, "nobody is acting", "wrap the unit of work in `with acting_as(Principal(…)):`")
    if isinstance(declared.shape, Open):
        if command == "SELECT" or command in declared.shape.writes:
            return answer(Verdict.ALLOWED, "the table is open to every tenant", "look at the statement's own conditions")
        return answer(Verdict.NOT_ALLOWED, "the table is open for reading only", f'tenancy.open(…, writes=["{command.lower()}"])')
    refused = _refused(model, declared.shape, principal, command, connection)
    if refused is not None:
        return answer(Verdict.NOT_ALLOWED, *refused)
    if isinstance(statement, Insert):
        foreign = _foreign_tenant(model, statement, principal)
        if foreign:
            return answer(
                Verdict.NOT_ALLOWED, "the row is for another tenant", f"leave `{model.key}` out: its default is the acting tenant"
            )
        return answer(Verdict.ALLOWED, "the acting tenant may add rows", "look at the table's constraints")
    if connection is None or where is None:
        return answer(Verdict.ALLOWED, "role and tenant may run it", "pass the connection to learn about the rows")
    verdict, why, fix = _rows(model, declared, principal, command, table, where, connection)
    return answer(verdict, why, fix)


def _parts(statement: object) -> tuple[str, Table, ColumnElement[bool] | None]:
    found: list[Any] = []
    command = ""
    if isinstance(statement, Insert | Update | Delete):
        found = [statement.table]
    elif isinstance(statement, Select):
        command, found = "SELECT", list(statement.get_final_froms())
    tables = [one for one in found if isinstance(one, Table)]
    if len(tables) != 1 or len(found) != 1:
        raise ConfigError(
            what="this statement cannot be explained",
            why="explain() takes a SQLAlchemy select, insert, update or delete of one table",
            fix="explain the part of it that reached nothing, as a statement of that table",
        )
    kinds = {Insert: "INSERT", Update: "UPDATE", Delete: "DELETE"}
    command = next((word for kind, word in kinds.items() if isinstance(statement, kind)), command)
    where = statement.whereclause if isinstance(statement, Select | Update | Delete) else None
    return command, tables[0], where


def _refused(model: Model, shape: Protected, principal: Principal, command: str, connection: Any) -> tuple[str, str] | None:
    """Why the role may not run *command* at all, and the way out."""
    needed = getattr(shape.access, command.lower())
    if needed is None or model.grants is None:
        return None
    mine = [grant for grant in model.grants if grant.capability == needed and grant.role == principal.role]
    # The database knows roles that tenants made for themselves; it is asked where it can be.
    if mine or (connection is not None and _scalar(connection, select(func.axis.may(needed)))):
        return None
    able = sorted({grant.role for grant in model.grants if grant.capability == needed})
    return (
        f"the role `{principal.role}` does not hold `{needed}`",
        f"roles that do: {', '.join(f'`{role}`' for role in able) or 'none'}",
    )


def _foreign_tenant(model: Model, statement: Insert, principal: Principal) -> bool:
    # Several rows in one statement number their parameters.
    named = re.compile(rf"{re.escape(model.key)}(?:_m\d+)?")
    given = [value for name, value in statement.compile().params.items() if named.fullmatch(name)]
    return any(value is not None and value != principal.tenant.value for value in given)


def _rows(
    model: Model, declared: Declared, principal: Principal, command: str, table: Table, where: ColumnElement[bool], connection: Any
) -> tuple[Verdict, str, str]:
    """What the principal's own eyes see of the rows that the statement names."""
    shape = declared.shape
    if not isinstance(shape, Protected):
        raise TypeError("open tables are answered before")
    # Reading needs its own capability; without it nothing may be told about a row.
    if command != "SELECT" and _refused(model, shape, principal, "SELECT", connection) is not None:
        return Verdict.HIDDEN, _UNSEEN, "an UPDATE or DELETE with WHERE needs the right to read"
    if _sees(connection, table, where):
        own = _owner_columns(model, shape, principal, command)
        if own and not any(_sees(connection, table, and_(where, table.c[name] == _user(table, name, principal))) for name in own):
            names = ", ".join(f"`{name}`" for name in own)
            return (
                Verdict.NOT_ALLOWED,
                f"the role `{principal.role}` may do this to rows whose {names} is the acting user",
                "ask somebody whose role may",
            )
        if (
            shape.reads_further
            and command != "SELECT"
            and model.key in table.c
            and not _sees(connection, table, and_(where, table.c[model.key] == principal.tenant.value))
        ):
            return Verdict.NOT_ALLOWED, "the row is shared with the acting tenant for reading", "its own tenant may change it"
        return (
            Verdict.ALLOWED,
            "the principal sees a row that matches",
            "if the command still reached none, it ran in another transaction or as another principal",
        )
    key = _key_only(table, where)
    if key is not None and _sees(connection, table, key):
        return (
            Verdict.STALE,
            "the row is there, and another condition of the statement does not hold for it",
            "read it again, and decide anew",
        )
    return Verdict.HIDDEN, _UNSEEN, "check the id, and that the acting tenant is the one meant"


_UNSEEN: Final = "no row that the acting principal may see matches; whether one exists elsewhere is not told"


def _sees(connection: Any, table: Table, where: ColumnElement[bool]) -> bool:
    return bool(connection.execute(select(true()).select_from(table).where(where).limit(1)).first())


def _scalar(connection: Any, statement: Select[Any]) -> Any:
    return connection.execute(statement).scalar()


def _owner_columns(model: Model, shape: Protected, principal: Principal, command: str) -> list[str]:
    """The columns that must name the acting user, where every grant that the role holds is such a one."""
    needed = getattr(shape.access, command.lower())
    mine = [grant.when for grant in model.grants or () if grant.capability == needed and grant.role == principal.role]
    if not mine or any(when is None for when in mine):
        return []
    return sorted({when.column for when in mine if isinstance(when, OwnedByUser)})


def _user(table: Table, column: str, principal: Principal) -> Any:
    text = None if principal.user is None else principal.user.text
    kind = table.c[column].type
    try:
        return None if text is None else kind.python_type(text)
    except (ValueError, NotImplementedError):
        return text


def _conjuncts(where: ColumnElement[bool]) -> Iterator[ColumnElement[bool]]:
    if isinstance(where, Grouping):
        yield from _conjuncts(where.element)  # type: ignore[arg-type]  # around a condition stands a condition
    elif isinstance(where, BooleanClauseList) and where.operator is operators.and_:
        for clause in where.clauses:
            yield from _conjuncts(clause)
    else:
        yield where


def _key_only(table: Table, where: ColumnElement[bool]) -> ColumnElement[bool] | None:
    """The conditions that name the row by its primary key, if there are others besides; ``None`` where the key is not named."""
    named: dict[str, ColumnElement[bool]] = {}
    others = 0
    for clause in _conjuncts(where):
        if isinstance(clause, BinaryExpression) and clause.operator is operators.eq and getattr(clause.left, "table", None) is table:
            column = table.c.get(getattr(clause.left, "key", ""))
            if column is not None and column.primary_key:
                named[column.name] = clause
                continue
        others += 1
    if not others or set(named) != {column.name for column in table.primary_key.columns}:
        return None
    return and_(*named.values())

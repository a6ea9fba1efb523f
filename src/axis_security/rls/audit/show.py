"""Who sees what of one table: a matrix of roles and commands, worked out from the catalog; as text, HTML or an SVG picture."""

from __future__ import annotations

import enum
import html
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from axis_security.core.errors import ConfigError
from axis_security.core.flow import Flow
from axis_security.rls.audit.expression import asks_not_null, compares, is_true
from axis_security.rls.audit.facts import PUBLIC, Facts, Policy, Relation
from axis_security.rls.audit.ground import Ground, Scope, infer_scope
from axis_security.rls.audit.read import read_facts
from axis_security.rls.plan import run

__all__ = ["COMMANDS", "VIEWS", "AccessMatrix", "Cell", "Reach", "matrix_of", "show_table"]

COMMANDS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
"""The columns of the matrix."""


class Reach(enum.StrEnum):
    """How far a command of a role reaches."""

    REFUSED = "refused"
    """The role lacks the right."""
    NONE = "no rows"
    """The role has the right, and no policy lets a row through."""
    TENANT = "own tenant"
    """Every way in compares the tenant."""
    SOME = "some rows"
    """Policies filter, and not by the tenant."""
    ALL = "every row"
    """Nothing filters."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one command of one role reaches, and why."""

    reach: Reach
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessMatrix:
    """The answer for one table.

    Args:
        table: schema and name.
        enabled, forced: its row security.
        rows: for each role, the cell of each command.
        doors: other ways to its rows: views, partitions, publications.
    """

    table: str
    enabled: bool
    forced: bool
    rows: Mapping[str, Mapping[str, Cell]]
    doors: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form with stable key order."""
        return {
            "table": self.table,
            "enabled": self.enabled,
            "forced": self.forced,
            "roles": {
                role: {command: {"reach": str(cell.reach), "why": cell.why} for command, cell in cells.items()}
                for role, cells in self.rows.items()
            },
            "doors": list(self.doors),
        }

    def as_text(self) -> str:
        """For a terminal: the matrix, then the reasons, each once."""
        width = max(len(role) for role in self.rows) + 2
        lines = [
            _title(self),
            "",
            " " * width + "".join(f"{command:<12}" for command in COMMANDS),
            *(f"{role:<{width}}" + "".join(f"{cells[command].reach:<12}" for command in COMMANDS) for role, cells in self.rows.items()),
            "",
        ]
        for role, cells in self.rows.items():
            reasons: dict[str, list[str]] = {}
            for command, cell in cells.items():
                reasons.setdefault(cell.why, []).append(command)
            for why, commands in reasons.items():
                lines += textwrap.wrap(f"{role}, {', '.join(commands)}: {why}", 120, subsequent_indent="    ")
        lines += ["", *(f"door: {door}" for door in self.doors)] if self.doors else []
        return "\n".join(lines) + "\n"

    def as_html(self) -> str:
        """A table that stands by itself, the reasons as titles and in words below."""
        escape = html.escape
        head = "".join(f"<th scope=col>{command}</th>" for command in COMMANDS)
        body = "".join(
            f"<tr><th scope=row>{escape(role)}</th>"
            + "".join(
                f'<td style="background:{_COLOUR[cells[c].reach][0]};color:{_COLOUR[cells[c].reach][1]}" title="{escape(cells[c].why)}">{cells[c].reach}</td>'
                for c in COMMANDS
            )
            + "</tr>"
            for role, cells in self.rows.items()
        )
        doors = f"<ul>{''.join(f'<li>{escape(door)}</li>' for door in self.doors)}</ul>" if self.doors else ""
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(self.table)}</title><style>body{{font:14px system-ui;margin:2em}}"
            "table{border-collapse:collapse}th,td{padding:.5em .9em;border:1px solid #ccc;text-align:left}</style>"
            f"<h1>{escape(_title(self))}</h1><table><tr><td></td>{head}</tr>{body}</table>{doors}</html>\n"
        )

    def as_svg(self) -> str:
        """The matrix as a picture; each cell's reason is its title."""
        escape = html.escape
        left, cell_width, cell_height, top = 20 + 8 * max(len(role) for role in self.rows), 110, 34, 64
        width, height = left + cell_width * len(COMMANDS) + 20, top + cell_height * len(self.rows) + 20
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="system-ui,sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            f'<text x="16" y="24" font-size="15" font-weight="600" fill="#222222">{escape(_title(self))}</text>',
        ]
        parts += [
            f'<text x="{left + n * cell_width + cell_width / 2}" y="{top - 10}" text-anchor="middle" fill="#444444">{command}</text>'
            for n, command in enumerate(COMMANDS)
        ]
        for row, (role, cells) in enumerate(self.rows.items()):
            y = top + row * cell_height
            parts.append(f'<text x="16" y="{y + 22}" fill="#222222">{escape(role)}</text>')
            for n, command in enumerate(COMMANDS):
                cell = cells[command]
                fill, ink = _COLOUR[cell.reach]
                x = left + n * cell_width
                parts.append(
                    f'<g><title>{escape(cell.why)}</title><rect x="{x}" y="{y}" width="{cell_width - 4}" height="{cell_height - 4}" rx="4" fill="{fill}"/>'
                    f'<text x="{x + (cell_width - 4) / 2}" y="{y + 20}" text-anchor="middle" fill="{ink}">{cell.reach}</text></g>'
                )
        return "\n".join([*parts, "</svg>"]) + "\n"


# Told apart by lightness as well as by hue, so that they survive printing and colour blindness.
_COLOUR: Final = {
    Reach.REFUSED: ("#e9ecef", "#495057"),
    Reach.NONE: ("#ced4da", "#212529"),
    Reach.TENANT: ("#b2dfc4", "#0b3d20"),
    Reach.SOME: ("#ffe08a", "#4a3800"),
    Reach.ALL: ("#c92a2a", "#ffffff"),
}


def _title(matrix: AccessMatrix) -> str:
    state = "row security off" if not matrix.enabled else "row security forced" if matrix.forced else "row security on, not forced"
    return f"{matrix.table}: {state}"


VIEWS: Final[Mapping[str, Callable[[AccessMatrix], str]]] = {
    "text": AccessMatrix.as_text,
    "html": AccessMatrix.as_html,
    "svg": AccessMatrix.as_svg,
}
"""Every form by its name on the command line."""


def matrix_of(facts: Facts, scope: Scope, table: str) -> AccessMatrix:
    """Work out the matrix of *table* (``name`` or ``schema.name``). Pure.

    Raises:
        ConfigError: there is no such table, or several.
    """
    ground = Ground(facts, scope)
    relation = _named(facts, table)
    shown = {relation.owner, *(role.oid for role in ground.app), *ground.system}
    shown |= {who for who, what in relation.grants if what in COMMANDS}
    shown |= {role for policy in relation.policies for role in policy.roles}
    ordered = sorted(shown - {PUBLIC}, key=lambda oid: (ground.role_name(oid) not in scope.app, ground.role_name(oid)))
    rows = {
        ground.role_name(role): {command: _cell(ground, relation, role, command) for command in COMMANDS} for role in [*ordered, PUBLIC]
    }
    return AccessMatrix(
        table=relation.label, enabled=relation.enabled, forced=relation.forced, rows=rows, doors=tuple(_doors(ground, relation))
    )


def _named(facts: Facts, table: str) -> Relation:
    tables = [r for r in facts.relations.values() if r.kind in "rpf" and table in (r.label, r.name)]
    exact = [r for r in tables if r.label == table] or [r for r in tables if r.schema == "public"] or tables
    if len(exact) != 1:
        raise ConfigError(
            what=f"no table `{table}`" if not exact else f"several tables are called `{table}`",
            why="the database has none of that name" if not exact else ", ".join(f"`{r.label}`" for r in exact),
            fix="name it as schema.table",
        )
    return exact[0]


def _cell(ground: Ground, table: Relation, role: int, command: str) -> Cell:
    known = ground.facts.roles.get(role)
    reach = (ground.inherits(role) if role != PUBLIC else frozenset()) | {PUBLIC}
    if known is not None and known.superuser:
        return Cell(Reach.ALL, "a superuser: nothing holds")
    if table.owner not in reach and not any(who in reach and what == command for who, what in table.grants):
        return Cell(Reach.REFUSED, "no grant")
    if command == "TRUNCATE":
        return Cell(Reach.ALL, "row security does not hold for TRUNCATE")
    if known is not None and known.bypassrls:
        return Cell(Reach.ALL, "the role has BYPASSRLS")
    if not table.enabled:
        return Cell(Reach.ALL, "row security is off")
    if table.owner in reach and not table.forced:
        return Cell(Reach.ALL, "owns the table, and row security is not forced")
    mine = [policy for policy in table.policies if policy.covers(command) and not policy.roles.isdisjoint(reach)]
    ways, floors = [p for p in mine if p.permissive], [p for p in mine if not p.permissive]
    if not ways:
        return Cell(Reach.NONE, "no policy lets a row through" + (" (the insert is refused)" if command == "INSERT" else ""))
    narrow = [p for p in floors if not _wide(p, command)]
    why = " or ".join(f"{p.name} ({_text(p, command)})" for p in ways)
    why += "".join(f", and {p.name} ({_text(p, command)})" for p in floors)
    if any(_tenant(ground, table, p, command) for p in narrow) or all(_tenant(ground, table, p, command) for p in ways):
        return Cell(Reach.TENANT, why)
    return Cell(Reach.SOME if narrow or not any(_wide(p, command) or _any_tenant(ground, p, command) for p in ways) else Reach.ALL, why)


def _text(policy: Policy, command: str) -> str:
    if command == "INSERT":
        return policy.check or policy.using or "true"
    both = policy.using or "true"
    return f"{both}; after: {policy.check}" if command == "UPDATE" and policy.check not in (None, policy.using) else both


def _wide(policy: Policy, command: str) -> bool:
    return is_true(policy.check or policy.using) if command == "INSERT" else is_true(policy.using)


def _tenant(ground: Ground, table: Relation, policy: Policy, command: str) -> bool:
    key = ground.scope.key
    return key is not None and key in table.columns and compares(_text(policy, command), key) and not _wide(policy, command)


def _any_tenant(ground: Ground, policy: Policy, command: str) -> bool:
    return asks_not_null(_text(policy, command), ground.scope.key or "")


def _doors(ground: Ground, table: Relation) -> Iterable[str]:
    for view in ground.relations:
        if view.kind in "vm" and table.oid in view.reads:
            who = (
                ", ".join(sorted({ground.role_name(role) for role, what in view.grants if what == "SELECT" and role != view.owner}))
                or "nobody else"
            )
            as_whom = (
                "what was there when it was filled"
                if view.kind == "m"
                else "as whoever asks"
                if view.invoker
                else f"as its owner {ground.role_name(view.owner)}"
            )
            yield f"{'materialised view' if view.kind == 'm' else 'view'} {view.label} ({as_whom}), readable by {who}"
    for child, _ in ground.descendants(table):
        who = ", ".join(sorted({ground.role_name(role) for role, what in child.grants if what in COMMANDS and role != child.owner}))
        yield f"partition or child {child.label}, " + (f"granted to {who}" if who else "granted to nobody")
    for made in ground.facts.publications:
        if table.oid in made.tables:
            yield f"publication {made.name}{' (with a row filter)' if made.tables[table.oid] else ''}: policies do not hold"


def show_table(
    connection: Any, table: str, *, key: str | None = None, app: Iterable[str] = (), system: Iterable[str] = (), scope: Scope | None = None
) -> AccessMatrix:
    """Who sees what of *table* in the live database. Reads the catalog and writes nothing.

    Args:
        connection: a SQLAlchemy ``Engine`` or ``Connection``, or a psycopg ``Connection``; any role that may connect.
        table: ``name`` or ``schema.name``.
        key, app, system: as for :func:`audit_schema`.
        scope: instead of these, what a declaration gives.

    Raises:
        ConfigError: there is no such table, or *connection* is not usable.
    """

    def flow() -> Flow[AccessMatrix]:
        facts = yield from read_facts()
        return matrix_of(facts, scope or infer_scope(facts, key=key, app=app, system=system), table)

    return run(connection, flow, keep=False)

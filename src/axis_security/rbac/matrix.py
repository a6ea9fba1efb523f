"""The policy as a table of roles and capabilities: plain text, Markdown, HTML, SVG. For reviewers, and for the page that says who may do what (ASVS 8.1.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Final

from axis_security.rbac.policy import Policy

__all__ = ["FORMATS", "cells", "to_html", "to_markdown", "to_svg", "to_text"]


def cells(policy: Policy) -> Sequence[Sequence[str]]:
    """The header and one row per capability; a cell is ``yes``, ``when <condition>`` or empty."""
    table = [["capability", *policy.roles]]
    for cap in policy.caps:
        row = [cap.name]
        for role in policy.roles:
            holding = policy.holding(role)
            if holding is None:
                row.append("")
            elif holding.always & cap.bit:
                row.append("yes")
            else:
                tests = holding.conditional.get(cap.bit, ())
                row.append("when " + " or ".join(test.name for test in tests) if tests else "")
        table.append(row)
    return table


def to_text(policy: Policy) -> str:
    """Aligned columns."""
    table = cells(policy)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]]) + "\n"


def to_markdown(policy: Policy) -> str:
    """A Markdown table."""
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells(policy)]
    lines = [head, ["---"] * len(head), *([f"`{name}`", *rest] for name, *rest in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def to_html(policy: Policy) -> str:
    """An HTML table element, without style of its own."""
    head, *rows = cells(policy)
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>\n"
        for name, *rest in rows
    )
    return f"<table>\n<caption>Roles and capabilities</caption>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def to_svg(policy: Policy) -> str:
    """A drawing of the table: a full dot is yes, a ring is on a condition (named in its title)."""
    head, *rows = cells(policy)
    left, column, line = 20 + 8 * max(len(row[0]) for row in (head, *rows)), 90, 26
    width, height = left + column * (len(head) - 1) + 10, line * (len(rows) + 1) + 14
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'font-family="ui-monospace, monospace" font-size="13"><title>Roles and capabilities</title>'
    )
    parts = [opening, f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for i, role in enumerate(head[1:]):
        parts.append(f'<text x="{left + column * i + column // 2}" y="20" text-anchor="middle" font-weight="bold">{escape(role)}</text>')
    for n, (name, *rest) in enumerate(rows, 1):
        y = line * n + 20
        parts.append(f'<path d="M0 {y - 17}H{width}" stroke="#ddd"/><text x="10" y="{y}">{escape(name)}</text>')
        for i, cell in enumerate(rest):
            if cell:
                fill = "#0b6b3a" if cell == "yes" else "none"
                parts.append(
                    f'<circle cx="{left + column * i + column // 2}" cy="{y - 4}" r="6" fill="{fill}" stroke="#0b6b3a" stroke-width="2"><title>{escape(cell)}</title></circle>'
                )
    return "\n".join([*parts, "</svg>"]) + "\n"


FORMATS: Final[Mapping[str, Callable[[Policy], str]]] = MappingProxyType(
    {"table": to_text, "markdown": to_markdown, "html": to_html, "svg": to_svg}
)
"""Every format by the name that the command line knows it by."""

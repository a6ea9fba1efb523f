"""The audit log outside the database: an export that verifies by itself, and the anchors that show a cut or a rewriting.

Both are JSON Lines. An export holds for each tenant one line with the chain's start and head, then its entries byte for byte, so that whoever
receives it can verify it with nothing but this module or fifty lines of their own: see docs/how-to/audit-log.md for the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import ConfigError
from axis_security.ops.audit import Anchor, AuditChain, AuditEntry, ChainState, headless, verify_chain

__all__ = ["FORMAT", "export_log", "read_anchors", "verify_export", "write_anchors"]

FORMAT: Final = "axis-security/audit-export/v1"
"""The name and version that each chain of an export begins with."""


def export_log(chains: Iterable[AuditChain], out: IO[str]) -> int:
    """Write *chains* to *out*; returns the number of entries. Streams: memory does not grow with the log."""
    count = 0
    for chain in chains:
        head = chain.head
        _line(
            out,
            {
                "format": FORMAT,
                "tenant": chain.tenant,
                "start": {"number": chain.start.number, "hash": chain.start.hash.hex()},
                "head": None if head is None else {"number": head.number, "hash": head.hash.hex()},
            },
        )
        for entry in chain.entries:
            _line(out, {"number": entry.number, "hash": entry.hash.hex(), "body": entry.body})
            count += 1
    return count


def _line(out: IO[str], fields: dict[str, Any]) -> None:
    out.write(json.dumps(fields, separators=(",", ":")) + "\n")


def verify_export(lines: Iterable[str], *, kept: Sequence[Anchor] = ()) -> Iterator[CheckResult]:
    """Verify an export without the database, one result for each tenant. Never raises, whatever the lines hold."""
    source = _Lines(lines)
    seen: set[str] = set()
    while (header := source.take()) is not None:
        try:
            if header["format"] != FORMAT:
                raise ValueError  # one answer for every malformed line
            tenant = _text(header["tenant"])
            start = ChainState(number=_number(header["start"]["number"]), hash=_hash(header["start"]["hash"]))
            end = header["head"]
            head = None if end is None else Anchor(tenant=tenant, number=_number(end["number"]), hash=_hash(end["hash"]))
        except (KeyError, TypeError, ValueError):
            yield _broken(source.number, "it is no chain's beginning")
            return
        seen.add(tenant)
        if head is None:
            yield headless(tenant)
        else:
            yield verify_chain(tenant, source.entries(tenant), start=start, anchors=kept, head=head)
        for _ in source.entries(tenant):  # what a broken chain left unread
            pass
        if source.broken:
            yield _broken(source.number, "it is no entry")
            return
    for tenant in sorted({anchor.tenant for anchor in kept} - seen):
        yield _broken(source.number, f"an anchor names the chain of `{tenant}`, which the export lacks")
    if not seen:
        yield _broken(source.number, "it holds no chain")


# One spelling of each value, as `export_log` writes it: what has another came from elsewhere, and could be hashed to something else.
def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError
    return value


def _hash(value: object) -> bytes:
    if not isinstance(value, str) or len(value) != 64:
        raise ValueError
    return bytes.fromhex(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate is no text
    return value


class _Lines:
    """JSON Lines with one line of look-ahead."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._next: dict[str, Any] | None = None
        self.number = 0
        self.broken = False

    def take(self) -> dict[str, Any] | None:
        """The next line, or ``None`` at the end."""
        if self._next is not None:
            line, self._next = self._next, None
            return line
        for text in self._lines:
            self.number += 1
            try:
                fields = json.loads(text)
            except (ValueError, RecursionError):
                fields = None
            return fields if isinstance(fields, dict) else {}
        return None

    def entries(self, tenant: str) -> Iterator[AuditEntry]:
        """Entries up to the next chain's beginning."""
        while (fields := self.take()) is not None:
            if "format" in fields:
                self._next = fields
                return
            try:
                entry = AuditEntry(tenant=tenant, number=_number(fields["number"]), body=_text(fields["body"]), hash=_hash(fields["hash"]))
            except (KeyError, TypeError, ValueError):
                self.broken = True
                return
            yield entry


def _broken(line: int, why: str) -> CheckResult:
    finding = Finding(
        code="audit.export_malformed",
        severity=Severity.ERROR,
        object=f"line {line}",
        what="the export is damaged or incomplete",
        why=why,
        fix="export again, and compare",
    )
    return CheckResult(name="audit.export", ok=False, seen=f"broken at line {line}", findings=(finding,))


def write_anchors(path: Path, anchors: Iterable[Anchor], *, at: str) -> int:
    """Add the heads of all chains to *path*, one line each, with the time *at*; returns how many. Keep the file where the database's owner cannot write."""
    heads = list(anchors)
    with path.open("a", encoding="utf-8") as file:
        for anchor in heads:
            _line(file, {"at": at, "tenant": anchor.tenant, "number": anchor.number, "hash": anchor.hash.hex()})
    return len(heads)


def read_anchors(path: Path) -> list[Anchor]:
    """Every anchor of *path*.

    Raises:
        ConfigError: it is unreadable, or a line is no anchor.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line]
        return [Anchor(tenant=_text(each["tenant"]), number=_number(each["number"]), hash=_hash(each["hash"])) for each in found]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            what=f"`{path}` holds no anchors", why=type(error).__name__, fix="give the file that `axis-security audit anchors` wrote"
        ) from None

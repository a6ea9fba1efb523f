"""The audit log's arithmetic: one hash chain per tenant, so that a changed, removed or reordered event shows.

Entry *n* of a tenant's chain carries ``SHA-256(hash of entry n-1 || n as u64 || body)``; entry 0 is the tenant's own start value.
The body is the event as canonical JSON, kept byte for byte. A chain alone cannot tell that its newest entries were cut off:
:class:`Anchor` is the answer, a copy of the chain's head that is kept elsewhere (evidence bundles hold them).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.events import AuditEvent

__all__ = [
    "Anchor",
    "AuditChain",
    "AuditEntry",
    "ChainState",
    "canonical_body",
    "chain_start",
    "headless",
    "lost",
    "next_hash",
    "verify_chain",
]

_LABEL: Final = b"axis-security/audit/v1\0"
_TAMPERED: Final = "the audit log was tampered with, or lost entries"
_INCIDENT: Final = "treat it as an incident: compare with exported copies and backups, and find out who could write to schema axis"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One row of the log.

    Args:
        tenant: the chain it belongs to; ``""`` for events outside any tenant, such as a failed login.
        number: its place in the chain, from 1.
        body: the event, canonical JSON.
        hash: 32 bytes.
    """

    tenant: str
    number: int
    body: str
    hash: bytes

    def event(self) -> Mapping[str, Any]:
        """The event's fields."""
        fields: dict[str, Any] = json.loads(self.body)
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The head of a chain at some moment; kept outside the database, it shows a later cut."""

    tenant: str
    number: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainState:
    """Where verification stands: the last number and hash that hold."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditChain:
    """One tenant's chain as it is read.

    Args:
        start: the checkpoint that pruning left, or the chain's beginning.
        head: where the store says that it ends; ``None`` if it says nothing of this tenant.
        entries: in order; read once, before the next chain is asked for.
    """

    tenant: str
    start: ChainState
    head: Anchor | None
    entries: Iterator[AuditEntry]


def canonical_body(event: AuditEvent) -> str:
    """The one JSON text of *event*: sorted keys, no spaces, ASCII."""
    return json.dumps(event.as_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def chain_start(tenant: str) -> ChainState:
    """The state before a tenant's first event; differs between tenants, so that no chain can stand in for another."""
    return ChainState(number=0, hash=hashlib.sha256(_LABEL + tenant.encode()).digest())


def next_hash(before: ChainState, body: str) -> bytes:
    """The hash of the entry that follows *before* with *body*."""
    return hashlib.sha256(before.hash + (before.number + 1).to_bytes(8, "big") + body.encode()).digest()


def verify_chain(
    tenant: str,
    entries: Iterable[AuditEntry],
    *,
    start: ChainState | None = None,
    anchors: Iterable[Anchor] = (),
    head: Anchor | None = None,
) -> CheckResult:
    """Hold a tenant's entries, in order, against the chain. Removed beginnings are held to nothing but the checkpoint: see retention in the guide.

    Args:
        entries: in ascending order; read as a stream, in constant memory.
        start: the checkpoint that pruning left, or the chain's beginning.
        anchors: heads kept elsewhere; each must be met on the way.
        head: what the database says the chain's head is; the entries must end there.
    """
    state = start or chain_start(tenant)
    wanted = {anchor.number: anchor.hash for anchor in anchors if anchor.tenant == tenant and anchor.number >= state.number}
    findings: list[Finding] = []

    def broken(code: str, number: int, why: str) -> None:
        findings.append(
            Finding(
                code=f"audit.{code}",
                severity=Severity.ERROR,
                object=f"{tenant or '(no tenant)'}#{number}",
                what=_TAMPERED,
                why=why,
                fix=_INCIDENT,
                evidence={"number": number},
            )
        )

    counted = 0
    if state.number == 0 and state != chain_start(tenant):
        broken("changed", 0, "it begins as another tenant's chain does")
    if wanted.get(state.number, state.hash) != state.hash:
        broken("anchor_mismatch", state.number, "the checkpoint differs from the anchor kept elsewhere")
    for entry in () if findings else entries:
        if entry.number != state.number + 1:
            broken("gap", state.number + 1, f"the entry is missing: number {entry.number} follows {state.number}")
        elif next_hash(state, entry.body) != entry.hash:
            broken("changed", entry.number, "its hash does not follow from the entry before it and its own body")
        elif wanted.get(entry.number, entry.hash) != entry.hash:
            broken(
                "anchor_mismatch",
                entry.number,
                "it differs from the anchor kept elsewhere: the chain was rewritten from some earlier point",
            )
        if findings:
            break
        state = ChainState(number=entry.number, hash=entry.hash)
        counted += 1
    if not findings:
        last = max(wanted, default=0)
        if last > state.number:
            broken("cut", state.number + 1, f"an anchor kept elsewhere reaches to number {last}, the log only to {state.number}")
        if head is not None and (head.number, head.hash) != (state.number, state.hash):
            broken("cut", state.number + 1, f"the head says {head.number}, the log ends at {state.number}")
    seen = f"{counted} entries, head #{state.number}" if not findings else f"broken after #{state.number}"
    return CheckResult(name="audit.chain", ok=not findings, seen=f"{tenant or '(no tenant)'}: {seen}", findings=tuple(findings))


def lost(tenant: str, why: str) -> CheckResult:
    """What is said of a chain that cannot be held against anything."""
    finding = Finding(
        code="audit.cut",
        severity=Severity.ERROR,
        object=tenant or "(no tenant)",
        what=_TAMPERED,
        why=why,
        fix=_INCIDENT,
    )
    return CheckResult(name="audit.chain", ok=False, seen=f"{tenant or '(no tenant)'}: chain broken", findings=(finding,))


def headless(tenant: str) -> CheckResult:
    """What is said of entries that no head ends: an end that nobody states cannot be held."""
    return lost(tenant, "entries without a head: it was removed")

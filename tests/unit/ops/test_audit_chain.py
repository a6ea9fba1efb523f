"""The chain's arithmetic: any change, removal, insertion or reordering shows."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from axis_security.ops.audit import Anchor, AuditEntry, ChainState, chain_start, next_hash, verify_chain


def chain(bodies: list[str], tenant: str = "t1") -> list[AuditEntry]:
    """A valid chain over *bodies*."""
    state, entries = chain_start(tenant), list[AuditEntry]()
    for body in bodies:
        state = ChainState(number=state.number + 1, hash=next_hash(state, body))
        entries.append(AuditEntry(tenant=tenant, number=state.number, body=body, hash=state.hash))
    return entries


def head(entries: list[AuditEntry]) -> Anchor:
    """The anchor of the last entry."""
    return Anchor(tenant=entries[-1].tenant, number=entries[-1].number, hash=entries[-1].hash)


BODIES = st.lists(st.text(max_size=20), min_size=2, max_size=12)


@given(BODIES)
def test_an_untouched_chain_verifies(bodies: list[str]) -> None:
    """What was appended verifies, from the start and from any checkpoint."""
    entries = chain(bodies)
    assert verify_chain("t1", entries, head=head(entries), anchors=[head(entries)]).ok
    first = entries[0]
    assert verify_chain("t1", entries[1:], start=ChainState(number=1, hash=first.hash), head=head(entries)).ok


@given(BODIES, st.integers(0, 11), st.sampled_from(["body", "hash", "drop", "swap", "repeat", "renumber"]))
def test_any_tampering_shows(bodies: list[str], at: int, how: str) -> None:
    """One changed body or hash, one removed, repeated, swapped or renumbered entry: not ok."""
    entries = chain(bodies)
    end = head(entries)
    at %= len(entries)
    match how:
        case "body":
            entries[at] = replace(entries[at], body=entries[at].body + "x")
        case "hash":
            entries[at] = replace(entries[at], hash=bytes(32))
        case "drop":
            del entries[at]
        case "swap":
            other = (at + 1) % len(entries)
            entries[at], entries[other] = entries[other], entries[at]
        case "repeat":
            entries.insert(at, entries[at])
        case _:
            entries[at] = replace(entries[at], number=entries[at].number + 7)
    assert not verify_chain("t1", entries, head=end).ok


@given(BODIES)
def test_a_rewritten_chain_is_caught_by_an_anchor_only(bodies: list[str]) -> None:
    """Whoever can rewrite everything, head included, is still caught by an anchor kept elsewhere; without one they are not."""
    anchor = head(chain(bodies))
    forged = chain(["forged", *bodies[1:]])
    honest = chain(bodies)[0].body == "forged"
    assert verify_chain("t1", forged, head=head(forged)).ok
    assert verify_chain("t1", forged, head=head(forged), anchors=[anchor]).ok is honest
    cut = chain(bodies)[:-1]
    assert {f.code for f in verify_chain("t1", cut, anchors=[anchor]).findings} == {"audit.cut"}


def test_one_tenants_chain_is_not_anothers() -> None:
    """The same bodies under another tenant's name do not verify."""
    assert not verify_chain("t2", chain(["a", "b"])).ok

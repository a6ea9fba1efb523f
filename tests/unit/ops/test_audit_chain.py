"""The chain's arithmetic: any change, removal, insertion or reordering shows."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.errors import ConfigError
from axis_security.ops.audit import Anchor, AuditChain, AuditEntry, ChainState, chain_start, next_hash, verify_chain
from axis_security.ops.audit_files import export_log, read_anchors, verify_export


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


def exported(bodies: list[str], tenant: str = "t1") -> list[str]:
    """The lines of an export of one chain."""
    entries, out = chain(bodies, tenant), io.StringIO()
    export_log([AuditChain(tenant=tenant, start=chain_start(tenant), head=head(entries), entries=iter(entries))], out)
    return out.getvalue().splitlines()


def changed(line: str, **fields: Any) -> str:
    """*line* with other values."""
    return json.dumps({**json.loads(line), **fields})


ODD: list[Any] = ["1", True, -1, 1.0, 2**63, 2**70, float("inf"), None, [], "\ud800", "zz" * 32, "00"]


def test_an_exported_chain_does_not_stand_in_for_another_tenants() -> None:
    """Under another name in the file's first line the same entries are not that tenant's log: the chain begins elsewhere."""
    header, *rest = exported(["a", "b"])
    assert not all(result.ok for result in verify_export([changed(header, tenant="t2"), *rest]))


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("name", ["number", "hash", "body", "tenant", "start", "head"])
def test_no_value_makes_the_verifier_raise_or_pass(name: str, value: Any) -> None:
    """A stranger's export is judged, whatever stands in it: another type, another spelling, a number of any size, half a character."""
    header, first, *rest = exported(["a", "b"])
    assert all(result.ok for result in verify_export([header, first, *rest])), "control"
    if name in {"tenant", "start", "head"}:
        lines = [[changed(header, **{name: value}), first, *rest]]
        lines += [
            [changed(header, **{name: {**json.loads(header)[name], part: value}}), first, *rest]
            for part in ("number", "hash")
            if name != "tenant"
        ]
    else:
        lines = [[header, changed(first, **{name: value}), *rest]]
    for each in lines:
        assert not all(result.ok for result in verify_export(each))


@given(st.lists(st.one_of(st.text(), st.sampled_from([*exported(["a"]), "[" * 100_000, "{}", "null"])), max_size=6))
def test_no_lines_make_the_verifier_raise(lines: list[str]) -> None:
    """Nor does any order of lines, whole ones among them; and nothing at all shows nothing: an export that was cut to its beginning is not a log without events."""
    results = list(verify_export(lines))
    assert results
    if not lines:
        assert not results[0].ok


@pytest.mark.parametrize(
    "line", ["{", "[]", "5", '{"tenant": "t", "number": 1e999, "hash": ""}', '{"tenant": "t", "number": 1, "hash": "00"}', "[" * 100_000]
)
def test_anchors_are_anchors(tmp_path: Path, line: str) -> None:
    """A file that holds something else is refused as a whole: an anchor that is passed over would hide a cut."""
    path = tmp_path / "anchors.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError):
        read_anchors(path)

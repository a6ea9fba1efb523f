"""The corpus: the audit names the one fault of each broken schema, and has nothing to say about its fixed twin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from axis_security.rls.audit import RULES
from axis_security.testing.cluster import Cluster

from .corpus import Case, audit, base_database, cases

CASES = cases()


@pytest.fixture(scope="module")
def base(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """The sound schema."""
    with base_database(cluster) as connection:
        yield connection


@pytest.fixture(autouse=True)
def undone(base: psycopg.Connection[Any]) -> Iterator[None]:
    """Whatever a case does, the next one starts from the sound schema."""
    yield
    base.rollback()


def shown(found: Any) -> str:
    """Findings, for a failure's message."""
    return "\n".join(f"{f.code} {f.object}: {dict(f.evidence)}\n    {f.fix}" for f in found)


def test_the_sound_schema_has_no_finding(base: psycopg.Connection[Any]) -> None:
    """What every case starts from is silent, with the scope told and with the scope inferred."""
    for inferred in (False, True):
        report = audit(base, inferred=inferred)
        assert not report.findings, shown(report.findings)
        assert report.scope.key == "tenant_id"
        assert report.scope.app == {"corpus_app"}
        assert report.scope.system == {"corpus_system"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_fault_is_named(base: psycopg.Connection[Any], case: Case) -> None:
    """The broken schema gives the expected codes, and no other."""
    base.execute(case.broken)
    base.execute("RESET ROLE")
    report = audit(base, version=case.version)
    assert report.codes == case.codes, shown(report.findings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_fixed_twin_is_silent(base: psycopg.Connection[Any], case: Case) -> None:
    """The same work done soundly gives no finding at all."""
    base.execute(case.fixed)
    base.execute("RESET ROLE")
    report = audit(base)
    assert not report.findings, shown(report.findings)


@pytest.mark.parametrize("case", [case for case in CASES if case.fix_runs], ids=lambda case: case.name)
def test_the_offered_fix_works(base: psycopg.Connection[Any], case: Case) -> None:
    """The SQL of the findings, run as it stands on the broken schema, leaves nothing to say."""
    base.execute(case.broken)
    base.execute("RESET ROLE")
    for finding in audit(base).findings:
        base.execute(finding.fix)
    report = audit(base)
    assert not report.findings, shown(report.findings)


def test_the_corpus_is_whole() -> None:
    """At least 60 cases, all 32 kinds of failure, every rule at least once, and no code that no rule has."""
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
    assert {mode for case in CASES for mode in case.modes} == set(range(1, 33))
    assert set().union(*(case.codes for case in CASES)) == set(RULES) - NEEDS_DECLARATION


NEEDS_DECLARATION = {"rls.undeclared_table", "rls.open_table_has_key"}
"""Rules that compare with a declared model; tests/integration/rls_audit/test_declared.py breaks those."""

"""Reads the corpus of broken schemas (tests/corpus/rls, see its README)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from axis_security.core.flow import drive
from axis_security.rls.audit.engine import judge
from axis_security.rls.audit.ground import Scope, infer_scope
from axis_security.rls.audit.read import read_facts
from axis_security.rls.audit.report import AuditReport
from axis_security.testing.cluster import Cluster

HERE = Path(__file__).parents[2] / "corpus" / "rls"
ROLES = ("corpus_app", "corpus_system", "corpus_owner", "corpus_guard")


@dataclass(frozen=True)
class Case:
    """One fault and its fixed twin."""

    name: str
    codes: frozenset[str]
    modes: tuple[int, ...]
    broken: str
    fixed: str
    fix_runs: bool
    version: int | None


def cases() -> list[Case]:
    """Every case of every file."""
    found = []
    for path in sorted(HERE.glob("[!_]*.sql")):
        for block in re.split(r"^--- case: ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            head, broken, fixed = re.split(r"^--- (?:broken|fixed)\n", block, flags=re.MULTILINE)
            name, *lines = head.strip().splitlines()
            said = dict(re.findall(r"^--- (\w+): *(.*)$", "\n".join(lines), flags=re.MULTILINE))
            found.append(
                Case(
                    name=name.strip(),
                    codes=frozenset(said["code"].replace(",", " ").split()),
                    modes=tuple(int(number) for number in said.get("modes", "").replace(",", " ").split()),
                    broken=broken.strip(),
                    fixed=fixed.strip(),
                    fix_runs=said.get("fix") == "runs",
                    version=int(said["version"]) if "version" in said else None,
                )
            )
    return found


@contextlib.contextmanager
def base_database(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database with the sound schema; what a case does is rolled back, so all cases share it."""
    with cluster.database("corpus") as database:
        with psycopg.connect(cluster.dsn(database)) as connection:
            connection.execute((HERE / "_base.sql").read_text(encoding="utf-8"))
            connection.commit()
            try:
                yield connection
            finally:
                connection.rollback()
                for role in ROLES:
                    connection.execute(f"DROP OWNED BY {role} CASCADE")
                    connection.execute(f"DROP ROLE {role}")
                connection.commit()


def audit(connection: psycopg.Connection[Any], *, version: int | None = None, inferred: bool = False) -> AuditReport:
    """Audit inside the open transaction."""

    def perform(statement: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement.sql, statement.params or None)
            return cursor.fetchall() if cursor.description else ()

    with connection.transaction():
        facts = drive(read_facts(), perform)
        facts.version = version or facts.version
        scope = (
            infer_scope(facts) if inferred else Scope(key="tenant_id", app=frozenset({"corpus_app"}), system=frozenset({"corpus_system"}))
        )
        report = judge(facts, scope)
    connection.execute("RESET search_path")
    return report

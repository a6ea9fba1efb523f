"""`axis-security rls audit` and `rls show` on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from axis_security import cli
from axis_security.testing.cluster import Cluster

from .corpus import base_database


@pytest.fixture(scope="module")
def base(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """The sound schema of the corpus."""
    with base_database(cluster) as connection:
        yield connection


def run(base: psycopg.Connection[Any], cluster: Cluster, *args: str) -> Result:
    """The command with the database's DSN at the end."""
    return CliRunner().invoke(cli._root(), ["rls", *args, cluster.dsn(base.info.dbname)])


def test_a_sound_schema_passes_and_a_broken_one_fails(base: psycopg.Connection[Any], cluster: Cluster, tmp_path: Path) -> None:
    """Exit status 0 and 1, the fault and its fix in the output, a file where one is asked for."""
    done = run(base, cluster, "audit")
    assert done.exit_code == 0, done.output
    assert "the tenant column is `tenant_id`" in done.output
    base.execute("ALTER TABLE shop.task NO FORCE ROW LEVEL SECURITY")
    base.commit()
    try:
        broken = run(base, cluster, "audit")
        assert broken.exit_code == 1
        assert 'ALTER TABLE "shop"."task" FORCE ROW LEVEL SECURITY;' in broken.output
        assert run(base, cluster, "audit", "--fail-on", "never").exit_code == 0
        accepted = run(base, cluster, "audit", "--accept", "rls.not_forced=the owner is trusted", "--format", "json")
        assert accepted.exit_code == 0
        assert json.loads(accepted.output)["accepted"][0]["reason"] == "the owner is trusted"
        target = tmp_path / "report.sarif"
        assert run(base, cluster, "audit", "--format", "sarif", "--output", str(target)).exit_code == 1
        assert json.loads(target.read_text())["runs"][0]["results"][0]["ruleId"] == "rls.not_forced"
    finally:
        base.execute("ALTER TABLE shop.task FORCE ROW LEVEL SECURITY")
        base.commit()


@pytest.mark.parametrize("form", ["table", "json", "sarif", "github", "junit"])
def test_every_format_is_offered(base: psycopg.Connection[Any], cluster: Cluster, form: str) -> None:
    """Each runs to its end."""
    assert (
        run(base, cluster, "audit", "--format", form, "--key", "tenant_id", "--app", "corpus_app", "--system", "corpus_system").exit_code
        == 0
    )


@pytest.mark.parametrize("form", ["text", "html", "svg", "json"])
def test_show_draws_a_table(base: psycopg.Connection[Any], cluster: Cluster, form: str) -> None:
    """The application's row is there, in every form."""
    done = run(base, cluster, "show", "shop.task", "--format", form)
    assert done.exit_code == 0, done.output
    assert "corpus_app" in done.output
    assert "own tenant" in done.output


def test_mistakes_are_told_plainly(base: psycopg.Connection[Any], cluster: Cluster) -> None:
    """A role, a table, a server or a tenancy that does not exist: one sentence and status 2, no traceback."""
    assert run(base, cluster, "audit", "--app", "nobody_of_that_name").exit_code == 2
    assert run(base, cluster, "show", "no_such_table").exit_code == 2
    assert run(base, cluster, "audit", "--tenancy", "no_such_module:tenancy").exit_code == 2
    assert run(base, cluster, "audit", "--accept", "rls.not_forced").exit_code == 2
    away = CliRunner().invoke(cli._root(), ["rls", "audit", "postgresql+psycopg://127.0.0.1:1/none"])
    assert away.exit_code == 2
    assert "no connection to the database" in away.output

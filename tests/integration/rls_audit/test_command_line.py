"""`axis-security rls audit` and `rls show` on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.conftest import service_missing

from axis_security import cli
from axis_security.testing.cluster import Cluster
from axis_security.testing.servers import ServiceMissing, debian_bin_dir

from .corpus import audit, base_database


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


def test_a_plain_login_is_enough(base: psycopg.Connection[Any], cluster: Cluster) -> None:
    """A role without any right audits, shows, and gets the same answer as the administrator."""
    base.execute("CREATE ROLE corpus_auditor LOGIN")
    base.execute("GRANT TRUNCATE ON shop.task TO corpus_app")
    base.commit()
    try:
        answers = []
        for user in ("corpus_auditor", "postgres"):
            done = CliRunner().invoke(cli._root(), ["rls", "audit", cluster.dsn(base.info.dbname, user=user), "--format", "json"])
            assert done.exit_code == 1, done.output
            answers.append(json.loads(done.output))
        assert answers[0] == answers[1]
        assert [finding["code"] for finding in answers[0]["findings"]] == ["rls.truncate_granted"]
    finally:
        base.execute("REVOKE TRUNCATE ON shop.task FROM corpus_app")
        base.execute("DROP ROLE corpus_auditor")
        base.commit()


def test_older_servers_are_read_too(tls_cluster: Cluster) -> None:
    """The same schema on PostgreSQL 17: nothing to say, and faults are named."""
    with base_database(tls_cluster) as connection:
        assert not audit(connection).findings
        connection.execute("GRANT corpus_system TO corpus_app; CREATE PUBLICATION feed FOR TABLE shop.task")
        assert audit(connection).codes == {"rls.app_role_becomes", "rls.publication"}


def test_postgresql_15_is_read_too() -> None:
    """Memberships without options of their own, publications with row filters."""
    try:
        server = Cluster(bin_dir=debian_bin_dir(15))
    except ServiceMissing as missing:
        service_missing(missing)
    with server, base_database(server) as connection:
        assert not audit(connection).findings
        connection.execute("GRANT corpus_system TO corpus_app; CREATE PUBLICATION feed FOR TABLE shop.task")
        assert audit(connection).codes == {"rls.app_role_becomes", "rls.publication"}

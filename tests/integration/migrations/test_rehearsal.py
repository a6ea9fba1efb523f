"""Rehearsals: what would fail in production, or do nothing there, shows before."""

from __future__ import annotations

import json
import sys
import types

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from axis_security.cli import rls as cli
from axis_security.core.errors import ConfigError
from axis_security.rls.rehearse import Rehearsal, rehearse

from .conftest import App

SEED = {"0001": "INSERT INTO contact (id, tenant_id, name) SELECT n, n % 3, 'c%' FROM generate_series(1, 9) n"}


def seed(connection: sa.Connection, revision: str) -> None:
    """Rows for the first revision."""
    if revision in SEED:
        connection.execute(sa.text(SEED[revision] + " ON CONFLICT DO NOTHING"))


def prepared(app: App) -> App:
    """env.py as a host writes it: on the connection that it is given, if it is given one. The first revision is written, and run nowhere."""
    env = app.home / "env.py"
    own = 'with settings["engine"].connect() as connection:'
    given = 'import contextlib\n    with (contextlib.nullcontext(settings["connection"]) if "connection" in settings else settings["engine"].connect()) as connection:'
    env.write_text(env.read_text().replace(own, given))
    app.revise("0001")
    app.superuser("DROP TABLE alembic_version")
    return app


def run(app: App, *, down: bool = False) -> Rehearsal:
    """The rehearsal; it leaves no database and no role behind."""
    before = app.superuser("SELECT (SELECT count(*) FROM pg_database), (SELECT count(*) FROM pg_roles)")
    done = rehearse(app.config(), app.tenancy, admin=app.cluster.url(), seed=seed, down=down)
    assert app.superuser("SELECT (SELECT count(*) FROM pg_database), (SELECT count(*) FROM pg_roles)") == before
    return done


def test_a_good_chain_passes_up_and_down_and_up(app: App) -> None:
    """As the owner, with rows: every revision runs, a declared update reaches all rows, nothing is left to plan."""
    prepared(app).revise("0002", body="with op.axis_system('names'):\n    op.execute(\"UPDATE contact SET name = 'd'\")")
    done = run(app, down=True)
    assert done.ok, done
    assert [(step.revision, dict(step.rows)) for step in done.steps] == [
        ("0001", {}),
        ("0002", {"contact": 9}),
        ("0001", {}),
        ("base", {}),
        ("0001", {}),
        ("0002", {"contact": 9}),
    ]


def test_rows_outside_a_scope_fail_the_rehearsal(app: App) -> None:
    """The refusal names the table."""
    prepared(app).revise("0002", body="op.execute(\"UPDATE contact SET name = 'd'\")")
    done = run(app)
    assert not done.ok
    assert "rls.rows_outside_scope" in str(done.steps[-1].failed)


def test_an_update_that_changes_nothing_is_named(app: App) -> None:
    """In a chain whose env.py does not watch, the owner's update changes none of nine rows: the rehearsal says so."""
    prepared(app).revise("0002", body="op.execute(\"UPDATE contact SET name = 'd'\")")
    env = app.home / "env.py"
    watched = "**migrations.options(connection)"
    assert watched in env.read_text()
    env.write_text(env.read_text().replace(watched, "connection=connection, axis_migrations=migrations"))
    done = run(app)
    assert not done.ok
    assert done.steps[-1].silent == ("contact",)


def test_a_missing_right_and_a_constraint_that_rows_break(app: App) -> None:
    """What only a superuser may do, and what only an empty table allows, fail with the server's first line and no row's value."""
    prepared(app).revise("0002", body="op.execute('CREATE ROLE helper')")
    assert run(app).steps[-1].failed == "permission denied to create role [42501]"
    next((app.home / "versions").glob("0002*")).unlink()
    app.revise("0002", body="op.execute('ALTER TABLE contact ADD UNIQUE (name)')")
    assert str(run(app).steps[-1].failed).endswith("[23505]")


def test_an_open_table_is_left(app: App) -> None:
    """A chain that ends without the isolation that is declared does not pass."""
    prepared(app).revise("0002", body="op.execute('ALTER TABLE contact NO FORCE ROW LEVEL SECURITY')")
    done = run(app)
    assert not done.ok
    assert [sql for sql in done.left if "FORCE" in sql]


def test_a_chain_that_runs_elsewhere_is_found_out(app: App) -> None:
    """An env.py that makes its own connection would rehearse on the real database: refused after the first revision."""
    prepared(app)
    env = app.home / "env.py"
    env.write_text(env.read_text().replace('"connection" in settings', "False"))
    with pytest.raises(ConfigError, match="scratch"):
        run(app)


def test_the_command_line(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """`axis-security rls rehearse` reads alembic.ini and a folder of rows, prints each revision, and fails with status 1."""
    prepared(app).revise("0002", body="op.execute(\"UPDATE contact SET name = 'd'\")")
    rows = app.home / "seed"
    rows.mkdir()
    (rows / "0001.sql").write_text(SEED["0001"])
    env = app.home / "env.py"
    env.write_text(env.read_text().replace('migrations = settings["migrations"]', "from host_for_rehearsal import migrations"))
    env.write_text(env.read_text().replace("**migrations.options(connection)", "connection=connection, axis_migrations=migrations"))
    ini = app.home / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {app.home}\n")
    module = types.ModuleType("host_for_rehearsal")
    module.tenancy, module.migrations = app.tenancy, app.migrations  # type: ignore[attr-defined]  # what a host's module would hold
    monkeypatch.setitem(sys.modules, "host_for_rehearsal", module)
    dsn = app.cluster.url().replace("+psycopg", "")
    arguments = ["rehearse", dsn, "--tenancy", "host_for_rehearsal:tenancy", "--alembic", str(ini), "--seed", str(rows)]
    done = CliRunner().invoke(cli.command, arguments)
    assert done.exit_code == 1, done.output
    assert "changed no row of contact" in done.output
    answer = json.loads(CliRunner().invoke(cli.command, [*arguments, "--json"]).stdout)
    assert [each["silent"] for each in answer["revisions"]] == [[], ["contact"]]

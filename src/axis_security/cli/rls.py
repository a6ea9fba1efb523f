"""``axis-security rls``: audit a live schema; show who sees what of a table; rehearse migrations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axis_security.cli.loading import HostObject

if TYPE_CHECKING:
    from axis_security.rls.tenancy import Tenancy

_HOSTS = HostObject(default="tenancy", kind="axis_security.rls.tenancy.Tenancy")
_TENANCY = click.option("--tenancy", type=_HOSTS, help="The host's Tenancy; without it, what can be inferred is.")
_KEY = click.option("--key", help="The tenant column, where it cannot be inferred.")
_APP = click.option("--app", multiple=True, help="A role that serves tenants; repeatable.")
_SYSTEM = click.option("--system", multiple=True, help="A role that is meant to see every tenant; repeatable.")


@click.group("rls")
def command() -> None:
    """Audit row-level security, and show what it does. DSN is a libpq string or a postgresql:// URL; empty reads PGHOST and its kind."""


@command.command("audit")
@click.argument("dsn", default="")
@_TENANCY
@_KEY
@_APP
@_SYSTEM
@click.option("--schema", "schemas", multiple=True, help="Look at this schema only; repeatable.")
@click.option("--format", "form", type=click.Choice(["table", "json", "sarif", "github", "junit"]), default="table", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there instead of to standard output.")
@click.option(
    "--accept", multiple=True, metavar="CODE=REASON", help="Set findings aside: `CODE=reason` or `CODE OBJECT=reason`; repeatable."
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="error",
    show_default=True,
    help="From which severity on the exit status is 1.",
)
def audit(
    dsn: str,
    *,
    tenancy: Tenancy | None,
    key: str | None,
    app: tuple[str, ...],
    system: tuple[str, ...],
    schemas: tuple[str, ...],
    form: str,
    output: Path | None,
    accept: tuple[str, ...],
    fail_on: str,
) -> None:
    """Say what is wrong with the row-level security of a database, and the SQL that fixes it. Nothing is written there."""
    from axis_security.rls.audit.engine import audit_schema
    from axis_security.rls.audit.formats import FORMATS

    accepted = dict(_pair(text) for text in accept)
    with _connect(dsn) as connection:
        if tenancy is not None:
            report = tenancy.audit(connection, accept=accepted)
        else:
            report = audit_schema(connection, key=key, app=app, system=system, schemas=schemas, accept=accepted)
    text = FORMATS[form](report)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
    bad = {"error": not report.ok, "warning": any(f.severity != "info" for f in report.findings), "never": False}[fail_on]
    sys.exit(1 if bad else 0)


@command.command("show")
@click.argument("table")
@click.argument("dsn", default="")
@_TENANCY
@_KEY
@_APP
@_SYSTEM
@click.option("--format", "form", type=click.Choice(["text", "html", "svg", "json"]), default="text", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there instead of to standard output.")
def show(
    table: str,
    dsn: str,
    *,
    tenancy: Tenancy | None,
    key: str | None,
    app: tuple[str, ...],
    system: tuple[str, ...],
    form: str,
    output: Path | None,
) -> None:
    """Draw who sees what of TABLE: a matrix of roles and commands, worked out from the live catalog."""
    from axis_security.rls.audit.engine import scope_of
    from axis_security.rls.audit.show import VIEWS, show_table

    scope = None if tenancy is None else scope_of(tenancy.model())
    with _connect(dsn) as connection:
        matrix = show_table(connection, table, key=key, app=app, system=system, scope=scope)
    text = json.dumps(matrix.as_dict(), indent=2) + "\n" if form == "json" else VIEWS[form](matrix)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


@command.command("rehearse")
@click.argument("dsn")
@click.option("--tenancy", type=_HOSTS, required=True, help="The host's Tenancy.")
@click.option(
    "--alembic",
    "ini",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="alembic.ini",
    show_default=True,
    help="Its chain.",
)
@click.option(
    "--seed", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder of <revision>.sql: rows put in after it."
)
@click.option("--down", is_flag=True, help="Go down to the base and up again as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def rehearse_command(dsn: str, *, tenancy: Tenancy, ini: Path, seed: Path | None, down: bool, as_json: bool) -> None:
    """Run an Alembic chain as the tables' owner, on a scratch database with rows in it. DSN may make databases and roles: a server of your own,
    never production. Exit status 1 if anything failed, changed no row, or left a table open."""
    from alembic.config import Config

    from axis_security.rls.rehearse import Rehearsed, rehearse

    def rows(connection: Any, revision: str) -> None:
        file = None if seed is None else seed / f"{revision}.sql"
        if file is not None and file.exists():
            connection.exec_driver_sql(file.read_text(encoding="utf-8").replace("%", "%%"))

    def told(step: Rehearsed) -> None:
        if as_json:
            return
        written = ", ".join(f"{name}: {count}" for name, count in step.rows.items())
        click.echo(
            f"{'ok  ' if step.ok else 'FAIL'} {step.revision:<14}{step.seconds:7.2f} s  {step.message}{f'  ({written} rows)' if written else ''}"
        )
        for name in step.silent:
            click.echo(f"     a statement changed no row of {name}, which has rows: with op.axis_system(reason)")
        if step.failed is not None:
            click.echo(f"     {step.failed}")

    done = rehearse(Config(str(ini)), tenancy, admin=_sqlalchemy(dsn), seed=rows, down=down, progress=told)
    if as_json:
        click.echo(json.dumps(done.as_dict(), indent=2))
    for sql in () if as_json else done.left:
        click.echo(f"left {sql}")
    sys.exit(0 if done.ok else 1)


@command.command("adopt")
@click.argument("dsn")
@click.argument("table")
@click.option("--tenancy", type=_HOSTS, required=True, help="The host's Tenancy, which declares TABLE protected.")
@click.option("--tenant", required=True, metavar="SQL", help="A row's tenant, over the columns of TABLE.")
@click.option(
    "--protect", is_flag=True, help="Then apply the plan of the tenancy. Every table must be adopted, and the application must bind."
)
def adopt_command(dsn: str, table: str, *, tenancy: Tenancy, tenant: str, protect: bool) -> None:
    """Give the rows of a live TABLE their tenant while others write: column, backfill, NOT NULL, index, keys. Stopped, it is run again. DSN is a
    login that may apply plans."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from sqlalchemy import create_engine

    from axis_security.rls.adopt import Adoption

    found = tenancy.metadata.tables.get(table)
    if found is None:
        raise click.BadParameter(f"the metadata has no table {table}", param_hint="TABLE")
    engine = create_engine(_sqlalchemy(dsn))
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage)
            bar.update(tasks[stage], completed=done, total=total)

        adoption = Adoption(tenancy=tenancy, table=found, tenant=tenant, progress=told)
        try:
            filled = adoption.run(engine)
            if protect:
                adoption.protect(engine)
        finally:
            engine.dispose()
    click.echo(f"{table}: {filled.done} row(s) were given their tenant" + ("; the plan is applied" if protect else ""))


def _sqlalchemy(dsn: str) -> str:
    """*dsn* for SQLAlchemy, over psycopg."""
    return dsn.replace("postgres://", "postgresql://", 1).replace("postgresql://", "postgresql+psycopg://", 1)


def _connect(dsn: str) -> Any:
    import psycopg

    from axis_security.core.errors import Unavailable

    # What SQLAlchemy calls its driver is nothing that libpq knows.
    scheme, separator, rest = dsn.partition("://")
    url = scheme.partition("+")[0] + separator + rest if separator else dsn
    try:
        return psycopg.connect(url)
    except psycopg.Error as error:
        raise Unavailable(
            what="no connection to the database", why=type(error).__name__, fix="check the DSN: host, port, dbname, user; try it with psql"
        ) from None


def _pair(text: str) -> tuple[str, str]:
    name, separator, reason = text.partition("=")
    if not separator or not reason.strip():
        raise click.BadParameter("write it as CODE=REASON", param_hint="--accept")
    return name.strip(), reason.strip()

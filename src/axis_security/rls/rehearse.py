"""A rehearsal of a migration chain: on a scratch database, as the tables' owner who is no superuser, with rows in the tables.

What works at home as a superuser on empty tables fails in production in three ways: a right is missing, a constraint does not hold for the rows
that exist, or an UPDATE changes no row because row security hides them all, which nobody is told. The chain is run one revision at a time;
after each, the rows that the host gives for it are put in, so that the next one meets them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from axis_security.core.errors import AxisError, ConfigError
from axis_security.rls.dml import UNCLEAR, written_tables
from axis_security.rls.model import quote

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import URL, Connection, Engine

    from axis_security.rls.tenancy import Tenancy

__all__ = ["Rehearsal", "Rehearsed", "rehearse"]

Seed = Callable[["Connection", str], None]
"""Puts in rows after a revision: takes an administrator's connection to the scratch database, and the revision's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """One revision. ``rows``: how many were written, by table. ``silent``: tables that have rows, of which a statement changed none."""

    revision: str
    message: str
    seconds: float
    rows: Mapping[str, int] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    failed: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it ran, and did what it says."""
        return self.failed is None and not self.silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """The chain. ``left``: what the tables' isolation still lacks after the last revision."""

    steps: tuple[Rehearsed, ...]
    left: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the chain can go to production."""
        return all(step.ok for step in self.steps) and not self.left

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "ok": self.ok,
            "left": list(self.left),
            "revisions": [
                {
                    "revision": step.revision,
                    "message": step.message,
                    "ok": step.ok,
                    "seconds": round(step.seconds, 3),
                    "rows": dict(step.rows),
                    "silent": list(step.silent),
                    "failed": step.failed,
                }
                for step in self.steps
            ],
        }


def rehearse(
    config: Config,
    tenancy: Tenancy,
    *,
    admin: URL | str,
    seed: Seed | None = None,
    down: bool = False,
    progress: Callable[[Rehearsed], None] | None = None,
) -> Rehearsal:
    """Run the chain of *config* from the beginning, as ``tenancy.roles.owner``, on a database that is made for it and dropped afterwards.

    ``env.py`` must use ``config.attributes["connection"]`` where it is set. Stops at the first revision that fails.

    Args:
        admin: a login that may make databases and roles on a server for such things; never the production one.
        seed: puts in rows after each revision.
        down: go down to the base and up again as well.
        progress: told of each revision.

    Raises:
        ConfigError: env.py goes elsewhere, or the owner is a superuser.
    """
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import DBAPIError

    url = make_url(admin)
    name = f"axis_rehearsal_{secrets.token_hex(6)}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    above = create_engine(url.set(database=name))
    below = create_engine(url.set(database=name))
    revisions = [(script.revision, script.doc or "") for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions()))]
    steps: list[Rehearsed] = []
    roles = tenancy.roles
    with server.connect() as connection:
        there = {row[0] for row in connection.exec_driver_sql("SELECT rolname FROM pg_catalog.pg_roles")}
        made = [role for role in (roles.app, roles.system, roles.guard, roles.owner) if role not in there]
        connection.exec_driver_sql(f"CREATE DATABASE {quote(name)}")
        try:
            tenancy.foundation(above).apply(above)
            if made:
                connection.exec_driver_sql(f"GRANT {roles.system} TO {roles.owner}")
            connection.exec_driver_sql(f"ALTER DATABASE {quote(name)} OWNER TO {roles.owner}")
            _become(below, roles.owner)
            way = [(revision, message, True) for revision, message in revisions]
            if down:
                lower = [*reversed([revision for revision, _ in revisions[:-1]]), "base"]
                way += [(to, f"down from {one}", False) for to, (one, _) in zip(lower, reversed(revisions), strict=True)] + way
            for revision, message, up in way:
                step = _run(config, above, below, revision, message, up=up)
                steps.append(step)
                if progress is not None:
                    progress(step)
                if step.failed is not None:
                    return Rehearsal(steps=tuple(steps))
                if seed is not None and up:
                    with above.begin() as rows:
                        seed(rows, revision)
            left = tuple(step.sql for step in tenancy.plan(above).steps if not step.params)
            return Rehearsal(steps=tuple(steps), left=left)
        finally:
            below.dispose()
            above.dispose()
            connection.exec_driver_sql(f"DROP DATABASE {quote(name)} WITH (FORCE)")
            for role in made:
                # Where env.py went elsewhere, the role is in use there.
                with suppress(DBAPIError):
                    connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")
            connection.close()
            server.dispose()


def _become(engine: Engine, owner: str) -> None:
    from sqlalchemy import event

    def become(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION AUTHORIZATION {owner}")
        connection.commit()

    event.listen(engine, "connect", become)
    with engine.connect() as connection:
        if connection.exec_driver_sql("SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user").scalar():
            raise ConfigError(
                what=f"`{owner}` sees every tenant's rows",
                why="it is a superuser or has BYPASSRLS",
                fix=f"ALTER ROLE {owner} NOSUPERUSER NOBYPASSRLS",
            )


def _run(config: Config, above: Engine, below: Engine, revision: str, message: str, *, up: bool) -> Rehearsed:
    from alembic import command
    from sqlalchemy.exc import DBAPIError

    started, failed = time.monotonic(), None
    with below.connect() as connection, _counted(connection) as counted:
        config.attributes["connection"] = connection
        try:
            (command.upgrade if up else command.downgrade)(config, revision)
            connection.commit()
        except AxisError as error:
            failed = f"{error.what}: {error.why} [{error.code}]"
        except DBAPIError as error:
            failed = _primary(error)
        finally:
            del config.attributes["connection"]
    seconds = time.monotonic() - started
    with above.connect() as connection:
        if failed is None and connection.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar() is None:
            raise ConfigError(
                what="the chain did not run on the scratch database",
                why="env.py makes a connection of its own",
                fix='use context.config.attributes.get("connection") where it is set',
            )
        silent = tuple(name for name, rows in counted.items() if rows == 0 and failed is None and _filled(connection, name))
    return Rehearsed(revision=revision, message=message, seconds=seconds, rows=dict(counted), silent=silent, failed=failed)


def _primary(error: Any) -> str:
    found = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    return f"{found or type(error.orig).__name__} [{getattr(error.orig, 'sqlstate', None) or '?'}]"


@contextmanager
def _counted(connection: Connection) -> Iterator[dict[str, int]]:
    """Rows written, by table; a statement that tells no number counts for nothing."""
    from sqlalchemy import event

    counted: dict[str, int] = {}

    def after(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        names: Sequence[str] = written_tables(statement)
        for name in names:
            if not name.endswith("alembic_version") and name != UNCLEAR and (len(names) > 1 or cursor.rowcount >= 0):
                counted[name] = counted.get(name, 0) + max(cursor.rowcount, 0)

    event.listen(connection, "after_cursor_execute", after)
    try:
        yield counted
    finally:
        event.remove(connection, "after_cursor_execute", after)


_FILLED: Final = "SELECT EXISTS (SELECT FROM {})"


def _filled(connection: Connection, name: str) -> bool:
    from sqlalchemy import text

    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is None:
        return False
    return bool(connection.exec_driver_sql(_FILLED.format(name)).scalar())

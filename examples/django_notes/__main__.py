"""Start PostgreSQL, migrate, apply the plan, move people in, and serve. ``manage.py`` of a project does the same in separate steps."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile

import django
import psycopg
from django.core.management import call_command
from examples.people import PASSWORD, PEOPLE, move_in

from axis_security.core.schema import DatabaseRoles
from axis_security.testing.cluster import Cluster


def main() -> None:
    """Until Ctrl-C; nothing stays."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    app = DatabaseRoles().app
    with Cluster() as cluster, tempfile.TemporaryDirectory() as home, cluster.database("notes") as database:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "examples.django_notes.settings",
            "NOTES_DSN": cluster.dsn(database, user=app),
            "NOTES_OWNER_DSN": cluster.dsn(database),
            "NOTES_HOME": home,
            "NOTES_ORIGINS": f"http://localhost:{port}",
            "NOTES_SECRET_KEY": secrets.token_urlsafe(50),
        }
        django.setup()
        call_command("migrate", database="owner", verbosity=0)
        call_command("axis_plan", database="owner", apply=True)
        with psycopg.connect(cluster.dsn(database), autocommit=True) as connection:
            connection.execute(f"ALTER ROLE {app} LOGIN")
        from examples.django_notes.security import axis

        move_in(axis)
        for name, tenant, role in PEOPLE:
            print(f"{name}@example.com, password {PASSWORD!r}: {role} of {tenant}", flush=True)
        call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)


if __name__ == "__main__":
    main()

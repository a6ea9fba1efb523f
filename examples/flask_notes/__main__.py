"""Start PostgreSQL, make the tables, apply the plan, move people in, and serve on http://localhost:5000."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from examples.flask_notes.app import create_app
from examples.flask_notes.security import Base, secure
from examples.people import PASSWORD, PEOPLE, move_in
from sqlalchemy import create_engine, text

from axis_security.core.schema import DatabaseRoles
from axis_security.core.settings import Environment
from axis_security.testing.cluster import Cluster
from axis_security.wiring.keys import AppKeys


def main() -> None:
    """Until Ctrl-C; nothing stays."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Cluster() as cluster, tempfile.TemporaryDirectory() as home, cluster.database("notes") as database:
        admin = create_engine(cluster.url(database))
        Base.metadata.create_all(admin)
        url = cluster.url(database, user=DatabaseRoles().app)
        axis = secure(url, AppKeys.generate(environment=Environment.DEVELOPMENT), home=Path(home), environment=Environment.DEVELOPMENT)
        axis.plan(admin).apply(admin)
        with admin.begin() as connection:
            connection.execute(text(f"ALTER ROLE {DatabaseRoles().app} LOGIN"))
        move_in(axis)
        for name, tenant, role in PEOPLE:
            print(f"{name}@example.com, password {PASSWORD!r}: {role} of {tenant}")
        create_app(axis).run(host="127.0.0.1", port=5000)


if __name__ == "__main__":
    main()

"""Start PostgreSQL, make the tables, apply the plan, move people in, and serve. Nothing stays after Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import uvicorn
from examples.crm.app import create_app
from examples.crm.models import Base
from examples.crm.promises import disclosure, monitor, promises
from examples.crm.security import caps, secure
from examples.crm.seed import PASSWORD, move_in
from sqlalchemy import create_engine, text

from axis_security.core.schema import DatabaseRoles
from axis_security.core.settings import Environment
from axis_security.testing.cluster import Cluster
from axis_security.wiring.endpoints import health, security_txt
from axis_security.wiring.keys import AppKeys


def main() -> None:
    """Until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.crm")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    origin = f"http://localhost:{options.port}"
    roles = DatabaseRoles()
    with Cluster() as cluster, tempfile.TemporaryDirectory() as home, cluster.database("crm") as database:
        admin = create_engine(cluster.url(database))
        Base.metadata.create_all(admin)
        app_dsn = cluster.dsn(database, user=roles.app)
        site = secure(
            cluster.url(database, user=roles.app),
            endpoints=(*health(monitor(app_dsn), capability=caps.audit.read), *security_txt(disclosure())),
            keys=AppKeys.generate(environment=Environment.DEVELOPMENT),
            home=Path(home),
            origin=origin,
            environment=Environment.DEVELOPMENT,
            system_url=cluster.url(database, user=roles.system),
        )
        site.axis.plan(admin).apply(admin)
        with admin.begin() as connection:
            connection.execute(text(f"ALTER ROLE {roles.app} LOGIN; ALTER ROLE {roles.system} LOGIN"))
        people = move_in(site)
        print(f"\n  Tidepool CRM: {origin}\n\n  Every password is {PASSWORD!r}; letters are at {origin}/outbox\n")
        for person in people:
            print(f"    {person.email:24} {person.role:8} of {person.workspace.title()}")
        print(f"\n  What it promises, measured live: {origin}/security\n", flush=True)
        app = create_app(
            site,
            lambda app: promises(
                site,
                app=app,
                tenant=people[0].tenant,
                app_dsn=app_dsn,
                admin=cluster.dsn(database),
                system=cluster.dsn(database, user=roles.system),
                home=Path(home),
            ),
        )
        uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", server_header=False)


if __name__ == "__main__":
    main()

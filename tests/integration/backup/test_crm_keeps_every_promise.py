"""The example application as it would be deployed: every promise measured on it and held, and each fault of its surroundings turning its own row red."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from examples.crm.app import create_app
from examples.crm.models import Base
from examples.crm.promises import Deployment, disclosure, monitor, promises
from examples.crm.security import Site as Shop
from examples.crm.security import caps, secure
from examples.crm.seed import move_in
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from tests.browser.serve import serving

from axis_security.auth import PasswordService
from axis_security.auth.passwords import Passwords
from axis_security.core.events import NullSink
from axis_security.core.minted import minted_text
from axis_security.core.schema import DatabaseRoles
from axis_security.core.secret import Secret
from axis_security.core.settings import Environment
from axis_security.crypto.kms.transit import TransitKms
from axis_security.crypto.vault_session import TokenLogin, VaultSession
from axis_security.ops.audit_files import write_anchors
from axis_security.ops.audit_postgres import anchors
from axis_security.ops.backup.records import append_record
from axis_security.ops.evidence.records import record_report
from axis_security.ops.promises import PROMISES, Promises
from axis_security.ops.secrets import SecretManager, VaultKv2
from axis_security.ops.tls import secure_dsn
from axis_security.ops.verify import Report, verify
from axis_security.rbac.capability import in_force
from axis_security.testing.servers import OpenBao, TlsCluster
from axis_security.wiring.endpoints import health, security_txt
from axis_security.wiring.keys import KINDS, AppKeys

Site = Any  # conftest.py


@dataclass(frozen=True)
class Deployed:
    """The CRM, served, with everything that stands around it."""

    shop: Shop
    site: Site
    vault: OpenBao
    database: str
    roles: DatabaseRoles
    measured: Callable[[], Promises]

    def change(self, *statements: str) -> None:
        """As the superuser."""
        with psycopg.connect(self.site.cluster.dsn(self.database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


def url_of(dsn: str) -> str:
    """A libpq string as SQLAlchemy takes it."""
    parts = conninfo_to_dict(dsn)
    named = {name: str(parts.pop(name)) for name in ("user", "password", "host", "dbname")}
    port = int(str(parts.pop("port")))
    url = URL.create(
        "postgresql+psycopg",
        username=named["user"],
        password=named["password"],
        host=named["host"],
        port=port,
        database=named["dbname"],
        query={name: str(value) for name, value in parts.items() if value is not None},
    )
    return url.render_as_string(hide_password=False)


def red(report: Report) -> list[str]:
    """The promises that do not hold."""
    return [row.promise.key for row in report.rows if not row.ok]


@pytest.fixture(scope="module")
def deployed(helper: tuple[str, ...], make_archive: Any) -> Iterator[Deployed]:
    """Real PostgreSQL over TLS with an archive, real OpenBao, a real port; the keys come from the secrets manager, as in production."""
    prefix = f"crm_{secrets.token_hex(4)}"
    roles = DatabaseRoles.prefixed(prefix)
    users = [f"/^{prefix}_(app|system)$"]
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="axis-crm-")))
        site = stack.enter_context(make_archive("native", helper, server=lambda settings: TlsCluster(settings=settings, users=users)))
        began = datetime.now(UTC) - timedelta(hours=1)
        site.config.write_text(site.config.read_text() + f"[policy]\nbegan = {began:%Y-%m-%dT%H:%M:%SZ}\n")
        vault = stack.enter_context(OpenBao())
        session = VaultSession(url=vault.url, login=TokenLogin(lambda: Secret(vault.root_token)))
        vault.api("POST", "sys/mounts/transit", {"type": "transit"})
        vault.api("POST", "transit/keys/crm", {"type": "aes256-gcm96"})
        names = [f"axis-{kind}" for kind in KINDS]
        for kind, text in AppKeys.mint().items():
            vault.api("POST", f"secret/data/axis-{kind}", {"data": {"value": text.reveal()}})
        provider = VaultKv2(session)
        keys = AppKeys.load(SecretManager(provider, sink=NullSink()))

        database = stack.enter_context(site.cluster.database("crm"))
        admin = create_engine(site.cluster.url(database))
        stack.callback(admin.dispose)
        Base.metadata.create_all(admin)
        password = secrets.token_urlsafe(16)

        def dsn(role: str) -> str:
            weak = f"host=localhost hostaddr=127.0.0.1 port={site.cluster.port} dbname={database} user={role} password={password} "
            return secure_dsn(weak + f"sslrootcert={site.cluster.root_certificate}")

        app_dsn, system_dsn = dsn(roles.app), dsn(roles.system)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        before, in_force(caps).policy = in_force(caps).policy, None  # the first over a registry is in force: the shop's
        shop = secure(
            url_of(app_dsn),
            keys=keys,
            home=home,
            origin=f"https://localhost:{port}",
            environment=Environment.PRODUCTION,
            system_url=url_of(system_dsn),
            roles=roles,
            service=TransitKms(session, key="crm"),
            index_key=minted_text("index", secrets.token_bytes(32)),
            passwords=PasswordService(Passwords(peppers=keys.peppers)),
            endpoints=(*health(monitor(app_dsn), capability=caps.audit.read), *security_txt(disclosure())),
        )
        stack.callback(shop.engine.dispose)
        stack.callback(shop.axis.close)
        if before is not None:
            stack.callback(before.activate)
        shop.axis.plan(admin).apply(admin)
        with psycopg.connect(site.cluster.dsn(database), autocommit=True) as connection:
            for role in (roles.app, roles.system):
                connection.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{password}'".encode())
        people = move_in(shop)
        app = create_app(shop, lambda _: Promises(product="not asked here", declined={}))
        stack.enter_context(serving(app, home, listener, ("localhost",)))

        with psycopg.connect(system_dsn, autocommit=True) as connection:
            write_anchors(home / "anchors.jsonl", anchors(connection), at=datetime.now(UTC).isoformat())
        site.backups.run()
        append_record(home / "drills.jsonl", site.backups.drill().evidence)
        deployment = Deployment(
            host="localhost",
            port=port,
            cafile=home / "authority.pem",
            connection=Secret(app_dsn),
            backups=site.backups,
            secrets=(provider, names),
            records=home,
        )

        def measured() -> Promises:
            return promises(
                shop, app=app, tenant=people[0].tenant, app_dsn=app_dsn, admin=site.cluster.dsn(database), system=system_dsn, home=home, deployment=deployment
            )  # fmt: skip

        # The first record of a chain cannot be there when it is asked for.
        first = measured()
        record_report(home / "evidence.jsonl", verify(replace(first, controls=first.controls[:1])))
        yield Deployed(shop=shop, site=site, vault=vault, database=database, roles=roles, measured=measured)


def test_every_promise_is_measured_and_held(deployed: Deployed) -> None:
    """All fourteen rows are green, none is declined, and what each saw is of this system."""
    promised = deployed.measured()
    assert promised.declined == {}
    report = verify(promised)
    assert red(report) == [], [check.as_dict() for row in report.rows for check in row.checks if not check.ok]
    assert [row.promise.key for row in report.rows] == [each.key for each in PROMISES]
    seen = {row.promise.key: row.seen for row in report.rows}
    for key, words in {
        "transport": "TLSv1.3",
        "at_rest": "transit/crm",
        "backups": "RPO",
        "secrets": deployed.vault.url,
        "health": "deploy.yml runs axis-security verify",
        "controls": "chains verify",
    }.items():
        assert words in seen[key], (key, seen[key])


Fault = Callable[[Deployed], Any]


@contextmanager
def changed(deployed: Deployed, do: str, undo: str) -> Iterator[None]:
    """A statement by hand, taken back."""
    deployed.change(do)
    try:
        yield
    finally:
        deployed.change(undo)


@contextmanager
def renamed(path: Path) -> Iterator[None]:
    """A file is away."""
    away = path.with_name(path.name + ".away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


@contextmanager
def secret_gone(deployed: Deployed) -> Iterator[None]:
    """One of the app's secrets was deleted."""
    deployed.vault.api("DELETE", "secret/data/axis-pepper")
    try:
        yield
    finally:
        deployed.vault.api("POST", "secret/undelete/axis-pepper", {"versions": [1]})


FAULTS: dict[str, tuple[str, Fault]] = {
    "FORCE was dropped": (
        "isolation",
        lambda at: changed(at, "ALTER TABLE contact NO FORCE ROW LEVEL SECURITY", "ALTER TABLE contact FORCE ROW LEVEL SECURITY"),
    ),
    "the app's role may truncate": (
        "isolation",
        lambda at: changed(at, f"GRANT TRUNCATE ON deal TO {at.roles.app}", f"REVOKE TRUNCATE ON deal FROM {at.roles.app}"),
    ),
    "a note was stored as it was typed": (
        "at_rest",
        lambda at: changed(
            at,
            "CREATE TABLE crm_kept AS SELECT id, notes FROM contact LIMIT 1; "
            "UPDATE contact SET notes = 'call back on Monday' WHERE id IN (SELECT id FROM crm_kept)",
            "UPDATE contact SET notes = k.notes FROM crm_kept k WHERE contact.id = k.id; DROP TABLE crm_kept",
        ),
    ),
    "two people share a salt": (
        "passwords",
        lambda at: changed(
            at,
            "CREATE TABLE crm_kept AS SELECT account, settings FROM axis.vault_account; "
            "UPDATE axis.vault_account SET settings = (SELECT min(settings) FROM crm_kept)",
            "UPDATE axis.vault_account v SET settings = k.settings FROM crm_kept k WHERE v.account = k.account; DROP TABLE crm_kept",
        ),
    ),
    "the newest backup lost its data": (
        "backups",
        lambda at: renamed(next(at.site.repository.rglob("base"))),
    ),
    "a secret was deleted": ("secrets", secret_gone),
    "an event was removed from the audit log": (
        "controls",
        lambda at: changed(
            at,
            "CREATE TABLE axis_kept AS SELECT * FROM axis.audit_event ORDER BY ctid LIMIT 1; "
            "DELETE FROM axis.audit_event WHERE ctid = (SELECT ctid FROM axis.audit_event ORDER BY ctid LIMIT 1)",
            "INSERT INTO axis.audit_event SELECT * FROM axis_kept; DROP TABLE axis_kept",
        ),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_turns_its_own_row_red(deployed: Deployed, name: str) -> None:
    """Planted in the real surroundings: that promise and no other is broken, and taken back, all hold again."""
    key, fault = FAULTS[name]
    with fault(deployed):
        assert red(verify(deployed.measured())) == [key]
    assert red(verify(deployed.measured())) == []

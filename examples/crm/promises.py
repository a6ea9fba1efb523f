"""How the CRM's security page measures what it promises, on the system that serves it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from examples.crm.security import Site

from axis_security import Axis
from axis_security.adapters.audit import audit
from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.core.settings import Environment
from axis_security.crypto.objects import Files
from axis_security.crypto.sealer import RingSealer
from axis_security.ops import promises as looks
from axis_security.ops.disclosure import SecurityTxt
from axis_security.ops.health import HealthCheck, HealthMonitor
from axis_security.ops.probes import database
from axis_security.ops.promises import Promises
from axis_security.wiring.sources import EngineSource

__all__ = ["disclosure", "monitor", "promises"]


def disclosure() -> SecurityTxt:
    """Where to report a vulnerability in the CRM."""
    return SecurityTxt(contact=("mailto:security@tidepool.example",), reviewed_on=datetime.now(UTC).date())


def monitor(dsn: str) -> HealthMonitor:
    """The checks behind ``/readyz``."""

    class Source:
        def connection(self) -> AbstractContextManager[Any]:
            return psycopg.connect(dsn, connect_timeout=2)

    return HealthMonitor([HealthCheck(name="database", run=database(Source()))], sink=NullSink())


def promises(site: Site, *, app: Any, tenant: TenantId, app_dsn: str, admin: str, system: str, home: Path) -> Promises:
    """One or more looks for each promise that this demonstration can keep; the others are declined, each with the reason.

    Args:
        app: the application, for its routes.
        tenant: a workspace with keys.
        app_dsn, admin, system: the database as each of the three logins.
        home: where the objects are.
    """
    axis: Axis[Any, Any] = site.axis

    def plain(dsn: str) -> Any:
        return lambda: psycopg.connect(dsn, autocommit=True)

    demonstration = site.environment is not Environment.PRODUCTION
    return Promises(
        product="Tidepool CRM",
        at_rest=[
            looks.key_ring(site.ring, tenant, development=True),
            looks.sealed_column(plain(system), "contact", "email"),
            looks.sealed_column(plain(system), "contact", "notes"),
            looks.objects(site.ring, Files(home / "objects"), tenant),
        ],
        isolation=[
            looks.app_login(plain(app_dsn), axis.tenancy),
            looks.strangers(EngineSource(site.engine).connection, axis.tenancy, system=plain(system)),
        ],
        passwords=[looks.argon2id(axis.passwords.passwords), looks.stored_passwords(plain(admin))],
        sessions=[] if demonstration else [looks.session_cookies(axis.auth.profile)],
        second_factor=[looks.totp(axis.auth.totp.policy, RingSealer(site.ring, "totp.seed"))],
        roles=[looks.policy_lock(axis.policy, Path(__file__).parent / "policy.lock.json")],
        requests=[looks.routes(lambda: audit(app))],
        members=[looks.managers(axis.policy), looks.members_held(lambda: psycopg.connect(app_dsn), axis.tenancy, axis.policy)],
        health=[looks.health(monitor(app_dsn))],
        disclosure=[looks.security_txt(disclosure())],
        controls=[looks.audit_log(plain(system))],
        declined=(
            {"sessions": "the demonstration's cookies travel over plain HTTP on this machine, so they cannot be Secure"}
            if demonstration
            else {}
        )
        | {
            "transport": "the demonstration speaks plain HTTP on this machine alone; in production TLS 1.3 is measured on the open port",
            "backups": "the demonstration's database is gone when it ends",
            "secrets": "the demonstration makes its keys at start; in production they come from a secrets manager",
        },
    )

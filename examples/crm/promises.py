"""How the CRM's security page measures what it promises, on the system that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from examples.crm.security import Site

from axis_security import Axis, Secret
from axis_security.adapters.audit import audit
from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.core.settings import Environment
from axis_security.crypto.objects import Files
from axis_security.crypto.sealer import RingSealer
from axis_security.ops import promises as looks
from axis_security.ops.backup import Backups
from axis_security.ops.disclosure import SecurityTxt
from axis_security.ops.health import HealthCheck, HealthMonitor
from axis_security.ops.probes import database
from axis_security.ops.promises import Look, Promises
from axis_security.ops.secrets import SecretProvider
from axis_security.wiring.sources import EngineSource

__all__ = ["Deployment", "disclosure", "monitor", "promises"]


def disclosure() -> SecurityTxt:
    """Where to report a vulnerability in the CRM."""
    return SecurityTxt(contact=("mailto:security@tidepool.example",), reviewed_on=datetime.now(UTC).date())


def monitor(dsn: str) -> HealthMonitor:
    """The checks behind ``/readyz``."""

    class Source:
        def connection(self) -> AbstractContextManager[Any]:
            return psycopg.connect(dsn, connect_timeout=2)

    return HealthMonitor([HealthCheck(name="database", run=database(Source()))], sink=NullSink())


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What a product has where it is deployed, and a demonstration has not.

    Args:
        host, port: where browsers find it.
        cafile: the authority of its certificate, where that is no public one.
        connection: exactly what the app connects to the database with.
        backups: of that database.
        secrets: the secrets manager, and the names that the app asks it for.
        records: a folder outside the database: ``drills.jsonl``, ``anchors.jsonl``, ``evidence.jsonl``.
    """

    host: str
    port: int
    cafile: Path | None
    connection: Secret[str]
    backups: Backups
    secrets: tuple[SecretProvider, Sequence[str]]
    records: Path


def promises(
    site: Site, *, app: Any, tenant: TenantId, app_dsn: str, admin: str, system: str, home: Path, deployment: Deployment | None = None
) -> Promises:
    """One or more looks for each promise; those that a demonstration cannot keep are declined there, each with the reason.

    Args:
        app: the application, for its routes.
        tenant: a workspace with keys.
        app_dsn, admin, system: the database as each of the three logins.
        home: where the objects are.
        deployment: what to measure besides; ``None`` for a demonstration.
    """
    axis: Axis[Any, Any] = site.axis

    def plain(dsn: str) -> Any:
        return lambda: psycopg.connect(dsn, autocommit=True)

    demonstration = site.environment is not Environment.PRODUCTION
    there = _deployed(deployment, axis, plain(admin)) if deployment is not None else {}
    return Promises(
        product="Tidepool CRM",
        at_rest=[
            looks.key_ring(site.ring, tenant, development=deployment is None),
            looks.sealed_column(plain(system), "contact", "email"),
            looks.sealed_column(plain(system), "contact", "notes"),
            looks.objects(site.ring, Files(home / "objects"), tenant),
        ],
        isolation=[
            looks.app_login(plain(app_dsn), axis.tenancy),
            looks.strangers(EngineSource(site.engine).connection, axis.tenancy, system=plain(system)),
            *there.get("isolation", ()),
        ],
        passwords=[looks.argon2id(axis.passwords.passwords), looks.stored_passwords(plain(admin))],
        sessions=[] if demonstration else [looks.session_cookies(axis.auth.profile)],
        second_factor=[looks.totp(axis.auth.totp.policy, RingSealer(site.ring, "totp.seed"))],
        roles=[looks.policy_lock(axis.policy, Path(__file__).parent / "policy.lock.json")],
        requests=[looks.routes(lambda: audit(app))],
        members=[looks.managers(axis.policy), looks.members_held(lambda: psycopg.connect(app_dsn), axis.tenancy, axis.policy)],
        transport=there.get("transport", ()),
        backups=there.get("backups", ()),
        secrets=there.get("secrets", ()),
        health=[looks.health(monitor(app_dsn)), looks.gate(Path(__file__).parent / "deploy.yml")],
        disclosure=[looks.security_txt(disclosure())],
        controls=[
            looks.audit_log(plain(system), anchors=None if deployment is None else deployment.records / "anchors.jsonl"),
            *there.get("controls", ()),
        ],
        declined={}
        if deployment is not None
        else (
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


def _deployed(deployment: Deployment, axis: Axis[Any, Any], admin: Any) -> dict[str, list[Look]]:
    provider, names = deployment.secrets
    return {
        "transport": [
            looks.endpoint(deployment.host, deployment.port, cafile=deployment.cafile),
            looks.database_connection(deployment.connection),
        ],
        "isolation": [looks.as_declared(admin, axis.tenancy)],
        "backups": [looks.backups(deployment.backups), looks.drills(deployment.records / "drills.jsonl")],
        "secrets": [looks.secrets_manager(provider, names), looks.source_scan(Path(__file__).parent)],
        "controls": [looks.evidence_chain(deployment.records / "evidence.jsonl")],
    }

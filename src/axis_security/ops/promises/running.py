"""Promises 10 to 14: what goes on beside the requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from axis_security.core.checks import CheckResult, Finding
from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import AxisError
from axis_security.core.settings import Environment
from axis_security.ops.promises.answer import Connect, Look, answer, finding

if TYPE_CHECKING:
    from axis_security.ops.backup import Backups
    from axis_security.ops.disclosure import SecurityTxt
    from axis_security.ops.health import HealthMonitor
    from axis_security.ops.secrets import SecretProvider

__all__ = [
    "audit_log",
    "backups",
    "drills",
    "evidence_chain",
    "gate",
    "health",
    "secrets_manager",
    "security_txt",
    "served_text",
    "source_scan",
]

_GATE: Final = re.compile(r"^(?!\s*#).*\baxis-security\s+verify\b", re.MULTILINE)
_SECURE: Final = re.compile(r"https://|http://(?:localhost|127\.0\.0\.1|\[::1\])[:/]")
_MAX_BYTES: Final = 64 * 1024


def backups(service: Backups, *, verify: bool = False) -> Look:
    """Age, WAL gap, loss, window, archiver and encryption of the backups, looked at now; with *verify*, every stored byte is read too."""
    return lambda: service.check(verify=verify)


def drills(records: Path, *, every: timedelta = timedelta(days=7), clock: Clock = SYSTEM_CLOCK) -> Look:
    """A restore was drilled within *every*, it held, and no record of a drill was changed or removed.

    Args:
        records: what ``axis-security backup drill --evidence`` writes.
    """

    def look() -> tuple[CheckResult, CheckResult]:
        from axis_security.ops.backup.records import verify_records
        from axis_security.ops.records import broken_at, read_records

        chain, held = verify_records(records), read_records(records)
        if broken := broken_at(held):
            held = held[: broken - 1]  # of the rest nothing is known
        if not held:
            why = f"`{records.name}` holds no record"
            fix = "axis-security backup drill --evidence …, from a timer"
            return chain, answer("backup.drill", "never", [finding("backup.no_drill", "drill", "no restore was ever drilled", why, fix)])
        newest = held[-1]
        age = clock.now() - datetime.fromisoformat(newest["at"])
        found: list[Finding] = []
        if not newest["ok"]:
            ill = ", ".join(check["name"] for check in newest["checks"] if not check["ok"])
            found.append(
                finding("backup.drill_failed", newest["backup"], "the newest drill did not hold", ill, "take a new backup, and drill again")
            )
        if age > every:
            why = f"the newest is {age.days} days old, every {every.days} days is promised"
            found.append(
                finding("backup.drill_stale", "drill", "restores are not drilled", why, "axis-security backup drill, from a timer")
            )
        seen = f"{len(held)} drills, newest {newest['at'][:16]}: RPO {newest['rpo_seconds']:.0f} s, RTO {newest['rto_seconds']:.0f} s"
        return chain, answer("backup.drill", seen, found)

    return look


def health(monitor: HealthMonitor) -> Look:
    """The application's own readiness, with every check behind it."""

    def look() -> CheckResult:
        status = monitor.ready().status
        seen = monitor.observed()
        found = [
            finding(
                f"health.{each.code}" if "." not in each.code else each.code,
                each.name,
                "a health check fails",
                each.seen or each.code,
                "look at it",
            )
            for each in seen
            if not each.ok
        ]
        if not any(each.required for each in seen):
            found.append(
                finding("health.empty", "monitor", "readiness depends on nothing", "no check is required", "HealthCheck(…, required=True)")
            )
        return answer("health.ready", f"{status}: {sum(each.ok for each in seen)} of {len(seen)} checks ok", found)

    return look


def gate(path: Path) -> Look:
    """The pipeline that deploys runs ``axis-security verify``: a line of *path* that is no comment says so."""

    def look() -> CheckResult:
        found = []
        if _GATE.search(path.read_text(encoding="utf-8")) is None:
            why = f"no line of `{path.name}` runs axis-security verify"
            found.append(
                finding("health.no_gate", path.name, "nothing stops a deployment that breaks a promise", why, "see docs/how-to/verify.md")
            )
        return answer("health.gate", f"{path.name} runs axis-security verify" if not found else "no gate", found)

    return look


def secrets_manager(provider: SecretProvider, names: Sequence[str], *, environment: Environment = Environment.PRODUCTION) -> Look:
    """Secrets come from a manager and every one of *names* can be had now. No value is shown or kept.

    Args:
        environment: in production, environment variables are a finding.
    """

    def look() -> CheckResult:
        from axis_security.ops.secrets import EnvironmentSecrets

        found = []
        if isinstance(provider, EnvironmentSecrets) and environment is Environment.PRODUCTION:
            why = "every child process inherits them, and crash reports show them (ASVS 13.3.1)"
            found.append(
                finding(
                    "secrets.environment",
                    provider.label,
                    "secrets come from environment variables",
                    why,
                    "VaultKv2, AwsSecretsManager or MountedFiles",
                )
            )
        for name in names:
            try:
                provider.fetch(name)
            except AxisError as error:
                found.append(finding(error.code, name, error.what, error.why, error.fix))
        return answer("secrets.manager", f"{provider.label}: {len(names)} secrets", found)

    return look


def source_scan(root: Path) -> Look:
    """No file that git tracks, or would, holds a secret."""

    def look() -> CheckResult:
        from axis_security.ops.secrets.scan import scan_files, tracked_files

        paths = tracked_files(root)
        found = tuple(scan_files(paths, root=root))
        return answer("secrets.source", f"{len(paths)} files, {len(found)} secrets", found)

    return look


def security_txt(text: SecurityTxt, *, clock: Clock = SYSTEM_CLOCK) -> Look:
    """security.txt follows RFC 9116, has not expired, and somebody reviewed it in time."""
    return lambda: text.check(clock.now())


def served_text(url: str, judge: Callable[[bytes], CheckResult], *, timeout_seconds: float = 10.0) -> Look:
    """What is served at *url* now, judged: ``served_text(url, lambda data: check_security_txt(data, now=…))``.

    Args:
        url: an ``https://`` address, or ``http://`` on this machine. A redirect is followed to such addresses only.
    """
    if _SECURE.match(url) is None:
        raise ValueError("served_text() takes an https:// address")

    def look() -> CheckResult:
        from urllib.error import URLError
        from urllib.request import HTTPRedirectHandler, build_opener

        class Secure(HTTPRedirectHandler):
            def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
                if _SECURE.match(newurl) is None:
                    raise URLError("a redirect leaves https")
                return super().redirect_request(req, fp, code, msg, headers, newurl)

        with build_opener(Secure).open(url, timeout=timeout_seconds) as response:
            return judge(response.read(_MAX_BYTES))

    return look


def audit_log(connect: Connect, *, anchors: Path | None = None) -> Look:
    """Every workspace's audit chain verifies, and meets the anchors kept elsewhere.

    Args:
        connect: psycopg connections as the system role, in no transaction.
        anchors: what ``axis-security audit anchors`` writes.
    """

    def look() -> CheckResult:
        from axis_security.ops.audit_files import read_anchors
        from axis_security.ops.audit_postgres import verify_log

        kept = read_anchors(anchors) if anchors is not None else []
        with connect() as connection:
            results = list(verify_log(connection, kept=kept))
        found = [each for result in results for each in result.findings]
        if not results:
            found.append(
                finding(
                    "audit.empty",
                    "audit log",
                    "the audit log is empty",
                    "no event was ever written",
                    "pass PostgresAuditSink to Auth and Policy",
                )
            )
        held = sum(result.ok for result in results)
        return answer("audit.log", f"{held} of {len(results)} chains verify, {len(kept)} anchors met", found)

    return look


def evidence_chain(path: Path, *, within: timedelta = timedelta(days=8), clock: Clock = SYSTEM_CLOCK) -> Look:
    """The evidence was recorded within *within*, and no record of it was changed or removed."""

    def look() -> Iterable[CheckResult]:
        from axis_security.ops.evidence.records import check_records

        return check_records(path, now=clock.now(), within=within)

    return look

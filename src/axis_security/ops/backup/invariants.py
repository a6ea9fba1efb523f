"""What must hold on a restored server, ready-made: the audit chains verify, the keys open, and what was shredded stays shredded.

A restore brings back every row of its moment, the wrapped keys of a tenant that was shredded since among them. The ledger lies outside the backup; a server that
is put into service replays it first, and the drill shows that this works.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import AxisError
from axis_security.core.events import NullSink
from axis_security.core.ids import TenantId
from axis_security.ops.backup.drill import Invariant
from axis_security.ops.backup.scratch import RestoredSite

if TYPE_CHECKING:
    from axis_security.crypto.keyring import KeyRing
    from axis_security.crypto.keys import KeyService, ShredLedger
    from axis_security.ops.audit import Anchor

__all__ = ["audit_chains_hold", "keys_open", "shredded_stay_shredded"]


def audit_chains_hold(dbname: str, *, kept: Sequence[Anchor] = ()) -> Invariant:
    """Every tenant's audit chain in *dbname* verifies on the restored server, and there is one.

    Args:
        kept: anchors from before the target; a later one names entries that cannot be there.
    """

    def look(site: RestoredSite) -> CheckResult:
        import psycopg

        from axis_security.ops.audit_postgres import verify_log

        with psycopg.connect(site.dsn(dbname), autocommit=True) as connection:
            results = list(verify_log(connection, kept=kept))
        findings = [finding for result in results for finding in result.findings]
        ok = bool(results) and all(result.ok for result in results)
        return CheckResult(name="audit", ok=ok, seen=f"{len(results)} chains", findings=findings)

    return look


class _Restored:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def connection(self) -> AbstractContextManager[Any]:
        import psycopg

        return psycopg.connect(self._dsn)


def _ring(site: RestoredSite, dbname: str, service: KeyService, ledger: ShredLedger) -> KeyRing:
    from axis_security.crypto.keyring import KeyRing
    from axis_security.crypto.keystore import PostgresKeyStore

    return KeyRing(store=PostgresKeyStore(_Restored(site.dsn(dbname))), service=service, ledger=ledger, sink=NullSink())


def keys_open(dbname: str, *, service: KeyService, ledger: ShredLedger, at_most: int = 200) -> Invariant:
    """The key service opens the restored keys: a backup whose keys nobody can unwrap is noise.

    Args:
        service: the one that the product uses.
        ledger: the shred ledger, as it is now.
        at_most: how many tenants are tried, so that a drill does not become a load on the key service.
    """

    def look(site: RestoredSite) -> CheckResult:
        from axis_security.crypto.keys import KeyState

        ring, gone = _ring(site, dbname, service, ledger), ledger.shredded()
        tenants, opened, findings = ring.tenants(), 0, []
        for tenant in tenants[:at_most]:
            for record in ring.status(TenantId(tenant)):
                if record.state is KeyState.SHREDDED or record.key_id in gone.get(tenant, frozenset()):
                    continue
                try:
                    ring.subkey(TenantId(tenant), "axis.drill", key_id=record.key_id)
                    opened += 1
                except AxisError as error:
                    findings.append(_finding(error.code, f"key {record.key_id} of {tenant}", "a restored key does not open", error.why))
        if not opened and not findings:
            findings.append(_finding("backup.no_keys", dbname, "no restored key was opened", "the key table is empty at that moment"))
        return CheckResult(name="keys", ok=not findings, seen=f"{opened} keys of {len(tenants)} tenants opened", findings=findings[:20])

    return look


def shredded_stay_shredded(dbname: str, *, service: KeyService, ledger: ShredLedger) -> Invariant:
    """Keys that were shredded since the target come back with the restore; replaying the ledger destroys them again, and nothing opens with them."""

    def look(site: RestoredSite) -> CheckResult:
        from axis_security.crypto.keys import KeyState

        ring = _ring(site, dbname, service, ledger)
        back = ring.replay_ledger()
        findings = []
        for tenant, ids in ledger.shredded().items():
            who = TenantId(tenant)
            for record in ring.status(who):
                if record.key_id not in ids:
                    continue
                if record.state is not KeyState.SHREDDED or record.wrapped:
                    findings.append(
                        _finding(
                            "backup.key_came_back",
                            f"key {record.key_id} of {tenant}",
                            "a shredded key is back",
                            "it is still wrapped there",
                        )
                    )
                try:
                    ring.subkey(who, "axis.drill", key_id=record.key_id)
                except AxisError:
                    continue
                findings.append(
                    _finding("backup.key_opens", f"key {record.key_id} of {tenant}", "a shredded key opens", "the ring gave it out")
                )
        count = sum(map(len, ledger.shredded().values()))
        return CheckResult(
            name="shredded",
            ok=not findings,
            seen=f"{count} keys on the ledger, {back} had come back and were destroyed again",
            findings=findings[:20],
        )

    return look


def _finding(code: str, about: str, what: str, why: str) -> Finding:
    fix = "do not put a restored server into service before ring.replay_ledger(); check the key service and the ledger"
    return Finding(code=code, severity=Severity.ERROR, object=about, what=what, why=why, fix=fix)

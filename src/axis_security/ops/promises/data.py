"""Promise 2: what is stored is sealed with AES-256, shown on stored bytes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from axis_security.core.checks import CheckResult, Finding
from axis_security.core.errors import AxisError
from axis_security.core.ids import TenantId
from axis_security.crypto.errors import KmsUnavailable
from axis_security.crypto.keys import KeyState
from axis_security.ops.promises.answer import Connect, Look, answer, finding, rows

if TYPE_CHECKING:
    from axis_security.crypto.keyring import KeyRing
    from axis_security.crypto.objects import ObjectBackend

__all__ = ["key_ring", "objects", "sealed_column"]

_FIELD_MAGIC: Final = b"\xa1\x01"
"""AXF1, suite 1: AES-256-GCM. The key record, not this byte, fixes the suite that opens it."""
_OBJECT_MAGIC: Final = b"\xa2\x01"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}(?:\.[a-z_][a-z0-9_]{0,62})?", re.ASCII)


def key_ring(ring: KeyRing, tenant: TenantId, *, development: bool = False) -> Look:
    """The ring seals a fresh value of *tenant*'s with AES-256, opens it again, and refuses it changed or under another field; no key is over its age.

    Args:
        tenant: a workspace that exists, or one kept for this purpose (``ring.create`` it once).
        development: a key service that is a file is accepted. In production it is a finding: whoever copies the disk has the keys.
    """

    def look() -> CheckResult:
        token = secrets.token_bytes(24)
        sealed = ring.seal(token, tenant=tenant, field="axis.verify", row=b"1")
        found: list[Finding] = []
        if sealed[:2] != _FIELD_MAGIC or token in sealed:
            found.append(_wrong("at_rest.not_sealed", "a value came out of the ring unsealed", "its header is not that of AES-256-GCM"))
        if ring.open(sealed, tenant=tenant, field="axis.verify", row=b"1") != token:
            found.append(_wrong("at_rest.not_opened", "a sealed value does not come back", "what was opened is not what was sealed"))
        if not _refused(lambda: ring.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), tenant=tenant, field="axis.verify", row=b"1")):
            found.append(_wrong("at_rest.not_authenticated", "a changed value opened", "one bit of it was flipped"))
        if not _refused(lambda: ring.open(sealed, tenant=tenant, field="axis.other", row=b"1")):
            found.append(_wrong("at_rest.not_bound", "a value opened under another field's name", "it is not bound to its place"))
        active = [record for record in ring.status(tenant) if record.state is KeyState.ACTIVE]
        kek = active[-1].kek if active else "none"
        if kek.startswith("file:") and not development:
            why, fix = f"the key-encryption key is `{kek}`", "use TransitKms or AwsKms, then ring.rewrap"
            found.append(finding("at_rest.kek_in_file", kek, "tenant keys are wrapped by a file on disk", why, fix))
        try:
            ring.probe()
        except KmsUnavailable as error:  # its subclass for a refusal too: keys in memory would hide it until their ttl is over
            fix = "enable the key, or give this service its right back, before the ttl of the keys in memory is over"
            found.append(finding("at_rest.kek_refuses", kek, "the key service does not wrap and unwrap", error.why, fix))
        if ring.due(tenant):
            why = "its age or its uses are over the rotation policy"
            found.append(finding("at_rest.rotation_due", str(tenant), "the tenant's key has served too long", why, "ring.rotate(tenant)"))
        return answer("at_rest.ring", f"AES-256-GCM, {len(active)} active key under {kek}", found)

    return look


def _wrong(code: str, what: str, why: str) -> Finding:
    return finding(code, "key ring", what, why, "stop writing, and find out what was put in the ring's place")


def _refused(work: Callable[[], Any]) -> bool:
    try:
        work()
    except AxisError:
        return True
    return False


def sealed_column(connect: Connect, table: str, column: str) -> Look:
    """Every stored value of *column* is sealed: header and length are right, and no plaintext stands among them.

    Args:
        connect: a login that sees the rows of all tenants: the system role's.
        table: ``name`` or ``schema.name``.
    """
    if _NAME.fullmatch(table) is None or _NAME.fullmatch(column) is None or "." in column:
        raise ValueError("table and column are plain lower-case names")

    def look() -> CheckResult:
        with connect() as connection:
            ((count, plain),) = rows(
                connection,
                f"SELECT count({column}), count(*) FILTER (WHERE {column} IS NOT NULL AND"  # plain names, checked above
                f" (pg_catalog.substr({column}, 1, 2) <> '\\xa101'::bytea OR pg_catalog.octet_length({column}) < 50)) FROM {table}",
            )
        wrong = finding(
            "at_rest.plaintext",
            f"{table}.{column}",
            "stored values are not sealed",
            f"{plain} of {count} do not begin as sealed values do",
            "find out what writes around the sealed type, seal those rows, and count the old values as disclosed to whoever has a backup",
            count=plain,
        )
        return answer("at_rest.column", f"{table}.{column}: {count} values, {count - plain} sealed", [wrong] if plain else [])

    return look


def objects(ring: KeyRing, backend: ObjectBackend, tenant: TenantId, *, bucket: str = "axis-verify") -> Look:
    """An object written through the ring lies sealed in the storage, comes back whole, and is removed again.

    Args:
        backend: the storage itself, so that the stored bytes can be looked at.
    """

    def look() -> CheckResult:
        from axis_security.crypto.objects import SealedObjects

        seen = _Watching(backend)
        store = SealedObjects(ring, seen, bucket=bucket)
        key, token = f"canary-{secrets.token_hex(8)}", secrets.token_bytes(4096)
        found: list[Finding] = []
        with store.open_write(key, tenant=tenant) as writer:
            writer.write(token)
        try:
            with backend.open(seen.path) as stored:
                raw = stored.read()
            if raw[:2] != _OBJECT_MAGIC or token[:64] in raw:
                why = "the stored bytes are not a sealed stream"
                found.append(
                    finding("at_rest.object_plaintext", bucket, "an object is stored in the clear", why, "look at what wraps the storage")
                )
            with store.open_read(key, tenant=tenant) as reader:
                if reader.read() != token:
                    found.append(
                        finding(
                            "at_rest.object_lost", bucket, "an object does not come back", "what was read differs", "look at the storage"
                        )
                    )
        finally:
            store.delete(key, tenant=tenant)
        return answer("at_rest.objects", f"{len(raw)} stored bytes for {len(token)}, AES-256 in chunks", found)

    return look


class _Watching:
    """Passes everything on, and remembers the path."""

    def __init__(self, backend: ObjectBackend) -> None:
        self._backend = backend
        self.path = ""

    def create(self, path: str) -> Any:
        self.path = path
        return self._backend.create(path)

    def open(self, path: str) -> BinaryIO:
        return self._backend.open(path)

    def delete(self, path: str) -> bool:
        return self._backend.delete(path)

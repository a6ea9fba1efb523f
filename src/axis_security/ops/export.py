"""A workspace's data, as one zip: every protected table as JSON Lines and CSV, its columns, and a manifest with checksums.

Read through the acting principal's own connection, so row-level security decides what is in it, in one repeatable-read transaction, so
that the tables fit together. It streams: memory does not grow with the rows. Needs ``users.manage``, and the audit event is written
before the first byte leaves.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Final, LiteralString, Protocol, cast

import psycopg
from psycopg import sql

from axis_security.core.context import current_principal
from axis_security.core.errors import AxisError, ConfigError, Denied
from axis_security.core.events import AuditEvent, EventKind, Outcome
from axis_security.core.principal import Principal
from axis_security.crypto.keyring import KeyRing
from axis_security.crypto.stream import HEADER_BYTES, ObjectName, ObjectSeal, SealedWriter, object_key_id, open_all
from axis_security.ops.copy_out import CopyOut
from axis_security.rbac.decision import PermissionDenied
from axis_security.rbac.guard import decide
from axis_security.rbac.policy import MANAGE_USERS, Policy
from axis_security.rls.predicate import own_rows
from axis_security.rls.tenancy import Tenancy

__all__ = [
    "ConnectionSource",
    "ExportFailed",
    "ExportIncomplete",
    "ExportTable",
    "Exported",
    "export_tables",
    "export_workspace",
    "open_export",
]

_BUCKET: Final = "axis.exports"
_ROWS_PER_REPORT: Final = 16_384
_FORMATS: Final[Mapping[str, LiteralString]] = {
    # JSON text holds no control characters, so this quoting never quotes: each line is one JSON object, byte for byte.
    "jsonl": "COPY (SELECT pg_catalog.row_to_json(r) FROM {} AS r{}) TO STDOUT (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02', ENCODING 'UTF8')",
    "csv": "COPY (SELECT * FROM {} AS r{}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')",
}


class ExportFailed(AxisError):
    """The export broke off; what was written so far has no manifest and must be thrown away."""

    code = "ops.export_failed"


class ExportIncomplete(Denied):
    """The acting role may not read all rows of a table, so an export would silently lack some. Nothing was written."""

    code = "ops.export_incomplete"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTable:
    """A protected table; :func:`export_tables` makes them.

    Args:
        schema, name: which.
        read: the capability that reading it takes; ``None``: none.
        own: SQL over the alias ``r``, for a table where more may be read than is the workspace's own. Never from a request.
        left_out: why it is not in the export; the manifest says so.
    """

    schema: str
    name: str
    read: str | None = None
    own: str | None = None
    left_out: str | None = None


def export_tables(tenancy: Tenancy) -> list[ExportTable]:
    """Every protected table of *tenancy*: of each the workspace's own rows, not what is shared with it or stands below it.

    A table of which everybody sees their own rows alone is left out, for nobody could export it whole.
    """
    model = tenancy.model()
    found = []
    for name, declared in model.protected().items():
        shape = declared.shape
        own = own_rows(model, name, "r") if shape.via is not None or shape.reads_further else None
        left_out = None if shape.owner is None else "its rows belong to single users, and can be read by them alone"
        found.append(ExportTable(schema=name[0], name=name[1], read=shape.access.select, own=own, left_out=left_out))
    return found


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: rows by table, and the manifest."""

    rows: Mapping[str, int]
    manifest: Mapping[str, Any]


class ConnectionSource(Protocol):
    """Gives connections that bind the acting principal at BEGIN."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection, in no transaction yet."""
        ...


def export_workspace(
    out: IO[bytes],
    *,
    source: ConnectionSource,
    tables: Sequence[ExportTable],
    policy: Policy,
    export: str,
    formats: Sequence[str] = ("jsonl", "csv"),
    ring: KeyRing | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Exported:
    """Write the acting principal's workspace to *out* (any writable binary file; it need not seek).

    Args:
        tables: every protected table, as :func:`export_tables` lists them.
        export: an id of this export, for the audit event and the manifest.
        formats: ``jsonl``, ``csv`` or both. Entries are stored, not compressed, so that the disk or the network sets the pace.
        ring: seals the zip under the tenant's key (AXO1, bound to tenant and *export*); :func:`open_export` opens it. Without one it is plain: then
            *out* should be the person's own connection, or a sealed object (:meth:`SealedObjects.open_write
            <axis_security.crypto.objects.SealedObjects.open_write>`).
        progress: told a table's name and its rows so far, now and then.

    Raises:
        PrincipalRequired: nobody is acting.
        PermissionDenied: the principal does not hold ``users.manage``.
        ExportIncomplete: it may not read some table in full.
        ConfigError: a format is no known one.
        ExportFailed: the database broke off.
        KeyMissing, KeyShredded, KmsUnavailable, LedgerUnavailable: there is no key to seal with; nothing was written.
    """
    principal = _may_export(policy)
    unknown = sorted(set(formats) - _FORMATS.keys())
    if unknown or not formats:
        raise ConfigError(what="the export has no format", why=f"`{', '.join(unknown)}` is none", fix=f"choose from {', '.join(_FORMATS)}")
    seal = None if ring is None else ring.object(_name(principal, export))
    try:
        with source.connection() as conn:
            level_before, conn.isolation_level = conn.isolation_level, psycopg.IsolationLevel.REPEATABLE_READ
            try:
                with conn.transaction(), conn.cursor() as cursor:
                    _check_complete(cursor, tables)
                    policy.events.emit(
                        AuditEvent.by(
                            principal,
                            EventKind.DATA_EXPORTED,
                            at=policy.clock.now(),
                            outcome=Outcome.ALLOWED,
                            tables=len(tables),
                            export=export,
                        )
                    )
                    head = {"export": export, "tenant": principal.tenant.text}
                    with _sealed(out, seal) as sink, zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
                        return _write(archive, cursor, tables, tuple(dict.fromkeys(formats)), head, progress)
            finally:
                conn.isolation_level = level_before
    except psycopg.Error as error:
        raise ExportFailed(
            what="the export broke off",
            why=f"PostgreSQL answered {error.sqlstate}",
            fix="throw the file away and export again",
            facts={"sqlstate": error.sqlstate, "export": export},
        ) from None


def open_export(source: BinaryIO, sink: IO[bytes], *, ring: KeyRing, policy: Policy, export: str) -> int:
    """Open the sealed export *export* of the acting principal's workspace into *sink*; returns the bytes of the zip.

    *source* is read from its first byte. *sink* holds a beginning until this returns: publish what it got only then.

    Raises:
        PrincipalRequired, PermissionDenied: as :func:`export_workspace`.
        SealError: it is not whole, not this workspace's, another export, was changed, or its key is gone.
    """
    name = _name(_may_export(policy), export)
    source.seek(0)
    header = source.read(HEADER_BYTES)
    seal = ring.object(name, key_id=object_key_id(header, name=name.label))
    source.seek(0)
    return open_all(source, sink, seal)


def _may_export(policy: Policy) -> Principal:
    principal = current_principal()
    decision = decide(principal, policy.caps[MANAGE_USERS])
    if not decision.allowed:
        raise PermissionDenied(decision)
    return principal


def _name(principal: Principal, export: str) -> ObjectName:
    return ObjectName(tenant=principal.tenant.text, bucket=_BUCKET, key=export)


@contextmanager
def _sealed(out: IO[bytes], seal: ObjectSeal | None) -> Iterator[IO[bytes]]:
    if seal is None:
        yield out
        return
    with SealedWriter(out, seal) as writer:  # finalized on a clean end only: what broke off never opens as whole
        yield cast("IO[bytes]", writer)


def _check_complete(cursor: psycopg.Cursor[Any], tables: Sequence[ExportTable]) -> None:
    for capability in sorted({table.read for table in tables if table.read is not None and table.left_out is None}):
        # Asked of the database, whose answer counts: a conditional grant is no.
        if cursor.execute("SELECT axis.may(%s)", (capability,)).fetchone() != (True,):
            raise ExportIncomplete(
                what="the export would lack rows",
                why=f"the acting role does not hold `{capability}` for every row",
                fix="export as an owner, or grant the capability without condition",
            )


def _write(
    archive: zipfile.ZipFile,
    cursor: psycopg.Cursor[Any],
    tables: Sequence[ExportTable],
    formats: Sequence[str],
    head: Mapping[str, Any],
    progress: Callable[[str, int], None] | None,
) -> Exported:
    files: list[dict[str, Any]] = []
    rows: dict[str, int] = {}
    columns: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for table in tables:
        title = f"{table.schema}.{table.name}"
        if table.left_out is not None:
            left_out[title] = table.left_out
            continue
        own = sql.SQL("" if table.own is None else f" WHERE {table.own}")
        columns[title] = _columns(cursor, table)
        for form in formats:
            name = f"{title}.{form}"
            digest, size, told = hashlib.sha256(), 0, 0
            copy = CopyOut(cursor, sql.SQL(_FORMATS[form]).format(sql.Identifier(table.schema, table.name), own))
            with archive.open(name, "w", force_zip64=True) as entry:
                for block in copy:
                    digest.update(block)
                    entry.write(block)
                    size += len(block)
                    if progress is not None and copy.seen - told >= _ROWS_PER_REPORT:
                        told = copy.seen
                        progress(title, told)
            counted = copy.rows or 0
            if rows.setdefault(title, counted) != counted:
                raise ExportFailed(what="the export broke off", why=f"`{title}` was read twice with different results", fix="export again")
            files.append({"file": name, "rows": counted, "bytes": size, "sha256": digest.hexdigest()})
        if progress is not None:
            progress(title, rows.get(title, 0))
    manifest = {"format": "axis-export/1", **head, "columns": columns, "files": files, "left_out": left_out}
    archive.writestr("manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    return Exported(rows, manifest)


def _columns(cursor: psycopg.Cursor[Any], table: ExportTable) -> list[dict[str, Any]]:
    found = cursor.execute(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_catalog.pg_attribute a "
        "JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        (table.schema, table.name),
    ).fetchall()
    return [{"name": name, "type": kind, "required": required} for name, kind, required in cast("list[tuple[str, str, bool]]", found)]

"""The live database, as plain values, read in a dozen queries however many tables there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from axis_security.core.flow import Flow, Rows, Statement
from axis_security.core.schema import DatabaseRoles
from axis_security.rls.model import Name

__all__ = ["LiveForeignKey", "LiveIndex", "LivePolicy", "LiveRole", "LiveTable", "Snapshot", "ask", "read_snapshot"]


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """A policy, its expressions as the server writes them."""

    command: str
    permissive: bool
    roles: tuple[str, ...]
    using: str | None
    check: str | None


@dataclass(frozen=True, slots=True)
class LiveForeignKey:
    """A foreign key; *set_columns* are those of ``ON DELETE SET NULL (…)``."""

    name: str
    columns: tuple[str, ...]
    target: Name
    target_columns: tuple[str, ...]
    on_delete: str
    on_update: str
    deferrable: bool
    deferred: bool
    valid: bool
    set_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LiveIndex:
    """A valid index without a predicate; *columns* are its key columns, '' for an expression."""

    name: str
    columns: tuple[str, ...]
    unique: bool
    primary: bool


@dataclass(slots=True)
class LiveTable:
    """A table, partition, view or sequence."""

    name: Name
    kind: str
    owner: str
    enabled: bool = False
    forced: bool = False
    acl: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of grantee, '' for PUBLIC, and privilege."""
    columns: dict[str, tuple[str, bool, str | None]] = field(default_factory=dict)
    policies: dict[str, LivePolicy] = field(default_factory=dict)
    foreign_keys: list[LiveForeignKey] = field(default_factory=list)
    indexes: list[LiveIndex] = field(default_factory=list)
    sequences: list[Name] = field(default_factory=list)
    partition_key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveRole:
    """A role's attributes that matter."""

    superuser: bool
    bypassrls: bool
    createdb: bool
    createrole: bool
    replication: bool
    inherit: bool
    login: bool


@dataclass(slots=True)
class Snapshot:
    """What the database holds; expressions are in the server's own words."""

    tables: dict[Name, LiveTable] = field(default_factory=dict)
    children: dict[Name, list[Name]] = field(default_factory=dict)
    schemas: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    temporary: set[str] = field(default_factory=set)
    """Who may make temporary objects in this database, of PUBLIC and the four roles."""
    roles: dict[str, LiveRole] = field(default_factory=dict)
    memberships: list[tuple[str, str]] = field(default_factory=list)
    views: list[tuple[Name, str, Name]] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    seal_keys: dict[int, str] = field(default_factory=dict)
    capabilities: set[tuple[str, str, str]] = field(default_factory=set)
    current_user: str = ""

    def descendants(self, parent: Name) -> Iterator[Name]:
        """Its partitions and inheritance children, and theirs."""
        for child in self.children.get(parent, ()):
            yield child
            yield from self.descendants(child)


_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
_SCOPE = "(n.nspname = ANY(%s) OR c.oid IN (SELECT inhrelid FROM pg_catalog.pg_inherits))"
_FROM = "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
_NAMES = (
    "ARRAY(SELECT coalesce(a.attname::text, '') FROM pg_catalog.unnest({keys}) WITH ORDINALITY u(num, ord) "
    "LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = {table} AND a.attnum = u.num ORDER BY u.ord)"
)


def ask(sql: str, *params: Any) -> Statement:
    """A statement whose text this package composed from literals and quoted identifiers."""
    return Statement(sql, params)


def read_snapshot(roles: DatabaseRoles, schemas: list[str], columns: list[str]) -> Flow[Snapshot]:
    """Read all tables of *schemas* (and every inheritance child), and of their columns those named."""
    live = Snapshot()
    named = [roles.owner, roles.app, roles.system, roles.guard]
    rows = yield ask(
        f"SELECT n.nspname::text, c.relname::text, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner)::text, c.relrowsecurity, c.relforcerowsecurity, "
        f"CASE WHEN c.relkind = 'p' THEN {_NAMES.format(keys='p.partattrs', table='c.oid')} END "
        f"{_FROM} LEFT JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = c.oid WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND {_SCOPE}",
        schemas,
    )
    for schema, name, kind, owner, enabled, forced, partition_key in rows:
        live.tables[schema, name] = LiveTable((schema, name), kind, owner, enabled, forced, partition_key=tuple(partition_key or ()))
    rows = yield ask(
        f"SELECT n.nspname::text, c.relname::text, coalesce(r.rolname::text, ''), a.privilege_type {_FROM}, LATERAL pg_catalog.aclexplode(c.relacl) a "
        f"LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE (a.grantee = 0 OR r.rolname = ANY(%s)) AND c.relkind <> 'i' AND {_SCOPE}",
        named,
        schemas,
    )
    for schema, name, grantee, privilege in rows:
        if (schema, name) in live.tables:
            live.tables[schema, name].acl.add((grantee, privilege))
    rows = yield ask(
        f"SELECT n.nspname::text, c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, "
        f"pg_catalog.pg_get_expr(d.adbin, d.adrelid) {_FROM} JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        f"LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum "
        f"WHERE c.relkind IN ('r', 'p', 'f') AND a.attname = ANY(%s) AND {_SCOPE}",
        columns,
        schemas,
    )
    for schema, name, column, kind, notnull, default in rows:
        live.tables[schema, name].columns[column] = (kind, notnull, default)
    rows = yield ask(
        f"SELECT n.nspname::text, c.relname::text, p.polname::text, p.polcmd::text, p.polpermissive, "
        f"ARRAY(SELECT coalesce(r.rolname::text, '') FROM pg_catalog.unnest(p.polroles) o LEFT JOIN pg_catalog.pg_roles r ON r.oid = o ORDER BY 1), "
        f"pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) "
        f"{_FROM} JOIN pg_catalog.pg_policy p ON p.polrelid = c.oid WHERE {_SCOPE}",
        schemas,
    )
    for schema, name, policy, command, permissive, to, using, check in rows:
        live.tables[schema, name].policies[policy] = LivePolicy(_COMMANDS[command], permissive, tuple(to), using, check)
    rows = yield ask(
        f"SELECT n.nspname::text, c.relname::text, k.conname::text, {_NAMES.format(keys='k.conkey', table='k.conrelid')}, "
        f"tn.nspname::text, t.relname::text, {_NAMES.format(keys='k.confkey', table='k.confrelid')}, k.confdeltype::text, k.confupdtype::text, "
        # PostgreSQL 14 has no confdelsetcols: reading it through JSON gives NULL there.
        f"k.condeferrable, k.condeferred, k.convalidated, "
        f"ARRAY(SELECT a.attname::text FROM pg_catalog.jsonb_array_elements_text(CASE pg_catalog.jsonb_typeof(pg_catalog.to_jsonb(k) -> 'confdelsetcols') "
        f"WHEN 'array' THEN pg_catalog.to_jsonb(k) -> 'confdelsetcols' ELSE '[]' END) e JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = e::int) "
        f"{_FROM} JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0 "
        f"JOIN pg_catalog.pg_class t ON t.oid = k.confrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace WHERE {_SCOPE} ORDER BY 1, 2, 3",
        schemas,
    )
    for schema, name, key, own, tschema, tname, theirs, delete, update, deferrable, deferred, valid, set_columns in rows:
        live.tables[schema, name].foreign_keys.append(
            LiveForeignKey(
                key,
                tuple(own),
                (tschema, tname),
                tuple(theirs),
                _ACTIONS[delete],
                _ACTIONS[update],
                deferrable,
                deferred,
                valid,
                tuple(set_columns),
            )
        )
    keys = "(pg_catalog.string_to_array(i.indkey::text, ' ')::int[])[1:i.indnkeyatts]"
    rows = yield ask(
        f"SELECT n.nspname::text, c.relname::text, x.relname::text, {_NAMES.format(keys=keys, table='i.indrelid')}, i.indisunique AND i.indimmediate, i.indisprimary "
        f"{_FROM} JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indpred IS NULL AND i.indisvalid JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid "
        f"WHERE c.relkind IN ('r', 'p', 'f') AND {_SCOPE} ORDER BY 1, 2, 3",
        schemas,
    )
    for schema, name, index, own, unique, primary in rows:
        live.tables[schema, name].indexes.append(LiveIndex(index, tuple(own), unique, primary))
    rows = yield ask(
        f"SELECT n.nspname::text, c.relname::text, sn.nspname::text, s.relname::text {_FROM} "
        f"JOIN pg_catalog.pg_depend d ON d.refobjid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.classid = 'pg_catalog.pg_class'::regclass "
        f"AND d.deptype = 'a' JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace "
        f"WHERE c.relkind IN ('r', 'p') AND {_SCOPE} ORDER BY 1, 2, 3, 4",
        schemas,
    )
    for schema, name, sschema, sname in rows:
        live.tables[schema, name].sequences.append((sschema, sname))
    yield from _read_surroundings(live, named, schemas)
    yield from _read_axis(live)
    return live


def _read_surroundings(live: Snapshot, named: list[str], schemas: list[str]) -> Flow[None]:
    rows = yield ask(
        "SELECT pn.nspname::text, p.relname::text, n.nspname::text, c.relname::text FROM pg_catalog.pg_inherits i "
        "JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace "
        "JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f') ORDER BY 1, 2, 3, 4"
    )
    children = defaultdict(list)
    for pschema, pname, schema, name in rows:
        children[pschema, pname].append((schema, name))
    live.children = dict(children)
    rows = yield ask(
        "SELECT n.nspname::text, coalesce(r.rolname::text, ''), a.privilege_type FROM pg_catalog.pg_namespace n LEFT JOIN LATERAL "
        "pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a ON true LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee "
        "WHERE n.nspname = ANY(%s) AND (a.grantee = 0 OR r.rolname = ANY(%s) OR r.oid = n.nspowner)",
        schemas,
        named,
    )
    for schema, grantee, privilege in rows:
        live.schemas.setdefault(schema, set()).add((grantee, privilege))
    rows = yield ask(
        "SELECT DISTINCT coalesce(r.rolname::text, '') FROM pg_catalog.pg_database d CROSS JOIN LATERAL "
        "pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee "
        "WHERE d.datname = pg_catalog.current_database() AND a.privilege_type = 'TEMPORARY' AND (a.grantee = 0 OR r.rolname = ANY(%s))",
        named,
    )
    live.temporary = {grantee for (grantee,) in rows}
    rows = yield ask(
        "SELECT rolname::text, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication, rolinherit, rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = ANY(%s)",
        named,
    )
    live.roles = {name: LiveRole(*attributes) for name, *attributes in rows}
    rows = yield ask(
        "SELECT g.rolname::text, m.rolname::text FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles g ON g.oid = a.roleid "
        "JOIN pg_catalog.pg_roles m ON m.oid = a.member WHERE (g.rolname = ANY(%s) OR m.rolname = ANY(%s)) "
        # Whoever made a role keeps the right to grant it (ADMIN); where that comes without INHERIT and SET, it is no right to act as it.
        'AND NOT (m.rolcreaterole AND to_jsonb(a) @> \'{"inherit_option": false, "set_option": false}\') GROUP BY 1, 2 ORDER BY 1, 2',
        named,
        named,
    )
    live.memberships = [(group, member) for group, member in rows]
    rows = yield ask(
        "SELECT DISTINCT vn.nspname::text, v.relname::text, v.relkind::text, n.nspname::text, c.relname::text "
        f"{_FROM} JOIN pg_catalog.pg_depend d ON d.refobjid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass "
        "AND d.classid = 'pg_catalog.pg_rewrite'::regclass JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid JOIN pg_catalog.pg_class v ON v.oid = w.ev_class "
        "JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace WHERE v.relkind IN ('v', 'm') AND v.oid <> c.oid AND n.nspname = ANY(%s) "
        "AND NOT coalesce(v.reloptions @> ARRAY['security_invoker=true'] OR v.reloptions @> ARRAY['security_invoker=on'] "
        "OR v.reloptions @> ARRAY['security_invoker=1'], false) ORDER BY 1, 2, 4, 5",
        schemas,
    )
    live.views = [((vschema, view), kind, (schema, name)) for vschema, view, kind, schema, name in rows]


def _read_axis(live: Snapshot) -> Flow[None]:
    rows: Rows = yield ask(
        "SELECT current_user::text, pg_catalog.to_regclass('axis.part') IS NOT NULL, pg_catalog.to_regclass('axis.seal_key') IS NOT NULL, "
        "pg_catalog.to_regclass('axis.role_capability') IS NOT NULL"
    )
    live.current_user, parts, keys, capabilities = rows[0]
    if parts:
        live.parts = dict((yield ask("SELECT name, digest FROM axis.part")))
    if keys:
        rows = yield ask("SELECT id, pg_catalog.encode(pg_catalog.sha256(inner_block || outer_block), 'hex') FROM axis.seal_key")
        live.seal_keys = dict(rows)
    if capabilities:
        live.capabilities = {
            (role, name, condition)
            for role, name, condition in (yield ask("SELECT role, capability, condition FROM axis.role_capability WHERE tenant = ''"))
        }

"""Reads the facts: a dozen set-based catalog queries, however many tables there are. Any role may run them; nothing is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from sys import intern
from typing import Any, Final

from axis_security.core.flow import Flow
from axis_security.rls.audit.facts import (
    Column,
    DefaultGrant,
    Facts,
    ForeignKey,
    Function,
    Index,
    IndexKey,
    Membership,
    Policy,
    Publication,
    Relation,
    Role,
    RoleSetting,
    Schema,
)
from axis_security.rls.catalog import ask

__all__ = ["read_facts"]

_ACTIONS: Final = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_COMMANDS: Final = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
# Temporary objects belong to one session, and what an extension made is the extension's.
_OURS: Final = (
    "{n}.nspname NOT IN ('information_schema', 'axis') AND {n}.nspname NOT LIKE 'pg\\_%' "
    "AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = '{catalog}'::regclass AND e.objid = {o}.oid AND e.deptype = 'e')"
)
_SCOPE: Final = _OURS.format(n="n", o="c", catalog="pg_class")
_FROM: Final = "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
_TABLES: Final = f"{_FROM} WHERE c.relkind IN ('r', 'p', 'f') AND {_SCOPE}"
_ACL: Final = "ARRAY(SELECT a.grantee::bigint || ' ' || a.privilege_type FROM pg_catalog.aclexplode({acl}) a)"

_RELATIONS: Final = f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relowner::bigint, c.relrowsecurity, c.relforcerowsecurity,
  coalesce(c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes'], false),
  {_ACL.format(acl="c.relacl")}
{_FROM} WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND {_SCOPE}
"""
_COLUMN_GRANTS: Final = f"""
SELECT t.attrelid::bigint, {_ACL.format(acl="t.attacl")} FROM pg_catalog.pg_attribute t
WHERE t.attacl IS NOT NULL AND t.attnum > 0 AND NOT t.attisdropped AND t.attrelid IN (SELECT c.oid {_FROM} WHERE {_SCOPE})
"""
_COLUMNS: Final = f"""
SELECT t.attrelid::bigint, t.attnum, t.attname::text, pg_catalog.format_type(t.atttypid, NULL), y.typtype::text, t.attnotnull,
  pg_catalog.pg_get_expr(d.adbin, d.adrelid), t.attidentity <> ''
FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_type y ON y.oid = t.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = t.attrelid AND d.adnum = t.attnum
WHERE t.attnum > 0 AND NOT t.attisdropped AND t.attrelid IN (SELECT c.oid {_TABLES})
"""
_POLICIES: Final = f"""
SELECT p.polrelid::bigint, p.oid::bigint, p.polname::text, p.polcmd::text, p.polpermissive, p.polroles::bigint[],
  pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), u.tables, u.functions
FROM pg_catalog.pg_policy p LEFT JOIN LATERAL (
  SELECT pg_catalog.array_agg(DISTINCT d.refobjid::bigint) FILTER (WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> p.polrelid) AS tables,
    pg_catalog.array_agg(DISTINCT d.refobjid::bigint) FILTER (WHERE d.refclassid = 'pg_proc'::regclass) AS functions
  FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid) u ON true
WHERE p.polrelid IN (SELECT c.oid {_TABLES}) ORDER BY p.polrelid, p.polname
"""
# Which operators of a key's family are not leakproof is asked once per operator class, not once per index.
_OPCLASSES: Final = """
SELECT o.oid::bigint, o.opcname::text, ARRAY(
  SELECT DISTINCT p.oprname::text FROM pg_catalog.pg_amop m JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
  JOIN pg_catalog.pg_proc f ON f.oid = p.oprcode WHERE m.amopfamily = o.opcfamily AND m.amoplefttype = o.opcintype AND m.amoppurpose = 's'
  AND (m.amoprighttype = o.opcintype OR m.amopmethod <> 403) AND NOT f.proleakproof ORDER BY 1)
FROM pg_catalog.pg_opclass o WHERE o.oid IN (SELECT pg_catalog.unnest(i.indclass) FROM pg_catalog.pg_index i)
"""
_INDEXES: Final = f"""
SELECT i.indrelid::bigint, i.indexrelid::bigint, x.relname::text, (pg_catalog.string_to_array(i.indkey::text, ' ')::int[])[1:i.indnkeyatts],
  pg_catalog.string_to_array(i.indclass::text, ' ')::bigint[], i.indisunique, i.indisprimary, i.indisexclusion, i.indisvalid, i.indpred IS NOT NULL, k.conname::text,
  CASE WHEN i.indexprs IS NOT NULL OR i.indpred IS NOT NULL OR i.indisexclusion THEN pg_catalog.pg_get_indexdef(i.indexrelid) ELSE '' END
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid IN (SELECT c.oid {_TABLES}) ORDER BY i.indrelid, x.relname
"""
_FOREIGN_KEYS: Final = f"""
SELECT k.conrelid::bigint, k.conname::text, k.conkey::int[], k.confrelid::bigint, k.confkey::int[], k.confdeltype::text, k.confupdtype::text, k.convalidated
FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid IN (SELECT c.oid {_TABLES}) ORDER BY k.conrelid, k.conname
"""
_INHERITS: Final = "SELECT inhparent::bigint, inhrelid::bigint FROM pg_catalog.pg_inherits ORDER BY 1, 2"
# What a view's rule uses; a table with rules of its own is told apart by kind.
_REWRITES: Final = f"""
SELECT w.ev_class::bigint, w.rulename::text, pg_catalog.array_agg(DISTINCT d.refobjid::bigint) FILTER (WHERE d.refobjid <> w.ev_class)
FROM pg_catalog.pg_rewrite w LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
WHERE w.ev_class IN (SELECT c.oid {_FROM} WHERE c.relkind IN ('r', 'p', 'v', 'm') AND {_SCOPE}) GROUP BY 1, 2 ORDER BY 1, 2
"""
# Schema axis is read here alone: policies call its functions.
_FUNCTIONS: Final = f"""
SELECT c.oid::bigint, n.nspname::text, c.proname::text, pg_catalog.pg_get_function_identity_arguments(c.oid), c.proowner::bigint, c.prosecdef, c.provolatile::text,
  c.proleakproof, c.proparallel::text, coalesce(c.proconfig, '{{}}'), c.prosqlbody IS NOT NULL, l.lanname::text,
  coalesce(pg_catalog.pg_get_function_sqlbody(c.oid), c.prosrc), {_ACL.format(acl="coalesce(c.proacl, pg_catalog.acldefault('f', c.proowner))")}
FROM pg_catalog.pg_proc c JOIN pg_catalog.pg_namespace n ON n.oid = c.pronamespace JOIN pg_catalog.pg_language l ON l.oid = c.prolang
WHERE c.prokind IN ('f', 'p') AND {_OURS.format(n="n", o="c", catalog="pg_proc").replace("('information_schema', 'axis')", "('information_schema')")}
ORDER BY 2, 3, 4
"""
_PUBLISHED: Final = (
    "SELECT t.pubname::text, c.oid::bigint, pg_catalog.to_jsonb(t) ->> 'rowfilter' IS NOT NULL FROM pg_catalog.pg_publication_tables t "
    "JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename"
)


def _grants(texts: Iterable[str]) -> frozenset[tuple[int, str]]:
    return frozenset((int(who), intern(what)) for who, _, what in (text.partition(" ") for text in texts))


def read_facts() -> Flow[Facts]:
    """Read everything; names in expressions come out qualified, whatever the caller's search path is."""
    facts = Facts()
    # The caller's own path comes back with the transaction (or savepoint) that this flow runs in.
    yield ask("SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)")
    rows = yield ask("SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_database()::text")
    facts.version, facts.database = rows[0]
    yield from _read_roles(facts)
    yield from _read_relations(facts)
    yield from _read_keys(facts)
    for row in (yield ask(_FUNCTIONS)):
        oid, schema, name, signature, owner, definer, volatility, leakproof, parallel, settings, bound, language, source, grants = row
        facts.functions[oid] = Function(
            oid, schema, name, signature, owner, definer, volatility, leakproof, parallel, tuple(settings), bound, language, source, _grants(grants)
        )  # fmt: skip
    every: dict[str, bool] = dict((yield ask("SELECT pubname::text, puballtables FROM pg_catalog.pg_publication ORDER BY 1")))
    sent: dict[str, dict[int, bool]] = defaultdict(dict)
    for publication, oid, filtered in (yield ask(_PUBLISHED)) if every else ():
        sent[publication][oid] = filtered
    facts.publications = [Publication(name, all_tables, sent[name]) for name, all_tables in every.items()]
    return facts


def _read_roles(facts: Facts) -> Flow[None]:
    for row in (
        yield ask(
            "SELECT oid::bigint, rolname::text, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication, rolinherit, rolcanlogin FROM pg_catalog.pg_roles"
        )
    ):
        facts.roles[row[0]] = Role(*row)
    # Before PostgreSQL 16 a membership has no options of its own: the member's INHERIT decides, and every member may SET ROLE.
    rows = yield ask(
        "SELECT m.roleid::bigint, m.member::bigint, coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::bool, r.rolinherit), "
        "coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::bool, true) FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member"
    )
    facts.memberships = [Membership(*row) for row in rows]
    rows = yield ask(
        "SELECT s.setrole::bigint, coalesce(d.datname::text, ''), pg_catalog.split_part(c, '=', 1), pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1) "
        "FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) c LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase "
        "WHERE s.setdatabase = 0 OR d.datname = pg_catalog.current_database()"
    )
    facts.role_settings = [RoleSetting(*row) for row in rows]
    rows = yield ask(
        f"SELECT n.oid::bigint, n.nspname::text, n.nspowner::bigint, {_ACL.format(acl='n.nspacl')} FROM pg_catalog.pg_namespace n "
        "WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'"
    )
    facts.schemas = {row[1]: Schema(row[0], row[1], row[2], _grants(row[3])) for row in rows}
    rows = yield ask(
        f"SELECT d.defaclrole::bigint, coalesce(n.nspname::text, ''), d.defaclobjtype::text, {_ACL.format(acl='d.defaclacl')} "
        "FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace"
    )
    facts.default_grants = [DefaultGrant(row[0], row[1], row[2], _grants(row[3])) for row in rows]


def _read_relations(facts: Facts) -> Flow[None]:
    relations = facts.relations
    for oid, schema, name, kind, owner, enabled, forced, invoker, grants in (yield ask(_RELATIONS)):
        relations[oid] = Relation(oid, intern(schema), name, kind, owner, enabled, forced, invoker, _grants(grants))
    for oid, grants in (yield ask(_COLUMN_GRANTS)):
        relations[oid].grants |= _grants(grants)
    for oid, number, name, type_, type_kind, notnull, default, identity in (yield ask(_COLUMNS)):
        relations[oid].columns[intern(name)] = Column(number, intern(name), intern(type_), type_kind, notnull, _interned(default), identity)
    for oid, policy, name, command, permissive, roles, using, check, tables, functions in (yield ask(_POLICIES)):
        relations[oid].policies.append(
            Policy(
                policy,
                intern(name),
                _COMMANDS[command],
                permissive,
                frozenset(roles),
                _interned(using),
                _interned(check),
                frozenset(tables or ()),
                frozenset(functions or ()),
            )
        )
    for parent, child in (yield ask(_INHERITS)):
        if parent in relations and child in relations:
            relations[parent].children.append(child)
            relations[child].parents.append(parent)
    for oid, rule, reads in (yield ask(_REWRITES)):
        relation = relations[oid]
        if relation.kind in "rp":
            relation.rules += (rule,)
        else:
            relation.reads |= frozenset(reads or ())


def _interned(text: str | None) -> str | None:
    # Thousands of tables carry the same few predicates.
    return None if text is None else intern(text)


def _read_keys(facts: Facts) -> Flow[None]:
    relations = facts.relations
    opclasses = {oid: (name, tuple(leaks)) for oid, name, leaks in (yield ask(_OPCLASSES))}
    names: dict[int, dict[int, str]] = {
        oid: {column.number: column.name for column in relation.columns.values()} for oid, relation in relations.items()
    }

    def columns(oid: int, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(names.get(oid, {}).get(number, "") for number in numbers)

    for oid, index, name, keys, classes, unique, primary, exclusion, valid, partial, constraint, definition in (yield ask(_INDEXES)):
        made = tuple(IndexKey(column, *_opclass(opclasses, opclass)) for column, opclass in zip(columns(oid, keys), classes, strict=False))
        relations[oid].indexes.append(Index(index, name, made, unique, primary, exclusion, valid, partial, constraint, definition))
    for oid, name, own, target, theirs, delete, update, valid in (yield ask(_FOREIGN_KEYS)):
        relations[oid].foreign_keys.append(
            ForeignKey(name, columns(oid, own), target, columns(target, theirs), _ACTIONS[delete], _ACTIONS[update], valid)
        )


def _opclass(known: dict[int, tuple[str, tuple[str, ...]]], oid: int) -> tuple[Any, Any]:
    return known.get(oid, ("", ()))

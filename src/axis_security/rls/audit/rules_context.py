"""Rules about how a policy learns who is asking: settings, getters, role names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from axis_security.core.checks import Severity
from axis_security.rls.audit.expression import (
    calls_outside_selects,
    coerced_settings,
    mentions,
    opens_unbound,
    reads_setting_itself,
    settings_read,
    without_literals,
)
from axis_security.rls.audit.facts import Function, Policy, Relation
from axis_security.rls.audit.ground import Ground
from axis_security.rls.audit.rule import Hit, rule
from axis_security.rls.model import quote

__all__ = [
    "bypass_setting",
    "context_empty_text",
    "context_forgeable",
    "context_opens",
    "context_silent",
    "context_stored",
    "getter_immutable",
    "getter_not_callable",
    "getter_per_row",
    "getter_serial",
    "getter_volatile",
    "session_binding",
    "tenant_from_role_name",
]

_ERROR: Final = Severity.ERROR
_WARNING: Final = Severity.WARNING
_CHECKED: Final = re.compile(r"\b(?:hmac|sha\d{3}|digest|crypt|FROM|PERFORM|EXISTS)\b", re.IGNORECASE)
_LOUD: Final = re.compile(r"\bRAISE\b", re.IGNORECASE)


def _policies(ground: Ground) -> Iterator[tuple[Relation, Policy]]:
    for table in ground.held:
        for policy in table.policies:
            if ground.reaches_app(policy):
                yield table, policy


def _getters(ground: Ground) -> Iterator[Function]:
    """Functions that policies call, and the ones those call by name."""
    seen: dict[int, Function] = {}
    todo = [ground.facts.functions[oid] for oid in ground.policy_functions if oid in ground.facts.functions]
    by_name = {f"{f.schema}.{f.name}": f for f in ground.functions}
    while todo:
        function = todo.pop()
        if function.oid not in seen and function in ground.functions_set:
            seen[function.oid] = function
            todo += [by_name[name] for name in re.findall(r"\w+\.\w+(?=\()", function.source) if name in by_name]
    yield from sorted(seen.values(), key=lambda f: f.label)


def _sources(ground: Ground) -> Iterator[tuple[str, str]]:
    """Every text that decides who is asking: the policies', and their getters' bodies."""
    for table, policy in _policies(ground):
        yield table.label_of(policy), policy.text
    for function in _getters(ground):
        yield function.label, function.source


@rule(
    "rls.context_forgeable",
    _WARNING,
    what="the tenant is a plain setting",
    why="any SQL that runs as the application can set it to another tenant, and a setting of the session stays with a pooled connection",
    modes=(1, 2, 4, 8, 10),
)
def context_forgeable(ground: Ground) -> Iterator[Hit]:
    """`current_setting('app.tenant')` in a policy, or behind a getter that checks nothing."""
    for where, text in _sources(ground):
        names = settings_read(text)
        if names and not _CHECKED.search(without_literals(text)):
            yield Hit(
                object=where,
                fix="-- compare with a getter that verifies what it reads, such as axis.tenant_id(); tenancy.plan() makes one",
                evidence={"settings": names},
            )


@rule(
    "rls.context_silent",
    _WARNING,
    what="a query with nobody bound answers no rows",
    why="empty is what a forgotten binding, a lost context or autocommit look like; nobody hears of it",
    modes=(6, 7, 9, 11, 12),
)
def context_silent(ground: Ground) -> Iterator[Hit]:
    """`current_setting(…, true)`, and nothing that raises."""
    for where, text in _sources(ground):
        if re.search(r"current_setting\([^()]*,\s*true\)", without_literals(text), re.IGNORECASE) and not _LOUD.search(text):
            yield Hit(
                object=where,
                fix="-- leave out the second argument, or RAISE in the getter where the setting is NULL or ''",
                evidence={"settings": settings_read(text)},
            )


@rule(
    "rls.context_opens",
    _ERROR,
    what="an unset setting opens the table",
    why="whoever forgets to bind a tenant sees every row, or some default tenant's",
    modes=(6, 8, 11),
)
def context_opens(ground: Ground) -> Iterator[Hit]:
    """`current_setting(…) IS NULL OR …`, or coalesce with a fallback."""
    for where, text in _sources(ground):
        if opens_unbound(text) and not _LOUD.search(text):
            yield Hit(
                object=where, fix="-- compare with the setting alone; let an unset one raise", evidence={"settings": settings_read(text)}
            )


@rule(
    "rls.context_stored",
    _ERROR,
    what="a default tenant is stored with a role or the database",
    why="a connection that nobody bound acts for that tenant",
    modes=(6, 9, 11),
)
def context_stored(ground: Ground) -> Iterator[Hit]:
    """`ALTER ROLE … SET app.tenant = …`."""
    read = {name for _, text in _sources(ground) for name in settings_read(text)}
    for stored in ground.facts.role_settings:
        if stored.name in read:
            to = f"ROLE {quote(ground.role_name(stored.role))}" if stored.role else "ROLE ALL"
            to += f" IN DATABASE {quote(stored.database)}" if stored.database and stored.role else ""
            to = f"DATABASE {quote(stored.database)}" if stored.database and not stored.role else to
            yield Hit(object=f"{to}: {stored.name}", fix=f"ALTER {to} RESET {stored.name};", evidence={"setting": stored.name})


@rule(
    "rls.bypass_setting",
    _ERROR,
    what="a setting lifts the policy",
    why="any SQL that runs as the application can set it, and with OR in the predicate no index is used",
    modes=(8,),
)
def bypass_setting(ground: Ground) -> Iterator[Hit]:
    """`… OR current_setting('app.bypass') = 'on'`."""
    for table, policy in _policies(ground):
        lifting = [side for text in (policy.using, policy.check) for side in _alternatives(text or "") if settings_read(side)]
        bare = [side for side in lifting if not mentions(side, ground.scope.key or "")]
        if bare and policy.permissive and not opens_unbound(policy.text):
            yield Hit(
                object=table.label_of(policy),
                fix="-- drop this branch; cross-tenant work takes another login with a policy of its own: CREATE POLICY … TO tenant_system USING (true)",
                evidence={"settings": sorted({name for side in bare for name in settings_read(side)}), "using": policy.using},
            )


def _alternatives(text: str) -> list[str]:
    sides = re.split(r"\bOR\b", text)
    return sides if len(sides) > 1 else []


@rule(
    "rls.context_empty_text",
    _WARNING,
    what="the setting is cast without nullif",
    why="after the first transaction of a connection an unset setting is '' and not NULL, and ''::integer raises 22P02",
    modes=(7,),
)
def context_empty_text(ground: Ground) -> Iterator[Hit]:
    """`current_setting('app.tenant', true)::int`."""
    for where, text in _sources(ground):
        if coerced_settings(text):
            yield Hit(object=where, fix="-- nullif(current_setting('…', true), '')::…", evidence={"settings": settings_read(text)})


@rule(
    "rls.tenant_from_role_name",
    _ERROR,
    what="the tenant is read from the name of the role",
    why="names are cut at 63 bytes and mangled by prefixes, RESET ROLE goes back to the login, and the role stays with a pooled connection",
    modes=(3, 4, 5),
)
def tenant_from_role_name(ground: Ground) -> Iterator[Hit]:
    """`tenant_id = current_user`, with or without stripping a prefix."""
    key = ground.scope.key
    roles = re.compile(r"\b(?:CURRENT_USER|SESSION_USER|CURRENT_ROLE)\b", re.IGNORECASE)
    for table, policy in _policies(ground):
        if key is not None and mentions(policy.text, key) and roles.search(without_literals(policy.text)):
            yield Hit(
                object=table.label_of(policy),
                fix="-- bind the tenant's id as a value, for one fixed role of the application",
                evidence={"using": policy.using, "check": policy.check},
            )


@rule(
    "rls.session_binding",
    _ERROR,
    what="a function binds the tenant for the whole session",
    why="the setting outlives the transaction, and the next user of the pooled connection acts for the previous one's tenant",
    modes=(1, 2, 4, 6),
)
def session_binding(ground: Ground) -> Iterator[Hit]:
    """`set_config(…, false)`, or SET without LOCAL, in a function that the application may call."""
    found = re.compile(
        r"set_config\([^;]*?,\s*(?:false|'f(?:alse)?'|'off')\s*\)|^\s*SET\s+(?:SESSION\s+)?(?!LOCAL\b)\w+\.\w+\s*(?:=|TO)",
        re.IGNORECASE | re.MULTILINE,
    )
    for function in ground.functions:
        if found.search(function.source) and ground.app_executes(function):
            yield Hit(
                object=function.label, fix="-- set_config(…, …, true): for the transaction only", evidence={"language": function.language}
            )


@rule(
    "rls.getter_per_row",
    _WARNING,
    what="the policy calls a function for each row",
    why="wrapped in a sub-select it is evaluated once per statement; as a filter over a table that was 3 times faster, and more for a getter that verifies",
    modes=(13,),
)
def getter_per_row(ground: Ground) -> Iterator[Hit]:
    """`tenant_id = f()` where `tenant_id = (SELECT f())` would do."""
    for table, policy in _policies(ground):
        known = {f"{f.schema}.{f.name}" for oid in policy.functions if (f := ground.facts.functions.get(oid)) and not f.signature}
        calls = [
            name
            for text in (policy.using, policy.check)
            for name in calls_outside_selects(text or "")
            if name in known or name.replace('"', "") in known or name.endswith("current_setting")
        ]
        if calls:
            yield Hit(
                object=table.label_of(policy),
                fix=f"-- {quote(ground.scope.key or 'tenant_id')} = (SELECT {calls[0]}(…))",
                evidence={"calls": sorted(set(calls))},
            )


@rule(
    "rls.getter_volatile",
    _WARNING,
    what="a function in a policy is VOLATILE",
    why="it runs for each row, and no index can be used for it",
    modes=(13,),
)
def getter_volatile(ground: Ground) -> Iterator[Hit]:
    """The default of CREATE FUNCTION."""
    for function in _used(ground):
        if function.volatility == "v":
            yield Hit(object=function.label, fix=f"ALTER FUNCTION {function.sql} STABLE;")


@rule(
    "rls.getter_immutable",
    _ERROR,
    what="a function that reads the session is IMMUTABLE",
    why="its answer is frozen into prepared plans: the second tenant of a connection gets the first one's rows",
    modes=(26,),
)
def getter_immutable(ground: Ground) -> Iterator[Hit]:
    """A promise that is not true."""
    for function in ground.functions:
        if function.volatility == "i" and reads_setting_itself(without_literals(function.source)):
            yield Hit(
                object=function.label,
                fix=f"ALTER FUNCTION {function.sql} STABLE;",
                evidence={"in_policy": function.oid in ground.policy_functions},
            )


@rule(
    "rls.getter_serial",
    _WARNING,
    what="a function in a policy is not PARALLEL SAFE",
    why="queries on the table never use a parallel plan",
    modes=(13,),
)
def getter_serial(ground: Ground) -> Iterator[Hit]:
    """PARALLEL UNSAFE is the default of CREATE FUNCTION."""
    for function in _used(ground):
        if function.parallel == "u" and function.volatility != "v":
            yield Hit(object=function.label, fix=f"ALTER FUNCTION {function.sql} PARALLEL SAFE;")


@rule(
    "rls.getter_not_callable",
    _WARNING,
    what="the application may not call a function that its policy needs",
    why="every query on the table fails with 42501, permission denied for function",
    modes=(12,),
)
def getter_not_callable(ground: Ground) -> Iterator[Hit]:
    """EXECUTE was revoked from PUBLIC and not granted to the application."""
    for function in _used(ground):
        where = [(t, p) for t, p in ground.policy_functions[function.oid] if ground.reaches_app(p)]
        if where and not ground.app_executes(function):
            yield Hit(
                object=function.label,
                fix=f"GRANT EXECUTE ON FUNCTION {function.sql} TO {ground.app_names()};",
                evidence={"tables": sorted({t.label for t, _ in where})[:5]},
            )


def _used(ground: Ground) -> Iterator[Function]:
    for oid in ground.policy_functions:
        function = ground.facts.functions.get(oid)
        if function is not None and function in ground.functions_set:
            yield function

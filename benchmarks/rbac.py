"""Roles and capabilities: what a check costs, how it scales with tenants, and what a policy engine takes for the same question."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from axis_security import Principal, acting_as
from axis_security.core.events import NullSink
from axis_security.rbac import Capabilities, Role, requires, standard_policy
from benchmarks.harness import Row, Settings, interleaved, measured

ACTIONS = ("read", "write", "export", "purge")
RESOURCES = ("contacts", "notes", "deals", "files", "users")


def run(settings: Settings) -> Iterable[Row]:
    """Microseconds per call unless the row says otherwise."""
    rounds = settings.rounds(25)
    caps = Capabilities(**{name: (*ACTIONS, *(("manage",) if name == "users" else ())) for name in RESOURCES})
    policy = standard_policy(
        caps, viewer=[c for c in caps if c.action == "read"], member=[c for c in caps if c.action == "write"], events=NullSink()
    )
    admin, viewer = Principal(tenant="t0", user="u0", role="admin"), Principal(tenant="t0", user="u0", role="viewer")
    manage = caps["users.manage"]
    allows, decide = policy.allows, policy.decide

    def bare(_principal: object, _capability: object) -> bool:
        return True

    def view(_x: int) -> int:
        return 1

    guarded = requires(manage)(view)
    with acting_as(admin):
        base, check, plain, decorated, denied = _timed(
            rounds,
            (20_000, lambda n: _spin2(bare, admin, manage, n)),
            (20_000, lambda n: _spin2(allows, admin, manage, n)),
            (20_000, lambda n: _spin1(view, n)),
            (20_000, lambda n: _spin1(guarded, n)),
            (2_000, lambda n: _deny(decide, viewer, manage, n)),
        )
    yield _row("bit test over a bare call", [c - b for c, b in zip(check, base, strict=True)], 0.1)
    yield _row("decorator over the bare call", [d - p for d, p in zip(decorated, plain, strict=True)], 0.15)
    yield _row("denial with public, audit and explanation", denied, 5.0)

    (few,) = _timed(rounds, (20_000, lambda n: _spin2(allows, admin, manage, n)))
    for number in range(100_000):
        policy.set_tenant_roles(f"t{number}", [Role("clerk", [caps["contacts.write"]], ["viewer"])])
    clerk = Principal(tenant="t99999", user="u", role="clerk")
    many, custom = _timed(
        rounds, (20_000, lambda n: _spin2(allows, admin, manage, n)), (5_000, lambda n: _spin2(allows, clerk, caps["contacts.write"], n))
    )
    once = statistics.median(few)
    flat = [value / once for value in many]
    yield measured(
        "rbac",
        "check with 100,000 tenants by 1 tenant",
        "ratio",
        flat,
        limit=1.25,
        target="flat: at most 1.25",
        met=statistics.median(flat) <= 1.25,
    )
    yield _row("check of a tenant's own role, 100,000 tenants", custom, 5.0)

    casbin, cedar = _casbin(), _cedar()
    ours, by_casbin, by_cedar = _timed(
        rounds, (20_000, lambda n: _spin2(allows, admin, manage, n)), (30, lambda n: _spin0(casbin, n)), (200, lambda n: _spin0(cedar, n))
    )
    mine = statistics.median(ours)
    for name, times in (("pycasbin, RBAC with domains, one tenant", by_casbin), ("cedarpy, parsed policies, three entities", by_cedar)):
        times_faster = statistics.median(times) / mine
        yield measured(
            "rbac",
            f"check beside {name.partition(',')[0]} ({times_faster:.0f} times faster)",
            "us",
            ours,
            target="at least 300 times faster",
            met=times_faster >= 300,
            peers={name: times},
        )


def _row(case: str, times: Sequence[float], limit: float) -> Row:
    return measured("rbac", case, "us", times, limit=limit, target=f"at most {limit:g} us", met=statistics.median(times) <= limit)


def _timed(rounds: int, *cases: tuple[int, Callable[[int], None]]) -> list[list[float]]:
    """Microseconds per call, taking turns; each case says how many calls make a round."""

    def bound(count: int, case: Callable[[int], None]) -> Callable[[], None]:
        return lambda: case(count)

    found = interleaved({str(i): bound(*case) for i, case in enumerate(cases)}, rounds=rounds)
    return [[seconds * 1e6 / count for seconds in found[str(i)]] for i, (count, _) in enumerate(cases)]


def _spin0(function: Callable[[], object], count: int) -> None:
    for _ in range(count):
        function()


def _spin1(function: Callable[[int], object], count: int) -> None:
    for _ in range(count):
        function(1)


def _spin2(function: Callable[[Any, Any], object], one: object, two: object, count: int) -> None:
    for _ in range(count):
        function(one, two)


def _deny(decide: Callable[[Any, Any], Any], one: object, two: object, count: int) -> None:
    for _ in range(count):
        decision = decide(one, two)
        decision.public()
        decision.audit()
        decision.explain()


def _casbin() -> Callable[[], bool]:
    import casbin  # type: ignore[import-untyped]

    model = """
[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act
[role_definition]
g = _, _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub, r.dom) && r.dom == p.dom && r.obj == p.obj && r.act == p.act
"""
    lines = [
        f"p, {role}, t0, {name}, {action}" for role in ("viewer", "member", "admin", "owner") for name in RESOURCES for action in ACTIONS
    ]
    lines += ["p, admin, t0, users, manage", "g, u0, admin, t0"]
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "model.conf").write_text(model)
        (Path(home) / "policy.csv").write_text("\n".join(lines))
        enforcer = casbin.Enforcer(str(Path(home) / "model.conf"), str(Path(home) / "policy.csv"))
    if not enforcer.enforce("u0", "t0", "users", "manage") or enforcer.enforce("u1", "t0", "users", "manage"):
        raise RuntimeError("the peer's policy does not say what ours says")
    return lambda: bool(enforcer.enforce("u0", "t0", "users", "manage"))


def _cedar() -> Callable[[], bool]:
    import cedarpy

    text = 'permit(principal in Role::"admin", action == Action::"users.manage", resource);\npermit(principal in Role::"viewer", action == Action::"contacts.read", resource);'
    policies = cedarpy.PolicySet.from_str(text)
    entities: list[dict[Any, Any]] = [
        {"uid": {"type": "User", "id": "u0"}, "attrs": {}, "parents": [{"type": "Role", "id": "admin"}]},
        {"uid": {"type": "Role", "id": "admin"}, "attrs": {}, "parents": []},
        {"uid": {"type": "Tenant", "id": "t0"}, "attrs": {}, "parents": []},
    ]
    request = {"principal": 'User::"u0"', "action": 'Action::"users.manage"', "resource": 'Tenant::"t0"', "context": {}}
    if not cedarpy.is_authorized(request, policies, entities).allowed:
        raise RuntimeError("the peer's policy does not say what ours says")
    return lambda: bool(cedarpy.is_authorized(request, policies, entities).allowed)

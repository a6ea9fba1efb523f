"""The policy: roles and what they hold, compiled once into frozen bitsets.

A check is one dictionary look-up and one bit test, however many tenants there are. Everything that can be wrong with a policy is
refused when it is built: unknown names, cycles, a role order that loses a capability, ``users.manage`` in the wrong hands.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from axis_security.core.clock import SYSTEM_CLOCK, Clock
from axis_security.core.errors import ConfigError
from axis_security.core.events import EventSink, LoggingSink
from axis_security.core.grants import CapabilityLike, Grant, PythonOnly
from axis_security.core.ids import IdValue, TenantId
from axis_security.core.principal import Assurance, Principal
from axis_security.rbac.capability import Capabilities, Capability, in_force
from axis_security.rbac.conditions import Allow, Predicate
from axis_security.rbac.decision import Decision, DecisionCode, StepUp
from axis_security.rbac.roles import (
    MANAGE_USERS,
    OWN_ROLE,
    Holding,
    Role,
    UnsoundPolicy,
    compile_roles,
    grants_of,
    own_capability,
    stored_condition,
    unsound,
)

__all__ = ["MANAGE_USERS", "Holding", "Policy", "Role", "UnsoundPolicy", "standard_policy"]


class _Masks(dict[str, int]):
    """A role's name to the bits it holds without condition; no bits for a role it does not know."""

    __slots__ = ()

    def __missing__(self, role: str) -> int:
        return 0


class Policy:
    """What each role may do, frozen. Satisfies :class:`axis_security.core.grants.GrantTable`.

    The first policy built over a registry is in force for ``@requires``; :meth:`activate` puts another in its place.

    Args:
        caps: the registry.
        roles: every role of the product, in any order.
        order: role names from lowest to highest; each must hold all that the one before holds. Empty: no order is claimed.
        tenant_limit: the most that a tenant's own roles may hold; ``None``: everything but ``users.manage``.
        clock: tells whether a sign-in is fresh.
        events: where denials are written (ASVS 16.3.2).

    Raises:
        UnsoundPolicy: unknown or doubled role, cycle, an order that loses a capability.
        UnknownCapability: a grant of another registry's capability.
    """

    __slots__ = (
        "_cell",
        "_conditions",
        "_holdings",
        "_lock",
        "_masks",
        "_own_log",
        "_tenant_limit",
        "_tenants",
        "_told",
        "_would_allow",
        "caps",
        "clock",
        "events",
        "order",
    )

    def __init__(
        self,
        caps: Capabilities[str],
        *,
        roles: Sequence[Role],
        order: Sequence[str] = (),
        tenant_limit: Iterable[Capability] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        events: EventSink | None = None,
    ) -> None:
        self.caps: Final = caps
        self.clock: Final = clock
        self.events: EventSink = LoggingSink() if events is None else events
        self._own_log: Final = events is not None
        self._told: EventSink | None = None
        self._holdings: Final[Mapping[str, Holding]] = compile_roles(caps, roles, MappingProxyType({}))
        for name in self._holdings:
            if name.startswith(OWN_ROLE):
                raise unsound(
                    f"role `{name}` cannot be the product's", f"`{OWN_ROLE}` begins the names of workspaces' own roles", "rename it"
                )
        self._conditions: Final = {
            (bit, stored_condition(test.compiled)): test
            for holding in self._holdings.values()
            for bit, tests in holding.conditional.items()
            for test in tests
        }
        self.order: Final = tuple(order)
        for name in self.order:
            if name not in self._holdings:
                raise unsound(f"role order names `{name}`", "the policy declares no such role", "list declared roles only")
        for low, high in zip(self.order, self.order[1:], strict=False):
            if not self._holdings[high].covers(self._holdings[low]):
                raise unsound(
                    f"role `{high}` loses a capability",
                    f"it is above `{low}` in the order but does not hold all that `{low}` holds",
                    f"let `{high}` include `{low}`",
                )
        limit = (
            (cap for cap in caps if cap.name != MANAGE_USERS)
            if tenant_limit is None
            else (own_capability(caps, cap) for cap in tenant_limit)
        )
        self._tenant_limit: Final = sum({cap.bit for cap in limit})
        self._masks: Final = _Masks({name: holding.always for name, holding in self._holdings.items()})
        ranked = [*self.order, *(name for name in self._holdings if name not in self.order)]
        self._would_allow: Final = MappingProxyType(
            {cap.name: tuple(name for name in ranked if self._holdings[name].reach & cap.bit) for cap in caps}
        )
        self._tenants: Final[dict[str, Mapping[str, Holding]]] = {}
        self._lock: Final = threading.Lock()
        self._cell: Final = in_force(caps)
        if self._cell.policy is None:
            self.activate()

    def tell(self, events: EventSink) -> None:
        """Write denials to *events* from now on: a policy is declared before there is a database to keep its log in.

        A policy that was made with a sink of its own keeps to that.

        Raises:
            ConfigError: it was told another sink. One policy serves one database; with two, the denials of both would stand in one log.
        """
        if self._own_log:
            return
        if self._told is not None and self._told is not events:
            raise ConfigError(
                what="the policy serves another Axis already",
                why="its denials, and what workspaces' own roles hold, belong to one database",
                fix="make a registry and a policy for each; or close the other Axis first; or, over one database, pass both the same events=",
            )
        self.events = self._told = events

    def untell(self, events: EventSink) -> None:
        """Write no longer to *events*, if it did, but to the standard library's logging."""
        if self._told is events:
            self.events, self._told = LoggingSink(), None

    @property
    def roles(self) -> tuple[str, ...]:
        """The host's roles, lowest first where an order is declared."""
        return (*self.order, *(name for name in self._holdings if name not in self.order))

    def activate(self) -> Policy:
        """Put this policy in force for every ``@requires`` over its registry; returns it."""
        self._cell.policy = self
        for cap in self.caps:
            cap.holders.roles = frozenset(name for name, mask in self._masks.items() if mask & cap.bit)
        return self

    def holding(self, role: str, tenant: TenantId | None = None) -> Holding | None:
        """What *role* holds, looking at the tenant's own roles too; ``None``: no such role."""
        found = self._holdings.get(role)
        if found is None and tenant is not None:
            own = self._tenants.get(tenant.text)
            found = None if own is None else own.get(role)
        return found

    def set_tenant_roles(self, tenant: TenantId | IdValue, roles: Sequence[Role]) -> None:
        """Replace the tenant's own roles, compiled over the same bits. They may include the host's roles, never redefine one.

        Raises:
            UnsoundPolicy: a role shadows the host's, or exceeds ``tenant_limit`` (``users.manage``, unless the host declared it).
            UnknownCapability: a grant of another registry's capability.
        """
        compiled = compile_roles(self.caps, roles, self._holdings)
        for name, holding in compiled.items():
            over = holding.reach & ~self._tenant_limit
            if over:
                names = ", ".join(cap.name for cap in self.caps if cap.bit & over)
                raise unsound(
                    f"tenant role `{name}` exceeds the host's limit",
                    f"it would hold {names}",
                    "leave them out, or raise tenant_limit= in the host's policy",
                )
        with self._lock:
            if compiled:
                self._tenants[TenantId.of(tenant).text] = compiled
            else:
                self._tenants.pop(TenantId.of(tenant).text, None)

    @property
    def own_role_limit(self) -> tuple[str, ...]:
        """Capabilities that a workspace's own roles in the database may hold: ``tenant_limit``, and never ``users.manage`` (promise: owners and admins only)."""
        return tuple(cap.name for cap in self.caps if cap.bit & self._tenant_limit and cap.name != MANAGE_USERS)

    def flatten(self, role: Role) -> Sequence[Grant]:
        """What a workspace's own *role* would hold, as the database keeps it: what it includes is resolved now, and does not grow with it later.

        Raises:
            UnsoundPolicy: its name does not begin with ``custom.``, it includes an own role, it exceeds the limit, or a condition is one that only
                Python can evaluate.
            UnknownCapability: a grant of another registry's capability.
        """
        for name in role.includes:
            if name.startswith(OWN_ROLE):
                raise unsound(
                    f"`{role.name}` includes `{name}`",
                    "an own role includes roles of the product only: it is kept as what it holds, and would not follow the other",
                    "grant the capabilities themselves",
                )
        compiled = compile_roles(self.caps, (role,), self._holdings)
        if not role.name.startswith(OWN_ROLE):
            raise unsound(
                f"`{role.name}` is no name for an own role", f"it must begin with `{OWN_ROLE}`", f"call it `{OWN_ROLE}{role.name}`"
            )
        over = [cap.name for cap in self.caps if cap.bit & compiled[role.name].reach and cap.name not in self.own_role_limit]
        if over:
            raise unsound(f"`{role.name}` exceeds the host's limit", f"it would hold {', '.join(over)}", "leave them out")
        grants = grants_of(self.caps, compiled)
        for grant in grants:
            known = grant.when is None or (self.caps[grant.capability].bit, stored_condition(grant.when)) in self._conditions
            if isinstance(grant.when, PythonOnly) or not known:
                raise unsound(
                    f"`{role.name}` holds `{grant.capability}` on a condition that is not to be had",
                    f"`{stored_condition(grant.when)}`: the rows' policies ask only for conditions in SQL that a role of the product has on it",
                    "use a condition of the product's, or none",
                )
        return grants

    def admit(self, tenant: TenantId | IdValue, role: str, grants: Iterable[str]) -> None:
        """Take over what the database holds for the tenant's own *role*, so that this guard and the rows' policies say the same.

        Args:
            grants: one text each, ``capability condition``, as ``axis.membership_of`` answers. What this policy does not know, or its limit does not
                allow, is left out: it is no right in this release.

        Raises:
            UnsoundPolicy: *role* is no name of an own role.
        """
        if not role.startswith(OWN_ROLE):
            raise unsound(f"`{role}` is the product's role", "a workspace defines its own roles only", f"begin the name with `{OWN_ROLE}`")
        always, conditional = 0, dict[int, tuple[Predicate, ...]]()
        for text in sorted(grants):
            name, _, condition = text.partition(" ")
            if name not in self.own_role_limit:
                continue
            bit = self.caps[name].bit
            if not condition:
                always |= bit
            elif (test := self._conditions.get((bit, condition))) is not None:
                conditional[bit] = (*conditional.get(bit, ()), test)
        found = Holding(always, MappingProxyType({bit: tests for bit, tests in conditional.items() if not bit & always}))
        key = TenantId.of(tenant).text
        if self._tenants.get(key, {}).get(role) != found:
            with self._lock:
                self._tenants[key] = MappingProxyType({**self._tenants.get(key, {}), role: found})

    def grants(self) -> Sequence[Grant]:
        """Every grant of every host role, inheritance resolved, in a stable order."""
        return grants_of(self.caps, self._holdings)

    def allows(self, principal: Principal, capability: Capability) -> bool:
        """Whether *principal* holds *capability* without condition: one bit test. For menus and loops; :meth:`decide` explains."""
        # The same cell means the same registry: another registry's bits mean other things.
        if capability.in_force is self._cell and self._masks[principal.role] & capability.bit:
            return True
        return self.decide(principal, capability).allowed

    def decide(
        self,
        principal: Principal | None,
        capability: CapabilityLike | str,
        resource: Any = None,
        *,
        fresh: timedelta | None = None,
        aal: Assurance | None = None,
    ) -> Decision:
        """May *principal* use *capability* on *resource*? Never raises: whatever cannot be established is no.

        Args:
            fresh: how long ago the person may have signed in at most.
            aal: how strongly they must have.
        """
        name = capability if isinstance(capability, str) else getattr(capability, "name", "?")
        if name not in self.caps or (isinstance(capability, Capability) and capability not in self.caps):
            return Decision(False, DecisionCode.UNKNOWN_CAPABILITY, str(name), principal)
        if principal is None:
            return Decision(False, DecisionCode.NO_PRINCIPAL, name, None, None, (), self._would_allow[name])
        holding = self.holding(principal.role, principal.tenant)
        if holding is None:
            return Decision(False, DecisionCode.UNKNOWN_ROLE, name, principal, None, (name,), self._would_allow[name])
        bit = self.caps[name].bit
        rule: str | None = principal.role
        if not holding.always & bit:
            tests = holding.conditional.get(bit)
            if tests is None:
                return Decision(False, DecisionCode.MISSING_CAPABILITY, name, principal, None, (name,), self._would_allow[name])
            code, rule = _try(tests, principal, resource)
            if code is not DecisionCode.ALLOWED:
                return Decision(False, code, name, principal, rule, (), self._would_allow[name])
            rule = f"{principal.role} when {rule}"
        if fresh is not None or aal is not None:
            needs = self._step_up(principal, fresh, aal)
            if needs is not None:
                return Decision(False, DecisionCode.STEP_UP_REQUIRED, name, principal, rule, (), self._would_allow[name], needs)
        return Decision(True, DecisionCode.ALLOWED, name, principal, rule)

    def _step_up(self, principal: Principal, fresh: timedelta | None, aal: Assurance | None) -> StepUp | None:
        weak = aal is not None and principal.assurance < aal
        stale = False
        if fresh is not None:
            # A sign-in in the future is a broken clock or a forged time: not fresh.
            stale = principal.auth_time is None or not timedelta(0) <= self.clock.now() - principal.auth_time <= fresh
        return StepUp(aal if weak else None, fresh if stale else None) if weak or stale else None


def standard_policy(
    caps: Capabilities[str],
    *,
    viewer: Sequence[Capability | Allow] = (),
    member: Sequence[Capability | Allow] = (),
    admin: Sequence[Capability | Allow] = (),
    roles: Sequence[Role] = (),
    tenant_limit: Iterable[Capability] | None = None,
    clock: Clock = SYSTEM_CLOCK,
    events: EventSink | None = None,
) -> Policy:
    """Owner ⊇ admin ⊇ member ⊇ viewer; each list says what that role adds. ``users.manage`` is held by admin and owner, and the owner holds everything.

    Args:
        roles: further roles of the product, beside the four; none may hold ``users.manage``.

    Raises:
        UnsoundPolicy: ``users.manage`` is not declared, or given below admin.
    """
    if MANAGE_USERS not in caps:
        raise unsound(
            "the standard policy needs `users.manage`",
            "invitations, role changes and data export are guarded by it",
            'declare users=("manage",) in Capabilities(...)',
        )
    manage = caps[MANAGE_USERS]
    four = (
        Role("viewer", viewer),
        Role("member", member, ("viewer",)),
        Role("admin", (*admin, manage), ("member",)),
        Role("owner", tuple(caps), ("admin",)),
    )
    check = compile_roles(caps, (*four, *roles), MappingProxyType({}))
    for name, holding in check.items():
        if holding.reach & manage.bit and name not in ("admin", "owner"):
            raise unsound(
                f"role `{name}` would hold `users.manage`",
                "only owners and admins do in the standard policy",
                "build a Policy(...) of your own if you mean it",
            )
    return Policy(
        caps, roles=(*four, *roles), order=("viewer", "member", "admin", "owner"), tenant_limit=tenant_limit, clock=clock, events=events
    )


def _try(tests: Sequence[Predicate], principal: Principal, resource: Any) -> tuple[DecisionCode, str]:
    if resource is None:
        return DecisionCode.RESOURCE_REQUIRED, " or ".join(test.name for test in tests)
    broken: str | None = None
    for test in tests:
        try:
            answer: object = test.test(principal, resource)
        except Exception:  # noqa: BLE001  # a predicate that cannot answer has not said yes
            answer = None
        if answer is True:
            return DecisionCode.ALLOWED, test.name
        if answer is not False:
            broken = test.name
    if broken is not None:
        return DecisionCode.CONDITION_ERROR, broken
    return DecisionCode.CONDITION_FAILED, " or ".join(test.name for test in tests)

"""Who may do what to whom: the membership rules as one table, computed from the policy.

Three principles fill it. *Grant only up to your own rights*: a role may be handed out by a role that holds all that it holds. *Never
touch a higher role*: a member may be changed or removed by a role that holds all that the member's role holds. *Order counts*: a role
above one's own in the policy's order is out of reach, even where both happen to hold the same. Everything needs
``users.manage``, except leaving. The SQL reads these rows, the docs print them, and the tests try every combination.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from axis_security.core.errors import ConfigError
from axis_security.rbac.policy import MANAGE_USERS, Holding, Policy

__all__ = ["MemberAction", "Rule", "rules_of", "top_role"]


class MemberAction(enum.StrEnum):
    """What can be done to a membership. The target role is the invited, current or new role; ``''`` where there is none."""

    INVITE = "invite"
    REVOKE = "revoke"
    """Take an invitation back; the target role is the one it offers."""
    CHANGE_FROM = "change_from"
    """Change the role of somebody who has the target role now."""
    CHANGE_TO = "change_to"
    """Give somebody the target role."""
    REMOVE = "remove"
    LEAVE = "leave"
    TRANSFER = "transfer"
    """Make somebody who has the target role the owner, and keep a lower role oneself."""
    DELETE = "delete"
    """Mark the workspace for deletion, or take that back."""
    OWN = "own"
    """Counts as an owner: a workspace never loses its last one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One cell of the table."""

    action: MemberAction
    actor: str
    target: str
    allowed: bool
    why: str


def top_role(policy: Policy) -> str:
    """The role that owns a workspace: the last of the policy's order.

    Raises:
        ConfigError: the policy declares no order, or its top role lacks ``users.manage``.
    """
    if not policy.order:
        raise ConfigError(
            what="the policy has no owner",
            why="it declares no role order, so no role is the highest",
            fix="pass order=(…, 'owner') to Policy",
        )
    top = policy.order[-1]
    holding = policy.holding(top)
    if MANAGE_USERS not in policy.caps or holding is None or not holding.always & policy.caps[MANAGE_USERS].bit:
        raise ConfigError(
            what=f"`{top}` cannot manage a workspace",
            why="it is the highest role and lacks `users.manage`",
            fix="declare and grant users.manage to it",
        )
    return top


def rules_of(policy: Policy, *, own: Mapping[str, Holding] | None = None) -> Sequence[Rule]:
    """Every combination of action, actor's role and target's role, with the answer and its reason, in a stable order.

    Args:
        own: a workspace's own roles, which stand outside the order and never manage users; without them, the product's roles only.

    Raises:
        ConfigError: see :func:`top_role`.
    """
    top = top_role(policy)
    manage = policy.caps[MANAGE_USERS].bit
    rules: list[Rule] = []
    holdings = {name: holding for name in policy.roles if (holding := policy.holding(name)) is not None} | dict(own or {})
    for actor, mine in holdings.items():
        manages = actor in policy.roles and bool(mine.always & manage)
        rules.append(Rule(MemberAction.LEAVE, actor, "", allowed=True, why="everybody may leave"))
        rules.append(Rule(MemberAction.OWN, actor, "", allowed=actor == top, why="the highest role owns the workspace"))
        rules.append(Rule(MemberAction.DELETE, actor, "", allowed=actor == top, why="only an owner ends a workspace"))
        for target, theirs in holdings.items():
            covers = mine.covers(theirs)
            higher = _higher(policy.order, target, actor)
            for action in (MemberAction.INVITE, MemberAction.REVOKE, MemberAction.CHANGE_FROM, MemberAction.CHANGE_TO, MemberAction.REMOVE):
                grants = action in (MemberAction.INVITE, MemberAction.CHANGE_TO)
                if not manages:
                    why = f"`{actor}` lacks users.manage"
                elif higher:
                    why = f"`{target}` is above `{actor}`"
                elif not covers:
                    why = f"`{target}` holds more than `{actor}`: " + (
                        "grant only up to your own rights" if grants else "never touch a higher role"
                    )
                else:
                    why = f"`{actor}` manages users and holds all that `{target}` holds"
                rules.append(Rule(action, actor, target, allowed=manages and covers and not higher, why=why))
            rules.append(Rule(MemberAction.TRANSFER, actor, target, allowed=actor == top, why="only an owner hands over ownership"))
    return tuple(rules)


def _higher(order: Sequence[str], target: str, actor: str) -> bool:
    """Whether *target* stands above *actor*. A role outside the order stands below its top, whatever it holds."""
    if target not in order:
        return False
    return order.index(target) > order.index(actor) if actor in order else target == order[-1]

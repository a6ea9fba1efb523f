"""The compiled policy agrees with a plain model of sets; guards and decisions agree with each other."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from axis_security import Principal, acting_as
from axis_security.core.errors import AxisError
from axis_security.core.events import NullSink
from axis_security.rbac import Capabilities, Decision, Policy, Role, UnsoundPolicy, decide, requires
from axis_security.rbac.transitions import MemberAction, rules_of

ACTIONS = ("a", "b", "c", "d")
NAMES = ("r0", "r1", "r2", "r3", "r4")
Declared = list[tuple[frozenset[str], frozenset[str]]]

declarations: st.SearchStrategy[Declared] = st.lists(
    st.tuples(st.frozensets(st.sampled_from(ACTIONS)), st.frozensets(st.sampled_from(NAMES), max_size=2)), min_size=1, max_size=5
)


def build(declared: Declared, order: tuple[str, ...] = ()) -> tuple[Capabilities[str], Policy]:
    """The policy that *declared* describes: each role's own actions, and the roles it includes."""
    caps = Capabilities(thing=ACTIONS, users=("manage",))
    roles = [Role(NAMES[i], [caps[f"thing.{word}"] for word in sorted(own)], sorted(below)) for i, (own, below) in enumerate(declared)]
    return caps, Policy(caps, roles=roles, order=order, events=NullSink())


def model(declared: Declared) -> dict[str, set[str]] | None:
    """What each role holds, by walking; ``None``: unsound (a circle, or a role that is not there)."""
    held: dict[str, set[str]] = {}
    for start in NAMES[: len(declared)]:
        found: set[str] = set()
        todo: list[tuple[str, tuple[str, ...]]] = [(start, ())]
        while todo:
            name, path = todo.pop()
            if name in path or NAMES.index(name) >= len(declared):
                return None
            own, below = declared[NAMES.index(name)]
            found |= own
            todo += [(other, (*path, name)) for other in below]
        held[start] = found
    return held


@given(declarations)
def test_compiled_bits_are_the_sets(declared: Declared) -> None:
    """Every role x capability answers as walking the declarations does; unsound ones never become a policy."""
    expected = model(declared)
    try:
        caps, policy = build(declared)
    except UnsoundPolicy:
        assert expected is None
        return
    assert expected is not None
    for role, held in expected.items():
        who = Principal(tenant="t", user="u", role=role)
        for word in ACTIONS:
            cap = caps[f"thing.{word}"]

            @requires(cap)
            def guarded() -> bool:
                return True

            with acting_as(who):
                try:
                    through = guarded()
                except AxisError:
                    through = False
            decision = decide(who, cap)
            assert through is decision.allowed is policy.allows(who, cap) is (word in held)
            _explained(decision, expected, word)


def _explained(decision: Decision, expected: dict[str, set[str]], word: str) -> None:
    """A denial names exactly the roles that would have been allowed."""
    if not decision.allowed:
        assert set(decision.roles) == {role for role, held in expected.items() if word in held}


@given(declarations, st.permutations(NAMES))
def test_an_order_stands_only_if_nothing_is_lost_on_the_way_up(declared: Declared, shuffled: list[str]) -> None:
    """An order is accepted exactly when each role in it holds all that the one before holds."""
    expected = model(declared)
    if expected is None:
        return
    order = tuple(name for name in shuffled if name in expected)
    sound = all(expected[low] <= expected[high] for low, high in pairwise(order))
    try:
        build(declared, order)
    except UnsoundPolicy:
        assert not sound
    else:
        assert sound


@given(st.lists(st.frozensets(st.sampled_from(ACTIONS)), min_size=2, max_size=5), st.integers(1, 4))
def test_nobody_hands_out_or_touches_more_than_their_own(steps: list[frozenset[str]], managers_from: int) -> None:
    """In every ordered policy: whoever may give or take a role holds all of it, manages users, and stands no lower."""
    caps = Capabilities(thing=ACTIONS, users=("manage",))
    first = min(managers_from, len(steps) - 1)
    roles = [
        Role(
            NAMES[i],
            [*(caps[f"thing.{word}"] for word in sorted(own)), *([caps["users.manage"]] if i >= first else [])],
            NAMES[max(i - 1, 0) : i],
        )
        for i, own in enumerate(steps)
    ]
    order = NAMES[: len(steps)]
    policy = Policy(caps, roles=roles, order=order, events=NullSink())
    for rule in rules_of(policy):
        if rule.allowed and rule.target and rule.action is not MemberAction.TRANSFER:
            mine, theirs = policy.holding(rule.actor), policy.holding(rule.target)
            assert mine is not None
            assert theirs is not None
            assert theirs.always & ~mine.always == 0
            assert mine.always & caps["users.manage"].bit
            assert order.index(rule.target) <= order.index(rule.actor)
    owners = [rule.actor for rule in rules_of(policy) if rule.action is MemberAction.OWN and rule.allowed]
    assert owners == [order[-1]]

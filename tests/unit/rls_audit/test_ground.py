"""What rules stand on, without a server."""

from __future__ import annotations

from axis_security.rls.audit.facts import Facts, Role
from axis_security.rls.audit.ground import Ground, Scope


def test_a_role_of_any_name_is_quoted_in_what_mends() -> None:
    """A fix is SQL that somebody pastes into a superuser's session: a name must not end its own quotes there."""
    odd = 'app"; DROP TABLE t; --'
    role = Role(1, odd, False, False, False, False, False, True, True)
    assert Ground(Facts(roles={1: role}), Scope(key=None, app=frozenset({odd}))).app_names() == '"app""; DROP TABLE t; --"'
    assert Ground(Facts(), Scope(key=None, app=frozenset())).app_names() == "…"

"""Two workspaces and three people for the small examples: what sign-up pages and invitations would have made."""

from __future__ import annotations

import secrets
from typing import Any, Final

from axis_security import Principal, Secret, acting_as
from axis_security.auth.visitor import Visitor
from axis_security.core.ids import UserId
from axis_security.wiring.axis import Axis

__all__ = ["PASSWORD", "PEOPLE", "move_in"]

PASSWORD: Final = "an uncommon sentence"
PEOPLE: Final = (("ann", "acme", "owner"), ("vic", "acme", "viewer"), ("bob", "globex", "owner"))
"""Name, workspace, role; each signs in as ``name@example.com``."""


def move_in(axis: Axis[Any, Any]) -> None:
    """Create the accounts and the workspaces."""
    auth = axis.auth
    visitor = Visitor(cookies=auth.profile.read(None), address="127.0.0.1", agent="setup", host="localhost")
    owners: dict[str, Principal] = {}
    for name, tenant, role in PEOPLE:
        email = f"{name}@example.com"
        answer = axis.run(auth.lifecycle.register(user=UserId(name), identifier=email, password=Secret(PASSWORD), visitor=visitor))
        axis.run(auth.lifecycle.verify(token=answer.letter.token, visitor=visitor))
        person = Principal(tenant=tenant, user=name, role=role)
        if tenant not in owners:
            owners[tenant] = person
            with acting_as(person):
                axis.members.create_workspace(tenant.title())
            continue
        digest = secrets.token_bytes(32)
        with acting_as(owners[tenant]):
            axis.members.invite(digest=digest, email=email, role=role)
        with acting_as(person):
            axis.members.accept(digest=digest, email=email)

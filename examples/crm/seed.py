"""Sample data: two workspaces, and an owner, an admin, a member and a viewer in each."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from examples.crm.models import STAGES, Contact, Deal, Profile
from examples.crm.security import Site

from axis_security import Principal, Secret, acting_as
from axis_security.auth.visitor import Visitor
from axis_security.core.ids import TenantId, UserId

__all__ = ["PASSWORD", "Person", "move_in"]

PASSWORD: Final = "an uncommon sentence"
_CONTACTS: Final = {
    "acme": (
        ("Ines Duarte", "Harbour Foods", "ines@harbour.example"),
        ("Tomas Berg", "Berg & Sons", "tomas@berg.example"),
        ("Aiko Mori", "Mori Design", "aiko@mori.example"),
    ),
    "globex": (("Paul Okafor", "Lagos Freight", "paul@lagosfreight.example"), ("Lena Fischer", "Fischer Optik", "lena@optik.example")),
}
_ROLES: Final = {"owner": "Olga", "admin": "Adam", "member": "Mia", "viewer": "Victor"}


@dataclass(frozen=True)
class Person:
    """Somebody with an account."""

    name: str
    email: str
    workspace: str
    role: str
    user: UserId
    tenant: TenantId


def move_in(site: Site) -> list[Person]:
    """Create the accounts, the workspaces and what is in them."""
    axis = site.axis
    visitor = Visitor(cookies=axis.auth.profile.read(None), address="127.0.0.1", agent="setup", host="localhost")
    people: list[Person] = []
    for workspace, contacts in _CONTACTS.items():
        tenant = TenantId(uuid.uuid4())
        site.ring.create(tenant)
        for role, name in _ROLES.items():
            person = Person(f"{name} of {workspace.title()}", f"{role}@{workspace}.example", workspace, role, UserId(uuid.uuid4()), tenant)
            people.append(person)
            answer = axis.run(
                axis.auth.lifecycle.register(user=person.user, identifier=person.email, password=Secret(PASSWORD), visitor=visitor)
            )
            axis.run(axis.auth.lifecycle.verify(token=answer.letter.token, visitor=visitor))
            principal = Principal(tenant=tenant, user=person.user, role=role)
            if role == "owner":
                owner = principal
                with acting_as(owner):
                    axis.members.create_workspace(workspace.title())
            else:
                _, digest = axis.auth.invitations.mint()
                with acting_as(owner):
                    axis.members.invite(digest=digest, email=person.email, role=role)
                with acting_as(principal):
                    axis.members.accept(digest=digest, email=person.email)
            with acting_as(principal), site.db() as db:
                db.add(Profile(user_id=person.user.text, name=person.name, email=person.email))
                db.commit()
        boss = next(each for each in people if each.tenant == tenant)
        with acting_as(owner), site.db() as db:
            for number, (name, company, email) in enumerate(contacts):
                contact = Contact(id=uuid.uuid4(), owner_id=boss.user.text, name=name, company=company)
                contact.email, contact.phone, contact.notes = email, f"+351 555 01{number:02d}", "Met at the fair. Prefers mail."
                db.add(contact)
                db.flush()
                db.add(Deal(contact_id=contact.id, title=f"{company}: first order", amount=4_800 * (number + 1), stage=STAGES[number % 3]))
            db.commit()
    return people

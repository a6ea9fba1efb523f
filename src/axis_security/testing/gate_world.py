"""An app's whole security set-up in memory, and people who are signed in: for tests of a host's own routes and of adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from axis_security.auth.csrf import Csrf
from axis_security.auth.sessions import Session
from axis_security.core.ids import KeyType, TenantId, UserId
from axis_security.core.settings import Environment
from axis_security.rbac.capability import Capabilities
from axis_security.rbac.members import Membership
from axis_security.rbac.policy import Policy, standard_policy
from axis_security.testing.auth_world import AuthWorld, TestBrowser
from axis_security.wiring.gate import Gate
from axis_security.wiring.identity import AsyncIdentity, Identity, TwoStores

__all__ = ["GateWorld", "MemoryMembers", "Person"]

HOST = "app.example.com"
ORIGIN = f"https://{HOST}"


class MemoryMembers:
    """Memberships in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Membership] = {}

    def put(self, tenant: str, user: UserId, role: str, state: str = "active") -> None:
        """Make *user* a member, or change what they are."""
        self.rows[tenant, user.text] = Membership(role, state)

    def resolve(self, tenant: TenantId, user: UserId, /) -> Membership | None:
        """Role and state."""
        return self.rows.get((tenant.text, user.text))


class Person:
    """Somebody with a browser.

    Args:
        browser: keeps the cookies.
        user: their id.
    """

    def __init__(self, world: GateWorld, browser: TestBrowser, user: UserId) -> None:
        self._world = world
        self.browser = browser
        self.user = user

    @property
    def cookie(self) -> str:
        """The ``Cookie`` header that the browser would send."""
        return "; ".join(f"{name}={value}" for name, value in self.browser.jar.items())

    @property
    def session(self) -> Session:
        """The session."""
        return self.browser.session()

    def token(self) -> str:
        """A CSRF token of the session."""
        csrf: Csrf = self._world.auth.csrf
        return csrf.issue(self.session.handle).reveal()

    def headers(self, *, unsafe: bool = False) -> dict[str, str]:
        """What the browser sends: host and cookies; with *unsafe*, origin and token too."""
        found = {"host": HOST, "cookie": self.cookie}
        return found | {"origin": ORIGIN, "x-csrf-token": self.token()} if unsafe else found

    def choose(self, tenant: str) -> None:
        """Choose a workspace."""
        self.browser.run(self._world.auth.sessions.switch_tenant(self.session, visitor=self.browser.visitor, tenant=TenantId(tenant)))


class GateWorld:
    """Accounts, sessions, members, a policy and gates over them.

    Args:
        world: accounts and sessions; one in memory if not given.
        members: anything with ``resolve``; :class:`MemoryMembers` if not given.
    """

    def __init__(self, *, world: AuthWorld | None = None, members: Any = None, identity: Identity | AsyncIdentity | None = None) -> None:
        self.world = world or AuthWorld()
        self.auth = self.world.auth
        self.members = members or MemoryMembers()
        self.caps = Capabilities(contacts=("read", "write"), users=("manage",))
        self.policy: Policy = standard_policy(
            self.caps, viewer=[self.caps.contacts.read], member=[self.caps.contacts.write], events=self.world, clock=self.world
        )
        self.key: Final = KeyType.TEXT
        self.identity = identity or TwoStores(self.world.store, self.members, key=self.key)

    def gate(self, *, environment: Environment = Environment.PRODUCTION, anonymous: Sequence[str] = (), **settings: Any) -> Gate:
        """A gate over this world."""
        chosen: dict[str, Any] = {"identity": self.identity, "key": self.key, **settings}
        return Gate(auth=self.auth, events=self.world, clock=self.world, environment=environment, anonymous=anonymous, **chosen)

    def person(self, name: str, *, tenant: str | None = None, role: str | None = None, state: str = "active") -> Person:
        """Somebody who is signed in; in *tenant* with *role*, if given."""
        user = self.world.account(f"{name}@example.com")
        browser = self.world.browser()
        browser.sign_in(f"{name}@example.com")
        person = Person(self, browser, user)
        if tenant is not None:
            person.choose(tenant)
            if role is not None:
                self.members.put(tenant, user, role, state)
        return person

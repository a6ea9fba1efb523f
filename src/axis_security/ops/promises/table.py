"""The promises, and what a host gives to have each measured.

The table is the security page of the design; :class:`Promises` is a host's own: for each promise the looks that measure it on the running system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from axis_security.core.errors import ConfigError
from axis_security.ops.promises.answer import Look

__all__ = ["PROMISES", "Promise", "Promises"]


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of the security page.

    Args:
        id: its number.
        key: the field of :class:`Promises` that measures it.
        text: what is promised.
        where: the part of the library that keeps it.
    """

    id: int
    key: str
    text: str
    where: str


PROMISES: Final = (
    Promise(1, "transport", "TLS 1.3 between users and app, and app and database", "ops/tls"),
    Promise(2, "at_rest", "AES-256 at rest: database fields and object storage", "crypto"),
    Promise(3, "isolation", "Workspaces are isolated by row-level security on every tenant-scoped table, before any row is returned or modified", "rls"),
    Promise(4, "passwords", "Passwords are stored as Argon2id with a salt for each person", "auth/passwords"),
    Promise(5, "sessions", "Sessions live in HttpOnly, Secure, SameSite cookies", "auth/sessions"),
    Promise(6, "second_factor", "TOTP as a second factor for every account that wants it", "auth/totp"),
    Promise(7, "roles", "Roles: owner, admin, member, viewer", "rbac"),
    Promise(8, "requests", "Permissions are enforced on the server, on every request", "wiring, adapters"),
    Promise(9, "members", "Invitations, role changes and data export need users.manage, which only owners and admins hold", "rbac/members"),
    Promise(10, "backups", "Daily encrypted backups, with recovery to any moment of the retention window", "ops/backup"),
    Promise(11, "health", "Health monitoring, checks inside the application, and a gate before deployment", "ops/health, ops/verify"),
    Promise(12, "secrets", "Secrets live in a secrets manager, never in source", "ops/secrets"),
    Promise(13, "disclosure", "A way to report a vulnerability, kept fresh", "ops/disclosure"),
    Promise(14, "controls", "SOC 2 readiness: a control environment with evidence, on request", "ops/evidence"),
)  # fmt: skip
"""The fourteen promises, in the order of a security page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """How a host's promises are measured; ``axis-security verify module:object`` takes one of these, or a callable that makes one.

    Each field from ``transport`` to ``controls`` holds the looks for the promise of that name, from :mod:`axis_security.ops.promises` or the host's
    own. A promise without a look is not held: nothing measures it.

    Args:
        product: its name, for the page.
        declined: promises that this product does not make, by field, each with the reason. They are shown as such, and not counted as held.

    Raises:
        ConfigError: a name in *declined* is no promise, its reason is missing, or it has looks as well.
    """

    product: str
    transport: Sequence[Look] = ()
    at_rest: Sequence[Look] = ()
    isolation: Sequence[Look] = ()
    passwords: Sequence[Look] = ()
    sessions: Sequence[Look] = ()
    second_factor: Sequence[Look] = ()
    roles: Sequence[Look] = ()
    requests: Sequence[Look] = ()
    members: Sequence[Look] = ()
    backups: Sequence[Look] = ()
    health: Sequence[Look] = ()
    secrets: Sequence[Look] = ()
    disclosure: Sequence[Look] = ()
    controls: Sequence[Look] = ()
    declined: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {each.name for each in fields(self)} - {"product", "declined"}
        problems = [f"`{name}` is no promise" for name in self.declined.keys() - known]
        problems += [f"`{name}` is declined without a reason" for name, why in self.declined.items() if len(why.strip()) < 8]
        problems += [f"`{name}` is declined and has looks" for name in self.declined if name in known and self.looks(name)]
        problems += [f"`{name}` holds something that cannot be called" for name in known if not all(map(callable, self.looks(name)))]
        if not self.product.strip():
            problems.append("the product has no name")
        if problems:
            raise ConfigError(what="the promises are not usable", why="; ".join(sorted(problems)), fix="see docs/how-to/verify.md")

    def looks(self, key: str) -> tuple[Look, ...]:
        """The looks of the promise *key*."""
        return tuple(getattr(self, key))

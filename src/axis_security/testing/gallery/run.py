"""Runs the gallery: each attack against the guarded world, then against one whose guard is gone."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from axis_security.core.schema import DatabaseRoles
from axis_security.testing.cluster import TestServer
from axis_security.testing.gallery.attack import Attack, Verdict
from axis_security.testing.gallery.doors import DOOR_ATTACKS
from axis_security.testing.gallery.forgery import FORGERY_ATTACKS
from axis_security.testing.gallery.runtime import RUNTIME_ATTACKS
from axis_security.testing.gallery.statements import STATEMENT_ATTACKS
from axis_security.testing.gallery.world import World, new_keyring, template_database

__all__ = ["ATTACKS", "Result", "run_gallery"]

ATTACKS: Final[tuple[Attack, ...]] = (*RUNTIME_ATTACKS, *FORGERY_ATTACKS, *STATEMENT_ATTACKS, *DOOR_ATTACKS)
"""Every attack of the gallery, in the order in which it is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one attack.

    Args:
        attack: which.
        guarded: with every guard in place; ``None`` if the attempt itself broke.
        unguarded: with its guard taken away; ``None`` if the attempt itself broke.
        trouble: why an attempt broke.
    """

    attack: Attack
    guarded: Verdict | None
    unguarded: Verdict | None
    trouble: str = ""

    @property
    def blocked(self) -> bool:
        """The attempt was made and came to nothing."""
        return self.guarded is not None and not self.guarded.leaked

    @property
    def control_bites(self) -> bool:
        """Without its guard, the same attempt works."""
        return self.unguarded is not None and self.unguarded.leaked

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "name": self.attack.name,
            "attempt": self.attack.attempt,
            "layer": str(self.guarded.layer) if self.guarded is not None and self.guarded.layer is not None else None,
            "blocked": self.blocked,
            "control_bites": self.control_bites,
            "seen": self.guarded.seen if self.guarded is not None else self.trouble,
            "control_seen": self.unguarded.seen if self.unguarded is not None else self.trouble,
        }


def run_gallery(server: TestServer, *, attacks: Sequence[Attack] = ATTACKS) -> Iterator[Result]:
    """Run *attacks* on *server*, one result at a time. Makes its own databases and roles, and removes them."""
    roles = DatabaseRoles.prefixed(f"gallery_{secrets.token_hex(4)}")
    keyring = new_keyring()
    try:
        with template_database(server, roles, keyring) as template:
            for attack in attacks:
                yield _run(server, template, roles, keyring, attack)
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            for role in (roles.app, roles.system, roles.owner, roles.guard):
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def _run(server: TestServer, template: str, roles: DatabaseRoles, keyring: Any, attack: Attack) -> Result:
    verdicts: list[Verdict | None] = []
    trouble = ""
    for guarded in (True, False):
        with contextlib.closing(World(server, template, roles, keyring)) as world:
            try:
                if not guarded:
                    attack.without_guard(world)
                verdicts.append(attack.strike(world))
            except Exception as error:  # noqa: BLE001  # a broken attempt is a row that says so, and fails the run
                verdicts.append(None)
                trouble = f"{'guarded' if guarded else 'control'}: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return Result(attack=attack, guarded=verdicts[0], unguarded=verdicts[1], trouble=trouble)

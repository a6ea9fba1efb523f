"""What an attack is: something tried, what came of it, and the proof that the attempt could have worked.

An attack that fails proves nothing by itself: it may have been aimed badly. So each comes with a *control*: its guard is taken away
in a database of its own, and the very same attempt must then succeed. A control that does not bite makes the demo fail as loudly as a
leak does.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import exc

from axis_security.core.errors import AxisError

if TYPE_CHECKING:
    from axis_security.testing.gallery.world import World

__all__ = ["Attack", "Layer", "Verdict", "held", "leaked", "refused_by"]


class Layer(enum.StrEnum):
    """What stood in the way."""

    CLIENT = "client: not sent"
    BINDING = "binding at BEGIN"
    SEAL = "sealed context"
    POLICY = "row-level policy"
    FORCE = "FORCE row security"
    FLOOR = "restrictive floor"
    PRIVILEGE = "privileges"
    FOREIGN_KEY = "composite key"
    UNIQUE_KEY = "tenant-scoped unique"
    SERVER = "PostgreSQL itself"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an attempt.

    Args:
        leaked: the attacker saw, changed or learned something of another tenant's.
        layer: what refused, where something did.
        seen: the refusal or the loot, in a few words; sample data only.
    """

    leaked: bool
    layer: Layer | None
    seen: str


@dataclass(frozen=True, slots=True)
class Attack:
    """A named attempt on another tenant's data.

    Args:
        name: short and stable.
        attempt: what the attacker tried, in one line.
        strike: tries it and says what came of it; raises only where the attempt itself is broken.
        without_guard: takes the guard away, in a database that nothing else uses.
    """

    name: str
    attempt: str
    strike: Callable[[World], Verdict]
    without_guard: Callable[[World], None]


def leaked(seen: str) -> Verdict:
    """The attack worked."""
    return Verdict(leaked=True, layer=None, seen=seen)


def held(layer: Layer, seen: str) -> Verdict:
    """The attack came to nothing without an error."""
    return Verdict(leaked=False, layer=layer, seen=seen)


def refused_by(error: Exception) -> Verdict:
    """The verdict of a refusal; anything that is not one is raised again, since it says nothing about the guard."""
    if isinstance(error, AxisError):
        return Verdict(leaked=False, layer=Layer.CLIENT, seen=f"{type(error).__name__}: {error.what}")
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(cause, AxisError):
        return refused_by(cause)
    if not isinstance(cause, psycopg.Error):
        raise error
    layer = _layer_of(cause)
    if layer is None:
        raise error
    return Verdict(
        leaked=False, layer=layer, seen=f"{cause.sqlstate or ''} {cause.diag.message_primary or str(cause).splitlines()[0]}".strip()
    )


def _layer_of(error: psycopg.Error) -> Layer | None:
    state = error.sqlstate or ""
    message = error.diag.message_primary or ""
    if state.startswith("AX"):
        return Layer.SEAL
    if state == "42501":
        return Layer.POLICY if "row-level security" in message else Layer.PRIVILEGE
    if state == "0A000" and "row-level security" in message:
        return Layer.POLICY
    if state == "23503":
        return Layer.FOREIGN_KEY
    if state == "55P03":
        return Layer.POLICY
    if isinstance(error, psycopg.OperationalError) and (state.startswith("57P") or error.pgconn is None or not state):
        return Layer.SERVER
    return None

"""The error tree: every refusal says what happened, why, and how to fix it.

One base class, :class:`AxisError`. Each subclass has a stable ``code`` (part of the public contract), an HTTP status *hint*
for adapters, and one fixed public sentence. Three audiences, three forms:

* ``str(error)``: for the developer at the terminal; names of tables and settings, never a secret or a row value.
* ``error.public()``: for the stranger on the other side of the wire; says nothing that helps an attacker.
* ``error.audit()``: for the log; everything safe to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

__all__ = [
    "AxisError",
    "CheckFailed",
    "ConfigError",
    "Denied",
    "MalformedId",
    "MissingExtra",
    "PrincipalRequired",
    "Unavailable",
]

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
_OWN: Final = frozenset({"what", "why", "fix", "facts"})


class AxisError(Exception):
    """Base of every error this library raises on purpose.

    Args:
        what: what happened, in plain words.
        why: the reason, with names (never values) of the things involved.
        fix: what the reader should do about it.
        facts: extra fields for :meth:`audit`; safe to log, so no secret and no row value.
    """

    code: ClassVar[str] = "axis.error"
    """Stable, dotted, part of the public contract."""
    http_status: ClassVar[int] = 500
    """A hint for adapters; the gate decides what a stranger sees."""
    public_text: ClassVar[str] = "The request could not be completed."
    """The one sentence a stranger is told."""

    def __init__(self, *, what: str, why: str, fix: str, facts: Mapping[str, Any] = _EMPTY) -> None:
        super().__init__(what, why, fix)
        self.what: Final = what
        self.why: Final = why
        self.fix: Final = fix
        self.facts: Final[Mapping[str, Any]] = MappingProxyType(dict(facts))

    def __str__(self) -> str:
        return f"{self.what}: {self.why}. Fix: {self.fix}. [{self.code}]"

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses narrow __init__, so the default (call the class with args) would fail in a worker's result queue.
        # Plain attributes of a subclass (`retry_after`) travel too; richer ones may hold what no queue can take.
        more = {name: value for name, value in vars(self).items() if name not in _OWN and isinstance(value, (str, int, float))}
        return _rebuild, (type(self), self.what, self.why, self.fix, dict(self.facts)), more

    def public(self) -> Mapping[str, str]:
        """The answer for a stranger: the code and one fixed sentence, no detail."""
        return {"code": self.code, "message": self.public_text}

    def audit(self) -> Mapping[str, Any]:
        """The answer for the log: everything that is safe to keep."""
        return {"code": self.code, "what": self.what, "why": self.why, "fix": self.fix, **self.facts}


def _rebuild(cls: type[AxisError], what: str, why: str, fix: str, facts: dict[str, Any]) -> AxisError:
    error = cls.__new__(cls)
    AxisError.__init__(error, what=what, why=why, fix=fix, facts=facts)
    return error


class ConfigError(AxisError):
    """A setting is missing, contradictory or unsafe. Raised at construction, never at first use."""

    code = "axis.config"


class MissingExtra(ConfigError):
    """An optional dependency is not installed."""

    code = "axis.missing_extra"

    def __init__(self, *, package: str, extra: str) -> None:
        super().__init__(
            what=f"`{package}` is not installed",
            why=f"this part of axis-security needs the extra `{extra}`",
            fix=f"pip install 'axis-security[{extra}]'",
        )


class MalformedId(AxisError):
    """A tenant, user or session identifier does not have the one accepted spelling."""

    code = "axis.malformed_id"
    http_status = 400
    public_text = "The request names something that does not exist."


class PrincipalRequired(AxisError):
    """Something asked who is acting, and nobody is."""

    code = "axis.principal_required"
    http_status = 401
    public_text = "Please sign in."

    def __init__(self) -> None:
        super().__init__(
            what="no principal is bound",
            why="this code runs outside `acting_as(...)`, or in a thread or task that did not copy the context",
            fix="wrap the call in `with acting_as(Principal(...)):`; in a thread, run it through `contextvars.copy_context().run`",
        )


class Denied(AxisError):
    """The principal may not do this. Base class of the refusals of rbac, auth and the gate."""

    code = "axis.denied"
    http_status = 403
    public_text = "You do not have permission to do this."


class Unavailable(AxisError):
    """A dependency (database, store, key service) did not answer. The answer to the caller is no, for now."""

    code = "axis.unavailable"
    http_status = 503
    public_text = "The service is temporarily unavailable. Please try again."


class CheckFailed(AxisError):
    """A check could not be carried out; the thing it guards counts as broken."""

    code = "axis.check_failed"

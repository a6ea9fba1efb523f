"""What Django's settings say of this library: one dictionary, ``AXIS_SECURITY``, of dotted names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from axis_security.core.errors import ConfigError
from axis_security.rls.plan import Plan
from axis_security.rls.tenancy import Tenancy
from axis_security.wiring.gate import Gate

__all__ = ["gate", "named", "opened", "plan", "tenancy"]


def tenancy() -> Tenancy:
    """The :class:`~axis_security.rls.tenancy.Tenancy` of ``AXIS_SECURITY["AXIS"]``, or the one that ``AXIS_SECURITY["TENANCY"]`` names.

    Raises:
        ConfigError: the setting is missing, or names something else.
    """
    found = _of_axis("tenancy", "TENANCY")
    if not isinstance(found, Tenancy):
        raise ConfigError(
            what='AXIS_SECURITY["TENANCY"] is no tenancy', why=f"it names a `{type(found).__name__}`", fix="name a ModelTenancy of yours"
        )
    return found


def gate() -> Gate:
    """The :class:`~axis_security.wiring.gate.Gate` of ``AXIS_SECURITY["AXIS"]``, or the one that ``AXIS_SECURITY["GATE"]`` names.

    Raises:
        ConfigError: the setting is missing, or names something else.
    """
    found = _of_axis("gate", "GATE")
    if not isinstance(found, Gate):
        raise ConfigError(what='AXIS_SECURITY["GATE"] is no gate', why=f"it names a `{type(found).__name__}`", fix="name a Gate of yours")
    return found


def plan(connection: Any) -> Plan:
    """What the database lacks: of the whole :class:`~axis_security.wiring.axis.Axis` where one is named, else of the tenancy.

    Raises:
        ConfigError: the settings name neither.
    """
    made: Plan = _of_axis("plan", "TENANCY", lambda found: found.plan)(connection)
    return made


def opened() -> Mapping[str, str]:
    """``AXIS_SECURITY["OPENED"]``: path templates of routes that cannot be decorated, with the reason why each is open to everybody.

    Raises:
        ConfigError: a reason is empty.
    """
    from django.conf import settings

    found = dict(getattr(settings, "AXIS_SECURITY", {}).get("OPENED", {}))
    if any(not reason.strip() for reason in found.values()):
        raise ConfigError(
            what="an open path needs a reason", why="the audit of routes shows it", fix='"OPENED": {"/docs/": "API reference"}'
        )
    return found


def _of_axis(attribute: str, key: str, other: Callable[[Any], Any] = lambda found: found) -> Any:
    from django.conf import settings

    if "AXIS" in getattr(settings, "AXIS_SECURITY", {}):
        return getattr(named("AXIS"), attribute, None)
    return other(named(key))


def named(key: str) -> Any:
    """The object that ``AXIS_SECURITY[key]`` names.

    Raises:
        ConfigError: the setting is missing, or cannot be imported.
    """
    from django.conf import settings
    from django.utils.module_loading import import_string

    path = getattr(settings, "AXIS_SECURITY", {}).get(key)
    if not isinstance(path, str):
        raise ConfigError(
            what=f'the setting AXIS_SECURITY["{key}"] is missing',
            why="Django was not told where the object is",
            fix=f'AXIS_SECURITY = {{"{key}": "yourproject.security.{key.lower()}"}}',
        )
    try:
        return import_string(path)
    except ImportError as error:
        # The cause is the host's own module: hiding it would hide the line to mend.
        raise ConfigError(
            what=f'AXIS_SECURITY["{key}"] cannot be imported', why=f"{type(error).__name__} in `{path}`", fix="name module and attribute"
        ) from error

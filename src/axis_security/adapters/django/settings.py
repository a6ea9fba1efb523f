"""What Django's settings say of this library: one dictionary, ``AXIS_SECURITY``, of dotted names."""

from __future__ import annotations

from typing import Any

from axis_security.core.errors import ConfigError
from axis_security.rls.tenancy import Tenancy

__all__ = ["named", "tenancy"]


def tenancy() -> Tenancy:
    """The :class:`~axis_security.rls.tenancy.Tenancy` that ``AXIS_SECURITY["TENANCY"]`` names.

    Raises:
        ConfigError: the setting is missing, or names something else.
    """
    found = named("TENANCY")
    if not isinstance(found, Tenancy):
        raise ConfigError(
            what='AXIS_SECURITY["TENANCY"] is no tenancy', why=f"it names a `{type(found).__name__}`", fix="name a ModelTenancy of yours"
        )
    return found


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

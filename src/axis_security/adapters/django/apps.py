"""``INSTALLED_APPS = ["axis_security.adapters.django", …]``: brings the management commands. It has no models."""

from __future__ import annotations

from axis_security.core.errors import MissingExtra

try:
    from django.apps import AppConfig
except ModuleNotFoundError:
    raise MissingExtra(package="django", extra="django") from None

__all__ = ["AxisConfig"]


class AxisConfig(AppConfig):  # type: ignore[misc]  # Django ships no types
    """The app that Django sees."""

    name = "axis_security.adapters.django"
    label = "axis_security"
    verbose_name = "axis-security"

"""``DATABASE_ROUTERS = ["axis_security.adapters.django.OwnerMigrates"]``: migrations run as the owner, never through the app's login."""

from __future__ import annotations

from typing import Any, Final

from axis_security.core.errors import MissingExtra

try:
    from django.db import connections
except ModuleNotFoundError:
    raise MissingExtra(package="django", extra="django") from None

__all__ = ["OwnerMigrates"]

_ENGINE: Final = "axis_security.adapters.django.backend"


class OwnerMigrates:
    """Keeps ``makemigrations`` and ``migrate`` away from bound databases, where nobody is acting; decides nothing else."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """No for a bound database, no opinion on others."""
        return False if connections[db].settings_dict["ENGINE"] == _ENGINE else None

"""``manage.py runserver`` as the app's own login, which may not read Django's table of migrations."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.utils.module_loading import import_string

__all__ = ["Command"]

_below: Any = import_string(
    f"django.{'contrib.staticfiles' if apps.is_installed('django.contrib.staticfiles') else 'core'}.management.commands.runserver.Command"
)


class Command(_below):  # type: ignore[misc]  # chosen at run time
    """Django's own, without its look at the migrations through the connection that serves requests, where nobody is acting."""

    def check_migrations(self) -> None:
        """Said instead of done; ``manage.py migrate --check --database owner`` asks as the owner."""
        self.stdout.write("Migrations are not looked at here: run `migrate --check` with the owner's database.\n")

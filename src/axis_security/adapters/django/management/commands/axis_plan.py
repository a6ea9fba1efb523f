"""``manage.py axis_plan --database owner [--apply]``: what the database lacks of the declared isolation, as reviewable SQL."""

from __future__ import annotations

from typing import Any

import psycopg
from django.core.management.base import BaseCommand
from django.db import connections

from axis_security.adapters.django.settings import plan

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc]  # Django ships no types
    """Prints the plan; ``--apply`` runs it in one transaction. Exit code 1 where something is left to do."""

    help = "Prints, or applies, the plan that makes the database isolate tenants as AXIS_SECURITY declares."
    requires_migrations_checks = False

    def add_arguments(self, parser: Any) -> None:
        """The options."""
        parser.add_argument("--database", default="owner", help="alias of a superuser's (or owner's) connection; not the app's own")
        parser.add_argument("--apply", action="store_true", help="run the plan")

    def handle(self, *args: Any, database: str, apply: bool, **options: Any) -> None:
        """Plan, and apply if told."""
        params = connections[database].get_connection_params()
        # A plain psycopg connection: Django's adapters read some types their own way.
        wanted = {
            name: params[name] for name in params if name not in {"context", "cursor_factory", "prepare_threshold", "client_encoding"}
        }
        with psycopg.connect(**wanted, autocommit=True) as connection:
            found = plan(connection)
            self.stdout.write(str(found))
            if apply:
                found.apply(connection)
                found = plan(connection)
        if found.steps:
            raise SystemExit(1)

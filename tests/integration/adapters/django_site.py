"""One Django for this test process: Django's settings are global, so every test module shares them."""

from __future__ import annotations

import django
from django.apps import AppConfig
from django.conf import settings

__all__ = ["SiteConfig", "ready"]


class SiteConfig(AppConfig):
    """The app whose models are in `django_models`."""

    name = "tests.integration.adapters.django_site"
    label = "site"


def ready() -> None:
    """Set Django up, once."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="t" * 50,
        USE_TZ=True,
        TIME_ZONE="UTC",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "axis_security.adapters.django",
            "django.contrib.contenttypes",
            "tests.integration.adapters.django_site.SiteConfig",
        ],
        AXIS_SECURITY={
            "TENANCY": "tests.integration.adapters.django_models.tenancy",
            "GATE": "tests.integration.adapters.django_models.gate",
        },
        ALLOWED_HOSTS=["app.example.com"],
        LOGGING_CONFIG=None,
        DATABASES={},
    )
    django.setup()

"""Django's settings. Two database logins: the app's, bound to whoever acts, and the owner's, for migrations and the plan alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict


def _database(dsn: str, engine: str) -> dict[str, Any]:
    parts = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {"ENGINE": engine, **{key: parts.get(name, "") for key, name in names.items()}}


DATABASES = {"default": _database(os.environ["NOTES_DSN"], "axis_security.adapters.django.backend")}
if "NOTES_OWNER_DSN" in os.environ:  # where migrations run; not where requests are served
    DATABASES["owner"] = _database(os.environ["NOTES_OWNER_DSN"], "django.db.backends.postgresql")
DATABASE_ROUTERS = ["axis_security.adapters.django.OwnerMigrates"]

INSTALLED_APPS = ["axis_security.adapters.django", "examples.django_notes"]
MIDDLEWARE = ["axis_security.adapters.django.AxisMiddleware"]  # first; sessions, CSRF and security headers are its own
AXIS_SECURITY = {"AXIS": "examples.django_notes.security.axis"}

ROOT_URLCONF = "examples.django_notes.urls"
WSGI_APPLICATION = "examples.django_notes.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "OPTIONS": {"context_processors": ["axis_security.adapters.django.context"]},
    }
]
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
SECRET_KEY = os.environ["NOTES_SECRET_KEY"]  # Django insists; nothing of this app's security hangs on it
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

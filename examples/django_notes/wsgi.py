"""For a WSGI server, and for ``axis-security routes examples.django_notes.wsgi:application``."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_notes.settings")
application = get_wsgi_application()

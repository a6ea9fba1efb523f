"""Django's database backend for PostgreSQL, bound: ``"ENGINE": "axis_security.adapters.django.backend"``."""

"""The models of the tests' Django site; import after `django_site.ready()`."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import models

from axis_security.adapters.django import ModelTenancy, current_tenant, current_user
from axis_security.core.schema import DatabaseRoles
from axis_security.rls import SealKeyring

tenancy: Any = None
"""Set by the fixture: each test process has its own roles and seal key."""
gate: Any = None
"""Set by each test of requests."""


class Book(models.Model):
    """A notebook."""

    tenant_id = models.BigIntegerField(default=current_tenant, editable=False)
    name = models.TextField()

    class Meta:
        app_label = "site"


class Note(models.Model):
    """A note in a notebook."""

    key = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant_id = models.BigIntegerField(default=current_tenant, editable=False)
    owner_id = models.BigIntegerField(default=current_user, null=True, editable=False)
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="notes")
    text = models.CharField(max_length=200)

    class Meta:
        app_label = "site"


class Country(models.Model):
    """Reference data."""

    code = models.CharField(primary_key=True, max_length=2)

    class Meta:
        app_label = "site"


def declare(roles: DatabaseRoles, seal: SealKeyring) -> ModelTenancy:
    """Every table decided."""
    made = ModelTenancy(key="tenant_id", roles=roles, seal=seal)
    made.protect(Book)
    made.protect(Note)
    made.open(Country, reason="reference data, the same for all")
    made.open(ContentType, reason="Django's list of models; no tenant's data")
    return made

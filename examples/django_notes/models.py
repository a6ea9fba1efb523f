"""The app's one table."""

from __future__ import annotations

from django.db import models

from axis_security.adapters.django import current_tenant

__all__ = ["Note"]


class Note(models.Model):
    """A note of a workspace; the tenant column fills itself."""

    tenant_id = models.CharField(max_length=64, default=current_tenant, editable=False)
    text = models.CharField(max_length=500)

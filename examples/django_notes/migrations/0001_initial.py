"""Made by `makemigrations`."""

from __future__ import annotations

from django.db import migrations, models

import axis_security.adapters.django.protect


class Migration(migrations.Migration):
    """The table of notes."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Note",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "tenant_id",
                    models.CharField(default=axis_security.adapters.django.protect.current_tenant, editable=False, max_length=64),
                ),
                ("text", models.CharField(max_length=500)),
            ],
        ),
    ]

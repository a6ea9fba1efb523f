"""Django models as the declaration of isolation: :class:`ModelTenancy` reads the app registry into the tables that a plan needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Identity, Integer, MetaData, String, Table, Uuid
from sqlalchemy.types import NullType, TypeEngine

from axis_security.core.context import current_principal
from axis_security.core.errors import ConfigError, MissingExtra
from axis_security.core.ids import IdValue
from axis_security.rls.tenancy import Tenancy

try:
    from django.apps import apps as installed
    from django.db import models
except ModuleNotFoundError:
    raise MissingExtra(package="django", extra="django") from None

__all__ = ["ModelTenancy", "current_tenant", "current_user", "model_metadata"]


class ModelTenancy(Tenancy):
    """A :class:`~axis_security.rls.tenancy.Tenancy` over every managed model of the project, Django's own included.

    Make it in a module that is imported when the models are there (Django imports it at the first connection). Tables between two
    models of a many-to-many field have no tenant column: give the field a ``through`` model that has one.

    Args:
        key: the tenant column's name, the same in all tables.
        others: arguments of :class:`~axis_security.rls.tenancy.Tenancy`: ``policy``, ``roles``, ``seal``, ``parts``.
    """

    def __init__(self, *, key: str = "tenant_id", **others: Any) -> None:
        super().__init__(model_metadata(), key=key, **others)

    def protect(self, table: object, **access: Any) -> None:
        """Isolate the rows of *table* (a model) by tenant; see :meth:`Tenancy.protect <axis_security.rls.tenancy.Tenancy.protect>`."""
        super().protect(self._table(table), **access)

    def open(self, table: object, *, reason: str, writes: Iterable[str] = ()) -> None:
        """Let every tenant read *table* (a model); see :meth:`Tenancy.open <axis_security.rls.tenancy.Tenancy.open>`."""
        super().open(self._table(table), reason=reason, writes=writes)

    def _table(self, declared: object) -> object:
        if not (isinstance(declared, type) and issubclass(declared, models.Model)):
            return declared
        model: Any = declared
        found = self.metadata.tables.get(model._meta.db_table)
        if found is None:
            raise ConfigError(
                what=f"`{model.__name__}` has no table of its own here",
                why="it is abstract or not managed by Django",
                fix="declare a concrete, managed model",
            )
        return found


def model_metadata() -> MetaData:
    """Every managed model's table, with the columns and foreign keys that decide about isolation."""
    metadata = MetaData()
    managed = [
        model
        for model in installed.get_models(include_auto_created=True, include_swapped=False)
        if model._meta.managed and not model._meta.proxy
    ]
    tables = {model._meta.db_table for model in managed}
    for model in managed:
        fields = model._meta.local_concrete_fields
        keys = [
            # Django checks foreign keys at COMMIT, and cascades in Python.
            ForeignKeyConstraint(
                [field.column],
                [f"{field.target_field.model._meta.db_table}.{field.target_field.column}"],
                deferrable=True,
                initially="DEFERRED",
            )
            for field in fields
            if isinstance(field, models.ForeignKey) and field.db_constraint and field.target_field.model._meta.db_table in tables
        ]
        Table(model._meta.db_table, metadata, *(_column(field) for field in fields), *keys)
    return metadata


def _column(field: Any) -> Column[Any]:
    own = field
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    kind: TypeEngine[Any] = NullType()
    if isinstance(field, models.UUIDField):
        kind = Uuid()
    elif isinstance(field, models.IntegerField):
        kind = BigInteger() if isinstance(field, models.BigIntegerField) else Integer()
    elif isinstance(field, (models.CharField, models.TextField)):
        kind = String()
    identity = [Identity()] if isinstance(own, models.AutoField | models.BigAutoField | models.SmallAutoField) else []
    return Column(own.column, kind, *identity, primary_key=own.primary_key, nullable=own.null, autoincrement=bool(identity))


def current_tenant() -> IdValue:
    """The acting principal's tenant id: ``tenant_id = models.BigIntegerField(default=current_tenant, editable=False)``.

    Raises:
        PrincipalRequired: nobody is acting.
    """
    return current_principal().tenant.value


def current_user() -> IdValue | None:
    """The acting principal's user id, for a column that says whose a row is; ``None`` for a task without a user.

    Raises:
        PrincipalRequired: nobody is acting.
    """
    user = current_principal().user
    return None if user is None else user.value

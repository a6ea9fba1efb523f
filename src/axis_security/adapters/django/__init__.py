"""Django: its requests through the gate, its connections bound, its models declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.adapters.django.middleware import AxisMiddleware as AxisMiddleware
    from axis_security.adapters.django.middleware import context as context
    from axis_security.adapters.django.protect import ModelTenancy as ModelTenancy
    from axis_security.adapters.django.protect import current_tenant as current_tenant
    from axis_security.adapters.django.protect import current_user as current_user
    from axis_security.adapters.django.router import OwnerMigrates as OwnerMigrates
    from axis_security.adapters.django.routes import audit as audit

_HOME: Final = {
    "AxisMiddleware": "axis_security.adapters.django.middleware",
    "audit": "axis_security.adapters.django.routes",
    "context": "axis_security.adapters.django.middleware",
    "OwnerMigrates": "axis_security.adapters.django.router",
    "ModelTenancy": "axis_security.adapters.django.protect",
    "current_tenant": "axis_security.adapters.django.protect",
    "current_user": "axis_security.adapters.django.protect",
}

__all__ = ["AxisMiddleware", "ModelTenancy", "OwnerMigrates", "audit", "context", "current_tenant", "current_user"]

__getattr__, __dir__ = front_door(__name__, _HOME)

"""Django: its requests through the gate, its connections bound, its models declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.adapters.django.protect import ModelTenancy as ModelTenancy
    from axis_security.adapters.django.protect import current_tenant as current_tenant
    from axis_security.adapters.django.protect import current_user as current_user

_HOME: Final = {
    "ModelTenancy": "axis_security.adapters.django.protect",
    "current_tenant": "axis_security.adapters.django.protect",
    "current_user": "axis_security.adapters.django.protect",
}

__all__ = ["ModelTenancy", "current_tenant", "current_user"]

__getattr__, __dir__ = front_door(__name__, _HOME)

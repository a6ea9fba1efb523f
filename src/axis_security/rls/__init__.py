"""Row-level security: declare, plan, bind. The names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from axis_security.rls.bind import TenantNotBound as TenantNotBound
    from axis_security.rls.model import UndeclaredTable as UndeclaredTable
    from axis_security.rls.model import UnusableTable as UnusableTable
    from axis_security.rls.plan import MissingTable as MissingTable
    from axis_security.rls.plan import Plan as Plan
    from axis_security.rls.sealed import Sealer as Sealer
    from axis_security.rls.sealed import SealKey as SealKey
    from axis_security.rls.sealed import SealKeyring as SealKeyring
    from axis_security.rls.step import Step as Step
    from axis_security.rls.tenancy import Tenancy as Tenancy

_HOME: Final = {
    "MissingTable": "plan",
    "Plan": "plan",
    "SealKey": "sealed",
    "SealKeyring": "sealed",
    "Sealer": "sealed",
    "Step": "step",
    "Tenancy": "tenancy",
    "TenantNotBound": "bind",
    "UndeclaredTable": "model",
    "UnusableTable": "model",
}

__all__ = [
    "MissingTable",
    "Plan",
    "SealKey",
    "SealKeyring",
    "Sealer",
    "Step",
    "Tenancy",
    "TenantNotBound",
    "UndeclaredTable",
    "UnusableTable",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'axis_security.rls' has no attribute {name!r}")
    value = getattr(import_module(f"axis_security.rls.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Row-level security: declare, plan, bind. The names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.rls.bind import TenantNotBound as TenantNotBound
    from axis_security.rls.dialect import Dialect as Dialect
    from axis_security.rls.model import UndeclaredTable as UndeclaredTable
    from axis_security.rls.model import UnusableTable as UnusableTable
    from axis_security.rls.plan import MissingColumn as MissingColumn
    from axis_security.rls.plan import MissingTable as MissingTable
    from axis_security.rls.plan import Plan as Plan
    from axis_security.rls.sealed import Sealer as Sealer
    from axis_security.rls.sealed import SealKey as SealKey
    from axis_security.rls.sealed import SealKeyring as SealKeyring
    from axis_security.rls.step import Step as Step
    from axis_security.rls.tenancy import Tenancy as Tenancy

_HOME: Final = {
    "Dialect": "axis_security.rls.dialect",
    "MissingColumn": "axis_security.rls.plan",
    "MissingTable": "axis_security.rls.plan",
    "Plan": "axis_security.rls.plan",
    "SealKey": "axis_security.rls.sealed",
    "SealKeyring": "axis_security.rls.sealed",
    "Sealer": "axis_security.rls.sealed",
    "Step": "axis_security.rls.step",
    "Tenancy": "axis_security.rls.tenancy",
    "TenantNotBound": "axis_security.rls.bind",
    "UndeclaredTable": "axis_security.rls.model",
    "UnusableTable": "axis_security.rls.model",
}

__all__ = [
    "Dialect",
    "MissingColumn",
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

__getattr__, __dir__ = front_door(__name__, _HOME)

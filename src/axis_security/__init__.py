"""axis-security: the security page of a SaaS product, as code that proves itself.

The names below load on first use, so that ``import axis_security`` costs almost nothing and pulls in no framework, driver or ORM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.core.context import acting_as as acting_as
    from axis_security.core.context import current_principal as current_principal
    from axis_security.core.errors import AxisError as AxisError
    from axis_security.core.principal import Assurance as Assurance
    from axis_security.core.principal import Principal as Principal
    from axis_security.core.secret import Secret as Secret
    from axis_security.rbac.guard import public as public
    from axis_security.rbac.guard import requires as requires
    from axis_security.wiring.axis import Axis as Axis

__version__: Final = "0.1.0.dev0"

_HOME: Final = {
    "Assurance": "axis_security.core.principal",
    "Axis": "axis_security.wiring.axis",
    "AxisError": "axis_security.core.errors",
    "Principal": "axis_security.core.principal",
    "Secret": "axis_security.core.secret",
    "acting_as": "axis_security.core.context",
    "current_principal": "axis_security.core.context",
    "public": "axis_security.rbac.guard",
    "requires": "axis_security.rbac.guard",
}

__all__ = [
    "Assurance",
    "Axis",
    "AxisError",
    "Principal",
    "Secret",
    "__version__",
    "acting_as",
    "current_principal",
    "public",
    "requires",
]

__getattr__, __dir__ = front_door(__name__, _HOME)

"""Row-level security: declare, plan, bind. The names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from axis_security.rls.sealed import Sealer as Sealer
    from axis_security.rls.sealed import SealKey as SealKey
    from axis_security.rls.sealed import SealKeyring as SealKeyring

_HOME: Final = {"SealKey": "sealed", "SealKeyring": "sealed", "Sealer": "sealed"}

__all__ = ["SealKey", "SealKeyring", "Sealer"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'axis_security.rls' has no attribute {name!r}")
    value = getattr(import_module(f"axis_security.rls.{home}"), name)
    globals()[name] = value
    return value

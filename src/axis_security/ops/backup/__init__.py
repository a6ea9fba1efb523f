"""Backups that restore: encrypted without a choice, to any moment of a window, checked, and drilled."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from axis_security.ops.backup.checks import backup_age as backup_age
    from axis_security.ops.backup.drill import DrillReport as DrillReport
    from axis_security.ops.backup.drill import RestoredSite as RestoredSite
    from axis_security.ops.backup.driver import Backup as Backup
    from axis_security.ops.backup.driver import BackupDriver as BackupDriver
    from axis_security.ops.backup.driver import BackupKind as BackupKind
    from axis_security.ops.backup.driver import Inventory as Inventory
    from axis_security.ops.backup.errors import BackupError as BackupError
    from axis_security.ops.backup.policy import BackupPolicy as BackupPolicy
    from axis_security.ops.backup.service import Backups as Backups
    from axis_security.ops.backup.settings import BackupKeys as BackupKeys
    from axis_security.ops.backup.settings import BackupSettings as BackupSettings
    from axis_security.ops.backup.settings import load_settings as load_settings

_HOME: Final = {
    "Backup": "driver",
    "BackupDriver": "driver",
    "BackupError": "errors",
    "BackupKeys": "settings",
    "BackupKind": "driver",
    "BackupPolicy": "policy",
    "BackupSettings": "settings",
    "Backups": "service",
    "DrillReport": "drill",
    "Inventory": "driver",
    "RestoredSite": "drill",
    "backup_age": "checks",
    "load_settings": "settings",
}

__all__ = [
    "Backup",
    "BackupDriver",
    "BackupError",
    "BackupKeys",
    "BackupKind",
    "BackupPolicy",
    "BackupSettings",
    "Backups",
    "DrillReport",
    "Inventory",
    "RestoredSite",
    "backup_age",
    "load_settings",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

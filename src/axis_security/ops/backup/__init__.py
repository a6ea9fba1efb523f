"""Backups that restore: encrypted without a choice, to any moment of a window, checked, and drilled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from axis_security.core.lazy import front_door

if TYPE_CHECKING:
    from axis_security.ops.backup.checks import backup_age as backup_age
    from axis_security.ops.backup.drill import DrillReport as DrillReport
    from axis_security.ops.backup.driver import Backup as Backup
    from axis_security.ops.backup.driver import BackupDriver as BackupDriver
    from axis_security.ops.backup.driver import BackupKind as BackupKind
    from axis_security.ops.backup.driver import Inventory as Inventory
    from axis_security.ops.backup.errors import BackupError as BackupError
    from axis_security.ops.backup.policy import BackupPolicy as BackupPolicy
    from axis_security.ops.backup.scratch import RestoredSite as RestoredSite
    from axis_security.ops.backup.service import Backups as Backups
    from axis_security.ops.backup.settings import BackupKeys as BackupKeys
    from axis_security.ops.backup.settings import BackupSettings as BackupSettings
    from axis_security.ops.backup.settings import load_settings as load_settings

_HOME: Final = {
    "Backup": "axis_security.ops.backup.driver",
    "BackupDriver": "axis_security.ops.backup.driver",
    "BackupError": "axis_security.ops.backup.errors",
    "BackupKeys": "axis_security.ops.backup.settings",
    "BackupKind": "axis_security.ops.backup.driver",
    "BackupPolicy": "axis_security.ops.backup.policy",
    "BackupSettings": "axis_security.ops.backup.settings",
    "Backups": "axis_security.ops.backup.service",
    "DrillReport": "axis_security.ops.backup.drill",
    "Inventory": "axis_security.ops.backup.driver",
    "RestoredSite": "axis_security.ops.backup.scratch",
    "backup_age": "axis_security.ops.backup.checks",
    "load_settings": "axis_security.ops.backup.settings",
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


__getattr__, __dir__ = front_door(__name__, _HOME)

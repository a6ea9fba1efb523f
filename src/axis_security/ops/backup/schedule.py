"""What `plan` prints: the files that make backups happen, rendered from templates that hold no secret."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from axis_security.ops.backup.driver import BackupDriver
from axis_security.ops.backup.settings import BackupSettings

__all__ = ["rendered"]

_UNITS: Final = (
    "axis-backup.service",
    "axis-backup.timer",
    "axis-backup-check.service",
    "axis-backup-check.timer",
    "axis-backup-drill.service",
    "axis-backup-drill.timer",
)
_KUBERNETES: Final = "axis-backup.cronjob.yaml"


def rendered(settings: BackupSettings, driver: BackupDriver, *, config: Path) -> Mapping[str, str]:
    """Every file by its name: server settings, the driver's own configuration, systemd units, Kubernetes CronJobs."""
    policy = settings.policy
    hours = max(1, int(policy.every / timedelta(hours=1)))
    values = {
        "account": settings.run_as or settings.user,
        "command": " ".join(shlex.quote(word) for word in settings.helper),
        "config": str(config.resolve()),
        "repository": str(settings.repository),
        "state": str(settings.state),
        "scratch": str(settings.scratch),
        "data_dir": str(settings.data_dir),
        "socket_dir": str(settings.socket_dir),
        "stanza": settings.stanza,
        "calendar": "*-*-* 02:10:00" if hours >= 24 else f"*-*-* 00/{hours}:10:00",
        "cron": "10 2 * * *" if hours >= 24 else f"10 */{hours} * * *",
        "drill_days": str(max(1, policy.drill_every.days)),
        "check_minutes": str(max(1, int(policy.max_loss / timedelta(minutes=1)) // 3)),
    }
    out = {
        "postgresql.conf": "".join(
            f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.server_settings().items()
        )
    }
    out |= driver.files()
    folder = files("axis_security.ops.backup") / "templates"
    for name in (*_UNITS, _KUBERNETES):
        out[name] = Template((folder / name).read_text(encoding="utf-8")).substitute(values)
    return out

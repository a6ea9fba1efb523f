"""Where the code runs. Nothing reads an environment variable to turn a protection off."""

from __future__ import annotations

import enum

__all__ = ["Environment"]


class Environment(enum.Enum):
    """Named by the host in code or configuration; there is no guessing and no default but production."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"
    TEST = "test"

"""Every error of the package: a stable code, three audiences, and a way through a worker's queue."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import re
from collections.abc import Iterator

import pytest

import axis_security
from axis_security.core.errors import AxisError, ConfigError, MissingExtra, PrincipalRequired


def every_error() -> list[type[AxisError]]:
    """All subclasses, after importing every module that can be imported here."""
    for module in pkgutil.walk_packages(axis_security.__path__, "axis_security."):
        # Modules that Django imports need a configured project; they define no errors.
        if not module.name.endswith("__main__") and ".django.management." not in module.name and ".django.backend." not in module.name:
            importlib.import_module(module.name)

    def below(cls: type[AxisError]) -> Iterator[type[AxisError]]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    return sorted({cls for cls in below(AxisError) if cls.__module__.startswith("axis_security")}, key=lambda cls: cls.__qualname__)


def test_codes_are_stable_words_and_their_own() -> None:
    """Each class has a dotted code of its own, a status, and a public sentence."""
    codes: dict[str, str] = {}
    for cls in every_error():
        assert re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+", cls.code), cls
        assert 400 <= cls.http_status < 600, cls
        assert cls.public_text.endswith("."), cls
        if "code" in cls.__dict__:
            assert codes.setdefault(cls.code, cls.__qualname__) == cls.__qualname__, f"{cls.code} stands twice"


def test_every_error_survives_pickling() -> None:
    """An error made in a worker process arrives with what, why, fix and facts."""
    for cls in every_error():
        error = cls.__new__(cls)
        AxisError.__init__(error, what="w", why="y", fix="f", facts={"n": 1})
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.what, again.why, again.fix, dict(again.facts)) == (cls, "w", "y", "f", {"n": 1})


def test_three_audiences() -> None:
    """The developer gets what, why and fix; the log the same as fields; the stranger one fixed sentence."""
    error = ConfigError(what="no key", why="`SEAL` is empty", fix="set it", facts={"name": "SEAL"})
    assert str(error) == "no key: `SEAL` is empty. Fix: set it. [axis.config]"
    assert error.audit() == {"code": "axis.config", "what": "no key", "why": "`SEAL` is empty", "fix": "set it", "name": "SEAL"}
    assert error.public() == {"code": "axis.config", "message": "The request could not be completed."}
    assert PrincipalRequired().http_status == 401
    assert "pip install 'axis-security[cli]'" in str(MissingExtra(package="click", extra="cli"))


def test_facts_are_frozen() -> None:
    """What an error carries can't be changed after it was raised."""
    error = ConfigError(what="w", why="y", fix="f", facts={"a": 1})
    with pytest.raises(TypeError):
        error.facts["a"] = 2  # type: ignore[index]  # wrong on purpose

"""The generated reference: every error, every public name, a page of the API for each package. AXIS_WRITE_DOCS=1 writes them."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.unit.core.test_errors import every_error

import axis_security
from axis_security.core.errors import AxisError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
WRITTEN = "<!-- Written by tests/unit/test_reference_pages.py from the code. Change that. -->"

PACKAGES = {
    "core": "The nouns that all others share: errors, ids, principals, secrets, events. Standard library only.",
    "crypto": "Sealing: fields, objects, keys and what wraps them.",
    "rls": "Row-level security: declare, plan, bind, audit, migrate.",
    "rbac": "Roles and capabilities, workspaces and their members.",
    "auth": "Signing in and staying signed in.",
    "ops": "What runs beside the request: backups, health, secrets, TLS, evidence.",
    "wiring": "Where the parts meet: the gate, and the object that holds them all.",
    "adapters": "Frameworks, each in a module that its users import.",
    "testing": "What a host's own tests use.",
    "cli": "The command line.",
}
"""Every package, from the ground up, with the reason that it is one."""

SKIPPED = (".django.management.", ".django.backend", ".migrations.", "__main__")
"""Modules that a framework imports by itself, after its own set-up; they offer nothing to import."""


def modules() -> list[ModuleType]:
    """Every module that offers names."""
    found = [axis_security]
    for each in pkgutil.walk_packages(axis_security.__path__, "axis_security."):
        if not any(word in each.name + "." for word in SKIPPED) and not any(part.startswith("_") for part in each.name.split(".")):
            found.append(importlib.import_module(each.name))
    return [module for module in found if getattr(module, "__all__", None)]


@cache
def homes() -> dict[str, dict[str, Any]]:
    """Names by the module that defines them."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            home = getattr(value, "__module__", None) or module.__name__
            if inspect.isclass(value) or inspect.isroutine(value):
                if home.startswith("axis_security") and home in OFFERING:
                    found[home][name] = value
            elif name in constants(module.__name__) and not str(module.__file__).endswith("__init__.py"):
                found[module.__name__][name] = value
    return found


@cache
def constants(module: str) -> dict[str, str]:
    """What *module* assigns, with the docstring below each; a name that it imports is at home elsewhere."""
    body = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8")).body
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
                found[name] = said if isinstance(said, str) else ""
    return found


MODULES = modules()
OFFERING = {module.__name__ for module in MODULES}


def first(text: str | None) -> str:
    """The first sentence or line of a docstring, as Markdown: names of other things without their Sphinx role."""
    line = " ".join((text or "").strip().split("\n\n")[0].split())
    line = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", line).replace("``", "`")
    return line.split(". ")[0].rstrip(".") + "." if line else ""


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def errors_page() -> str:
    """All errors, by package."""
    found: dict[str, list[type[AxisError]]] = defaultdict(list)
    for cls in every_error():
        found[package_of(cls.__module__)].append(cls)
    lines = [
        "# Errors", "", WRITTEN, "",
        "Every error is an `AxisError`: `what`, `why` and `fix` for the developer, `code` and one fixed sentence (`public()`) for the visitor, the same as fields for",
        "the log (`audit()`). None holds a secret or a value of a row. A code never changes its meaning.", "",
        "`status` is what the gate answers where the error reaches it.", "",
    ]  # fmt: skip
    for package, about in PACKAGES.items():
        if package not in found:
            continue
        lines += [f"## {package}", "", about, "", "| error | code | status | kind of | when |", "|---|---|---|---|---|"]
        for cls in sorted(found[package], key=lambda each: (each.code, each.__qualname__)):
            kinds = ", ".join(f"`{base.__name__}`" for base in cls.__bases__ if issubclass(base, AxisError))
            when = first(cls.__doc__).replace("|", "\\|")
            lines.append(f"| `{cls.__qualname__}` | `{cls.code}` | {cls.http_status} | {kinds} | {when} |")
        lines.append("")
    return "\n".join(lines)


def names_page() -> str:
    """All public names, by module."""
    doors = {module.__name__: module for module in MODULES if hasattr(module, "_HOME") or str(module.__file__).endswith("__init__.py")}
    lines = [
        "# Public names", "", WRITTEN, "",
        "What is listed here is public, and nothing else is: it keeps its meaning within a minor version, and is deprecated for one before it goes. Import a name from",
        "the shortest module that has it: the packages marked *door* re-export what most hosts need, and load nothing before a name is used.", "",
    ]  # fmt: skip
    found = homes()
    top = [name for name in axis_security.__all__ if name != "__version__"]
    lines += ["## axis_security", "", f"*Door.* {', '.join(f'`{name}`' for name in sorted(top))}.", ""]
    for package, about in PACKAGES.items():
        lines += [f"## {package}", "", about, ""]
        for name, module in sorted(doors.items()):
            if package_of(name) == package:
                offered = ", ".join(f"`{each}`" for each in sorted(module.__all__))
                lines += [f"*Door* `{name}`: {offered}.", ""]
        for home in sorted(each for each in found if package_of(each) == package):
            lines += [f"### {home.removeprefix('axis_security.')}", "", first(sys_doc(home)), ""]
            for name, value in sorted(found[home].items()):
                lines.append(f"* `{name}`: {first(said(home, name, value))}")
            lines.append("")
    return "\n".join(lines)


def said(home: str, name: str, value: object) -> str | None:
    """The docstring of a public name."""
    return value.__doc__ if inspect.isclass(value) or inspect.isroutine(value) else constants(home)[name]


def sys_doc(module: str) -> str | None:
    return importlib.import_module(module).__doc__


def api_page(package: str) -> str:
    """What mkdocstrings draws for one package."""
    lines = [f"# {package}", "", WRITTEN, "", PACKAGES[package], ""]
    for module in sorted(homes()):
        if package_of(module) == package:
            lines += [f"## {module.removeprefix('axis_security.')}", "", f"::: {module}", ""]
    return "\n".join(lines)


PAGES = {"errors.md": errors_page, "public-names.md": names_page} | {
    f"api/{package}.md": (lambda package=package: api_page(package)) for package in PACKAGES if package != "cli"
}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_says_what_the_code_says(page: str) -> None:
    """A name, an error or a docstring that changes is looked at on its page too."""
    path = REFERENCE / page
    text = PAGES[page]()
    if os.environ.get("AXIS_WRITE_DOCS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "AXIS_WRITE_DOCS=1 pytest tests/unit/test_reference_pages.py"


def test_every_public_name_says_what_it_is() -> None:
    """Docstring coverage of public names, constants among them, their public methods and properties: 100 %."""
    silent = []
    for home, names in homes().items():
        for name, value in names.items():
            if inspect.isclass(value):
                if not value.__doc__ or value.__doc__.startswith(f"{name}("):  # what dataclass makes by itself
                    silent.append(f"{home}.{name}")
                for method, member in vars(value).items():
                    field = method in getattr(value, "__dataclass_fields__", ())  # its class says what it is for
                    if (
                        method.startswith("_")
                        or field
                        or not (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod))
                    ):
                        continue
                    if not inspect.getdoc(getattr(value, method)):
                        silent.append(f"{home}.{name}.{method}")
            elif not said(home, name, value):
                silent.append(f"{home}.{name}")
    assert silent == []


def test_every_package_is_listed() -> None:
    """A package without a reason is not on the list."""
    there = {each.name for each in pkgutil.iter_modules(axis_security.__path__) if each.ispkg}
    assert there == set(PACKAGES)

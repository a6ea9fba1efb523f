"""What is released: the same bytes from the same source, with everything in it that the code reads, and installable by itself."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERPRETERS = ("3.11", "3.12", "3.13")


def checkout(to: Path) -> Path:
    """What a commit of this tree would hold, in another folder, as somebody else's clone has it: other paths, other times, no file of ours beside it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)
            (to / name).chmod((ROOT / name).stat().st_mode & 0o777)
    return to


def build(source: Path, to: Path) -> dict[str, str]:
    """Wheel and sdist of *source* in *to*: name to digest."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(to)], cwd=source, check=True, capture_output=True)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in to.iterdir()}


def six_lines() -> str:
    """The README's first Python, as it stands there."""
    found = re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def run_six_lines(python: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """With another interpreter, which has the wheel and not this tree."""
    shutil.copyfile(ROOT / "tests" / "integration" / "surroundings.py", folder / "surroundings.py")
    script = folder / "six_lines.py"
    script.write_text(f"from surroundings import readme\nwith readme() as names:\n    exec({six_lines()!r}, names)\nprint('isolated')\n")
    return subprocess.run([python, script], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("release")
    build(checkout(tmp_path_factory.mktemp("checkout")), made)
    return made


def test_two_builds_are_byte_for_byte_the_same(built: Path, tmp_path: Path) -> None:
    """Whoever builds from the same files gets the released bytes: in another folder, at another time, whatever else lies there."""
    first = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()}
    assert len(first) == 2
    source = checkout(tmp_path / "elsewhere")
    for path in source.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    (source / "notes.txt").write_text("mine")
    assert build(source, tmp_path / "built") == first


def test_the_readme_needs_six_lines() -> None:
    """As it says; every number is there once."""
    assert re.findall(r"# (\d)(?: |$)", six_lines(), re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]
    assert len(six_lines().splitlines()) == 6


def test_the_wheel_holds_what_the_code_reads(built: Path) -> None:
    """Every file of the package that git knows is in the wheel, and nothing else of the project."""
    listed = subprocess.run(["git", "ls-files", "src/axis_security"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    assert {name.removeprefix("src/") for name in listed if (ROOT / name).exists()} <= names
    assert all(name.startswith("axis_security/") for name in names)
    assert "axis_security/py.typed" in names
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        top = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert not {"tests", "benchmarks", "examples"} & top
    assert {"src", "LICENSE", "NOTICE", "README.md"} <= top


@pytest.mark.nightly
@pytest.mark.parametrize("version", INTERPRETERS)
def test_the_wheel_installs_by_itself_and_runs_the_six_lines(built: Path, tmp_path: Path, version: str) -> None:
    """In a clean environment of each interpreter that is there: the six required packages, the README's lines, and nothing optional loaded."""
    found = [
        path
        for path in (Path("/usr/bin") / f"python{version}", *Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        if path.exists()
    ]
    if not found:
        pytest.skip(f"no Python {version} is installed here")
    subprocess.run([found[0], "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    [wheel] = built.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[testing]"], check=True, capture_output=True)
    ran = run_six_lines(python, tmp_path)
    assert ran.stdout.strip() == "isolated", ran.stderr


def lowest() -> dict[str, str]:
    """The lower bounds of what is required."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(each.split(">=") for each in project["dependencies"])


@pytest.mark.nightly
def test_the_lowest_versions_that_we_name_hold(built: Path, tmp_path: Path) -> None:
    """The six lines on the lower bound of every required package: a bound that nobody tries is a guess."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    [wheel] = built.glob("*.whl")
    pins = [f"{'psycopg[binary]' if name == 'psycopg' else name}=={version}" for name, version in lowest().items()]
    subprocess.run([python, "-m", "pip", "install", "-q", f"{wheel}[testing]", *pins], check=True, capture_output=True)
    ran = run_six_lines(python, tmp_path)
    assert ran.stdout.strip() == "isolated", ran.stderr


def test_the_page_of_supported_versions_says_what_is_run() -> None:
    """Interpreters, lower bounds and the newest versions stand there as the tests and the pins have them."""
    page = (ROOT / "docs" / "reference" / "supported-versions.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\d+\.\d+)", (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8"), re.MULTILINE))
    assert all(each in rows["Python"] for each in INTERPRETERS)
    for label, name in (("SQLAlchemy", "sqlalchemy"), ("psycopg", "psycopg")):
        assert f"{lowest()[name]} and later" in rows[label]
        assert rows[label].rstrip(" |").endswith(lowest()[name])
        assert f"| {pins[name]} |" in rows[label]
    assert f"| {pins['asyncpg']} |" in rows["asyncpg"]
    for number in ("18", "17", "15"):
        assert f"{number} (" in rows["PostgreSQL"]


def test_a_sync_app_needs_no_greenlet() -> None:
    """SQLAlchemy brings greenlet only with its asyncio extra: installing a tenancy on a sync engine must not ask for it."""
    code = """
import sys
sys.modules["greenlet"] = None  # importing it fails, as where it is not installed
import sqlalchemy as sa
from axis_security.rls import SealKey, SealKeyring, Tenancy
metadata = sa.MetaData()
table = sa.Table("doc", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("tenant_id", sa.Integer))
tenancy = Tenancy(metadata, seal=SealKeyring(current=SealKey.generate(1)))
tenancy.protect(table)
tenancy.install(sa.create_engine("postgresql+psycopg://app@localhost/nowhere"))
import axis_security.wiring.axis
print("installed")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "installed", ran.stderr

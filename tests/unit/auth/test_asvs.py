"""The ASVS table: nothing missing, nothing claimed without a test that is there."""

from __future__ import annotations

import ast
import csv
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from axis_security.auth.asvs import ASVS, Standing, assess
from axis_security.auth.breach import RangeClient
from axis_security.auth.cookies import CookieProfile
from axis_security.auth.password_rules import PasswordRules
from axis_security.auth.tokens import Purpose, TokenPolicy
from axis_security.auth.totp import TotpPolicy
from axis_security.cli.report import command
from axis_security.core.settings import Environment
from axis_security.testing.auth_world import AuthWorld

ROOT = Path(__file__).parents[3]


def test_every_requirement_is_listed_once_with_its_level() -> None:
    """The ids and levels are those of ASVS 5.0.0, V3.3, V6 and V7, in its order."""
    with (ROOT / "tests" / "vectors" / "auth" / "asvs_5_0_0_ids.csv").open(encoding="utf-8") as lines:
        wanted = [(row["req_id"], int(row["level"])) for row in csv.DictReader(lines)]
    assert [(row.id, row.level) for row in ASVS] == wanted


def test_every_satisfied_row_names_a_test_that_exists() -> None:
    """A row is satisfied exactly if it names a test, and the test is there."""
    for row in ASVS:
        assert (row.standing is Standing.SATISFIED) == (row.test is not None), row.id
        if row.test is not None:
            path, _, name = row.test.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row
        assert row.how


def test_pages_that_rows_point_to_exist() -> None:
    """A row that says "see docs" names a page that is there."""
    named = {word.rstrip(",;") for row in ASVS for word in row.how.split() if word.startswith("docs/")}
    assert named
    assert [page for page in named if not (ROOT / page).exists()] == []


def test_settings_that_give_a_row_up_are_seen() -> None:
    """Bare defaults lack a breach filter and context words, and say so; a full set gives nothing up; weaker settings turn rows."""

    def lost(world: AuthWorld) -> set[str]:
        return {row.id for row in assess(world.auth) if row.standing is Standing.CONFIGURED_AWAY}

    full = PasswordRules(context_words=("axis",), breached=RangeClient(lambda prefix: ""))
    assert lost(AuthWorld()) == {"V6.2.11", "V6.2.12", "V6.5.5"}
    assert {row.id for row in assess() if row.standing is Standing.CONFIGURED_AWAY} == {"V6.2.11", "V6.2.12", "V6.5.5"}
    strict: dict[str, Any] = {"rules": full, "totp": TotpPolicy(issuer="Axis", drift_steps=0)}
    assert lost(AuthWorld(**strict)) == set()
    slow = TokenPolicy(lasting={Purpose.PASSWORD_RESET: timedelta(minutes=30)})
    assert lost(AuthWorld(**strict, token=slow)) == {"V6.5.5"}
    plain = CookieProfile.development(environment=Environment.DEVELOPMENT)
    assert lost(AuthWorld(**strict, profile=plain)) == {"V3.3.1", "V3.3.3"}


def test_the_command_prints_a_table_and_json() -> None:
    """Both forms list every row; an Auth that cannot be loaded is a usage error."""
    printed = CliRunner().invoke(command, ["--asvs"], env={"COLUMNS": "200"})
    assert printed.exit_code == 0
    assert all(row.id in printed.output for row in ASVS)
    answer = json.loads(CliRunner().invoke(command, ["--asvs", "--json"]).output)
    assert len(answer["rows"]) == len(ASVS)
    assert sum(answer["counts"].values()) == len(ASVS)
    assert CliRunner().invoke(command, ["--asvs", "--auth", "nowhere:auth"]).exit_code == 2
    assert CliRunner().invoke(command, ["--asvs", "--auth", "json:dumps"]).exit_code == 2
    assert CliRunner().invoke(command, []).exit_code == 2

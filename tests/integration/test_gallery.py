"""The attack gallery: every attack blocked, every control bites, and neither can be faked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from click.testing import CliRunner

from axis_security.cli import demo
from axis_security.testing.cluster import TestServer
from axis_security.testing.gallery import ATTACKS, Result, Verdict, run_gallery
from axis_security.testing.gallery.world import World


@pytest.fixture(scope="module")
def results(cluster: TestServer) -> list[Result]:
    """One run of the whole gallery."""
    return list(run_gallery(cluster))


def test_every_attack_is_blocked_by_a_named_layer(results: list[Result]) -> None:
    """At least 25 attacks ran, each came to nothing, and each says what stopped it."""
    assert len(results) == len(ATTACKS) >= 25
    assert [(r.attack.name, r.trouble) for r in results if not r.blocked] == []
    assert [r.attack.name for r in results if r.guarded is None or r.guarded.layer is None] == []


def test_every_control_bites(results: list[Result]) -> None:
    """With its own guard taken away, each attack succeeds: none of the rows is green for nothing."""
    assert [(r.attack.name, r.trouble) for r in results if not r.control_bites] == []


def test_names_are_distinct() -> None:
    """A name is the row's key in the JSON."""
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize(
    ("fault", "leaks"),
    [("leak", 1), ("toothless", 0), ("broken", 1)],
)
def test_a_leak_a_toothless_control_and_a_broken_attempt_each_fail_the_demo(
    cluster: TestServer, monkeypatch: pytest.MonkeyPatch, fault: str, leaks: int
) -> None:
    """The command's exit status is 1 for each, and the JSON says which."""
    attack = next(attack for attack in ATTACKS if attack.name == "mass update")
    match fault:
        case "leak":  # the guard is gone before the strike
            strike = attack.strike
            strike, without_guard = attack.strike, attack.without_guard

            def unguarded(world: World) -> Verdict:
                without_guard(world)
                return strike(world)

            attack = replace(attack, strike=unguarded)
        case "toothless":
            attack = replace(attack, without_guard=lambda world: None)
        case _:

            def broken(world: World) -> Verdict:
                world.admin("SELECT no_such_column")
                raise AssertionError("not reached")

            attack = replace(attack, strike=broken)

    @contextmanager
    def server() -> Iterator[TestServer]:
        yield cluster

    monkeypatch.setattr(demo, "_server", server)
    monkeypatch.setattr("axis_security.testing.gallery.run.ATTACKS", (attack,))
    monkeypatch.setattr("axis_security.testing.gallery.run_gallery", lambda given: run_gallery(given, attacks=[attack]))
    outcome = CliRunner().invoke(demo.command, ["--json"])
    assert outcome.exit_code == 1
    answer = json.loads(outcome.stdout)
    assert answer["leaks"] == leaks
    assert set(answer["attacks"][0]) >= {"name", "attempt", "layer", "blocked", "control_bites"}


def test_the_table_for_a_person_says_what_the_json_says(cluster: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row an attack, what stopped it, and the two sums; status 0 where all is blocked and every control bites."""
    few = [attack for attack in ATTACKS if attack.name in ("mass update", "forged context")]
    monkeypatch.setenv("AXIS_TEST_DSN", cluster.dsn())
    monkeypatch.setattr("axis_security.testing.gallery.ATTACKS", few)
    monkeypatch.setattr("axis_security.testing.gallery.run_gallery", lambda given: run_gallery(given, attacks=few))
    outcome = CliRunner().invoke(demo.command, [], env={"COLUMNS": "200"})
    assert outcome.exit_code == 0, outcome.output
    assert all(attack.name in outcome.stdout for attack in few)
    assert f"{len(few)} of {len(few)} attacks blocked, 0 leaks; {len(few)} of {len(few)} controls bite" in outcome.stdout


def test_the_run_leaves_nothing_behind(cluster: TestServer, results: list[Result]) -> None:
    """No database and no role of the gallery is left on the server."""
    import psycopg

    with psycopg.connect(cluster.dsn()) as connection:
        left = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'gallery%' UNION ALL SELECT datname FROM pg_database WHERE datname ~ '^(gallery|world)_'"
        ).fetchall()
    assert left == []

"""The dashboard and the alert rules name metrics and checks that exist; a rename in the code would otherwise leave alerts that never fire."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML has no types of its own
from prometheus_client import CollectorRegistry, generate_latest

from axis_security.core.checks import CheckResult
from axis_security.core.events import NullSink
from axis_security.ops import probes
from axis_security.ops.backup import backup_age
from axis_security.ops.health import HealthCheck, HealthMonitor
from axis_security.ops.metrics import register_prometheus

DEPLOY = Path(__file__).parents[3] / "deploy"
FUNCTIONS = {"absent", "count", "label_values", "max", "min", "or", "vector", "by", "job", "check", "code", "instance"}


def exported() -> dict[str, set[str]]:
    """Every metric that a monitor exports, with its labels."""
    registry = CollectorRegistry()
    look = HealthCheck(name="database", run=lambda: CheckResult(name="database", ok=True, seen=""))
    monitor = HealthMonitor([look], sink=NullSink())
    monitor.ready()
    register_prometheus(monitor, registry)
    lines = generate_latest(registry).decode().splitlines()
    found = (re.match(r"(\w+)\{(.*)\} ", line) for line in lines if not line.startswith("#"))
    return {match[1]: set(re.findall(r"(\w+)=", match[2])) for match in found if match}


def check_names() -> set[str]:
    """The names that the ready-made looks have unless told."""
    makers: list[Callable[..., Any]] = [probes.database, probes.replica_lag, probes.disk, probes.certificate, backup_age]
    return {inspect.signature(make).parameters["name"].default for make in makers}


def rules() -> list[dict[str, Any]]:
    """Every alert."""
    document = yaml.safe_load((DEPLOY / "prometheus" / "axis-security-alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "axis-security-health.json").read_text())
    return found


def expressions() -> Iterator[str]:
    """Every PromQL expression of both files."""
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    yield from (each["definition"] for each in dashboard()["templating"]["list"] if each["type"] == "query")


def strangers(expression: str) -> set[str]:
    """Words of *expression* that are neither PromQL nor a metric that is exported."""
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", expression)
    return set(re.findall(r"[a-zA-Z_]\w*", bare)) - FUNCTIONS - exported().keys()


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_every_expression_names_what_is_exported(expression: str) -> None:
    """Metrics, their labels and the checks' names are real ones; the target's own labels `job` and `instance` come from Prometheus."""
    assert strangers(expression) == set()
    labels = {"job", "instance"}.union(*exported().values())
    for selector in re.findall(r"\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= labels
        for names in re.findall(r'check(?:=~|!~|!=|=)"([^"]*)"', selector):
            assert set(names.split("|")) <= check_names()
    for grouping in re.findall(r"by \(([^)]*)\)", expression):
        assert {each.strip() for each in grouping.split(",")} <= labels


def test_a_renamed_metric_would_be_seen() -> None:
    """Control."""
    assert strangers("max(axis_check_okay) == 0") == {"axis_check_okay"}


def test_every_alert_says_what_to_do() -> None:
    """Each has a wait, a severity, a summary and a description, and a name of its own; each ready-made check has an alert."""
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert {"summary", "description"} <= rule["annotations"].keys()
        assert re.fullmatch(r"\d+[mh]", rule["for"])
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    text = " ".join(rule["expr"] for rule in rules())
    assert all(name in text for name in ("backup_age", "certificate", "disk"))


def test_the_dashboard_has_a_source_and_no_panel_twice() -> None:
    """It imports anywhere: the data source is a variable, ids and places are distinct."""
    panels = dashboard()["panels"]
    assert (
        len({panel["id"] for panel in panels}) == len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    )
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}

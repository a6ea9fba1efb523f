"""What the health monitor sees, as Prometheus metrics (extra ``prometheus``) and OpenTelemetry instruments (extra ``otel``).

Reading metrics runs no check: a scrape every second must not become load on the database. Label values are the checks' names and
their fixed codes, so their number is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from axis_security.core.errors import MissingExtra
from axis_security.ops.health import HealthMonitor

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["observe_with_opentelemetry", "register_prometheus"]


def register_prometheus(monitor: HealthMonitor, registry: CollectorRegistry) -> None:
    """Add the monitor's checks to *registry*: ``axis_check_ok``, ``axis_check_duration_seconds`` and ``axis_check_age_seconds``.

    Raises:
        MissingExtra: prometheus-client is not installed.
    """
    try:
        from prometheus_client.core import GaugeMetricFamily
    except ImportError:
        raise MissingExtra(package="prometheus-client", extra="prometheus") from None

    class Collector:
        def collect(self) -> Iterator[Metric]:
            ok = GaugeMetricFamily("axis_check_ok", "1 if the check's latest answer is ok", labels=["check", "code"])
            duration = GaugeMetricFamily("axis_check_duration_seconds", "How long the check's latest run took", labels=["check"])
            age = GaugeMetricFamily("axis_check_age_seconds", "How long ago the check was measured", labels=["check"])
            for seen in monitor.observed():
                ok.add_metric([seen.name, seen.code], float(seen.ok))
                duration.add_metric([seen.name], seen.seconds)
                age.add_metric([seen.name], seen.age_seconds)
            yield ok
            yield duration
            yield age

    registry.register(Collector())


def observe_with_opentelemetry(monitor: HealthMonitor, meter: Meter) -> None:
    """Add the same three as observable gauges of *meter*: ``axis.check.ok``, ``axis.check.duration``, ``axis.check.age``.

    Raises:
        MissingExtra: opentelemetry-api is not installed.
    """
    try:
        from opentelemetry.metrics import Observation as Seen
    except ImportError:
        raise MissingExtra(package="opentelemetry-api", extra="otel") from None

    def observe(field: str) -> Any:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            for seen in monitor.observed():
                yield Seen(float(getattr(seen, field)), {"check": seen.name})

        return callback

    meter.create_observable_gauge("axis.check.ok", [observe("ok")], description="1 if the check's latest answer is ok")
    meter.create_observable_gauge("axis.check.duration", [observe("seconds")], unit="s", description="How long the check's latest run took")
    meter.create_observable_gauge("axis.check.age", [observe("age_seconds")], unit="s", description="How long ago the check was measured")

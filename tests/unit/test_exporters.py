"""What a registry of prometheus_client, and a meter of OpenTelemetry, are told: the numbers of the page of text."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from kvmigrate.model import Stage
from kvmigrate.reads.exporters import PrometheusCollector, observe
from kvmigrate.reads.metrics import prometheus
from tests.endpoint_stand import SLUG, Stand

LABELS = {"scope": "shop", "endpoint": SLUG, "side": "tables"}


@pytest.fixture
def stand() -> Stand:
    """An endpoint that was read twice, once without success."""
    made = Stand(Stage.LIVE)
    made.call("1")
    made.tables = lambda _: 1 / 0
    made.call("1")
    return made


def test_a_registry_scrapes_the_same_numbers(stand: Stand) -> None:
    """Counters, buckets and gauges, by the names of the page."""
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    registry.register(PrometheusCollector(stand.router))

    text = client.generate_latest(registry).decode()

    assert 1.0 == registry.get_sample_value("kvmigrate_reads_total", {**LABELS, "outcome": "error"})
    assert 2.0 == registry.get_sample_value("kvmigrate_read_seconds_bucket", {**LABELS, "le": "+Inf"})
    names = {line.split("{")[0] for line in prometheus(stand.router).splitlines() if not line.startswith("#")}
    assert names == {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}


def test_a_meter_observes_the_same_numbers(stand: Stand) -> None:
    """Asked when its reader is, also for endpoints that are made later."""
    pytest.importorskip("opentelemetry.sdk")
    metrics, export = (importlib.import_module(f"opentelemetry.sdk.metrics{end}") for end in ("", ".export"))
    reader = export.InMemoryMetricReader()
    provider = metrics.MeterProvider([reader])
    observe(stand.router, provider.get_meter("shop"))

    data: Any = reader.get_metrics_data()
    provider.shutdown()

    found = {each.name: each.data.data_points for each in data.resource_metrics[0].scope_metrics[0].metrics}
    [failed] = [each for each in found["kvmigrate_reads_total"] if each.attributes == {**LABELS, "outcome": "error"}]
    [count] = [each for each in found["kvmigrate_read_seconds_count"] if each.attributes == LABELS]
    assert (1, 2, {"kvmigrate_breaker_open"}) == (failed.value, count.value, {"kvmigrate_breaker_open"} & set(found))

"""The same metrics for a registry of `prometheus_client`, and for a meter of OpenTelemetry. Neither is needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from kvmigrate.reads.metrics import FAMILIES, families
from kvmigrate.reads.router import Router


class PrometheusCollector:
    """For ``REGISTRY.register``: asked when somebody scrapes, so that reads pay nothing."""

    def __init__(self, router: Router) -> None:
        """Tell of the endpoints of *router*."""
        self._router = router

    def describe(self) -> list[Any]:
        """Return nothing, so that to register asks for nothing."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield metrics of `prometheus_client`."""
        core = importlib.import_module("prometheus_client.core")
        for family in families(self._router):
            # A counter's name has no end of its own there.
            made = core.Metric(family.name.removesuffix("_total"), family.told, family.kind)
            for end, labels, value in family.samples:
                made.add_sample(f"{family.name}{end}", labels, value)
            yield made


def observe(router: Router, meter: Any) -> None:
    """Let a meter of OpenTelemetry ask for the same; of times it gets their sums and numbers.

    Args:
        router: Whose endpoints.

        meter: ``opentelemetry.metrics.get_meter("shop")``.
    """
    observation = importlib.import_module("opentelemetry.metrics").Observation

    def asked(name: str, end: str) -> Callable[[Any], list[Any]]:
        def answer(_options: Any) -> list[Any]:
            return [
                observation(value, labels)
                for family in families(router)
                if family.name == name
                for place, labels, value in family.samples
                if place == end
            ]

        return answer

    for family in FAMILIES:
        make = meter.create_observable_gauge if family.kind == "gauge" else meter.create_observable_counter
        for end in ("_sum", "_count") if family.kind == "histogram" else ("",):
            make(f"{family.name}{end}", [asked(family.name, end)], description=family.told)

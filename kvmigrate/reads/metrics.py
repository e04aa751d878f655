"""The reads of one process as Prometheus text, made when it is asked for. Keys and tenants are no labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kvmigrate.reads.counts import BUCKETS, Outcome, Side
from kvmigrate.reads.router import Router
from kvmigrate.reads.state import EndpointState

_Sample = tuple[str, dict[str, str], float]


def prometheus(router: Router) -> str:
    """Return counters, times and ages, for a page of metrics."""
    lines: list[str] = []
    states = list(router.endpoints.values())
    for name, kind, told, samples in (
        ("reads_total", "counter", "Reads of a side, by how they ended.", _reads(states)),
        ("read_fallbacks_total", "counter", "Reads of the tables that the store answered.", _fallbacks(states)),
        ("compared_total", "counter", "Comparisons beside the requests, by result.", _compared(states)),
        (
            "read_seconds",
            "histogram",
            "How long reads of a side took; errors of the store are not timed.",
            _seconds(states),
        ),
        ("breaker_open", "gauge", "Whether reads went back to the store by themselves.", _open(states)),
        ("rollbacks_total", "counter", "How often they did.", _rollbacks(states)),
        ("allowed_ratio", "gauge", "How much may read the tables.", _allowed(states)),
        ("flag_age_seconds", "gauge", "Since the flags were read.", _age(router.flag_age_s())),
        ("control_age_seconds", "gauge", "Since the control row was seen.", _age(router.control_age_s())),
    ):
        found = [
            f"kvmigrate_{name}{suffix}{_labels({'scope': router.scope, **labels})} {value!r}"
            for suffix, labels, value in samples
        ]
        if found:
            lines += [f"# HELP kvmigrate_{name} {told}", f"# TYPE kvmigrate_{name} {kind}", *found]
    return "\n".join(lines) + "\n"


def _reads(states: Iterable[EndpointState]) -> Iterator[_Sample]:
    for state in states:
        for side in Side:
            for outcome in Outcome:
                labels = {"endpoint": state.slug, "side": side.name.lower(), "outcome": outcome.name.lower()}
                yield "", labels, state.counts.outcomes[side][outcome]


def _fallbacks(states: Iterable[EndpointState]) -> Iterator[_Sample]:
    for state in states:
        for reason, number in dict(state.counts.fallbacks).items():
            yield "", {"endpoint": state.slug, "reason": reason}, number


def _compared(states: Iterable[EndpointState]) -> Iterator[_Sample]:
    for state in states:
        for result, number in dict(state.counts.compared).items():
            yield "", {"endpoint": state.slug, "result": result}, number


def _seconds(states: Iterable[EndpointState]) -> Iterator[_Sample]:
    for state in states:
        for side in Side:
            labels, seen = {"endpoint": state.slug, "side": side.name.lower()}, 0
            times = list(state.counts.times[side])
            for bucket in range(BUCKETS - 1):
                seen += times[bucket]
                yield "_bucket", {**labels, "le": repr(2**bucket / 1e6)}, seen
            every = sum(times)
            yield "_bucket", {**labels, "le": "+Inf"}, every
            yield "_sum", labels, state.counts.seconds[side]
            yield "_count", labels, every


def _open(states: Iterable[EndpointState]) -> Iterator[_Sample]:
    for state in states:
        yield "", {"endpoint": state.slug}, int(state.demotion.is_open)


def _rollbacks(states: Iterable[EndpointState]) -> Iterator[_Sample]:
    for state in states:
        yield "", {"endpoint": state.slug, "reason": "breaker"}, state.demotion.opened


def _allowed(states: Iterable[EndpointState]) -> Iterator[_Sample]:
    for state in states:
        yield "", {"endpoint": state.slug}, state.plan.share / 10_000


def _age(age_s: float | None) -> Iterator[_Sample]:
    if age_s is not None:
        yield "", {}, round(age_s, 3)


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""The reads of one process as Prometheus text, made when it is asked for. Keys and tenants are no labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from kvmigrate.exposition import Family, Kind, Sample, page_of
from kvmigrate.reads.counts import BUCKETS, Outcome, Side
from kvmigrate.reads.router import Router
from kvmigrate.reads.state import EndpointState


def families(router: Router) -> list[Family]:
    """Return counters, times and ages, each with what there is to say now."""
    states, scope = list(router.endpoints.values()), {"scope": router.scope}
    return [
        family._replace(samples=[(end, {**scope, **labels}, value) for end, labels, value in sampled(router, states)])
        for family, sampled in _SAMPLED
    ]


def prometheus(router: Router) -> str:
    """Return them as text, for a page of metrics."""
    return page_of(families(router))


def _reads(states: Iterable[EndpointState]) -> Iterator[Sample]:
    for state in states:
        for side in Side:
            for outcome in Outcome:
                labels = {"endpoint": state.slug, "side": side.name.lower(), "outcome": outcome.name.lower()}
                yield "", labels, state.counts.outcomes[side][outcome]


def _fallbacks(states: Iterable[EndpointState]) -> Iterator[Sample]:
    for state in states:
        for reason, number in dict(state.counts.fallbacks).items():
            yield "", {"endpoint": state.slug, "reason": reason}, number


def _compared(states: Iterable[EndpointState]) -> Iterator[Sample]:
    for state in states:
        for result, number in dict(state.counts.compared).items():
            yield "", {"endpoint": state.slug, "result": result}, number


def _standby(states: Iterable[EndpointState]) -> Iterator[Sample]:
    for state in states:
        for result, number in dict(state.counts.standby).items():
            yield "", {"endpoint": state.slug, "result": result}, number


def _seconds(states: Iterable[EndpointState]) -> Iterator[Sample]:
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


def _open(states: Iterable[EndpointState]) -> Iterator[Sample]:
    for state in states:
        yield "", {"endpoint": state.slug}, int(state.demotion.is_open)


def _rollbacks(states: Iterable[EndpointState]) -> Iterator[Sample]:
    for state in states:
        yield "", {"endpoint": state.slug, "reason": "breaker"}, state.demotion.opened


def _allowed(states: Iterable[EndpointState]) -> Iterator[Sample]:
    for state in states:
        yield "", {"endpoint": state.slug}, state.plan.share / 10_000


def _age(age_s: float | None) -> Iterator[Sample]:
    if age_s is not None:
        yield "", {}, round(age_s, 3)


_Sampled = Callable[[Router, Sequence[EndpointState]], Iterator[Sample]]


def _family(name: str, kind: Kind, told: str, sampled: _Sampled) -> tuple[Family, _Sampled]:
    return Family(f"kvmigrate_{name}", kind, told, []), sampled


_SAMPLED: Sequence[tuple[Family, _Sampled]] = (
    _family("reads_total", "counter", "Reads of a side, by how they ended.", lambda _, states: _reads(states)),
    _family(
        "read_fallbacks_total",
        "counter",
        "Reads of the tables that the store answered.",
        lambda _, states: _fallbacks(states),
    ),
    _family(
        "compared_total", "counter", "Comparisons beside the requests, by result.", lambda _, states: _compared(states)
    ),
    _family(
        "standby_reads_total",
        "counter",
        "Reads of the tables that a standby might serve, by what became of that.",
        lambda _, states: _standby(states),
    ),
    _family(
        "read_seconds",
        "histogram",
        "How long reads of a side took; errors of the store are not timed.",
        lambda _, states: _seconds(states),
    ),
    _family(
        "breaker_open",
        "gauge",
        "Whether reads went back to the store by themselves.",
        lambda _, states: _open(states),
    ),
    _family("rollbacks_total", "counter", "How often they did.", lambda _, states: _rollbacks(states)),
    _family("allowed_ratio", "gauge", "How much may read the tables.", lambda _, states: _allowed(states)),
    _family("flag_age_seconds", "gauge", "Since the flags were read.", lambda router, _: _age(router.flag_age_s())),
    _family(
        "control_age_seconds",
        "gauge",
        "Since the control row was seen.",
        lambda router, _: _age(router.control_age_s()),
    ),
)

FAMILIES: Sequence[Family] = [family for family, _ in _SAMPLED]
"""All of them, without samples."""

"""Divergence over time, its causes, and where most may be hidden, as a document with pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvmigrate.report.document import Band, Bars, Block, Document, Grid, Heading, Line, Tone, counted, number

_SHOWN = 60
"""Measurements in a picture: the newest."""

_STRATA = 10


def describe_divergence(report: Mapping[str, Any]) -> Document:
    """Return the document of what ``kvmigrate report`` gives as JSON."""
    document = Document(f"{report['scope']}: do the two stores agree?")
    document.add(Line(*_verdict(report)), *_over_time(report), *_causes(report), *_strata(report))
    return document


def _verdict(report: Mapping[str, Any]) -> tuple[str, Tone]:
    if report["unmended"]:
        return f"Found divergent, and not mended since: {counted(report['unmended'], 'key')}.", Tone.BAD
    if not report["measurements"]:
        return "Nothing was measured yet: `kvmigrate sample`, `kvmigrate verify`.", Tone.NOTICE
    last = report["measurements"][-1]
    said = (
        f"{number(last['divergent'])} of {counted(last['n'], 'key')} diverge, at most {last['upper_pct']:.3g} % of all"
    )
    return f"The last {last['kind']}, {last['at']}: {said}.", Tone.BAD if last["divergent"] else Tone.GOOD


def _over_time(report: Mapping[str, Any]) -> Iterator[Block]:
    shown: Sequence[Mapping[str, Any]] = report["measurements"][-_SHOWN:]
    if not shown:
        return
    yield Heading("Over time")
    points = [
        (each["at"], each["lower_pct"], 100 * each["divergent"] / each["n"] if each["n"] else 0.0, each["upper_pct"])
        for each in shown
    ]
    caption = "Divergent keys, in per cent: a dot for the share of those compared, a bar for between what all lie"
    yield Band(caption, "%", points, report["max_divergence_pct"])
    rows = [
        [
            each["at"],
            each["kind"],
            number(each["n"]),
            number(each["population"]),
            number(each["divergent"]),
            f"{each['lower_pct']:.3g} - {each['upper_pct']:.3g} %",
            f"{each['worst_pct']:.3g} %",
        ]
        for each in reversed(shown)
    ]
    tones = [Tone.BAD if each["divergent"] else Tone.PLAIN for each in reversed(shown)]
    names = ["at", "by", "compared>", "of>", "divergent>", "between>", "if undecided diverge>"]
    yield Grid(names, rows, tones)


def _causes(report: Mapping[str, Any]) -> Iterator[Block]:
    causes: Counter[str] = Counter()
    for each in report["measurements"]:
        causes.update(each.get("causes", {}))
    yield Heading("Causes")
    if not causes:
        yield Line("No measurement found a difference.", Tone.GOOD)
        return
    found = causes.most_common()
    yield Bars(
        "Places that differ, of all measurements, by cause",
        [name for name, _ in found],
        [("causes", [count for _, count in found])],
    )
    yield Grid(["cause", "places>"], [[name, number(count)] for name, count in found])


def _strata(report: Mapping[str, Any]) -> Iterator[Block]:
    last = next((each for each in reversed(report["measurements"]) if each.get("strata")), None)
    if last is None:
        return
    strata = [(f"entity {each['entity']}", each) for each in last["strata"]]
    strata += [(f"{each['by']} {each['name']}", each) for each in last.get("kinds", [])]
    strata.sort(key=lambda pair: -pair[1]["upper_pct"])
    yield Heading(f"Where most may be hidden, by the sample of {last['at']}")
    rows = [
        [name, number(each["n"]), number(each["divergent"]), f"{each['lower_pct']:.3g} - {each['upper_pct']:.3g} %"]
        for name, each in strata[:_STRATA]
    ]
    tones = [Tone.BAD if each["divergent"] else Tone.PLAIN for _, each in strata[:_STRATA]]
    yield Grid(["stratum", "compared>", "divergent>", "between>"], rows, tones)

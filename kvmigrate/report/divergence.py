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
    document.add(Line(*_verdict(report)), *_over_time(report), *_causes(report), *_strata(report), *_slowest(report))
    return document


def _verdict(report: Mapping[str, Any]) -> tuple[str, Tone]:
    if report["unmended"]:
        return f"Found divergent, and not mended since: {counted(report['unmended'], 'key')}.", Tone.BAD
    if not report["measurements"]:
        return "Nothing was measured yet: `kvmigrate sample`, `kvmigrate verify`.", Tone.NOTICE
    last = report["measurements"][-1]
    if not last["n"] and last["population"]:
        told = f"The last {last['kind']}, {last['at']}: of {counted(last['population'], 'key')} none could be compared."
        return told, Tone.NOTICE
    said = (
        f"{number(last['divergent'])} of {counted(last['n'], 'key')} diverge, at most {last['upper_pct']:.3g} % of all"
    )
    return f"The last {last['kind']}, {last['at']}: {said}.", Tone.BAD if last["divergent"] else Tone.GOOD


def _over_time(report: Mapping[str, Any]) -> Iterator[Block]:
    shown: Sequence[Mapping[str, Any]] = report["measurements"][-_SHOWN:]
    if not shown:
        return
    left_out = len(report["measurements"]) - len(shown)
    yield Heading(
        f"Over time: the last {len(shown)} of {number(len(report['measurements']))}" if left_out else "Over time"
    )
    points = [
        (each["at"], each["lower_pct"], 100 * each["divergent"] / each["n"] if each["n"] else None, each["upper_pct"])
        for each in shown
    ]
    caption = (
        "Divergent keys, in per cent: a dot for the share of those compared, a bar for between what all lie."
        " Heights are square roots."
    )
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
    if not report["measurements"]:
        return
    causes: Counter[str] = Counter()
    for each in report["measurements"]:
        causes.update(each.get("causes", {}))
    yield Heading("Causes")
    if not causes:
        is_known = any(each["n"] for each in report["measurements"])
        told = "No measurement found a difference." if is_known else "No measurement could compare a key."
        yield Line(told, Tone.GOOD if is_known else Tone.NOTICE)
        return
    found = causes.most_common()
    yield Bars(
        "Places that differ, of all measurements, by cause",
        ["places"],
        [(name, [count]) for name, count in found],
        is_scaled=True,
    )
    yield Grid(["cause", "places>"], [[name, number(count)] for name, count in found])


def _strata(report: Mapping[str, Any]) -> Iterator[Block]:
    last, strata = _last_sample(report)
    if last is None:
        return
    strata.sort(key=lambda pair: -pair[1]["upper_pct"])
    yield Heading(f"Where most may be hidden, by the sample of {last['at']}")
    rows = [
        [name, number(each["n"]), number(each["divergent"]), f"{each['lower_pct']:.3g} - {each['upper_pct']:.3g} %"]
        for name, each in strata[:_STRATA]
    ]
    tones = [Tone.BAD if each["divergent"] else Tone.PLAIN for _, each in strata[:_STRATA]]
    yield Grid(["stratum", "compared>", "divergent>", "between>"], rows, tones)


def _slowest(report: Mapping[str, Any]) -> Iterator[Block]:
    """Tell of keys that stayed neither equal nor divergent through all looks: on their way between the sides."""
    last, strata = _last_sample(report)
    if last is None:
        return
    slow = [(name, each, _undecided(each)) for name, each in strata if _undecided(each)]
    slow.sort(key=lambda found: -found[2] / (found[2] + found[1]["n"]))
    yield Heading(f"Slowest to agree, by the sample of {last['at']}")
    if not slow:
        yield Line("No key was on its way, or beyond comparison, through all looks.", Tone.GOOD)
        return
    rows = [(name, [each["n"] - each["divergent"], left, each["divergent"]]) for name, each, left in slow[:_STRATA]]
    caption = (
        "Keys of the sample: first those that agree, then those on their way or beyond comparison, last divergent ones"
    )
    yield Bars(caption, ["agree", "on their way", "diverge"], rows)
    cells = [
        [name, number(left), f"{100 * left / (left + each['n']):.3g} %", number(each["n"])] for name, each, left in slow
    ]
    yield Grid(["stratum", "on their way>", "share>", "compared>"], cells[:_STRATA])


def _last_sample(report: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, list[tuple[str, Mapping[str, Any]]]]:
    """Return the last measurement that tells strata apart, and those by their names."""
    last = next((each for each in reversed(report["measurements"]) if each.get("strata")), None)
    if last is None:
        return None, []
    strata = [(f"entity {each['entity']}", each) for each in last["strata"]]
    return last, strata + [(f"{each['by']} {each['name']}", each) for each in last.get("kinds", [])]


def _undecided(stratum: Mapping[str, Any]) -> int:
    if "undecided" in stratum:
        return int(stratum["undecided"])
    return int(stratum.get("pending", 0) + stratum.get("not_comparable", 0))

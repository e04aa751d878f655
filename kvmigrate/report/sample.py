"""What a sample found, as a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvmigrate.report.document import Block, Document, Facts, Grid, Heading, Line, Tone, counted, number
from kvmigrate.report.ending import ending

_METHODS = {
    "hypergeometric": "Clopper and Pearson's, for a known number of keys",
    "clopper-pearson": "Clopper and Pearson's",
    "anytime": "a confidence sequence, good at every look",
}
_MOST_KINDS = 10
_MOST_PLACES = 20
_APART = ("pending", "not_comparable", "vanished")


def describe_sample(report: Mapping[str, Any]) -> Document:
    """Return the document of a sample's JSON."""
    document = Document(f"{report['scope']}: {_verdict(report)}")
    sure = f"{report['confidence'] * 100:g} %"
    document.add(
        Facts(
            [
                ("store", report["source"]),
                ("tables", report["target"]),
                ("compared", f"{number(report['n'])} of {counted(report['population'], 'key')}, seed {report['seed']}"),
                ("divergent", f"{number(report['divergent'])}, {_share(report['divergence_pct'])}"),
                ("at least, at most", f"{_share(report['lower_pct'])}, {_share(report['upper_pct'])} ({sure} sure)"),
                ("if all undecided diverge", f"at most {_share(report['worst_pct'])}"),
                ("bounds", _METHODS[report["method"]]),
                ("took", f"{report['duration_s']:.1f} s"),
            ]
        ),
        Line(_needed(report, sure)),
        *_strata(report),
        *_places(report),
        *_kinds(report),
        *_differences(report),
        *ending(report),
    )
    return document


def _verdict(report: Mapping[str, Any]) -> str:
    if report["divergent"]:
        return f"{counted(report['divergent'], 'key')} of {number(report['n'])} diverge"
    if not report["n"]:
        return "nothing could be compared"
    return f"no divergence in {counted(report['n'], 'key')}, so at most {_share(report['upper_pct'])} of all"


def _needed(report: Mapping[str, Any], sure: str) -> str:
    wanted = f"that {100 - report['target_pct']:g} % agree, {sure} sure"
    if report["needed_samples"] is None:
        return f"No sample can show {wanted}: too many keys diverge."
    if report["needed_samples"]:
        return f"Needs {counted(report['needed_samples'], 'more sample')} without a difference to show {wanted}."
    return f"Shows {wanted}."


def _strata(report: Mapping[str, Any]) -> Iterator[Block]:
    apart = [name for name in _APART if report[name]]
    rows = [
        [
            each["entity"],
            number(each["n"]),
            number(each["population"]),
            number(each["divergent"]),
            _share(each["divergence_pct"]),
            f"{_share(each['lower_pct'])} - {_share(each['upper_pct'])}",
            *(number(each[name]) for name in apart),
        ]
        for each in report["strata"]
    ]
    if rows:
        names = [f"{name.replace('_', ' ')}>" for name in apart]
        yield Heading("By entity")
        tones = [Tone.BAD if each["divergent"] else Tone.PLAIN for each in report["strata"]]
        yield Grid(["entity", "compared>", "of>", "divergent>", "share>", "between>", *names], rows, tones)


def _places(report: Mapping[str, Any]) -> Iterator[Block]:
    found = sorted(report["places"], key=lambda each: -each["divergent"])
    rows = [
        [
            each["entity"],
            _column(each),
            number(each["divergent"]),
            _share(each["divergence_pct"]),
            f"{_share(each['lower_pct'])} - {_share(each['upper_pct'])}",
        ]
        for each in found[:_MOST_PLACES]
    ]
    if not rows:
        return
    yield Heading("By table and column")
    yield Grid(["entity", "place", "divergent>", "share>", "between>"], rows, [Tone.BAD] * len(rows))
    if left := len(found) - len(rows):
        yield Line(f"{number(left)} more, none worse than these: `--json` has all.", Tone.FAINT)


def _kinds(report: Mapping[str, Any]) -> Iterator[Block]:
    for kind in dict.fromkeys(each["by"] for each in report["kinds"]):
        every = [each for each in report["kinds"] if each["by"] == kind]
        # The worst stand first where not all are shown: those that diverge, then those that fewest keys speak for.
        worst = sorted(
            every, key=lambda each: (-each["lower_pct"], -each["divergent"], -each["upper_pct"], each["name"])
        )
        found = every if len(every) <= _MOST_KINDS else worst[:_MOST_KINDS]
        rows = [
            [
                each["name"],
                number(each["n"]),
                number(each["divergent"]),
                _share(each["divergence_pct"]),
                f"{_share(each['lower_pct'])} - {_share(each['upper_pct'])}",
            ]
            for each in found
        ]
        if len(rows) > 1 or report["divergent"]:
            yield Heading(f"By {kind}")
            tones = [Tone.BAD if each["divergent"] else Tone.PLAIN for each in found]
            yield Grid([kind, "compared>", "divergent>", "share>", "between>"], rows, tones)
            if left := len(every) - len(found):
                yield Line(f"{number(left)} more, none worse than these: `--json` has all.", Tone.FAINT)


def _differences(report: Mapping[str, Any]) -> Iterator[Block]:
    if report["causes"]:
        yield Heading("Differences")
        yield Grid(["cause", "places>"], [[cause, number(count)] for cause, count in report["causes"].items()])
    if report["examples"]:
        rows = [
            [each["key"], each["path"], _column(each), each["cause"], each["detail"]] for each in report["examples"]
        ]
        yield Line("For example:", Tone.FAINT)
        yield Grid(["key", "path", "column", "cause", "what"], rows, [Tone.BAD] * len(rows))
    if report["tolerances"]:
        yield Heading("Tolerated, as the mapping declares it")
        yield Grid(["what", "items>"], [[what, number(count)] for what, count in report["tolerances"].items()])


def _column(example: Mapping[str, Any]) -> str:
    return ".".join(filter(None, (example["table"], example["column"])))


def _share(percent: float | None) -> str:
    return "unknown" if percent is None else f"{percent:.3g} %"

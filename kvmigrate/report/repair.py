"""What a repair did, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.report.document import Document, Facts, Grid, Heading, Line, Sum, Tone, counted, number
from kvmigrate.report.ending import ending

_OUTCOMES = (
    ("would_repair", "diverge, and would be repaired"),
    ("repaired", "diverged, and agree now"),
    ("equal", "did not diverge any more"),
    ("pending", "are written, or not brought yet"),
    ("divergent", "still diverge"),
)
_TONES = {"repaired": Tone.GOOD, "would_repair": Tone.NOTICE, "pending": Tone.NOTICE, "divergent": Tone.BAD}


def describe_repair(report: Mapping[str, Any]) -> Document:
    """Return the document of a repair's JSON."""
    document = Document(f"{report['scope']}: {_verdict(report)}")
    parts = [(name.replace("_", " "), report[name], meaning) for name, meaning in _OUTCOMES]
    document.add(
        Facts([("store", report["source"]), ("tables", report["target"]), ("from", report["direction"])]),
        Sum(sum(count for _, count, _ in parts), "items looked at", parts),
    )
    if report["without_key"]:
        text = (
            f"{counted(report['without_key'], 'row')} of no key: `kvmigrate verify` names the tables; delete them there"
        )
        document.add(Line(text, Tone.BAD))
    if report["items"]:
        rows = [
            [
                each["key"],
                ", ".join(each["causes"]),
                each["action"].replace("_", " "),
                each["outcome"].replace("_", " "),
            ]
            for each in report["items"]
        ]
        tones = [_TONES.get(each["outcome"], Tone.PLAIN) for each in report["items"]]
        document.add(Heading("Items"), Grid(["key", "causes", "what is done", "outcome"], rows, tones))
    document.add(*ending(report))
    return document


def _verdict(report: Mapping[str, Any]) -> str:
    if report["dry_run"]:
        return f"{counted(report['would_repair'], 'item')} would be repaired"
    if report["divergent"] or report["without_key"]:
        return f"{counted(report['divergent'] + report['without_key'], 'item')} still diverge"
    return f"{number(report['repaired'])} repaired, nothing diverges" if report["repaired"] else "nothing to repair"

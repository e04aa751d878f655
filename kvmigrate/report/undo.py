"""What an undo took out, and what it kept, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.report.document import Document, Facts, Grid, Line, Tone, counted, number
from kvmigrate.report.ending import ending

_WHY = {
    "existed_before": "an earlier run brought it",
    "referenced": "rows that stay refer to it",
    "removed_by_run": "the run removed it as gone from the store",
}
_SHOWN = 20


def describe_undo(report: Mapping[str, Any]) -> Document:
    """Return the document of ``undo``."""
    verb = "would be taken out" if report["dry_run"] else "taken out"
    document = Document(f"{report['scope']}: {counted(report['undone'], 'item')} of run {report['run']} {verb}")
    if report["rows"]:
        document.add(Facts([(table, counted(count, "row")) for table, count in report["rows"].items()]))
    kept = [[name, number(count), _WHY[name]] for name, count in report["kept"].items() if count]
    if kept:
        document.add(Line("Kept:", Tone.NOTICE), Grid(["why", "items>", "what that means"], kept))
        shown = [[each["key"], each["why"], each["detail"]] for each in report["examples"][:_SHOWN]]
        document.add(Line("For example:", Tone.FAINT), Grid(["key", "why", "referred to by"], shown))
    else:
        document.add(Line("Nothing of the run is kept.", Tone.GOOD))
    document.add(*ending(report))
    return document

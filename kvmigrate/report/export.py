"""What an export wrote, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.report.document import Document, Grid, Line, Tone, counted, number
from kvmigrate.report.ending import ending


def describe_export(report: Mapping[str, Any]) -> Document:
    """Return the document of an export's JSON."""
    document = Document(f"{report['scope']}: {counted(report['exported'], 'line')} written to {report['output']}")
    if report["from"] == "target":
        made = f"{number(report['rebuilt'])} rebuilt from rows, {number(report['from_quarantine'])} from quarantine"
        document.add(Line(f"{made}, {number(report['read'])} read from the store"))
    if report["unreadable"]:
        document.add(Line(f"{counted(report['unreadable'], 'key')} that no item can have: only named", Tone.NOTICE))
    if report["missing"]:
        document.add(
            Line(f"Incomplete: {counted(report['missing'], 'value')} could not be written.", Tone.BAD),
            Grid(["reason", "items>"], [[why, number(count)] for why, count in report["missing_reasons"].items()]),
            Grid(["key", "reason"], [[each["key"], each["reason"]] for each in report["examples"]]),
        )
    elif not report["complete"] and not report["warnings"]:
        document.add(Line("Cut short by --limit.", Tone.NOTICE))
    document.add(*ending(report))
    return document

"""What the doctor found, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.report.document import Document, Facts, Grid, Line, Tone, counted
from kvmigrate.report.ending import ending

_TONES = {"ok": Tone.GOOD, "warn": Tone.NOTICE, "fail": Tone.BAD, "unknown": Tone.NOTICE}
_WORST_FIRST = ("fail", "unknown", "warn", "ok")


def describe_findings(report: Mapping[str, Any]) -> Document:
    """Return the document of ``doctor``: the worst first, each with its reason and what to do."""
    findings = sorted(report["findings"], key=lambda each: _WORST_FIRST.index(each["level"]))
    counts = {level: sum(each["level"] == level for each in findings) for level in _WORST_FIRST}
    said = f"{counted(counts['fail'], 'check')} failed, {counts['unknown']} open, {counted(counts['warn'], 'warning')}"
    document = Document(f"{report['scope']}: {said}, {counts['ok']} well")
    rows = [[each["level"], each["id"], each["what"]] for each in findings]
    document.add(Grid(["", "check", "found"], rows, [_TONES[each["level"]] for each in findings]))
    for each in findings:
        if each["why"] or each["remedy"]:
            document.add(Line(f"{each['id']}:", _TONES[each["level"]]))
            document.add(Facts([("why", each["why"]), ("what to do", each["remedy"])]))
    document.add(*ending(report))
    return document

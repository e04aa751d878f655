"""What `schema` did or found, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.report.document import Code, Document, Grid, Line, Tone, counted
from kvmigrate.report.ending import ending

_TONES = {"error": Tone.BAD, "warning": Tone.NOTICE, "note": Tone.FAINT}


def describe_applied(report: Mapping[str, Any]) -> Document:
    """Return the document of ``schema --apply``."""
    created, existed = report["created"], report["existed"]
    title = f"{report['scope']}: {counted(len(created), 'object')} created"
    document = Document(f"{title}, {counted(len(existed), 'table')} there already" if existed else title)
    document.add(*(Line(each) for each in created if not each.startswith(("index", "constraint"))))
    document.add(*(Line(note, Tone.NOTICE) for note in report["notes"]), *ending(report))
    return document


def describe_differences(report: Mapping[str, Any]) -> Document:
    """Return the document of ``schema --diff``."""
    found = report["differences"]
    if not found:
        return Document(f"{report['scope']}: the tables are as the mapping wants them")
    document = Document(f"{report['scope']}: {counted(len(found), 'difference')} between mapping and database")
    rows = [[each["level"], each["object"], each["what"]] for each in found]
    document.add(Grid(["level", "object", "what"], rows, [_TONES[each["level"]] for each in found]))
    if mending := [f"{each['sql']};" for each in found if each["sql"]]:
        document.add(Line("This mends what can be mended without a decision:", Tone.FAINT), Code("\n".join(mending)))
    document.add(*ending(report))
    return document


def describe_dropped(report: Mapping[str, Any]) -> Document:
    """Return the document of ``schema --drop``."""
    dropped = report["dropped"]
    document = Document(f"{report['scope']}: {counted(len(dropped), 'object')} dropped")
    document.add(*(Line(each) for each in dropped))
    return document

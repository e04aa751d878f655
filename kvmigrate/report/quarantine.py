"""Quarantined items, and what became of a replay, as documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.model import ItemKind
from kvmigrate.report.document import Code, Document, Facts, Grid, Line, Tone, counted, number
from kvmigrate.report.ending import ending

_MAX_PASSED = 20


def describe_entries(report: Mapping[str, Any]) -> Document:
    """Return the document of ``quarantine list``."""
    entries = report["entries"]
    document = Document(f"{report['scope']}: {counted(report['count'], 'quarantined item')}")
    if entries:
        rows = [[each["key"], each["reason"], each["path"], each["message"]] for each in entries]
        document.add(Grid(["key", "reason", "where", "why"], rows))
    if report["more"]:
        document.add(Line("There are more: --limit shows them, --reason and --entity choose.", Tone.FAINT))
    document.add(*ending(report))
    return document


def describe_waiting(report: Mapping[str, Any]) -> Document:
    """Return the document of ``quarantine list --waiting``."""
    waiting = report["waiting"]
    document = Document(f"{report['scope']}: {counted(report['count'], 'obstacle')} of waiting items")
    if waiting:
        rows = [[each[name] for name in ("key", "reason", "waits_for", "value", "message")] for each in waiting]
        document.add(Grid(["key", "reason", "waits for", "value", "why"], rows))
    if report["more"]:
        document.add(Line("There are more: --limit shows them, --reason and --entity choose.", Tone.FAINT))
    document.add(*ending(report))
    return document


def describe_kept_items(report: Mapping[str, Any]) -> Document:
    """Return the document of ``quarantine list --kept``."""
    document = Document(f"{report['scope']}: {counted(report['count'], 'kept item')}")
    if report["kept"]:
        rows = [
            [each["key"], each["entity"], each["kind"], number(each["bytes"]), each["expires_at"] or "never"]
            for each in report["kept"]
        ]
        document.add(Grid(["key", "entity", "kind", "bytes>", "expires"], rows))
    if report["more"]:
        document.add(Line("There are more: --limit shows them, --entity chooses.", Tone.FAINT))
    document.add(*ending(report))
    return document


def describe_entry(report: Mapping[str, Any], value: str) -> Document:
    """Return the document of ``quarantine show``; *value* is the item's, for people."""
    document = Document(report["key"])
    names = ("entity", "reason", "path", "message", "at", "run", "fingerprint")
    document.add(Facts([(name, str(report[name])) for name in names]))
    if report["payload_kind"] == ItemKind.OTHER:
        document.add(Line(f"As stored: {value}"), *ending(report))
        return document
    stored = f"As stored: {report['payload_kind']}, {counted(report['payload_bytes'], 'byte')}"
    document.add(Line(stored, Tone.FAINT), Code(value), *ending(report))
    return document


def describe_replay(report: Mapping[str, Any]) -> Document:
    """Return the document of ``quarantine replay``."""
    if report["touched"]:
        document = Document(f"{report['scope']}: {counted(report['touched'], 'item')} marked, to be tried again")
        document.add(Line("The mapping is live: `kvmigrate relay` tries them, under the mapping that it began with."))
        document.add(*ending(report))
        return document
    document = Document(f"{report['scope']}: {counted(report['replayed'], 'item')} tried again")
    names = ("written", "waiting", "quarantined", "vanished")
    document.add(Facts([(name, number(report[name])) for name in names]))
    if report["passed"]:
        document.add(Line("Passed, for example:" if len(report["passed"]) > _MAX_PASSED else "Passed:", Tone.FAINT))
        document.add(*(Line(key, Tone.GOOD) for key in report["passed"][:_MAX_PASSED]))
    if report["reasons"]:
        rows = [[reason, number(count)] for reason, count in report["reasons"].items()]
        document.add(Line("Still refused:", Tone.FAINT), Grid(["reason", "items>"], rows))
    if report["not_kept"]:
        document.add(Line(f"{counted(report['not_kept'], 'value')} too large to keep: name the --source.", Tone.NOTICE))
    document.add(*ending(report))
    return document

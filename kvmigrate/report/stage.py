"""Where a migration stands, what a gate says, and what a move did, as documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.report.commands import commands_that_end
from kvmigrate.report.document import Document, Facts, Grid, Line, Tone, counted, number
from kvmigrate.report.ending import ending

_WHO = {"K": "the store writes", "S": "nobody writes", "T": "the tables write", "X": "the store is retired"}
_TONES = {"pass": Tone.GOOD, "fail": Tone.BAD, "inconclusive": Tone.NOTICE, "no_data": Tone.NOTICE}
_SHOWN = 20
_MAPPINGS = {True: "this one", False: "another one", None: "not told"}


def describe_stage(report: Mapping[str, Any]) -> Document:
    """Return the document of ``stage show``."""
    document = Document(f"{report['scope']}: stage {report['stage']}")
    fences = [f"{_shards(each)}: {_fence(each)}" for each in report["fences"][:_SHOWN]]
    pairs = [
        ("authority", f"{report['authority']}: {_WHO[report['authority']]}"),
        ("epoch", str(report["epoch"])),
        ("under way", report["phase"] or "nothing"),
        ("backfilled", "yes" if report["backfilled"] else "no"),
        ("marks", number(report["marks"])),
        ("waiting", number(report["waiting"])),
        ("quarantined", number(report["quarantined"])),
        ("kept", number(report["kept"])),
        ("owed to the store", number(report["owed"])),
        ("everything owed", "yes" if report["owes_all"] else "no"),
        ("fences", "; ".join(fences) or "none"),
    ]
    document.add(Facts(pairs))
    if report["processes"]:
        rows = [
            [
                each["id"],
                each["kind"],
                str(each["epoch_seen"]),
                each["stage_seen"],
                f"{each['heartbeat_age_s']:.0f} s",
                _MAPPINGS[each["same_mapping"]],
            ]
            for each in report["processes"][:_SHOWN]
        ]
        document.add(Grid(["process", "kind", "epoch seen>", "stage seen", "heard of>", "mapping"], rows))
    if report["commands"]:
        document.add(commands_that_end(report["commands"]))
    document.add(*ending(report))
    return document


def describe_gate(report: Mapping[str, Any]) -> Document:
    """Return the document of ``stage advance`` where it only asked, or was refused."""
    verdict = report["gate"]["verdict"]
    document = Document(f"{report['scope']}: the gate into {report['gate']['to']} says {verdict}")
    checks = report["gate"]["checks"]
    waived = report["gate"]["overridden"]
    rows = [
        [
            each["name"],
            _verdict(each, waived),
            "" if each["value"] is None else f"{each['value']} {each['unit']}".strip(),
            "" if each["limit"] is None else f"{each['operator']} {each['limit']}",
        ]
        for each in checks
    ]
    tones = [_TONES[each["verdict"]] if each["is_asked"] else Tone.FAINT for each in checks]
    document.add(Grid(["check", "verdict", "is>", "wanted>"], rows, tones))
    # Beneath, as no terminal is as wide as a reason is long.
    document.add(
        *(
            Line(f"{each['name']}: {each['reason']}", tone)
            for each, tone in zip(checks, tones, strict=True)
            if each["reason"]
        )
    )
    document.add(*ending(report))
    return document


def _verdict(check: Mapping[str, Any], waived: Mapping[str, str]) -> str:
    if check["name"] in waived:
        return "overridden"
    told = str(check["verdict"]).replace("_", " ")
    return told if check["is_asked"] else f"{told}, not asked"


def describe_backup(report: Mapping[str, Any]) -> Document:
    """Return the document of ``stage backup``."""
    document = Document(f"{report['scope']}: the backup of {report['at']} is known as verified")
    document.add(*ending(report))
    return document


def describe_move(report: Mapping[str, Any]) -> Document:
    """Return the document of a move between stages."""
    before, after = report["before"], report["stage"]
    said = f"stage {after}" if before == after else f"{before} -> {after}"
    document = Document(f"{report['scope']}: {said}")
    document.add(Line(f"{_WHO[report['authority']]}, epoch {report['epoch']}", Tone.GOOD))
    if report["stall_ms"] is not None:
        document.add(Line(f"Nobody could write for {report['stall_ms']:,.1f} ms."))
    if report["mended"]:
        document.add(Line(f"Mended before: {', '.join(report['mended'])}", Tone.NOTICE))
    document.add(*ending(report))
    return document


def describe_forced(report: Mapping[str, Any]) -> Document:
    """Return the document of ``stage rollback --force``."""
    keys = report["keys"]
    document = Document(f"{report['scope']}: the store was opened by force at epoch {report['epoch']}")
    what = "that the tables owed it" if report["exact"] else "written while the tables were open"
    document.add(Line(f"{counted(len(keys), 'key')} {what}: the store may lack their newest value", Tone.BAD))
    document.add(*(Line(key, Tone.FAINT) for key in keys[:_SHOWN]), *ending(report))
    return document


def describe_kept(report: Mapping[str, Any]) -> Document:
    """Return the document of ``quarantine keep``."""
    document = Document(f"{report['scope']}: {counted(report['kept'], 'item')} kept whole")
    if report["changed"]:
        text = f"{counted(len(report['changed']), 'item')} written meanwhile: try again when the relay has applied them"
        document.add(Line(text, Tone.NOTICE), *(Line(key, Tone.FAINT) for key in report["changed"][:_SHOWN]))
    document.add(*ending(report))
    return document


def _shards(entry: Mapping[str, Any]) -> str:
    return str(entry["shard"]) if entry["shards"] == 1 else f"{entry['shards']:,} shards"


def _fence(each: Mapping[str, Any]) -> str:
    return "missing" if each["authority"] is None else f"{each['authority']} at {each['epoch']}, log {each['log']}"

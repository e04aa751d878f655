"""What commands about reads say, as documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kvmigrate.report.commands import commands_that_end
from kvmigrate.report.document import Document, Facts, Grid, Line, Tone, counted, number
from kvmigrate.report.ending import ending

_DONE = {True: Tone.GOOD, False: Tone.BAD}
_VERDICTS = {"ok": Tone.GOOD, "held": Tone.NOTICE}
_LEVELS = {"error": Tone.BAD, "warning": Tone.NOTICE}


def describe_reads(report: Mapping[str, Any]) -> Document:
    """Return the document of a command about reads."""
    document = _DESCRIBED[report["command"]](report)
    document.add(*ending(report))
    return document


def _init(report: Mapping[str, Any]) -> Document:
    made = counted(len(report["made"]), "flag")
    document = Document(f"{report['scope']}: {made} made at 0 %" if report["made"] else "nothing made: all have a flag")
    document.add(*(Line(slug) for slug in report["made"]))
    return document


def _lint(report: Mapping[str, Any]) -> Document:
    findings = report["findings"]
    document = Document(
        f"{report['scope']}: {counted(len(findings), 'finding')} in {report['source']}" if findings else "all well"
    )
    if findings:
        rows = [[each["level"], each["endpoint"], each["what"], each["hint"]] for each in findings]
        document.add(Grid(["level", "endpoint", "what", "hint"], rows, [_LEVELS[each["level"]] for each in findings]))
    return document


def _show(report: Mapping[str, Any]) -> Document:
    document = Document(f"{report['scope']}: flags in {report['source']}, stage {report['stage'] or 'unknown'}")
    rows = [
        [each["endpoint"], _percent(each["intent_pct"]), _percent(each["allowed_pct"]), each["sticky"], each["why"]]
        for each in report["endpoints"]
    ]
    document.add(Grid(["endpoint", "asks for>", "is given>", "sticky by", "why"], rows) if rows else Line("no flags"))
    return document


def _set(report: Mapping[str, Any]) -> Document:
    change = report["change"]
    document = Document(f"{report['scope']}: {change['flag']}")
    document.add(Facts([("before", change["before"]), ("after", change["after"])]))
    return document


def _history(report: Mapping[str, Any]) -> Document:
    document = Document(f"{report['scope']}: changes of flags in {report['source']}")
    names = ("at", "who", "flag", "before", "after", "why")
    rows = [[each[name] for name in names] for each in report["changes"]]
    document.add(Grid(names, rows) if rows else Line("none"))
    return document


def _rollback(report: Mapping[str, Any]) -> Document:
    what = "every endpoint" if report["endpoint"] == "*" else report["endpoint"]
    said = "flags decide again" if report["cleared"] else "reads go to the store"
    if report["tables_lead"]:
        said = "the rollback is kept, but the tables lead: reads stay there"
    document = Document(f"{report['scope']}: {said}, of {what}")
    rows = [[each["name"], "done" if each["done"] else "not done", each["why"]] for each in report["places"]]
    document.add(Grid(["place", "", "why"], rows, [_DONE[each["done"]] for each in report["places"]]))
    return document


def _explain(report: Mapping[str, Any]) -> Document:
    return _key(report) if "key" in report else _request(report)


def _key(report: Mapping[str, Any]) -> Document:
    document = Document(f"{report['key']}: {report['why']}")
    there = {True: "is there", False: "is not there", None: "was not asked"}
    if report["epoch"] is None:
        document.add(Facts([("entity", report["entity"] or "none"), ("in the store", there[report["in_store"]])]))
        return document
    document.add(
        Facts(
            [
                ("entity", report["entity"]),
                ("is read from", {"kv": "the store", "tables": "the tables"}[report["side"]]),
                ("stage, epoch", f"{report['stage'] or 'unknown'}, {report['epoch']}"),
                ("in the store", there[report["in_store"]] + (", marked" if report["marked"] else "")),
                ("in the tables", f"{there[report['in_tables']]}, as of {report['tables_version'] or 'no version'}"),
                ("differs at", report["different_at"] or "nowhere"),
            ]
        )
    )
    return document


def _request(report: Mapping[str, Any]) -> Document:
    side = {"kv": "the store", "tables": "the tables"}[report["side"]]
    document = Document(f"{report['endpoint']} reads {side}: {report['why']}")
    place = report["position_pct"]
    document.add(
        Facts(
            [
                ("asks for", _percent(report["intent_pct"])),
                ("is given", _percent(report["allowed_pct"])),
                ("sticky by", report["sticky"] or "nothing"),
                ("group", report["group"]),
                ("its place", "" if place is None else _percent(place)),
            ]
        )
    )
    return document


def _status(report: Mapping[str, Any]) -> Document:
    share = report["reads_on_tables_pct"]
    said = "no reads were counted" if share is None else f"{_percent(share)} of all reads were on tables"
    document = Document(f"{report['scope']}: stage {report['stage'] or 'unknown'}, {said}")
    rows = [
        [
            each["endpoint"],
            _percent(each["allowed_pct"]),
            "" if each["served_pct"] is None else _percent(each["served_pct"]),
            number(each["requests"]),
            number(sum(each["fallbacks"].values())),
            number(each["different"]),
            _milliseconds(each["p95_ms"]),
            each["verdict"].replace("_", " "),
            each["reason"],
        ]
        for each in report["endpoints"]
    ]
    names = ["endpoint", "is given>", "served>", "reads>", "fallbacks>", "different>", "p95 store, tables>", "", "why"]
    tones = [_VERDICTS.get(each["verdict"], Tone.BAD) for each in report["endpoints"]]
    document.add(Grid(names, rows, tones) if rows else Line("no flags, and no reads"))
    if report["commands"]:
        document.add(commands_that_end(report["commands"]))
    return document


def _milliseconds(sides: Mapping[str, float | None]) -> str:
    return ", ".join("-" if sides[side] is None else f"{sides[side]:g} ms" for side in ("kv", "tables"))


def _percent(value: float) -> str:
    return f"{value:g} %"


_DESCRIBED: Mapping[str, Callable[[Mapping[str, Any]], Document]] = {
    "flags init": _init,
    "flags lint": _lint,
    "flags show": _show,
    "flags set": _set,
    "flags history": _history,
    "rollback": _rollback,
    "explain": _explain,
    "status": _status,
}

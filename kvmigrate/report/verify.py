"""What a verification found, as a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvmigrate.report.document import Block, Document, Facts, Grid, Heading, Line, Sum, Tone, counted, number
from kvmigrate.report.ending import ending

_OUTCOMES = (
    ("matched", "rebuilt from rows, equal to the store"),
    ("tolerated", "equal but for what the mapping declares"),
    ("different", "differ from the store"),
    ("missing", "in the store, not in the tables"),
    ("extra", "in the tables, not in the store"),
    ("pending", "wait for another item, or changed while read"),
    ("not_comparable", "quarantined, all found there"),
)


def describe_verify(report: Mapping[str, Any]) -> Document:
    """Return the document of a verification's JSON."""
    document = Document(f"{report['scope']}: {_verdict(report)}")
    parts = [(name.replace("_", " "), report[name], meaning) for name, meaning in _OUTCOMES]
    document.add(
        Facts([("store", report["source"]), ("tables", report["target"]), ("took", f"{report['duration_s']:.1f} s")]),
        Sum(sum(count for _, count, _ in parts), "items looked at", parts),
        *_differences(report),
        *_covered(report),
        *ending(report),
    )
    return document


def _verdict(report: Mapping[str, Any]) -> str:
    apart = report["different"] + report["missing"] + report["extra"]
    if apart:
        return f"store and tables disagree on {counted(apart, 'item')}"
    if not report["compared"] and "since" in report:
        return f"nothing that could be compared was written since {report['since']['at']}"
    if not report["compared"]:
        return "nothing could be compared"
    told = f"{counted(report['compared'], 'item')} compared, no divergence"
    return f"{told} among what was written since {report['since']['at']}" if "since" in report else told


def _differences(report: Mapping[str, Any]) -> Iterator[Block]:
    if report["causes"]:
        yield Heading("Differences")
        yield Grid(["cause", "items>"], [[cause, number(count)] for cause, count in report["causes"].items()])
    if report["examples"]:
        rows = [
            [each["key"], each["path"], _column(each), each["cause"], each["detail"]] for each in report["examples"]
        ]
        yield Line("For example:", Tone.FAINT)
        yield Grid(["key", "path", "column", "cause", "what"], rows, [Tone.BAD] * len(rows))


def _column(example: Mapping[str, str]) -> str:
    return ".".join(filter(None, (example["table"], example["column"])))


def _covered(report: Mapping[str, Any]) -> Iterator[Block]:
    if report["tolerances"]:
        yield Heading("Tolerated, as the mapping declares it")
        yield Grid(["what", "items>"], [[what, number(count)] for what, count in report["tolerances"].items()])
    if quick := report.get("quick"):
        told = (
            f"Not independent: {counted(quick['by_hash'], 'item')} by the hash that the ledger has, and by what nobody"
        )
        yield Line(f"{told} wrote since {quick['at']}; {number(quick['in_full'])} in full.", Tone.NOTICE)
    if since := report.get("since"):
        yield from _since(since)
    elif not report["complete"]:
        yield Line(f"Cut short: covered up to the key {report['verified_up_to']!r}.", Tone.NOTICE)


def _since(since: Mapping[str, Any]) -> Iterator[Block]:
    looked_at, known = since["looked_at"], since["known"]
    told = f"Looked at {number(looked_at)} of {counted(known, 'item')} ({since['share_pct']:.3g} %): those that the"
    yield Line(f"{told} tables were given since {since['at']}, and all rows of no item.", Tone.NOTICE)
    if since["marked"]:
        yield Line(f"Not looked at: {counted(since['marked'], 'key')} that the relay owes the tables.", Tone.NOTICE)
    if since["undecided"]:
        told = f"Not comparable or pending then: {counted(since['undecided'], 'item')}; looked at if written since."
        yield Line(told, Tone.NOTICE)

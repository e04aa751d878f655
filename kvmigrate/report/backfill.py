"""The final report of a backfill as a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvmigrate.model import Bin
from kvmigrate.report.document import Bars, Block, Document, Facts, Grid, Heading, Line, Sum, Tone, counted, number
from kvmigrate.report.ending import ending

MEANINGS = {
    Bin.WRITTEN: "now rows",
    Bin.WAITING: "for another item",
    Bin.QUARANTINED: "refused, kept whole",
    Bin.LEFT_IN_KV: "as the mapping says",
    Bin.UNMATCHED: "no key pattern",
    Bin.VANISHED: "gone while read",
}
"""What the six bins mean, in three words."""

_MAX_EXAMPLES = 10


def bin_name(name: str) -> str:
    """Return a bin's name for people: ``left in KV``."""
    return name.replace("_in_kv", " in KV")


def describe_backfill(report: Mapping[str, Any]) -> Document:
    """Return the document of a backfill's JSON."""
    are = "would be" if report["dry_run"] else "are"
    document = Document(
        f"{report['scope']}: {number(report['written'])} of {number(report['scanned'])} keys {are} rows"
    )
    document.add(
        Facts([("from", report["source"]), ("to", report["target"] or "nothing is written"), *_facts(report)]),
        Sum(report["scanned"], "keys read", [(bin_name(b), report[b], MEANINGS[b]) for b in Bin]),
        _adding_up(report),
        *_entities(report),
        *_tables(report),
        *_quarantine(report),
        *_conflicts(report),
        *_waiting(report),
        *_pointers(report),
        *_aside(report),
        *_declared(report),
        *_proof(report),
        *ending(report),
    )
    return document


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    seconds = report["duration_s"]
    rate = f", {number(round(report['scanned'] / seconds))} keys a second" if seconds else ""
    run = "dry run" if report["dry_run"] else str(report["run_id"])
    facts = [
        ("run", f"{run}, {report['started_at']}, {seconds:.1f} s{rate}"),
        ("mapping", f"{report['fingerprint'][:12]}"),
    ]
    if report["where"]:
        facts.append(("where", report["where"]))
    if report["resumed_pages"]:
        facts.append(("goes on", f"behind {counted(report['resumed_pages'], 'page')} of a run that was cut short"))
    return facts


def _adding_up(report: Mapping[str, Any]) -> Line:
    total = sum(report[each] for each in Bin)
    if total == report["scanned"] and report["dry_run"]:
        return Line("The bins add up. Nothing was written; what the tables would refuse stands below.", Tone.FAINT)
    if total == report["scanned"] and not report["errors"]:
        return Line("The bins add up; counts are read back from the database.", Tone.FAINT)
    return Line(f"The bins add up to {number(total)}: counts disagree, see the errors below.", Tone.BAD)


def _entities(report: Mapping[str, Any]) -> Iterator[Block]:
    entities: Mapping[str, Mapping[str, int]] = dict(
        sorted(report["entities"].items(), key=lambda pair: (-sum(pair[1].values()), pair[0]))
    )
    if not entities:
        return
    shown = [each for each in Bin if any(counts.get(each) for counts in entities.values())]
    yield Heading("By entity")
    yield Bars(
        "Every bar is drawn whole, its number of items behind it. The colours are those of the bins above.",
        [bin_name(each) for each in Bin],
        [
            ("all keys", [report[each] for each in Bin]),
            *((name, [counts.get(each, 0) for each in Bin]) for name, counts in entities.items()),
        ],
    )
    yield Grid(
        ["entity", *(f"{bin_name(each)}>" for each in shown)],
        [[name, *(number(counts.get(each, 0)) for each in shown)] for name, counts in entities.items()],
    )


def _tables(report: Mapping[str, Any]) -> Iterator[Block]:
    rest = report["rest_bytes"]
    yield Heading("By table")
    yield Grid(
        ["table", "rows>", "bytes in rest>"],
        [[table, number(count), number(rest.get(table, 0))] for table, count in report["rows"].items()],
    )


def _quarantine(report: Mapping[str, Any]) -> Iterator[Block]:
    if not report["quarantined"]:
        return
    yield Heading(f"Quarantined: {counted(report['quarantined'], 'item')}")
    yield _counts("reason", report["quarantine_reasons"])
    yield from _examples(report, report["quarantine_reasons"])


def _examples(report: Mapping[str, Any], reasons: Mapping[str, int]) -> Iterator[Block]:
    chosen = _few_per_reason([each for each in report["examples"] if each["reason"] in reasons])
    if chosen:
        yield Line("For example:", Tone.FAINT)
        yield Grid(["key", "where", "why"], [[each["key"], each["path"], each["message"]] for each in chosen])


def _few_per_reason(examples: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return the first two examples of each reason."""
    grouped: dict[str, list[Mapping[str, str]]] = {}
    for each in examples:
        grouped.setdefault(each["reason"], []).append(each)
    return [each for group in grouped.values() for each in group[:2]]


def _conflicts(report: Mapping[str, Any]) -> Iterator[Block]:
    if not report["conflicts"]:
        return
    yield Heading("What would not fit, or only at a price")
    yield Grid(
        ["kind", "entity", "where", "count>", "for example", "what to do"],
        [
            [
                each["kind"],
                each["entity"],
                ", ".join(each["columns"]),
                number(each["count"]),
                ", ".join(each["examples"][:2]),
                each["hint"],
            ]
            for each in report["conflicts"]
        ],
    )


def _waiting(report: Mapping[str, Any]) -> Iterator[Block]:
    if reasons := report["waiting_reasons"]:
        yield Heading(f"Waiting for another item: {counted(report['waiting'], 'item')}")
        yield _counts("for", reasons)
        if (mending := sum(reasons.values()) - report["waiting"]) > 0:
            yield Line(
                f"{counted(mending, 'of these is', 'of these are')} rows: only a reference is NULL until it comes."
            )
        yield from _examples(report, reasons)


def _counts(name: str, counts: Mapping[str, int]) -> Grid:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Grid([name, "items>"], [[text, number(count)] for text, count in ordered])


def _pointers(report: Mapping[str, Any]) -> Iterator[Block]:
    if not report["pointers"]:
        return
    yield Heading("Index lists kept by hand, against what exists")
    rows = [
        [each["name"], *(number(each[name]) for name in ("listed", "real", "dangling", "unlisted"))]
        for each in report["pointers"]
    ]
    tones = [Tone.NOTICE if each["dangling"] or each["unlisted"] else Tone.PLAIN for each in report["pointers"]]
    yield Grid(["list", "listed>", "real>", "listed only>", "not listed>"], rows, tones)


def _aside(report: Mapping[str, Any]) -> Iterator[Block]:
    if report["left_in_kv"]:
        lists = report["left_in_kv"] - sum(report["left_reasons"].values())
        reasons = {**report["left_reasons"], "index lists kept by hand": lists} if lists > 0 else report["left_reasons"]
        yield Heading(f"Left in KV: {counted(report['left_in_kv'], 'key')}")
        yield _counts("why", reasons)
    if report["unmatched_examples"]:
        yield Heading(f"Unmatched: {counted(report['unmatched'], 'key')} that no pattern of the mapping matches")
        yield Grid(["for example"], [[key] for key in report["unmatched_examples"][:_MAX_EXAMPLES]])


def _declared(report: Mapping[str, Any]) -> Iterator[Block]:
    if report["normalised"]:
        yield Heading("Losses that the mapping declares")
        yield _counts("what", report["normalised"])


def _proof(report: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading("How sure")
    if report["dry_run"]:
        yield Line(
            "A dry run: what would wait for another item, or whose place is taken, counts as written.", Tone.NOTICE
        )
    elif not report["complete"]:
        yield Line("Only a part of the store was read (--limit, --where): nothing was taken for deleted.", Tone.NOTICE)
    elif report["live"]:
        were = "was" if report["touched"] == 1 else "were"
        told = f"{counted(report['touched'], 'key')} differed and {were} brought over"
        yield Line(f"The store is live: what is written is marked, and follows. {told}.", Tone.GOOD)
    elif report["moving"]:
        yield Line(
            "As of a moving store: items may have changed behind the sweep. Run it again, or verify.", Tone.NOTICE
        )
    elif len(report["sweeps"]) > 1:
        yield Line("A second sweep read every key again and found nothing that differed.", Tone.GOOD)
    else:
        yield Line("The store itself counted no change from before the first key to behind the last.", Tone.GOOD)
    for error in report["errors"]:
        yield Line(error, Tone.BAD)

"""The demo's report as a document: what a person reads at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvmigrate.demo.shift_summary import describe_shift
from kvmigrate.model import Bin
from kvmigrate.report.backfill import MEANINGS, bin_name
from kvmigrate.report.document import Block, Code, Document, Facts, Grid, Heading, Line, Sum, Tone, counted, number


def describe_demo(report: Mapping[str, Any]) -> Document:
    """Return the document of the demo's JSON."""
    run = report["backfill"]
    document = Document(f"A gift shop's {report['store']} is now PostgreSQL tables")
    if report["note"]:
        document.add(Line(report["note"], Tone.NOTICE))
    document.add(
        Sum(run["scanned"], "keys read", [(bin_name(each), run[each], MEANINGS[each]) for each in Bin]),
        Line("Every key is in exactly one bin: they add up, counted in the database.", Tone.FAINT),
        Line(_speed(report), Tone.FAINT),
        *_injected(report),
        *_quarantine(report),
        *_lists(report),
        *_proof(report),
        *_question(report),
        *describe_shift(report["reads"]),
        *_live(report),
        *_next(report),
    )
    return document


def _speed(report: Mapping[str, Any]) -> str:
    seconds = report["backfill"]["duration_s"]
    rate = number(round(report["size"] / seconds)) if seconds else "many"
    return f"The backfill took {seconds:.1f} s, {rate} keys a second, a second look at every key included."


def _injected(report: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading("What is wrong in this shop's data, on purpose, and where it went")
    rows = [
        [number(each["count"]), bin_name(each["bin"]), each["what"]]
        for each in sorted(report["injected"].values(), key=lambda each: (list(Bin).index(each["bin"]), -each["count"]))
    ]
    yield Grid(["items>", "ended", "defect"], rows)
    wrong = [check for check in report["checks"] if not check["ok"]]
    if not wrong:
        checked = f"{counted(len(report['checks']), 'number')} of the generator's books compared with the reports"
        yield Line(f"{checked}: all agree.", Tone.GOOD)
        return
    yield Line(f"{counted(len(wrong), 'number')} of the generator's books differ from the reports:", Tone.BAD)
    differing = [
        [f"{check['what']} {check['name']}", number(check["injected"]), number(check["reported"])] for check in wrong
    ]
    yield Grid(["what", "injected>", "reported>"], differing, [Tone.BAD] * len(wrong))


def _quarantine(report: Mapping[str, Any]) -> Iterator[Block]:
    reasons = report["backfill"]["quarantine_reasons"]
    refused = [each for each in report["backfill"]["examples"] if each["reason"] in reasons]
    if not refused:
        return
    example = max(refused, key=lambda each: int(reasons[each["reason"]]))
    yield Heading("A refused item, as `kvmigrate quarantine list` shows it")
    yield Line(f"{example['key']}  {example['path']}: {example['message']}")
    yield Line("The value is kept whole; fix the mapping or the data and replay it.", Tone.FAINT)


def _lists(report: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading("Id lists kept by hand, against what exists")
    rows = [
        [each["name"], *(number(each[count]) for count in ("listed", "real", "dangling", "unlisted"))]
        for each in report["backfill"]["pointers"]
    ]
    yield Grid(["list", "ids listed>", "exist>", "listed, gone>", "exist, not listed>"], rows)


def _proof(report: Mapping[str, Any]) -> Iterator[Block]:
    found = report["verify"]
    apart = found["different"] + found["missing"] + found["extra"]
    yield Heading("Proof")
    same = f"{number(found['matched'])} items rebuilt from rows are equal to what the store holds"
    tolerated = f", {number(found['tolerated'])} but for declared losses" if found["tolerated"] else ""
    if apart:
        yield Line(f"{same}{tolerated}; {number(apart)} differ.", Tone.BAD)
    else:
        yield Line(f"{same}{tolerated}; none differs, none is missing, none is extra.", Tone.GOOD)
    pending = (
        f"{number(found['pending'])} wait for another item, some of them only for a reference that is NULL until then"
    )
    yield Line(f"{pending}; {number(found['not_comparable'])} are in quarantine.", Tone.FAINT)


def _question(report: Mapping[str, Any]) -> Iterator[Block]:
    asked = report["question"]
    before, after, new = asked["before"], asked["after"], asked["new"]
    yield Heading("The gifts of one catalog, newest first")
    yield Facts(
        [
            (
                "before",
                f"{counted(before['reads'], 'read')}, {before['ms']:.1f} ms: {counted(before['found'], 'gift')}",
            ),
            ("after", f"1 query, {after['ms']:.1f} ms: {counted(after['found'], 'gift')}"),
        ]
    )
    yield Code(after["sql"])
    if before["found"] != after["found"]:
        yield Line("The list kept by hand had drifted from what exists.", Tone.FAINT)
    yield Heading(f"A question that the store answers by reading every order: here {new['ms']:.1f} ms")
    yield Code(new["sql"])
    yield Grid(
        ["client", "orders>", "total>"], [[str(name), str(orders), str(total)] for name, orders, total in new["rows"]]
    )


def _live(report: Mapping[str, Any]) -> Iterator[Block]:
    live = report["live"]
    if live is None:
        return
    before, found, after = live["before"], live["found"], live["after"]
    yield Heading("Both stores written at once, and a sampler that looks on")
    first = found["examples"][0] if found["examples"] else {}
    what = "nothing was found"
    if first:
        what = f"{first['key']}, {first['path']} in {first['table']}.{first['column']}: {first['cause']}"
    yield Facts(
        [
            ("written meanwhile", f"{number(live['writes'])} times"),
            ("sampler", _sampled(before)),
            ("corrupted", f"{counted(len(live['corrupted']['keys']), 'row')}, by hand"),
            ("found", f"after {found['after_s']:.1f} s, {counted(found['n'], 'key')}: {what}"),
            ("which means", first.get("detail", "")),
            ("repaired", f"{counted(len(live['repaired']), 'item')}, from the store, which leads"),
            ("sampled again", _sampled(after)),
        ]
    )
    text = "The sampler found what was corrupted, and nothing else." if live["ok"] else "This is not as it should be."
    yield Line(text, Tone.GOOD if live["ok"] else Tone.BAD)


def _sampled(sample: Mapping[str, Any]) -> str:
    share = f"{sample['divergence_pct'] or 0:g} % of {counted(sample['n'], 'key')} diverge"
    return f"{share}, at most {sample['upper_pct']:.2g} % of all, {sample['confidence'] * 100:g} % sure"


def _next(report: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading("Next")
    if report["next"]:
        yield Code("\n".join(report["next"]))
    yield Line("With your own store: write a mapping (examples/celebration/mapping.yaml shows one), then", Tone.FAINT)
    yield Code(
        "kvmigrate schema   --mapping mapping.yaml\n"
        "kvmigrate backfill --mapping mapping.yaml --source redis://HOST:6379/0 --target postgresql://HOST/DB\n"
        "kvmigrate verify   --mapping mapping.yaml --source redis://HOST:6379/0 --target postgresql://HOST/DB"
    )

"""What the demo tells of the reads that moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvmigrate.report.document import Block, Grid, Heading, Line, Tone, counted, number

_TONES = {"ok": Tone.GOOD}


def describe_shift(reads: Mapping[str, Any] | None) -> Iterator[Block]:
    """Yield the blocks of what `shift_reads` saw; none where it was not asked."""
    if reads is None:
        return
    yield Heading("The shop goes on: a service whose reads move to the tables, endpoint by endpoint")
    if reads["note"]:
        yield Line(f"Not here: {reads['note']}.", Tone.NOTICE)
        return
    steps = ", ".join(f"{step['percent']} % ({number(step['requests'])} requests)" for step in reads["steps"])
    yield Line(f"Shifted {steps}; then `kvmigrate status` says:")
    rows = [
        [
            each["endpoint"],
            number(each["requests"]),
            f"{each['served_pct'] or 0:g} %",
            number(sum(each["fallbacks"].values())),
            each["verdict"],
            each["reason"],
        ]
        for each in reads["status"]
    ]
    names = ["endpoint", "reads>", "by tables>", "fallbacks>", "", "why"]
    yield Grid(names, rows, [_TONES.get(each["verdict"], Tone.BAD) for each in reads["status"]])
    yield Line(
        "One endpoint's query is broken on purpose: after a few failures it read the store by itself.", Tone.FAINT
    )
    places = counted(sum(place["done"] for place in reads["rollback"]["places"]), "place")
    yield Line(
        f"`kvmigrate rollback`, kept in {places}: the last read of tables was {reads['rollback']['took_ms']} ms later."
    )
    failed = reads["failed"]
    told = f"{number(failed)} of {counted(reads['requests'], 'request')} failed."
    yield Line(
        told if failed else f"None of {counted(reads['requests'], 'request')} failed.",
        Tone.BAD if failed else Tone.GOOD,
    )

"""A migration's five documents, from what is recorded and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvmigrate.report.document import Block, Code, Document, Facts, Grid, Heading, Line, Tone, counted, number
from kvmigrate.transform.mapping import Column, Entity, Table
from kvmigrate.transform.mapping import Mapping as MappingFile

_STAGES = {
    "off": (
        "the store leads, and nothing is mirrored",
        "kvmigrate backfill, kvmigrate verify, kvmigrate stage advance",
    ),
    "dualwrite": ("the store leads, writes are mirrored", "kvmigrate relay, kvmigrate backfill, kvmigrate gate"),
    "shadow": (
        "reads of the store are compared with the tables",
        "kvmigrate status, kvmigrate sample --for ever, kvmigrate gate",
    ),
    "live": ("endpoints read the tables by flag", "kvmigrate flags set, kvmigrate status, kvmigrate gate"),
    "rampdown": ("the tables lead, and the store follows", "kvmigrate relay, kvmigrate verify, kvmigrate gate"),
    "complete": ("the tables lead, and the store is written no more", "kvmigrate erase, kvmigrate verify"),
}
_NOTHING = Line("Nothing is recorded.", Tone.FAINT)
_BINS = ("scanned", "written", "waiting", "quarantined", "left_in_kv", "unmatched", "vanished")


def describe_recorded(report: Mapping[str, Any]) -> Document:
    """Return the short form of all of it, as ``kvmigrate report`` prints it."""
    document = Document(f"{report['scope']}: stage {report['stage'] or 'none'}, epoch {report['epoch']}")
    document.add(
        Facts(
            [
                ("runs", number(len(report["runs"]))),
                ("measurements", number(len(report["measurements"]))),
                ("divergent, and not mended", number(report["unmended"])),
                ("repaired", number(report["repairs"].get("repaired", 0))),
                ("changes of stage, flags and waivers", number(len(report["changes"]))),
                ("endpoints that read", number(len(report["endpoints"]))),
            ]
        )
    )
    if report["files"]:
        document.add(Heading("Written"), *(Line(each) for each in report["files"]))
    return document


def schema_design(report: Mapping[str, Any], mapping: MappingFile) -> Document:
    """Return SCHEMA_DESIGN: what became which table, by the mapping at work."""
    document = Document(f"Schema design of {report['scope']}")
    document.add(Facts([("mapping", report["fingerprint"][:12]), ("entities", number(len(mapping.entities)))]))
    for entity in mapping.entities:
        document.add(*_entity(entity))
    return document


def _entity(entity: Entity) -> Iterator[Block]:
    yield Heading(f"{entity.name}: {', '.join(str(key) for key in entity.keys)}")
    for table in entity.tables:
        key = ", ".join(table.primary_key)
        yield Line(f"{table.name}, primary key ({key})")
        rows = [[each.name, str(each.type), _from(each), _marks(table, each)] for each in table.columns]
        yield Grid(["column", "type", "from", ""], rows)


def _from(column: Column) -> str:
    if column.paths:
        return " or ".join("$" + "".join(f".{name}" for name in path) for path in column.paths)
    return f"{column.role.value.replace('_', ' ')} {column.source}".strip()


def _marks(table: Table, column: Column) -> str:
    marks = ["not null"] if column.not_null else []
    marks += ["personal"] if column.personal else []
    marks += [
        f"references {key.target_table}" for key in table.foreign_keys if key.columns and key.columns[-1] == column.name
    ]
    return ", ".join(marks)


def migration_guide(report: Mapping[str, Any]) -> Document:
    """Return MIGRATION_GUIDE: where the migration stands, how it came there, and what comes next."""
    document = Document(f"Migration guide of {report['scope']}")
    what, commands = _STAGES.get(report["stage"] or "off", ("", ""))
    document.add(
        Facts(
            [
                ("stage", f"{report['stage']}: {what}"),
                ("authority", report["authority"]),
                ("epoch", str(report["epoch"])),
            ]
        ),
        Heading("What one types in this stage"),
        Code(commands.replace(", ", "\n")),
        Heading("Back"),
        Code(
            "kvmigrate rollback          # reads, within a second\n"
            "kvmigrate stage rollback    # a stage, writes included"
        ),
        Heading("How it came here"),
    )
    rows = [[each[name] for name in ("at", "who", "what", "before", "after", "why")] for each in report["changes"]]
    document.add(Grid(["at", "who", "what", "from", "to", "why"], rows) if rows else _NOTHING)
    return document


def trial_results(report: Mapping[str, Any]) -> Document:
    """Return MIGRATION_TEST_RESULTS: what runs brought, what verifications and samples found, what was repaired."""
    document = Document(f"Test results of {report['scope']}")
    document.add(Heading("Runs"), *_runs(report["runs"]), Heading("Measurements"))
    rows = [
        [
            each["at"],
            each["kind"],
            *(number(each[name]) for name in ("n", "population", "divergent")),
            f"{each['upper_pct']:.3g} %",
            ", ".join(f"{name} {count}" for name, count in each.get("causes", {}).items()),
        ]
        for each in report["measurements"]
    ]
    names = ["at", "by", "compared>", "of>", "divergent>", "at most>", "causes"]
    tones = [Tone.BAD if each["divergent"] else Tone.GOOD for each in report["measurements"]]
    document.add(Grid(names, rows, tones) if rows else _NOTHING, Heading("Repairs"))
    repairs = [[outcome, number(count)] for outcome, count in report["repairs"].items()]
    document.add(Grid(["outcome", "keys>"], repairs) if repairs else _NOTHING)
    left = report["unmended"]
    said = f"{counted(left, 'key')} found divergent, and not mended." if left else "Nothing that was found is left."
    document.add(Line(said, Tone.BAD if left else Tone.GOOD))
    return document


def _runs(runs: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    rows = []
    for each in runs:
        done = each["report"] or {}
        bins = ", ".join(f"{name} {number(done[name])}" for name in _BINS if isinstance(done.get(name), int))
        rows.append([str(each["id"]), each["kind"], each["started_at"], _seconds(each["duration_s"]), bins])
    yield Grid(["run>", "kind", "began", "took>", "keys"], rows) if rows else _NOTHING


def read_status(report: Mapping[str, Any]) -> Document:
    """Return READ_MIGRATION_STATUS: what all processes counted of each endpoint's reads."""
    document = Document(f"Reads of {report['scope']}")
    rows = [
        [
            each["endpoint"],
            number(each["requests"]),
            "" if each["served_pct"] is None else f"{each['served_pct']:g} %",
            number(sum(each["fallbacks"].values())),
            number(sum(each["errors"].values())),
            number(each["compared"]),
            number(each["different"]),
        ]
        for each in report["endpoints"]
    ]
    names = ["endpoint", "reads>", "by the tables>", "fallbacks>", "errors>", "compared>", "different>"]
    document.add(Grid(names, rows) if rows else _NOTHING)
    return document


def performance_results(report: Mapping[str, Any]) -> Document:
    """Return PERFORMANCE_TEST_RESULTS: how long runs took, and reads of either side."""
    document = Document(f"Performance of {report['scope']}")
    document.add(Heading("Runs"))
    rows = []
    for each in report["runs"]:
        keys, seconds = (each["report"] or {}).get("scanned"), each["duration_s"]
        rate = number(round(keys / seconds)) if keys and seconds else ""
        rows.append([str(each["id"]), each["kind"], _seconds(seconds), number(keys) if keys else "", rate])
    document.add(Grid(["run>", "kind", "took>", "keys>", "keys a second>"], rows) if rows else _NOTHING)
    document.add(Heading("Reads, within so many milliseconds: store, tables"))
    reads = [
        [each["endpoint"], number(each["requests"]), *(_both(each[name]) for name in ("p50_ms", "p95_ms", "p99_ms"))]
        for each in report["endpoints"]
    ]
    document.add(Grid(["endpoint", "reads>", "half>", "95 %>", "99 %>"], reads) if reads else _NOTHING)
    return document


def _both(sides: Mapping[str, float | None]) -> str:
    return ", ".join("-" if sides[side] is None else f"{sides[side]:g}" for side in ("kv", "tables"))


def _seconds(seconds: float | None) -> str:
    return "not ended" if seconds is None else f"{seconds:.1f} s"

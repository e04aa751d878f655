"""What `control` did or found, as documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvmigrate.report.document import Document, Grid, Line, Tone, counted
from kvmigrate.report.ending import ending

_TONES = {"applied": Tone.PLAIN, "missing": Tone.NOTICE, "changed": Tone.BAD, "newer": Tone.FAINT}

_WATCH = {
    "watched": "SQL of others is owed to the store while the tables lead",
    "outdated": "its triggers are not those of this mapping and version; run `kvmigrate control watch` again",
    "missing": "SQL of others is not owed to the store; `kvmigrate control watch` changes that",
}


def describe_applied(report: Mapping[str, Any]) -> Document:
    """Return the document of ``control install`` and ``control upgrade``."""
    applied = report["applied"]
    return _done(report, applied, f"{counted(len(applied), 'migration')} applied", "nothing was missing")


def describe_status(report: Mapping[str, Any]) -> Document:
    """Return the document of ``control status``."""
    if not report["installed"]:
        document = Document(f"{report['target']}: the control schema is not installed")
        document.add(*ending(report))
        return document
    document = Document(f"{report['target']}: the control schema is {'' if report['current'] else 'not '}up to date")
    migrations = report["migrations"]
    rows = [[each["name"], each["state"], each["applied_at"] or ""] for each in migrations]
    document.add(Grid(["migration", "state", "applied at"], rows, [_TONES[each["state"]] for each in migrations]))
    if adapters := report["adapters"]:
        rows = [
            [
                each["version"],
                each["kind"],
                f"{each['alive']:,}",
                f"{each['silent']:,}",
                f"{each['last_seen_s']:,.0f} s",
                ", ".join(each["scopes"]),
            ]
            for each in adapters
        ]
        document.add(Grid(["adapter", "kind", "alive>", "silent>", "last seen>", "mappings"], rows))
    else:
        document.add(Line("No process has told of itself.", Tone.FAINT))
    if report["roles"]:
        document.add(Line(f"Rights were granted to {', '.join(report['roles'])}.", Tone.FAINT))
    for each in report["watched"] or ():
        tone = Tone.FAINT if each["state"] == "watched" else Tone.NOTICE
        document.add(Line(f"{each['table']}: {_WATCH[each['state']]}", tone))
    document.add(*ending(report))
    return document


def describe_watch(report: Mapping[str, Any]) -> Document:
    """Return the document of ``control watch``."""
    made = report["made"]
    return _done(report, made, f"{counted(len(made), 'table')} watched from now on", "every table was watched already")


def describe_unwatch(report: Mapping[str, Any]) -> Document:
    """Return the document of ``control unwatch``."""
    dropped = report["dropped"]
    return _done(report, dropped, f"{counted(len(dropped), 'table')} watched no more", "no table was watched")


def _done(report: Mapping[str, Any], names: Sequence[str], some: str, none: str) -> Document:
    document = Document(f"{report['target']}: {some if names else none}")
    document.add(*(Line(name) for name in names), *ending(report))
    return document


def statements_text(report: Mapping[str, Any]) -> str:
    """Return what a dry run of ``control watch`` or ``unwatch`` prints: SQL that can be piped into psql."""
    return (
        "\n".join([f"-- {report['scope']}: nothing was executed", *(f"{each};" for each in report["statements"])])
        + "\n"
    )


def grants_text(report: Mapping[str, Any]) -> str:
    """Return what ``control grants`` prints: SQL that can be piped into psql."""
    done = "executed for" if report["applied"] else "for"
    lines = [f"-- {report['scope']}: {report['role']}, {done} {report['to']}"]
    lines += [f"-- {note}" for note in report["warnings"]]
    return "\n".join(lines + [f"{each};" for each in report["statements"]]) + "\n"

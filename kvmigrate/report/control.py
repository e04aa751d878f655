"""What `control` did or found, as documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.report.document import Document, Grid, Line, Tone, counted
from kvmigrate.report.ending import ending

_TONES = {"applied": Tone.PLAIN, "missing": Tone.NOTICE, "changed": Tone.BAD, "newer": Tone.FAINT}


def describe_applied(report: Mapping[str, Any]) -> Document:
    """Return the document of ``control install`` and ``control upgrade``."""
    applied = report["applied"]
    what = f"{counted(len(applied), 'migration')} applied" if applied else "nothing was missing"
    document = Document(f"{report['target']}: {what}")
    document.add(*(Line(name) for name in applied), *ending(report))
    return document


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
    document.add(*ending(report))
    return document


def grants_text(report: Mapping[str, Any]) -> str:
    """Return what ``control grants`` prints: SQL that can be piped into psql."""
    done = "executed for" if report["applied"] else "for"
    lines = [f"-- {report['scope']}: {report['role']}, {done} {report['to']}"]
    lines += [f"-- {note}" for note in report["warnings"]]
    return "\n".join(lines + [f"{each};" for each in report["statements"]]) + "\n"

"""What became of an erased item, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvmigrate.report.document import Document, Facts, Grid, Heading, number
from kvmigrate.report.ending import ending


def describe_erase(report: Mapping[str, Any]) -> Document:
    """Return the document of an erasure's JSON."""
    what = "is erased" if report["is_gone"] else "is not gone yet: something writes it, or a side has not followed"
    document = Document(f"{report['scope']}: {report['key']} {what}")
    held = "held it" if report["was_in_store"] else "did not hold it"
    document.add(Facts([("store", f"{report['source']}, {held}"), ("tables", report["target"])]))
    if report["traces"]:
        rows = [[f"kvmigrate.{name}", number(count)] for name, count in report["traces"].items()]
        document.add(Heading("What was known of it, and is taken out"), Grid(["table", "rows>"], rows))
    document.add(*ending(report))
    return document
